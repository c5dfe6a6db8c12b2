"""Files of data sets: found in a local folder or fetched from mirrors in order, checked and put in place at once."""

import hashlib
import http.client
import os
import urllib.request
from collections.abc import Iterable, Sequence
from pathlib import Path

from ltl.errors import LtlError

_BLOCK = 1 << 18
_TIMEOUT = 30.0  # seconds without a byte before the next mirror is tried


def obtain(
    folder: Path, file: str, *, mirrors: Sequence[str], checksum: str, download: bool, siblings: Iterable[str]
) -> Path:
    """Return the path of `file` in `folder`, downloaded if it is missing and `download` allows it.

    A download comes from the first of the `mirrors` (URLs of folders) that gives the file with the `checksum`.
    LtlError says where to put the files, all `siblings`, by hand.
    """
    path = folder / file
    if path.is_file():
        return path
    by_hand = (
        f"Put {', '.join(siblings)} into {folder} by hand, or point dataset.root (or the environment variable "
        "LTL_DATA_DIR) at a local copy."
    )
    if not download:
        raise LtlError(f"{path} does not exist and dataset.download=false. {by_hand}")
    failures = []
    for mirror in mirrors:
        try:
            _fetch(f"{mirror.rstrip('/')}/{file}", path, checksum)
        except (OSError, http.client.HTTPException, ValueError) as error:
            failures.append(f"{mirror}: {' '.join(str(error).split()) or type(error).__name__}")
        else:
            return path
    raise LtlError(f"{path} cannot be downloaded ({'; '.join(failures) or 'dataset.mirrors is empty'}). {by_hand}")


def _fetch(url: str, path: Path, checksum: str) -> None:
    """Download `url` to `path`, which appears whole and with the right checksum or not at all."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    digest = _digest(checksum)
    request = urllib.request.Request(url, headers={"User-Agent": "ltl"})
    console = Console(stderr=True)
    bar = Progress(
        TextColumn(path.name), BarColumn(), DownloadColumn(), TimeRemainingColumn(),
        console=console, disable=not console.is_terminal,
    )  # fmt: skip
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as response, partial.open("wb") as target, bar:
            length = response.headers.get("Content-Length")
            task = bar.add_task(path.name, total=int(length) if length else None)
            while block := response.read(_BLOCK):
                digest.update(block)
                target.write(block)
                bar.advance(task, len(block))
            target.flush()
            os.fsync(target.fileno())
        if not checksum.endswith(digest.hexdigest()):
            raise ValueError(f"{digest.name}:{digest.hexdigest()} instead of {checksum}")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def read(path: Path) -> bytes:
    """Return the content of the file at `path`; LtlError if it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error


def accept(found: str, path: Path, *, checksum: str, verify: bool, delete: Path) -> bool:
    """Return whether the checksum `found` of `path` is the expected one.

    If it is not and `verify` is set, LtlError names both and what to `delete` to get the file afresh.
    """
    if found == checksum:
        return True
    if verify:
        raise LtlError(
            f"{path} has checksum {found} instead of {checksum}: delete {delete} to get it afresh, or accept it as not "
            "canonical with dataset.verify=false."
        )
    return False


def bytes_checksum(content: bytes, *, like: str) -> str:
    """Return the checksum of `content`, written as and with the algorithm of `like` (`md5:…`, `sha256:…`)."""
    digest = _digest(like)
    digest.update(content)
    return f"{digest.name}:{digest.hexdigest()}"


def file_checksum(path: Path, *, like: str) -> str:
    """Return the checksum of the file at `path`, written as and with the algorithm of `like`; it may be large."""
    try:
        with path.open("rb") as source:
            digest = hashlib.file_digest(source, lambda: _digest(like))
    except OSError as error:
        raise _unreadable(path, error) from error
    return f"{digest.name}:{digest.hexdigest()}"


def _unreadable(path: Path, error: OSError) -> LtlError:
    return LtlError(
        f"{path} cannot be read ({error.strerror}): mend it, or point dataset.root (or LTL_DATA_DIR) at a whole copy."
    )


def _digest(checksum: str) -> "hashlib._Hash":
    algorithm, _, value = checksum.partition(":")
    if len(value) != {"md5": 32, "sha256": 64}.get(algorithm):
        raise LtlError(f"dataset.checksums: {checksum} must be md5:<32 hex digits> or sha256:<64 hex digits>.")
    return hashlib.new(algorithm, usedforsecurity=False)

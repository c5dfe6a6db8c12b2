"""The expected files of a tar.gz archive, extracted beside it with a marker that later tells whether they changed."""

import hashlib
import json
import os
import shutil
import tarfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ltl.errors import LtlError

MARKER = ".ltl-extracted.json"


@dataclass(frozen=True)
class Extracted:
    """What a folder was extracted from: the archive's checksum (`md5:…`) and the SHA-256 of each file."""

    checksum: str
    sha256: dict[str, str]


def extract(archive: Path, *, folder: str, files: Sequence[str], checksum: str) -> Path:
    """Extract `<folder>/<file>` for each of `files` beside `archive` and return the folder, which appears whole.

    Every other member is left alone, whatever its name. The marker records `checksum`, the archive's, and the sizes and
    SHA-256 of the files. LtlError for a damaged archive, a missing member or a place that cannot be written.
    """
    target = archive.parent / folder
    partial = archive.with_name(f".{folder}.{os.getpid()}.part")
    wanted = {f"{folder}/{file}": file for file in files}
    written: dict[str, dict[str, int | str]] = {}
    try:
        partial.mkdir()
        with tarfile.open(archive, "r:gz") as members:
            for member in members:
                file = wanted.get(member.name.removeprefix("./"))
                source = members.extractfile(member) if file is not None and member.isreg() else None
                if file is None or source is None:
                    continue
                content = source.read()
                (partial / file).write_bytes(content)
                written[file] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        if missing := [member for member, file in wanted.items() if file not in written]:
            raise LtlError(f"{archive} does not contain {', '.join(missing)}: delete it to download it again.")
        marker = {"archive": archive.name, "checksum": checksum, "files": written}
        (partial / MARKER).write_text(json.dumps(marker, indent=1, sort_keys=True) + "\n")
        try:
            partial.rename(target)
        except OSError:
            # Another run may have extracted the same archive meanwhile; its folder is as good as ours.
            if not (target / MARKER).is_file():
                raise
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise LtlError(f"{archive} is not a whole tar.gz archive ({error}): delete it to download it again.") from error
    except OSError as error:
        raise LtlError(
            f"{archive} cannot be extracted into {archive.parent} ({error}): make the folder writable and the archive "
            "whole, or set dataset.root (or LTL_DATA_DIR) to another folder."
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def extracted(folder: Path) -> Extracted | None:
    """Return what the marker in `folder` says, or None if it has none that can be read."""
    try:
        marker = json.loads((folder / MARKER).read_text())
        return Extracted(marker["checksum"], {file: entry["sha256"] for file, entry in marker["files"].items()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None

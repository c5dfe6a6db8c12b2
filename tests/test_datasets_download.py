"""Downloads over the loopback: mirrors in order, checksums, nothing half-written, one line when all fails."""

import hashlib
import http.server
import os
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from data_files import files_below, load, write_idx

from ltl.datasets.download import obtain
from ltl.errors import LtlError

CONTENT = bytes(range(256)) * 4096
CHECKSUM = f"md5:{hashlib.md5(CONTENT).hexdigest()}"


class Mirror(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT below /good, other bytes below /bad, half of it below /short and 404 elsewhere."""

    def __init__(self, requests: list[str], *args: Any) -> None:
        self.requests = requests
        super().__init__(*args)

    def do_GET(self) -> None:
        self.requests.append(self.path)
        kind = self.path.split("/")[1]
        if kind not in ("good", "bad", "short"):
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        body = {"good": CONTENT, "bad": CONTENT[::-1], "short": CONTENT[: len(CONTENT) // 2]}[kind]
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Keep the tests' output clean."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, list[str]]]:
    """The address of the mirrors and the list of the paths asked for."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    requests: list[str] = []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Mirror, requests)) as mirrors:
        thread = threading.Thread(target=mirrors.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{mirrors.server_port}", requests
        mirrors.shutdown()
        thread.join()


def fetch(folder: Path, mirrors: list[str], *, checksum: str = CHECKSUM, download: bool = True) -> Path:
    return obtain(
        folder, "file.gz", mirrors=mirrors, checksum=checksum, download=download, siblings=["file.gz", "other.gz"]
    )


def test_mirrors_are_tried_in_order_until_one_gives_the_file(tmp_path: Path, server: tuple[str, list[str]]) -> None:
    address, requests = server
    mirrors = [f"{address}/{kind}" for kind in ("missing", "bad/", "short", "good", "never")]
    path = fetch(tmp_path / "new" / "folder", mirrors)
    assert path.read_bytes() == CONTENT
    assert requests == [f"/{kind}/file.gz" for kind in ("missing", "bad", "short", "good")]
    assert list(files_below(tmp_path)) == ["new/folder/file.gz"]


def test_a_file_that_is_there_is_not_downloaded(tmp_path: Path, server: tuple[str, list[str]]) -> None:
    address, requests = server
    (tmp_path / "file.gz").write_bytes(b"mine")
    assert fetch(tmp_path, [f"{address}/good"]).read_bytes() == b"mine"
    assert requests == []


def test_sha256_and_file_urls(tmp_path: Path) -> None:
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror" / "file.gz").write_bytes(CONTENT)
    checksum = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
    path = fetch(tmp_path / "here", [(tmp_path / "mirror").as_uri()], checksum=checksum)
    assert path.read_bytes() == CONTENT


def failure(folder: Path, mirrors: list[str], **settings: Any) -> str:
    with pytest.raises(LtlError) as caught:
        fetch(folder, mirrors, **settings)
    message = str(caught.value)
    assert "\n" not in message
    assert f"Put file.gz, other.gz into {folder} by hand" in message
    assert "dataset.root" in message and "LTL_DATA_DIR" in message
    return message


def test_when_all_mirrors_fail_one_line_names_each(tmp_path: Path, server: tuple[str, list[str]]) -> None:
    address, _ = server
    mirrors = [f"{address}/missing", f"{address}/bad", f"{address}/short", "http://127.0.0.1:9/closed", "nonsense"]
    message = failure(tmp_path, mirrors)
    assert all(f"{mirror}: " in message for mirror in mirrors)
    assert "404" in message and "Connection refused" in message and "unknown url type" in message
    assert f"md5:{hashlib.md5(CONTENT[::-1]).hexdigest()} instead of {CHECKSUM}" in message
    assert list(files_below(tmp_path)) == []


def test_no_mirrors_and_no_download_say_so(tmp_path: Path) -> None:
    assert "dataset.mirrors is empty" in failure(tmp_path, [])
    assert f"{tmp_path / 'file.gz'} does not exist and dataset.download=false" in failure(tmp_path, [], download=False)


def test_a_folder_that_cannot_be_made_gives_one_line(tmp_path: Path, server: tuple[str, list[str]]) -> None:
    (tmp_path / "taken").write_text("a file where the folder should be")
    assert "File exists" in failure(tmp_path / "taken", [f"{server[0]}/good"])


def test_an_interrupted_download_leaves_no_file(
    tmp_path: Path, server: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[str]] = []

    def interrupt(descriptor: int) -> None:
        seen.append(list(files_below(tmp_path)))
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        fetch(tmp_path, [f"{server[0]}/good"])
    assert seen == [[f".file.gz.{os.getpid()}.part"]], "the download was under way, under another name"
    assert list(files_below(tmp_path)) == []


def test_a_data_set_downloads_what_is_missing(tmp_path: Path) -> None:
    write_idx(tmp_path / "mirror")
    source = tmp_path / "mirror" / "mnist"
    checksums = {path.name: f"md5:{hashlib.md5(path.read_bytes()).hexdigest()}" for path in source.iterdir()}
    settings: dict[str, Any] = {"mirrors": [source.as_uri()], "checksums": checksums, "validation": 50}
    here = tmp_path / "here"
    assert load("mnist", root=str(here), **settings).canonical
    assert list(files_below(here)) == sorted(f"mnist/{file}" for file in checksums)
    with pytest.raises(LtlError, match=r"train-images-idx3-ubyte\.gz does not exist and dataset\.download=false"):
        load("mnist", root=str(tmp_path / "there"), download=False, **settings)

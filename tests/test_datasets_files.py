"""Readers of the official formats, compared with plain numpy, and one clear line for every damaged file."""

import gzip
import hashlib
import io
import json
import os
import pickle
import random
import struct
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from data_files import Arrays, files_below, idx_bytes, load, write_cifar10, write_cifar100, write_idx

from ltl.datasets.archive import MARKER
from ltl.datasets.dataset import Dataset
from ltl.datasets.idx import FILES
from ltl.errors import LtlError

IMAGES, LABELS = "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"


def rows(inputs: np.ndarray, targets: np.ndarray) -> list[tuple[float, ...]]:
    return sorted(
        (*image, label) for image, label in zip(inputs.reshape(len(targets), -1).tolist(), targets, strict=True)
    )


def assert_holds(dataset: Dataset, arrays: dict[str, Arrays], mean: list[float], std: list[float]) -> None:
    """Training and validation together are the training file, the test split is the test file, normalised by numpy."""

    def normalised(images: np.ndarray) -> np.ndarray:
        images = images.reshape(len(images), *dataset.input_shape).astype(np.float32) / np.float32(255)
        return (images - np.array(mean, np.float32)[:, None, None]) / np.array(std, np.float32)[:, None, None]

    images, labels = arrays["test"]
    assert np.array_equal(dataset.test.inputs.numpy(), normalised(images))
    assert np.array_equal(dataset.test.targets.numpy(), labels)
    images, labels = arrays["train"]
    inputs = torch.cat([dataset.train.inputs, dataset.validation.inputs]).numpy()
    targets = torch.cat([dataset.train.targets, dataset.validation.targets]).numpy()
    assert rows(inputs, targets) == rows(normalised(images), labels)


def md5(path: Path) -> str:
    return f"md5:{hashlib.md5(path.read_bytes()).hexdigest()}"


def one_line(load_it: Callable[[], object]) -> str:
    with pytest.raises(LtlError) as caught:
        load_it()
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_idx_files_are_read_as_numpy_reads_them(tmp_path: Path, name: str) -> None:
    arrays = write_idx(tmp_path, name)
    dataset = load(name, root=str(tmp_path), verify=False, validation=50)
    assert (dataset.input_shape, dataset.outputs, dataset.canonical) == ((1, 28, 28), 10, False)
    assert_holds(dataset, arrays, [0.0], [1.0])


def test_idx_header_is_read_by_hand(tmp_path: Path) -> None:
    write_idx(tmp_path)
    raw = gzip.decompress((tmp_path / "mnist" / "t10k-images-idx3-ubyte.gz").read_bytes())
    magic, count, height, width = struct.unpack(">IIII", raw[:16])
    assert (magic, count, height, width) == (2051, 100, 28, 28)
    dataset = load("mnist", root=str(tmp_path), verify=False, validation=50)
    last = np.frombuffer(raw[-784:], np.uint8).reshape(28, 28)
    assert np.array_equal(dataset.test.inputs[-1, 0].numpy(), last.astype(np.float32) / np.float32(255))


def test_published_checksums_make_files_canonical(tmp_path: Path) -> None:
    write_idx(tmp_path)
    paths = sorted((tmp_path / "mnist").iterdir())
    checksums = {path.name: md5(path) for path in paths}
    settings: dict[str, Any] = {"root": str(tmp_path), "validation": 50}
    assert load("mnist", **settings, verify=True, checksums=checksums).canonical
    assert load("mnist", **settings, verify=False, checksums=checksums).canonical
    checksums[IMAGES] = f"sha256:{hashlib.sha256((tmp_path / 'mnist' / IMAGES).read_bytes()).hexdigest()}"
    assert load("mnist", **settings, verify=True, checksums=checksums).canonical
    checksums[LABELS] = "md5:" + "0" * 32
    assert not load("mnist", **settings, verify=False, checksums=checksums).canonical
    message = one_line(lambda: load("mnist", **settings, verify=True, checksums=checksums))
    for part in (str(tmp_path / "mnist" / LABELS), checksums[LABELS], md5(tmp_path / "mnist" / LABELS)):
        assert part in message
    assert "dataset.verify=false" in message
    checksums[LABELS] = "sha1:abc"
    assert "dataset.checksums: sha1:abc" in one_line(lambda: load("mnist", **settings, checksums=checksums))


def damaged(content: bytes, at: int, byte: int) -> bytes:
    raw = bytearray(gzip.decompress(content))
    raw[at] = byte
    return gzip.compress(bytes(raw), mtime=0)


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        (IMAGES, lambda content: content[:-1000], "not a whole gzip file"),
        (IMAGES, lambda content: content[:10], "not a whole gzip file"),
        (IMAGES, lambda content: content[:500] + b"\0\0\0\0" + content[504:], "not a whole gzip file"),
        (IMAGES, gzip.decompress, "not a whole gzip file"),
        (IMAGES, lambda content: b"<html>not found</html>", "not a whole gzip file"),
        (IMAGES, lambda content: gzip.compress(b""), "begins with nothing instead of 00000803"),
        (IMAGES, lambda content: damaged(content, 2, 9), "begins with 00000903 instead of 00000803"),
        (IMAGES, lambda content: idx_bytes(np.zeros(300, np.uint8)), "begins with 00000801 instead of 00000803"),
        (LABELS, lambda content: damaged(content, 3, 3), "begins with 00000803 instead of 00000801"),
        (IMAGES, lambda content: damaged(content, 7, 0), "announces 256×28×28 = 200704 bytes and holds 235200"),
        (IMAGES, lambda content: gzip.compress(gzip.decompress(content)[:-1]), "= 235200 bytes and holds 235199"),
        (LABELS, lambda content: idx_bytes(np.zeros(0, np.uint8)), "damaged or empty"),
        (LABELS, lambda content: idx_bytes(np.zeros(299, np.uint8)), f"has 300 images, but {LABELS} has 299 labels"),
        (LABELS, lambda content: damaged(content, 8, 10), "has the label 10, but labels must lie in 0 … 9"),
        (IMAGES, lambda content: idx_bytes(np.zeros((300, 8, 8), np.uint8)), "do not belong together"),
    ],
)  # fmt: skip
def test_damaged_idx_files_give_one_line(
    tmp_path: Path, file: str, change: Callable[[bytes], bytes], message: str
) -> None:
    write_idx(tmp_path)
    path = tmp_path / "mnist" / file
    path.write_bytes(change(path.read_bytes()))
    found = one_line(lambda: load("mnist", root=str(tmp_path), verify=False, validation=50))
    assert message in found and str(tmp_path / "mnist") in found


class Bomb:
    """What runs code when a careless reader unpickles it."""

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, ("harm",)


def test_a_pickle_under_the_name_of_a_data_file_is_refused_and_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CIFAR's Python version is made of pickles: it is not looked at, even where it lies."""
    monkeypatch.chdir(tmp_path)
    write_idx(tmp_path)
    write_cifar10(tmp_path)
    for path in (*Path("mnist").iterdir(), *Path("cifar10/cifar-10-batches-bin").iterdir()):
        path.write_bytes(pickle.dumps(Bomb()))
    assert "not a whole gzip file" in one_line(lambda: load("mnist", root=".", verify=False))
    assert "is not a positive number of records" in one_line(lambda: load("cifar10", root=".", verify=False))
    Path("cifar10/cifar-10-batches-bin").rename("cifar10/cifar-10-batches-py")
    assert "does not exist" in one_line(lambda: load("cifar10", root=".", verify=False, download=False))
    assert not Path("harm").exists()


def flips(path: Path, count: int) -> Iterator[bytes]:
    """Yield the content of a file with one bit or one byte flipped, `count` times, as its name draws them."""
    whole, source = path.read_bytes(), random.Random(path.name)
    for number in range(count):
        place, flip = source.randrange(len(whole)), 1 << source.randrange(8) if number % 2 else source.randrange(1, 256)
        yield whole[:place] + bytes([whole[place] ^ flip]) + whole[place + 1 :]


@pytest.mark.parametrize("file", [*FILES, "cifar-10-binary.tar.gz", "data_batch_2.bin", "test_batch.bin", MARKER])
def test_every_flip_in_a_data_file_is_found_by_its_checksum(tmp_path: Path, file: str) -> None:
    """The published one of idx files and archives, ours of what was extracted from a verified archive."""
    name = "mnist" if file in FILES else "cifar10"
    settings: dict[str, Any] = {"root": str(tmp_path), "validation": 50, "download": False}
    if name == "mnist":
        write_idx(tmp_path)
        settings["checksums"] = {path.name: md5(path) for path in (tmp_path / "mnist").iterdir()}
    else:
        write_cifar10(tmp_path, train=50, test=10)
        settings["checksum"] = pack(tmp_path, "cifar10", "cifar-10-batches-bin")[1]
        settings["validation"] = 5
    if file.endswith((".bin", MARKER)):
        load(name, **settings)
    [path] = tmp_path.rglob(file)
    whole = path.read_bytes()
    for content in flips(path, 12):
        path.write_bytes(content)
        if file == MARKER and same_marker(content, whole):
            continue
        assert str(tmp_path / name) in one_line(lambda: load(name, **settings))
    path.write_bytes(whole)
    assert load(name, **settings).canonical


def same_marker(content: bytes, whole: bytes) -> bool:
    """Whether a damaged marker says the same: its sizes and its archive's name are not looked at."""

    def said(text: bytes) -> object:
        marker = json.loads(text)
        return marker["checksum"], {file: entry["sha256"] for file, entry in marker["files"].items()}

    try:
        return said(content) == said(whole)
    except (ValueError, KeyError):
        return False


def test_validation_is_checked_against_the_files(tmp_path: Path) -> None:
    write_idx(tmp_path)
    assert one_line(lambda: load("mnist", root=str(tmp_path), verify=False)).startswith("dataset.validation=5000 ")


def pack(root: Path, name: str, folder: str) -> tuple[Path, str]:
    """Turn the extracted <root>/<name>/<folder> into the archive that the official place would give."""
    source, path = (
        root / name / folder,
        root / name / f"{folder.removesuffix('-batches-bin').removesuffix('-binary')}-binary.tar.gz",
    )
    with tarfile.open(path, "w:gz") as archive:
        archive.add(source, arcname=folder)
    for file in source.iterdir():
        file.unlink()
    source.rmdir()
    return path, md5(path)


CIFAR = {
    "cifar10": (write_cifar10, "cifar-10-batches-bin", [0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616], 10),
    "cifar100": (write_cifar100, "cifar-100-binary", [0.5071, 0.4865, 0.4409], [0.2673, 0.2564, 0.2762], 100),
}


@pytest.mark.parametrize("name", CIFAR)
@pytest.mark.parametrize("beside", [False, True])
def test_extracted_cifar_is_read_as_numpy_reads_it(tmp_path: Path, name: str, beside: bool) -> None:
    write, folder, mean, std, outputs = CIFAR[name]
    arrays = write(tmp_path)
    if beside:
        (tmp_path / name / folder).rename(tmp_path / folder)
    dataset = load(name, root=str(tmp_path), verify=False, validation=50)
    assert (dataset.input_shape, dataset.outputs, dataset.canonical) == ((3, 32, 32), outputs, False)
    assert_holds(dataset, arrays, mean, std)


@pytest.mark.parametrize("name", CIFAR)
def test_a_verified_archive_is_extracted_once_and_canonical(tmp_path: Path, name: str) -> None:
    write, folder, mean, std, _ = CIFAR[name]
    arrays = write(tmp_path)
    files = sorted(path.name for path in (tmp_path / name / folder).iterdir())
    archive, checksum = pack(tmp_path, name, folder)
    settings: dict[str, Any] = {"root": str(tmp_path), "validation": 50, "checksum": checksum}
    dataset = load(name, **settings)
    assert dataset.canonical
    assert_holds(dataset, arrays, mean, std)
    expected = sorted([f"{name}/{archive.name}", *(f"{name}/{folder}/{file}" for file in [MARKER, *files])])
    assert list(files_below(tmp_path)) == expected
    marker = json.loads((tmp_path / name / folder / MARKER).read_text())
    assert marker["checksum"] == checksum and sorted(marker["files"]) == files
    archive.unlink()
    assert load(name, **settings, download=False).canonical, "the extracted folder is enough from now on"


def test_a_changed_file_of_a_verified_archive_is_found(tmp_path: Path) -> None:
    write_cifar10(tmp_path)
    _, checksum = pack(tmp_path, "cifar10", "cifar-10-batches-bin")
    settings: dict[str, Any] = {"root": str(tmp_path), "validation": 50, "checksum": checksum}
    load("cifar10", **settings)
    path = tmp_path / "cifar10" / "cifar-10-batches-bin" / "data_batch_3.bin"
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    message = one_line(lambda: load("cifar10", **settings))
    assert f"{path} has checksum sha256:{hashlib.sha256(content).hexdigest()} instead of sha256:" in message
    assert "dataset.verify=false" in message
    assert not load("cifar10", **settings, verify=False).canonical


def test_an_extracted_folder_that_ltl_did_not_make_is_not_canonical(tmp_path: Path) -> None:
    write_cifar10(tmp_path)
    message = one_line(lambda: load("cifar10", root=str(tmp_path), validation=50))
    assert str(tmp_path / "cifar10" / "cifar-10-batches-bin") in message
    assert "cifar-10-binary.tar.gz (md5:c32a1d4ab5d03f1284b67883e8d87530)" in message
    assert "dataset.verify=false" in message
    (tmp_path / "cifar10" / "cifar-10-batches-bin" / MARKER).write_text('{"files": 3}')
    assert "was not extracted by ltl" in one_line(lambda: load("cifar10", root=str(tmp_path), validation=50))


def test_an_archive_with_another_checksum_is_refused_or_never_canonical(tmp_path: Path) -> None:
    write_cifar10(tmp_path)
    archive, checksum = pack(tmp_path, "cifar10", "cifar-10-batches-bin")
    message = one_line(lambda: load("cifar10", root=str(tmp_path), validation=50))
    assert f"{archive} has checksum {checksum} instead of md5:c32a1d4ab5d03f1284b67883e8d87530" in message
    assert "dataset.verify=false" in message
    assert list(files_below(tmp_path)) == ["cifar10/cifar-10-binary.tar.gz"]
    assert not load("cifar10", root=str(tmp_path), validation=50, verify=False).canonical
    assert not load("cifar10", root=str(tmp_path), validation=50, verify=False).canonical
    assert checksum in one_line(lambda: load("cifar10", root=str(tmp_path), validation=50))


def test_only_the_expected_regular_members_are_extracted(tmp_path: Path) -> None:
    write_cifar10(tmp_path)
    folder = tmp_path / "cifar10" / "cifar-10-batches-bin"
    contents = {path.name: path.read_bytes() for path in folder.iterdir()}
    archive, _ = pack(tmp_path, "cifar10", "cifar-10-batches-bin")
    with tarfile.open(archive, "w:gz") as members:
        for name in (
            "../escaped.bin",
            str(tmp_path / "absolute.bin"),
            "cifar-10-batches-bin/other.bin",
            "other/test_batch.bin",
        ):
            info = tarfile.TarInfo(name)
            info.size = 4
            members.addfile(info, io.BytesIO(b"evil"))
        for file, content in contents.items():
            info = tarfile.TarInfo(f"./cifar-10-batches-bin/{file}")
            info.size = len(content)
            members.addfile(info, io.BytesIO(content))
    load("cifar10", root=str(tmp_path), validation=50, verify=False)
    assert sorted(path.name for path in folder.iterdir()) == sorted([MARKER, *contents])
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.name != MARKER} == contents
    assert not (tmp_path / "escaped.bin").exists()
    assert not (tmp_path / "absolute.bin").exists()


def test_a_link_in_the_place_of_a_member_is_not_followed(tmp_path: Path) -> None:
    write_cifar10(tmp_path)
    archive, _ = pack(tmp_path, "cifar10", "cifar-10-batches-bin")
    with tarfile.open(archive, "w:gz") as members:
        info = tarfile.TarInfo("cifar-10-batches-bin/test_batch.bin")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        members.addfile(info)
    message = one_line(lambda: load("cifar10", root=str(tmp_path), validation=50, verify=False))
    assert "does not contain" in message and "cifar-10-batches-bin/test_batch.bin" in message
    assert list(files_below(tmp_path)) == ["cifar10/cifar-10-binary.tar.gz"]


@pytest.mark.parametrize("keep", [0, 20, 100_000])
def test_a_truncated_archive_leaves_nothing(tmp_path: Path, keep: int) -> None:
    write_cifar10(tmp_path)
    archive, _ = pack(tmp_path, "cifar10", "cifar-10-batches-bin")
    archive.write_bytes(archive.read_bytes()[:keep])
    message = one_line(lambda: load("cifar10", root=str(tmp_path), validation=50, verify=False))
    assert str(archive) in message and "delete it" in message
    assert list(files_below(tmp_path)) == ["cifar10/cifar-10-binary.tar.gz"]
    assert not (tmp_path / "cifar10" / "cifar-10-batches-bin").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content[:-1], "is not a positive number of records of 3073 bytes"),
        (lambda content: b"", "holds 0 bytes"),
        (lambda content: b"\x0a" + content[1:], "has the label 10, but labels must lie in 0 … 9"),
    ],
)
def test_damaged_cifar_files_give_one_line(tmp_path: Path, change: Callable[[bytes], bytes], message: str) -> None:
    write_cifar10(tmp_path)
    path = tmp_path / "cifar10" / "cifar-10-batches-bin" / "test_batch.bin"
    path.write_bytes(change(path.read_bytes()))
    found = one_line(lambda: load("cifar10", root=str(tmp_path), verify=False, validation=50))
    assert message in found and str(path.parent) in found


def test_a_missing_cifar_file_is_named(tmp_path: Path) -> None:
    write_cifar10(tmp_path)
    path = tmp_path / "cifar10" / "cifar-10-batches-bin" / "data_batch_2.bin"
    path.unlink()
    message = one_line(lambda: load("cifar10", root=str(tmp_path), verify=False, validation=50))
    assert message.startswith(f"{path} cannot be read (No such file or directory)")

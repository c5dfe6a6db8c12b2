"""CIFAR-10 and CIFAR-100 from their official binary version (Krizhevsky 2009): no pickle."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ltl.datasets.archive import extract, extracted
from ltl.datasets.dataset import Dataset, Split
from ltl.datasets.download import accept, file_checksum, obtain, read
from ltl.datasets.images import image_dataset, targets_of
from ltl.errors import LtlError

_SHAPE = (3, 32, 32)


def load_cifar(
    *,
    name: str,
    root: str,
    verify: bool,
    download: bool,
    mirrors: Sequence[str],
    archive: str,
    checksum: str,
    folder: str,
    train_files: Sequence[str],
    test_files: Sequence[str],
    label_bytes: int,
    outputs: int,
    validation: int,
    limit: int | None,
    mean: Sequence[float],
    std: Sequence[float],
    augment: bool,
    padding: int,
    flip: bool,
    split_generator: torch.Generator,
) -> Dataset:
    """Return the images and labels of `train_files` and `test_files` in `<root>/<name>/<folder>` or `<root>/<folder>`.

    Where neither exists the folder is extracted from `archive`, found in the same places or fetched from `mirrors`.
    The files are canonical if ltl extracted them from an archive with the `checksum` and nobody changed them since;
    others are refused, or accepted with `verify=False`. A record has `label_bytes` labels, of which the last counts.
    LtlError for files that cannot be had or read.
    """
    base = Path(root).expanduser()
    places = [base / name, base]
    source = next((place / folder for place in places if (place / folder).is_dir()), None)
    if source is None:
        place = next((place for place in places if (place / archive).is_file()), base / name)
        path = obtain(place, archive, mirrors=mirrors, checksum=checksum, download=download, siblings=[archive])
        found = file_checksum(path, like=checksum)
        accept(found, path, checksum=checksum, verify=verify, delete=path)
        source = extract(path, folder=folder, files=[*train_files, *test_files], checksum=found)
    contents = {file: read(source / file) for file in [*train_files, *test_files]}
    canonical = _canonical(source, contents, archive=archive, checksum=checksum, verify=verify)
    pool, test = (
        _split([_records(contents.pop(file), source / file, label_bytes) for file in files], source, outputs)
        for files in (train_files, test_files)
    )
    return image_dataset(
        name=name,
        canonical=canonical,
        pool=pool,
        test=test,
        outputs=outputs,
        white=255,
        mean=mean,
        std=std,
        validation=validation,
        limit=limit,
        augment=augment,
        padding=padding,
        flip=flip,
        split_generator=split_generator,
    )


def _canonical(source: Path, contents: dict[str, bytes], *, archive: str, checksum: str, verify: bool) -> bool:
    origin = extracted(source)
    if origin is None:
        if verify:
            raise LtlError(
                f"{source} was not extracted by ltl, so its files cannot be checked: put {archive} ({checksum}) beside "
                "it and delete the folder, or accept it as not canonical with dataset.verify=false."
            )
        return False
    published = accept(origin.checksum, source, checksum=checksum, verify=verify, delete=source)
    unchanged = [
        accept(
            f"sha256:{hashlib.sha256(content).hexdigest()}",
            source / file,
            checksum=f"sha256:{origin.sha256.get(file, 'unknown')}",
            verify=verify,
            delete=source,
        )
        for file, content in contents.items()
    ]
    return published and all(unchanged)


def _records(content: bytes, path: Path, label_bytes: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return (pixels, labels) of one binary file: records of `label_bytes` labels, then red, green and blue planes."""
    size = label_bytes + int(np.prod(_SHAPE))
    if not content or len(content) % size:
        raise LtlError(
            f"{path} holds {len(content)} bytes, which is not a positive number of records of {size} bytes: it is "
            f"damaged or of another data set, so delete {path.parent} to have it extracted again."
        )
    records = np.frombuffer(content, np.uint8).reshape(-1, size)
    return records[:, label_bytes:], records[:, label_bytes - 1]


def _split(parts: list[tuple[NDArray[np.uint8], NDArray[np.uint8]]], source: Path, outputs: int) -> Split:
    images = torch.from_numpy(np.concatenate([pixels for pixels, _ in parts])).view(-1, *_SHAPE)
    labels = torch.from_numpy(np.concatenate([labels for _, labels in parts]))
    return Split(images, targets_of(labels, outputs, str(source)))

"""MNIST and Fashion-MNIST from their official idx files (LeCun et al. 1998; Xiao et al. 2017)."""

import gzip
import math
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ltl.datasets.dataset import Dataset, Split
from ltl.datasets.download import accept, bytes_checksum, obtain, read
from ltl.datasets.images import image_dataset, targets_of
from ltl.errors import LtlError

FILES = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)


def load_idx(
    *,
    name: str,
    root: str,
    verify: bool,
    download: bool,
    mirrors: Sequence[str],
    checksums: Mapping[str, str],
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
    """Return the images and labels of `FILES` in `<root>/<name>`, fetched from `mirrors` if they are not there.

    `checksums` gives `md5:…` or `sha256:…` for each file. Other files are refused, or with `verify=False` accepted as
    not canonical. LtlError for files that cannot be had, read or matched with each other.
    """
    folder = Path(root).expanduser() / name
    canonical, arrays = True, []
    for file in FILES:
        path = obtain(folder, file, mirrors=mirrors, checksum=checksums[file], download=download, siblings=FILES)
        content = read(path)
        found = bytes_checksum(content, like=checksums[file])
        canonical &= accept(found, path, checksum=checksums[file], verify=verify, delete=path)
        arrays.append(parse(content, path, dimensions=3 if "idx3" in file else 1))
    pool, test = (_split(arrays[i], arrays[i + 1], folder / FILES[i], folder / FILES[i + 1], outputs) for i in (0, 2))
    if pool.inputs.shape[1:] != test.inputs.shape[1:]:
        raise LtlError(
            f"{folder} has training images of {tuple(pool.inputs.shape[2:])} and test images of "
            f"{tuple(test.inputs.shape[2:])} pixels: the files do not belong together, so replace them."
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


def _split(images: Tensor, labels: Tensor, images_path: Path, labels_path: Path, outputs: int) -> Split:
    if len(images) != len(labels):
        raise LtlError(
            f"{images_path} has {len(images)} images, but {labels_path.name} has {len(labels)} labels: "
            "the files do not belong together, so replace them."
        )
    return Split(images.unsqueeze(1), targets_of(labels, outputs, str(labels_path)))


def parse(content: bytes, path: Path, *, dimensions: int) -> Tensor:
    """Return the unsigned bytes of a gzipped idx file as a tensor of `dimensions` dimensions.

    Format: two zero bytes, 8 for unsigned byte, the number of dimensions, each size as four bytes (big-endian), the
    values in row-major order. LtlError names `path` if the content is anything else.
    """
    try:
        raw = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise LtlError(f"{path} is not a whole gzip file ({error}): delete it to download it again.") from error
    start = 4 + 4 * dimensions
    if len(raw) < start or raw[:4] != bytes([0, 0, 8, dimensions]):
        raise LtlError(
            f"{path} is not an idx file of {dimensions}-dimensional unsigned bytes: it begins with "
            f"{raw[:4].hex() or 'nothing'} instead of 000008{dimensions:02x}. Delete it to download it again."
        )
    sizes = [int.from_bytes(raw[i : i + 4], "big") for i in range(4, start, 4)]
    if len(raw) - start != math.prod(sizes) or 0 in sizes:
        raise LtlError(
            f"{path} announces {'×'.join(map(str, sizes))} = {math.prod(sizes)} bytes and holds {len(raw) - start}: "
            "it is damaged or empty, so delete it to download it again."
        )
    return torch.from_numpy(np.frombuffer(bytearray(raw), np.uint8, offset=start).reshape(sizes))

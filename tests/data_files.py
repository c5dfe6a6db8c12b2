"""Small data sets in the official file formats, with classes that a network can learn, and a way to load them."""

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from hydra.utils import get_method
from numpy.typing import NDArray
from omegaconf import OmegaConf

from ltl.datasets.dataset import Dataset
from ltl.rng import generator

Arrays = tuple[NDArray[np.uint8], NDArray[np.uint8]]

CONF = Path(__file__).parents[1] / "conf" / "dataset"


def load(name: str, *, split_seed: int = 0, **overrides: Any) -> Dataset:
    """Load the data set of conf/dataset/<name>.yaml with `overrides` of its keys."""
    file = OmegaConf.load(CONF / f"{name}.yaml")
    whole = OmegaConf.merge({"recipe": {"augment": False}}, file if "dataset" in file else {"dataset": file})
    settings: dict[str, Any] = OmegaConf.to_container(whole, resolve=True)["dataset"]  # type: ignore[assignment, index, call-overload]
    loader = get_method(settings.pop("_target_"))
    return loader(**{**settings, **overrides}, split_generator=generator("order", split_seed, "split"))


def write_idx(root: Path, name: str = "mnist", *, train: int = 300, test: int = 100) -> dict[str, Arrays]:
    """Write the four idx .gz files into <root>/<name>; return (images (n, 28, 28), labels (n,)) for train and test."""
    splits = {"train": examples((28, 28), train, classes=10, seed=1), "t10k": examples((28, 28), test, 10, seed=2)}
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    for split, (images, labels) in splits.items():
        (folder / f"{split}-images-idx3-ubyte.gz").write_bytes(idx_bytes(images))
        (folder / f"{split}-labels-idx1-ubyte.gz").write_bytes(idx_bytes(labels))
    return {"train": splits["train"], "test": splits["t10k"]}


def write_cifar10(root: Path, *, train: int = 300, test: int = 100) -> dict[str, Arrays]:
    """Write <root>/cifar10/cifar-10-batches-bin (train in five files); return (images (n, 3, 32, 32), labels (n,))."""
    splits = {"train": examples((3, 32, 32), train, 10, seed=3), "test": examples((3, 32, 32), test, 10, seed=4)}
    folder = root / "cifar10" / "cifar-10-batches-bin"
    folder.mkdir(parents=True, exist_ok=True)
    records = [
        np.concatenate([labels[:, None], images.reshape(len(labels), -1)], 1) for images, labels in splits.values()
    ]
    for number, part in enumerate(np.array_split(records[0], 5), start=1):
        part.tofile(folder / f"data_batch_{number}.bin")
    records[1].tofile(folder / "test_batch.bin")
    return splits


def write_cifar100(root: Path, *, train: int = 300, test: int = 100) -> dict[str, Arrays]:
    """Write <root>/cifar100/cifar-100-binary; return (images (n, 3, 32, 32), fine labels (n,)) for train and test."""
    splits = {"train": examples((3, 32, 32), train, 100, seed=5), "test": examples((3, 32, 32), test, 100, seed=6)}
    folder = root / "cifar100" / "cifar-100-binary"
    folder.mkdir(parents=True, exist_ok=True)
    for split, (images, labels) in splits.items():
        coarse_and_fine = np.stack([labels // 5, labels], 1)
        np.concatenate([coarse_and_fine, images.reshape(len(labels), -1)], 1).tofile(folder / f"{split}.bin")
    return splits


def examples(shape: tuple[int, ...], count: int, classes: int, *, seed: int) -> Arrays:
    """Return `count` noisy copies of one prototype image a class, and their labels in random order."""
    prototypes = np.random.default_rng(0).integers(0, 200, (classes, *shape))
    random = np.random.default_rng(seed)
    labels = random.permutation(np.arange(count) % classes)
    images = prototypes[labels] + random.integers(0, 56, (count, *shape))
    return images.astype(np.uint8), labels.astype(np.uint8)


def idx_bytes(array: NDArray[np.uint8]) -> bytes:
    """Return `array` as a gzipped idx file of unsigned bytes."""
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    return gzip.compress(header + array.tobytes(), compresslevel=1, mtime=0)


def files_below(folder: Path) -> Iterator[str]:
    """Yield the paths of all files below `folder`, hidden ones too, sorted."""
    yield from sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())

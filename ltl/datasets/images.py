"""From images as bytes to a data set: split, scaled, standardised by channel, augmented if asked for."""

from collections.abc import Sequence
from math import isfinite

import torch
from torch import Tensor

from ltl.datasets.augment import augmentation
from ltl.datasets.dataset import Dataset, Split, carve
from ltl.errors import LtlError


def image_dataset(
    *,
    name: str,
    canonical: bool,
    pool: Split,
    test: Split,
    outputs: int,
    white: int,
    mean: Sequence[float],
    std: Sequence[float],
    validation: int,
    limit: int | None,
    augment: bool,
    padding: int,
    flip: bool,
    split_generator: torch.Generator,
) -> Dataset:
    """Return the data set of uint8 images (n, channels, height, width) whose brightest value is `white`.

    Validation examples are carved from `pool`. Pixels become (pixel / white - mean) / std with one mean and std a
    channel. LtlError for means and stds that do not fit, and for whatever `carve` and `augmentation` refuse.
    """
    channels = pool.inputs.shape[1]
    for key, values in (("mean", mean), ("std", std)):
        if len(values) != channels or not all(isfinite(value) for value in values):
            raise LtlError(f"dataset.{key}={list(values)} must be one number for each of the {channels} channels.")
    if min(std) <= 0:
        raise LtlError(f"dataset.std={list(std)} must be positive: the pixels are divided by it.")
    # Split first, while a pixel is one byte: the floats, four times as large, then exist only once.
    splits = carve(pool, test, validation=validation, limit=limit, generator=split_generator)
    train, held_out, tested = (Split(_normalised(s.inputs, white, mean, std), s.targets) for s in splits)
    return Dataset(
        name=name,
        canonical=canonical,
        train=train,
        validation=held_out,
        test=tested,
        input_shape=tuple(train.inputs.shape[1:]),
        outputs=outputs,
        augment=augmentation(padding=padding, flip=flip, side=min(train.inputs.shape[2:])) if augment else None,
    )


def _normalised(pixels: Tensor, white: int, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    shape = (1, len(mean), 1, 1)
    scaled = pixels.to(torch.float32, memory_format=torch.contiguous_format).div_(white)
    return scaled.sub_(torch.tensor(list(mean)).view(shape)).div_(torch.tensor(list(std)).view(shape))


def targets_of(labels: Tensor, outputs: int, source: str) -> Tensor:
    """Return uint8 `labels` (n,) as int64 targets; LtlError names `source` if one is not below `outputs`."""
    if len(labels) and int(labels.max()) >= outputs:
        raise LtlError(
            f"{source} has the label {int(labels.max())}, but labels must lie in 0 … {outputs - 1}: the file is "
            "damaged or of another data set, so replace it or set dataset.root."
        )
    return labels.to(torch.int64)

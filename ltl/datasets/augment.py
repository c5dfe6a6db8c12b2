"""Pad-crop and horizontal flip of a whole batch at once, with explicit draws, on the batch's device."""

from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from ltl.datasets.dataset import Augment
from ltl.errors import LtlError


def augmentation(*, padding: int, flip: bool, side: int) -> Augment:
    """Return a function of (batch, generator) that crops and flips; LtlError if `padding` does not suit the `side`."""
    if not 0 <= padding < side:
        raise LtlError(f"dataset.padding={padding} must be at least 0 and less than the images' side of {side} pixels.")
    return partial(pad_crop_flip, padding=padding, flip=flip)


def pad_crop_flip(batch: Tensor, generator: torch.Generator, *, padding: int, flip: bool) -> Tensor:
    """Pad each image of `batch` (n, c, h, w) by `padding`, crop h × w at a random place, mirror it with probability ½.

    Every image draws its own place and flip. The border is 0 *after* normalisation, the mean colour where the data set
    is standardised (He et al. 2016). The generator lives on the batch's device. The result is new and contiguous.
    """
    count, channels, height, width = batch.shape
    device = batch.device
    tops, lefts = torch.randint(2 * padding + 1, (2, count, 1), generator=generator, device=device)
    rows = tops + torch.arange(height, device=device)
    columns = torch.arange(width, device=device).expand(count, width)
    if flip:
        mirrored = torch.randint(2, (count, 1), generator=generator, device=device).bool()
        columns = torch.where(mirrored, columns.flip(1), columns)
    columns = columns + lefts
    padded = F.pad(batch, (padding, padding, padding, padding))
    # One gather over flattened images does crop and flip in a single pass over the batch.
    places = (rows.unsqueeze(2) * padded.shape[3] + columns.unsqueeze(1)).view(count, 1, height * width)
    return padded.flatten(2).gather(2, places.expand(count, channels, -1)).view(batch.shape)

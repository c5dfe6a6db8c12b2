"""Pad-crop and flip of a batch: the same as one image at a time, uniform, and nothing but its generator's."""

import numpy as np
import pytest
import torch
from torch import Tensor

from ltl.datasets.augment import augmentation, pad_crop_flip
from ltl.errors import LtlError


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def one_at_a_time(batch: Tensor, random: torch.Generator, padding: int, flip: bool) -> np.ndarray:
    """Pad, crop and mirror each image with numpy slices, for the draws that the batched version makes."""
    count, _, height, width = batch.shape
    tops, lefts = torch.randint(2 * padding + 1, (2, count, 1), generator=random).flatten(1).tolist()
    mirrored = torch.randint(2, (count, 1), generator=random).flatten().tolist() if flip else [0] * count
    images = []
    for image, top, left, mirror in zip(batch.numpy(), tops, lefts, mirrored, strict=True):
        padded = np.pad(image, ((0, 0), (padding, padding), (padding, padding)))
        crop = padded[:, top : top + height, left : left + width]
        images.append(crop[:, :, ::-1] if mirror else crop)
    return np.stack(images)


@pytest.mark.parametrize("shape", [(17, 3, 32, 32), (9, 1, 28, 28), (5, 2, 6, 9), (1, 1, 8, 8)])
@pytest.mark.parametrize("padding", [0, 1, 4])
@pytest.mark.parametrize("flip", [True, False])
def test_equals_one_image_at_a_time(shape: tuple[int, ...], padding: int, flip: bool) -> None:
    batch = torch.randn(shape, generator=generator())
    before = batch.clone()
    out = pad_crop_flip(batch, generator(7), padding=padding, flip=flip)
    assert out.is_contiguous() and out.dtype == batch.dtype
    assert np.array_equal(out.numpy(), one_at_a_time(batch, generator(7), padding, flip))
    assert torch.equal(batch, before)


def test_padding_0_without_flip_changes_nothing() -> None:
    batch = torch.randn(8, 3, 5, 5, generator=generator())
    assert torch.equal(pad_crop_flip(batch, generator(), padding=0, flip=False), batch)


def test_flip_alone_mirrors_about_half() -> None:
    batch = torch.arange(4.0).expand(2000, 1, 1, 4)
    out = pad_crop_flip(batch, generator(), padding=0, flip=True)
    mirrored = (out == batch.flip(3)).all(3).flatten()
    assert torch.equal(out[~mirrored], batch[~mirrored])
    assert 900 < int(mirrored.sum()) < 1100  # 4.5 standard deviations of 22.4


def test_places_are_uniform_and_independent_of_each_other() -> None:
    batch = torch.zeros(8100, 1, 5, 5)
    batch[:, 0, 2, 2] = 1
    out = pad_crop_flip(batch, generator(), padding=1, flip=False)
    places = out.flatten(1).argmax(1)
    counts = torch.bincount(places, minlength=25).view(5, 5)[1:4, 1:4]
    assert int(counts.sum()) == 8100
    chi_squared = float(((counts - 900.0) ** 2 / 900).sum())
    assert chi_squared < 26.1  # the 99.9% point for 8 degrees of freedom


def test_same_generator_same_batch_and_successive_batches_differ() -> None:
    batch = torch.randn(16, 3, 8, 8, generator=generator())
    state = torch.random.get_rng_state()
    stream = generator(5)
    first = pad_crop_flip(batch, stream, padding=2, flip=True)
    assert not torch.equal(first, pad_crop_flip(batch, stream, padding=2, flip=True))
    assert torch.equal(first, pad_crop_flip(batch, generator(5), padding=2, flip=True))
    assert torch.equal(state, torch.random.get_rng_state()), "the global generator is not ours"


@pytest.mark.parametrize("padding", [-1, 8, 20])
def test_padding_must_suit_the_images(padding: int) -> None:
    with pytest.raises(LtlError, match=rf"^dataset\.padding={padding} .* side of 8 pixels"):
        augmentation(padding=padding, flip=True, side=8)

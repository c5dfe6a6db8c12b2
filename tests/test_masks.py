"""Masks: what is prunable, counts, bits, hashes and shuffles, against numpy."""

import math
from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ltl.masks import (
    dense,
    density,
    kept,
    mask_bits,
    mask_sha256,
    pack,
    prunable,
    shuffled,
    shuffled_keeping,
    shuffled_weights,
    tensors_sha256,
    total,
    unpack,
)


def random_mask(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < 0.6


def test_only_weights_of_linear_and_convolution_layers_are_prunable() -> None:
    """Found by type, in order of definition; a layer that is the network itself has no prefix."""
    network = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Embedding(4, 3), nn.LayerNorm(3), nn.PReLU(), nn.GRU(3, 3),
        nn.Sequential(nn.Conv1d(1, 2, 3), nn.Linear(3, 4)), nn.ConvTranspose2d(1, 1, 2), nn.Bilinear(2, 2, 2),
        nn.MultiheadAttention(4, 2), nn.Conv3d(1, 1, 1),
    )  # fmt: skip
    assert prunable(network) == ["0.weight", "6.0.weight", "6.1.weight", "9.out_proj.weight", "10.weight"]
    assert prunable(nn.Linear(2, 2)) == ["weight"]
    assert prunable(nn.BatchNorm1d(2)) == []


def test_counts_are_those_of_numpy() -> None:
    """Kept, total and density over all layers, from nothing to everything."""
    masks = {"a": random_mask((3, 4, 2, 2), 0), "b": random_mask((5, 7), 1)}
    arrays = [mask.numpy() for mask in masks.values()]
    assert kept(masks) == sum(int(array.sum()) for array in arrays)
    assert total(masks) == 48 + 35
    assert density(masks) == kept(masks) / 83
    weights = {name: torch.zeros(mask.shape) for name, mask in masks.items()}
    assert kept(dense(weights)) == total(dense(weights)) == 83
    assert all(mask.dtype == torch.bool for mask in dense(weights).values())
    assert kept({name: ~mask for name, mask in dense(weights).items()}) == 0


@pytest.mark.parametrize("shape", [(1,), (8,), (9,), (3, 5), (4, 4), (2, 3, 3, 3), (16, 1, 5, 5)])
def test_bits_are_those_of_numpy_and_come_back(shape: tuple[int, ...]) -> None:
    """Row-major, the first weight in the highest bit, ⌈n/8⌉ bytes, spare bits 0."""
    for seed in range(20):
        mask = random_mask(shape, seed)
        bits = pack(mask)
        assert bits.dtype == torch.uint8
        assert bits.shape == (-(-mask.numel() // 8),)
        assert torch.equal(unpack(bits, shape), mask)
        expected = 0
        for number, bit in enumerate(mask.flatten().tolist()):
            expected |= int(bit) << (8 * len(bits) - 1 - number)
        assert int.from_bytes(bytes(bits.tolist()), "big") == expected
    first = torch.zeros(shape, dtype=torch.bool)
    first.view(-1)[0] = True
    assert pack(first)[0] == 0b1000_0000


def test_bits_do_not_depend_on_the_memory_format() -> None:
    """A channels-last mask has the bits and the hash of its contiguous twin."""
    mask = random_mask((4, 3, 2, 2), 0)
    twin = mask.to(memory_format=torch.channels_last)
    assert torch.equal(pack(mask), pack(twin))
    assert mask_sha256({"a": mask}) == mask_sha256({"a": twin})
    assert tensors_sha256({"a": mask.float()}) == tensors_sha256({"a": twin.float()})


def test_the_hash_of_masks_sees_every_bit_and_name_but_no_order() -> None:
    """Flipping any one weight, renaming, leaving out or lengthening gives another hash; the order of the dict not."""
    masks = {"a": random_mask((3, 4), 0), "b": random_mask((2, 3), 1)}
    hashes = {mask_sha256(masks)}
    for name, mask in masks.items():
        for index in range(mask.numel()):
            other = mask.clone()
            other.view(-1)[index] ^= True
            hashes.add(mask_sha256({**masks, name: other}))
    assert len(hashes) == 1 + 12 + 6
    hashes |= {
        mask_sha256({"a": masks["a"], "c": masks["b"]}),
        mask_sha256({"a": masks["b"], "b": masks["a"]}),
        mask_sha256({"a": masks["a"]}),
        mask_sha256({**masks, "a": torch.cat([masks["a"], torch.zeros(2, 4, dtype=torch.bool)])}),
    }
    assert len(hashes) == 1 + 12 + 6 + 4
    assert mask_sha256(masks) == mask_sha256({"b": masks["b"], "a": masks["a"].clone()})


def test_the_hash_of_tensors_sees_every_byte_type_and_shape() -> None:
    """Also −0 against 0, an empty tensor and a single number; the same bytes of another type are another tensor."""
    state = {"w": torch.arange(6.0).view(2, 3), "count": torch.tensor(3), "none": torch.empty(0)}
    hashes = {tensors_sha256(state)}
    raw = state["w"].numpy().tobytes()
    for byte in range(len(raw)):
        altered = bytearray(raw)
        altered[byte] ^= 1
        values = torch.from_numpy(np.frombuffer(bytes(altered), dtype=np.float32).copy()).view(2, 3)
        hashes.add(tensors_sha256({**state, "w": values}))
    assert len(hashes) == 1 + 24
    hashes |= {
        tensors_sha256({**state, "w": state["w"].view(3, 2)}),
        tensors_sha256({**state, "w": state["w"].view(torch.int32)}),
        tensors_sha256({**state, "count": torch.tensor([3])}),
        tensors_sha256({**state, "none": torch.empty(0, 2)}),
        tensors_sha256({**state, "w": state["w"] * torch.tensor([[-1.0], [1.0]])}),
    }
    assert len(hashes) == 1 + 24 + 5
    assert tensors_sha256({"w": torch.zeros(1)}) != tensors_sha256({"w": -torch.zeros(1)})
    assert tensors_sha256(state) == tensors_sha256(dict(reversed(state.items())))
    strided = torch.arange(12.0).view(2, 6)[:, ::2]
    assert tensors_sha256({"w": strided}) == tensors_sha256({"w": strided.clone(memory_format=torch.contiguous_format)})


def test_shuffled_masks_keep_the_count_of_every_layer() -> None:
    """Drawn from the generator alone: the same one gives the same masks, another one others."""
    masks = {"a": random_mask((10, 20), 0), "b": random_mask((6, 4, 3, 3), 1)}
    one = shuffled(masks, torch.Generator().manual_seed(5))
    two = shuffled(masks, torch.Generator().manual_seed(5))
    other = shuffled(masks, torch.Generator().manual_seed(6))
    for name, mask in masks.items():
        assert int(one[name].sum()) == int(mask.sum())
        assert one[name].shape == mask.shape
        assert torch.equal(one[name], two[name])
        assert not torch.equal(one[name], other[name])
        assert not torch.equal(one[name], mask)


@pytest.mark.parametrize(("counts", "axis"), [("inputs", 1), ("units", 0)])
def test_a_shuffle_that_keeps_counts_keeps_them_for_each_input_or_unit_and_nothing_else(
    counts: Literal["inputs", "units"], axis: int
) -> None:
    """Of linear layers and of convolutions, whose kernels are mixed with the other side; every place is as likely.

    Each line is permuted by itself: lines that were alike are so no more.
    """
    masks = {"a": random_mask((10, 20), 0), "b": random_mask((6, 4, 3, 3), 1)}
    masks["a"][:, 3], masks["a"][2] = False, True
    new = shuffled_keeping(masks, torch.Generator().manual_seed(5), counts)
    for name, mask in masks.items():
        other = tuple(number for number in range(mask.dim()) if number != axis)
        before, after = (one.numpy().sum(other) for one in (mask, new[name]))
        assert np.array_equal(before, after)
        assert not torch.equal(new[name], mask)
        across = tuple(number for number in range(mask.dim()) if number != 1 - axis)
        assert not np.array_equal(mask.numpy().sum(across), new[name].numpy().sum(across))
    source = torch.Generator().manual_seed(0)
    alike = (torch.arange(30) < 15).expand(20, 30)
    alike = alike.T if axis else alike
    assert shuffled_keeping({"a": alike}, source, counts)["a"].unique(dim=axis).shape == alike.shape
    corner = torch.zeros(4, 5, dtype=torch.bool)
    corner[0, 0] = True
    drawn = sum(shuffled_keeping({"a": corner}, source, counts)["a"].int() for _ in range(2000))
    assert isinstance(drawn, Tensor)
    line = drawn[:, 0] if axis == 1 else drawn[0]
    assert int(line.sum()) == 2000
    assert float(((line - 2000 / len(line)) ** 2).sum() * len(line) / 2000) < 25  # 3 or 4 degrees of freedom


def test_shuffled_weights_are_the_kept_ones_at_kept_places() -> None:
    """All others, and what is no weight of a mask, stay as they are; masks of all ones move whole layers."""
    masks = {"a": random_mask((10, 20), 0), "b": random_mask((6, 4, 3, 3), 1)}
    weights = {
        name: torch.randn(mask.shape, generator=torch.Generator().manual_seed(2)) for name, mask in masks.items()
    }
    weights["bias"] = torch.arange(3.0)
    before = {name: tensor.clone() for name, tensor in weights.items()}
    new = shuffled_weights(weights, masks, torch.Generator().manual_seed(5))
    for name, mask in masks.items():
        assert torch.equal(new[name][~mask], before[name][~mask])
        assert torch.equal(new[name][mask].sort().values, before[name][mask].sort().values)
        assert not torch.equal(new[name][mask], before[name][mask])
        assert torch.equal(weights[name], before[name])
    assert torch.equal(new["bias"], before["bias"])


def test_a_shuffle_keeps_neither_places_nor_neighbours() -> None:
    """Kept weights in front end up anywhere (chi-square), and side by side as often as by chance; 4,000 fixed draws."""
    mask = {"a": torch.arange(20) < 5}
    source = torch.Generator().manual_seed(0)
    drawn = torch.stack([shuffled(mask, source)["a"] for _ in range(4000)])
    statistic = float(((drawn.sum(0) - 1000) ** 2 / 1000).sum()) / (15 / 19)  # drawn without replacement
    assert 3 < statistic < 55  # 19 degrees of freedom: outside with a probability of 3e-5, at other seeds
    pairs = (drawn[:, 1:] & drawn[:, :-1]).sum(1).float().mean()
    assert abs(float(pairs) - 19 * 5 / 20 * 4 / 19) < 0.07  # 5 standard errors


def test_mask_bits_count_the_masks_of_as_many_weights() -> None:
    """log₂ of a product of binomials; nothing is to be told where all or none are kept."""
    masks = {"a": torch.tensor([True, False, False, True, False]), "b": torch.tensor([True] * 7 + [False])}
    assert mask_bits(masks) == pytest.approx(math.log2(10 * 8))
    assert mask_bits({"a": torch.ones(3, dtype=torch.bool), "b": torch.zeros(3, dtype=torch.bool)}) == pytest.approx(0)

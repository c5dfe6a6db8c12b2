"""Masks m ∈ {0,1}: which weights are prunable, how many are kept, and how masks are packed, hashed and shuffled."""

import hashlib
import math
from collections.abc import Iterable
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

Tensors = dict[str, Tensor]
Masks = dict[str, Tensor]

_PRUNABLE = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def prunable(network: nn.Module) -> list[str]:
    """Return the names of the prunable weights, in order of definition: `weight` of linear and convolution modules."""
    return [
        f"{name}.weight" if name else "weight"
        for name, module in network.named_modules()
        if isinstance(module, _PRUNABLE)
    ]


def dense(weights: Tensors) -> Masks:
    """Return all-ones bool masks of the shapes of `weights`."""
    return {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in weights.items()}


def kept(masks: Masks) -> int:
    """Return the number of weights kept."""
    return sum(int(torch.count_nonzero(mask)) for mask in masks.values())  # several times faster than sum()


def total(masks: Masks) -> int:
    """Return the number of prunable weights."""
    return sum(mask.numel() for mask in masks.values())


def density(masks: Masks) -> float:
    """Return the fraction of prunable weights kept."""
    return kept(masks) / total(masks)


def mask_bits(masks: Masks) -> float:
    """Return log₂ of the number of masks that keep as many weights in each layer: the bits that tell which it is."""
    return sum(_log2_choose(mask.numel(), int(torch.count_nonzero(mask))) for mask in masks.values())


def _log2_choose(whole: int, part: int) -> float:
    return (math.lgamma(whole + 1) - math.lgamma(part + 1) - math.lgamma(whole - part + 1)) / math.log(2)


def distance(one: Masks, other: Masks) -> float:
    """Return the fraction of prunable weights that one mask keeps and the other does not: their Hamming distance."""
    return sum(int(torch.count_nonzero(mask ^ other[name])) for name, mask in one.items()) / total(one)


def shuffled(masks: Masks, generator: torch.Generator) -> Masks:
    """Permute each mask within its layer, so that every layer keeps its count (Frankle & Carbin 2019, App. E)."""
    out = {}
    for name, mask in masks.items():
        order = torch.randperm(mask.numel(), generator=generator).to(mask.device)
        out[name] = mask.flatten()[order].view_as(mask)
    return out


def shuffled_keeping(masks: Masks, generator: torch.Generator, counts: Literal["inputs", "units"]) -> Masks:
    """Permute each mask so that every input, or every unit, keeps as many weights as it had (Frankle et al. 2021, §5).

    Inputs are those of a linear layer, or the channels that a convolution reads; units are outputs or output channels.
    """
    out = {}
    for name, mask in masks.items():
        rows = mask.transpose(0, 1) if counts == "inputs" else mask
        order = torch.rand(rows.flatten(1).shape, generator=generator).argsort(1).to(mask.device)
        moved = rows.flatten(1).gather(1, order).view(rows.shape)
        out[name] = (moved.transpose(0, 1) if counts == "inputs" else moved).contiguous()
    return out


def shuffled_weights(weights: Tensors, masks: Masks, generator: torch.Generator) -> Tensors:
    """Return `weights` with those kept of each layer permuted among their places (Su et al. 2020, §3)."""
    out = dict(weights)
    for name, mask in masks.items():
        places = mask.flatten().nonzero().flatten()
        moved = weights[name].flatten().clone()
        order = torch.randperm(len(places), generator=generator).to(places.device)
        moved[places] = moved[places[order]]
        out[name] = moved.view_as(weights[name])
    return out


def pack(mask: Tensor) -> Tensor:
    """Return `mask` (bool, any shape) as bits: uint8 of ⌈numel/8⌉ bytes, row-major, first weight in the highest bit."""
    return torch.from_numpy(np.packbits(mask.flatten().cpu().numpy()))


def unpack(bits: Tensor, shape: Iterable[int]) -> Tensor:
    """Return the bool mask of `shape` that `pack` made `bits` of."""
    size = torch.Size(shape)
    flat = np.unpackbits(bits.cpu().numpy(), count=size.numel()).astype(bool)
    return torch.from_numpy(flat).view(size)


def mask_sha256(masks: Masks) -> str:
    """Return a hash of the masks: names, shapes and bits, in order of name."""
    return tensors_sha256({f"{name} {tuple(mask.shape)}": pack(mask) for name, mask in masks.items()})


def tensors_sha256(tensors: Tensors) -> str:
    """Return a hash of named tensors: names, types, shapes and bytes, in order of name."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
        digest.update(tensor.view(-1).view(torch.uint8).numpy().data if tensor.numel() else b"")
    return digest.hexdigest()

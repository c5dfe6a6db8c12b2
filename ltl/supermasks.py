"""Supermasks: masks that scores decide, trained while the weights stay as they were drawn (DESIGN §3).

Tensors are those of one layer in R networks, (R, *shape) in the natural order of the weight, in any memory layout; each
network is reduced by itself. The hard value goes forward, exactly, and the gradient of the soft one back.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Found:
    """What the scores of one layer say when nothing is drawn: effective weights are gain · (mask ⊙ theta).

    `gain` is (R, 1, …), `probability` that of keeping each weight; None where the method has none.
    """

    mask: Tensor
    theta: Tensor
    gain: Tensor | None
    probability: Tensor | None

    def weights(self) -> Tensor:
        """Return the effective weights."""
        kept = self.mask * self.theta
        return kept if self.gain is None else self.gain * kept

    def of(self, number: int) -> "Found":
        """Return that of one network, without the first dimension."""
        gain, probability = (None if part is None else part[number] for part in (self.gain, self.probability))
        return Found(self.mask[number], self.theta[number], gain, probability)


class Estimator(Protocol):
    """How scores become masks, and gradients of weights those of scores.

    fresh(shape, density, generator) -> scores (*shape) of one network to begin with. weights(theta, scores, counts,
    uniforms) -> effective weights in training: `counts` are the weights that each network is to keep, `uniforms` from
    [0, 1) are given where `draws`. found(theta, scores, counts) -> what is evaluated and kept.
    """

    @property
    def draws(self) -> bool:
        """Whether masks are drawn in training."""

    def fresh(self, shape: Sequence[int], density: float, generator: torch.Generator) -> Tensor:
        """Return the scores that one network begins with."""

    def weights(self, theta: Tensor, scores: Tensor, counts: Sequence[int], uniforms: Tensor | None) -> Tensor:
        """Return the effective weights of a training step."""

    def found(self, theta: Tensor, scores: Tensor, counts: Sequence[int]) -> Found:
        """Return what the scores say."""


@dataclass(frozen=True)
class Bernoulli:
    """Masks drawn with the probabilities σ(s) of their scores (Zhou et al. 2019, §5).

    g = b + σ(s) − sg σ(s), b ~ Bernoulli(σ(s)); W = θ ⊙ g. Scores begin at the logit of the target density, which does
    not bind them. What is kept is the mask σ(s) > ½. `rescale` multiplies each layer by numel/Σg, the dynamic weight
    rescaling of §5, which the gradient passes through.
    """

    rescale: bool
    draws = True

    def fresh(self, shape: Sequence[int], density: float, generator: torch.Generator) -> Tensor:
        """Return the logit of `density` everywhere."""
        most = 1 - torch.finfo(torch.float32).eps
        density = min(density, most)
        return torch.full(tuple(shape), math.log(density / (1 - density)))

    def weights(self, theta: Tensor, scores: Tensor, counts: Sequence[int], uniforms: Tensor | None) -> Tensor:
        """Return θ ⊙ g for masks drawn by `uniforms`, rescaled if so."""
        assert uniforms is not None
        probability = torch.sigmoid(scores)
        drawn = torch.lt(uniforms, probability.detach(), out=torch.empty_like(probability))
        mask = straight_through(drawn, probability)
        kept = theta * mask
        return kept * _inverse_density(mask) if self.rescale else kept

    def found(self, theta: Tensor, scores: Tensor, counts: Sequence[int]) -> Found:
        """Return the mask of the weights that are more likely kept than not, with their probabilities."""
        mask = scores > 0
        gain = _inverse_density(mask.to(theta.dtype)) if self.rescale else None
        return Found(mask, theta, gain, torch.sigmoid(scores))


@dataclass(frozen=True)
class EdgePopup:
    """The weights of largest |s| in each layer (Ramanujan et al. 2020, §3): W = θ ⊙ top(|s|), ∂s = ∂W ⊙ θ ⊙ sign s."""

    draws = False

    def fresh(self, shape: Sequence[int], density: float, generator: torch.Generator) -> Tensor:
        """Return draws from U(−1/√fan_in, 1/√fan_in), as linear and convolution layers of PyTorch begin."""
        return _uniform(shape, generator)

    def weights(self, theta: Tensor, scores: Tensor, counts: Sequence[int], uniforms: Tensor | None) -> Tensor:
        """Return θ ⊙ g, g the mask with the gradient of |s|."""
        size = scores.abs()
        return theta * straight_through(top(size, counts), size)

    def found(self, theta: Tensor, scores: Tensor, counts: Sequence[int]) -> Found:
        """Return the mask of the `counts` largest |s|."""
        return Found(top(scores.abs(), counts).bool(), theta, None, None)


@dataclass(frozen=True)
class Binary:
    """Signs of the weights of largest |s|, times one gain a layer (Diffenderfer & Kailkhura 2021, Alg. 1: biprop).

    W = α · M ⊙ sign θ, α the mean |θ| of those kept; ∂s = ∂W ⊙ θ ⊙ sign s, α and M being constants. The sign of 0 is 1.
    """

    draws = False

    def fresh(self, shape: Sequence[int], density: float, generator: torch.Generator) -> Tensor:
        """Return what `EdgePopup` begins with."""
        return _uniform(shape, generator)

    def weights(self, theta: Tensor, scores: Tensor, counts: Sequence[int], uniforms: Tensor | None) -> Tensor:
        """Return α · M ⊙ sign θ, with the gradient of θ ⊙ |s|."""
        size = scores.abs()
        mask = top(size, counts)
        return straight_through(_mean_size(theta, mask) * mask * _signs(theta), theta * size)

    def found(self, theta: Tensor, scores: Tensor, counts: Sequence[int]) -> Found:
        """Return mask, signs and gain."""
        mask = top(scores.abs(), counts)
        return Found(mask.bool(), _signs(theta), _mean_size(theta, mask), None)


def straight_through(hard: Tensor, soft: Tensor) -> Tensor:
    """Return `hard`, to the last bit, with the gradient of `soft`."""
    return hard + (soft - soft.detach())


def top(sizes: Tensor, counts: Sequence[int]) -> Tensor:
    """Return 1 at exactly `counts` largest of `sizes` ≥ 0 in each network and 0 elsewhere; ties: the later index first.

    Nothing is sorted. Indices are row-major, whatever the memory layout, as those of `allocation.lowest`.
    """
    sizes = sizes.detach()
    masks = torch.empty_like(sizes)
    for size, mask, count in zip(sizes, masks, counts, strict=True):
        least, surplus = _largest(_in_memory(size), count)
        torch.ge(size, least, out=mask)  # into numbers: several times faster than into bools on a processor
        if size.is_cuda:  # the same without waiting for the device
            ties = (size == least).flatten()
            mask -= (ties & (ties.cumsum(0) <= surplus)).view_as(size).to(size.dtype)
        elif surplus:
            mask[tuple((size == least).nonzero()[:surplus].t())] = 0
    return masks


def _largest(flat: Tensor, count: int) -> tuple[Tensor | float, Tensor | int]:
    """Return the `count`-th largest of `flat` ≥ 0, and how many too many are as large; infinity for the 0th."""
    if count == 0:
        return math.inf, 0
    below = len(flat) - count
    if flat.is_cuda:
        threshold = flat.kthvalue(below + 1).values
        return threshold, torch.count_nonzero(flat >= threshold) - count
    bits = flat.view(torch.int64 if flat.dtype == torch.float64 else torch.int32)  # in the order of the numbers
    parted = np.partition(bits.numpy(), below)
    least = float(torch.from_numpy(parted[below : below + 1]).view(flat.dtype))
    return least, int(np.count_nonzero(parted[:below] == parted[below]))


def _in_memory(tensor: Tensor) -> Tensor:
    """Return `tensor` flattened in the order of its memory."""
    strides = tensor.stride()
    return tensor.permute(sorted(range(tensor.dim()), key=lambda dim: -strides[dim])).flatten()


def _uniform(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    bound = 1 / math.sqrt(math.prod(shape[1:]))
    return torch.empty(tuple(shape)).uniform_(-bound, bound, generator=generator)


def _inverse_density(mask: Tensor) -> Tensor:
    """Return numel/Σ of each network's mask, (R, 1, …); an empty one has gain numel."""
    return mask[0].numel() / _summed(mask).clamp(min=1)


def _signs(theta: Tensor) -> Tensor:
    """Return 1 or −1 for each entry; that of 0 is 1."""
    return torch.ge(theta, 0, out=torch.empty_like(theta)) * 2 - 1


def _mean_size(theta: Tensor, mask: Tensor) -> Tensor:
    """Return the mean |θ| of the weights that each network's mask keeps, (R, 1, …); 0 for an empty one."""
    return _summed((mask * theta).abs()) / _summed(mask).clamp(min=1)


def _summed(tensor: Tensor) -> Tensor:
    return tensor.sum(dim=tuple(range(1, tensor.dim())), keepdim=True)

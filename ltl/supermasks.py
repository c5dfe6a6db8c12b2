"""Supermasks: masks that scores decide, trained while the weights stay as they were drawn.

Tensors are those of one layer in R networks, (R, *shape) in the natural order of the weight, in any memory layout; each
network is reduced by itself. What goes forward is exact; what goes back to the scores is each paper's equation.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from ltl.streams import beside

_DRAWN = 2.0**-16  # a draw d of 16 bits with a sign stands for the uniform number ½ + (d + ½)·2⁻¹⁶
_aten: Any = torch.ops.aten


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


@runtime_checkable
class Estimator(Protocol):
    """How scores become masks, and gradients of weights those of scores.

    fresh(theta, density, generator) -> scores of one network, of the shape of `theta`, to begin with. weights(theta,
    scores, counts, draws) -> effective weights in training: `counts` are the weights that each network is to keep,
    `draws` int16 over its whole range where the estimator `draws`. found(theta, scores, counts) -> what is evaluated
    and kept.
    """

    @property
    def draws(self) -> bool:
        """Whether masks are drawn in training."""

    def fresh(self, theta: Tensor, density: float, generator: torch.Generator) -> Tensor:
        """Return the scores that one network begins with."""

    def weights(self, theta: Tensor, scores: Tensor, counts: Sequence[int], draws: Tensor | None) -> Tensor:
        """Return the effective weights of a training step."""

    def found(self, theta: Tensor, scores: Tensor, counts: Sequence[int]) -> Found:
        """Return what the scores say."""


@dataclass(frozen=True)
class Bernoulli:
    """Masks drawn with the probabilities p = σ(s) of their scores (Zhou et al. 2019, §5).

    g = b + p − sg p, b ~ Bernoulli(p) within 2⁻¹⁷; W = θ ⊙ g, so ∂s = ∂W ⊙ θ ⊙ p(1 − p). Scores begin at the logit of
    the target density, which does not bind them. What is kept is the mask p > ½. `rescale` multiplies each layer by
    c = numel/Σg, the dynamic weight rescaling of §5, through which the gradient passes:
    ∂s = c (∂W ⊙ θ − Σ(∂W ⊙ θ ⊙ b)/Σb) ⊙ p(1 − p).
    """

    rescale: bool
    draws = True

    def fresh(self, theta: Tensor, density: float, generator: torch.Generator) -> Tensor:
        """Return the logit of `density` everywhere."""
        density = min(density, 1 - torch.finfo(torch.float32).eps)
        return torch.full(theta.shape, math.log(density / (1 - density)))

    def weights(self, theta: Tensor, scores: Tensor, counts: Sequence[int], draws: Tensor | None) -> Tensor:
        """Return θ ⊙ b for masks that are drawn, rescaled if so."""
        assert draws is not None
        probability = torch.sigmoid(scores.detach())
        above = torch.sub(probability, draws, alpha=_DRAWN)
        if not self.rescale:
            kept = _aten.threshold_backward(theta, above, (1 + _DRAWN) / 2)
            return _with_gradient(kept, scores, lambda slope: _aten.sigmoid_backward(slope * theta, probability))
        mask = _aten.threshold_backward(theta.new_ones(()).expand_as(theta), above, (1 + _DRAWN) / 2)
        size = _summed(mask).clamp(min=1)
        gain = theta[0].numel() / size
        kept = mask.mul_(theta).mul_(gain)

        def gradient(slope: Tensor) -> Tensor:
            shared = _summed(slope * kept) / (gain * size)
            return _through_sigmoid(torch.addcmul(-shared, slope, theta), probability).mul_(gain)

        return _with_gradient(kept, scores, gradient)

    def found(self, theta: Tensor, scores: Tensor, counts: Sequence[int]) -> Found:
        """Return the mask of the weights that are more likely kept than not, with their probabilities."""
        mask = scores > 0
        gain = theta[0].numel() / _summed(mask.to(theta.dtype)).clamp(min=1) if self.rescale else None
        return Found(mask, theta, gain, torch.sigmoid(scores))


@dataclass(frozen=True)
class EdgePopup:
    """The weights of largest |s| in each layer (Ramanujan et al. 2020, §3): W = θ ⊙ top(|s|), ∂s = ∂W ⊙ θ ⊙ sign s."""

    draws = False

    def fresh(self, theta: Tensor, density: float, generator: torch.Generator) -> Tensor:
        """Return draws from U(−1/√fan_in, 1/√fan_in), as linear and convolution layers of PyTorch begin."""
        return _uniform(theta.shape, generator)

    def weights(self, theta: Tensor, scores: Tensor, counts: Sequence[int], draws: Tensor | None) -> Tensor:
        """Return θ where |s| is among the `counts` largest."""
        return _with_gradient(largest(theta, scores, counts), scores, lambda slope: _signed(slope * theta, scores))

    def found(self, theta: Tensor, scores: Tensor, counts: Sequence[int]) -> Found:
        """Return the mask of the `counts` largest |s|."""
        return Found(largest(torch.ones_like(theta), scores, counts).bool(), theta, None, None)


@dataclass(frozen=True)
class Binary:
    """Signs of the weights of largest |s|, times one gain a layer (Diffenderfer & Kailkhura 2021, Alg. 1: biprop).

    W = α · M ⊙ sign θ, α the mean |θ| of those kept; ∂s = ∂W ⊙ θ ⊙ sign s, α and M being constants. The sign of 0 is 1.
    """

    draws = False

    def fresh(self, theta: Tensor, density: float, generator: torch.Generator) -> Tensor:
        """Return what `EdgePopup` begins with."""
        return _uniform(theta.shape, generator)

    def weights(self, theta: Tensor, scores: Tensor, counts: Sequence[int], draws: Tensor | None) -> Tensor:
        """Return α · M ⊙ sign θ."""
        kept, gain = _binary(theta, scores, counts)
        return _with_gradient(kept.mul_(gain), scores, lambda slope: _signed(slope * theta, scores))

    def found(self, theta: Tensor, scores: Tensor, counts: Sequence[int]) -> Found:
        """Return mask, signs and gain."""
        kept, gain = _binary(theta, scores, counts)
        return Found(kept.bool(), _signs(theta), gain, None)


@dataclass(frozen=True)
class Ternary:
    """Trained weights in as many bits as `Binary`: no supermask, but what one is to be compared with.

    The scores are weights that begin at θ₀: W = α · M ⊙ sign s, M the largest |s| of each layer, α the mean |s| of
    those kept; ∂s = ∂W, straight through (Li, Zhang & Liu 2016: ternary weight networks, whose density a threshold
    gives).
    """

    draws = False

    def fresh(self, theta: Tensor, density: float, generator: torch.Generator) -> Tensor:
        """Return θ₀."""
        return theta.clone()

    def weights(self, theta: Tensor, scores: Tensor, counts: Sequence[int], draws: Tensor | None) -> Tensor:
        """Return α · M ⊙ sign s."""
        kept, gain = _binary(scores.detach(), scores, counts)
        return _with_gradient(kept.mul_(gain), scores, lambda slope: slope)

    def found(self, theta: Tensor, scores: Tensor, counts: Sequence[int]) -> Found:
        """Return mask, signs and gain."""
        kept, gain = _binary(scores.detach(), scores, counts)
        return Found(kept.bool(), _signs(scores.detach()), gain, None)


class _WithGradient(torch.autograd.Function):
    """A value, and the function that takes its gradient to that of the scores which it was made from."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, scores: Tensor, gradient: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.gradient = gradient
        return value

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[None, Tensor, None]:
        return None, ctx.gradient(slopes[0]), None


def _with_gradient(value: Tensor, scores: Tensor, gradient: Callable[[Tensor], Tensor]) -> Tensor:
    """Return `value`, whose gradient `gradient` makes that of `scores`.

    Written as hard + soft − sg soft, the same takes about twice as many passes over memory (docs/performance.md).
    """
    with_gradient: Tensor = _WithGradient.apply(value, scores, gradient)  # type: ignore[no-untyped-call]
    return with_gradient


def _binary(theta: Tensor, scores: Tensor, counts: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return sign θ where |s| is among the `counts` largest, and the mean |θ| there; 0 for a layer without weights."""
    kept = largest(_signs(theta), scores, counts)
    sizes = [theta.new_full((stop - start,), max(count, 1)) for start, stop, count in _runs(counts)]
    return kept, _summed(kept * theta) / torch.cat(sizes).view(-1, *(1,) * (theta.dim() - 1))


def largest(values: Tensor, scores: Tensor, counts: Sequence[int]) -> Tensor:
    """Return `values` at exactly `counts` largest |s| of each network and 0 elsewhere; ties: the later index first.

    Nothing is sorted. Indices are row-major, whatever the memory layout, as those of `allocation.lowest`.
    """
    values, scores = values.detach(), scores.detach()
    kept = torch.empty_like(values)
    if scores.is_cuda:  # one selection is too small to fill a GPU
        beside([partial(_keep, kept, values, scores, *run) for run in _runs(counts)], scores.device, [values, scores])
        return kept
    for value, score, mine, count in zip(values, scores, kept, counts, strict=True):
        least, surplus = _threshold(score, count)
        below = float(np.nextafter(least, least.dtype.type(-1))) if least else -1.0  # not −10⁻⁴⁵, which may be flushed
        _aten.hardshrink_backward.grad_input(
            value, score, below, grad_input=mine
        )  # value where |s| > below, in one pass
        if surplus:
            mine[tuple((score.abs() == float(least)).nonzero()[:surplus].t())] = 0
    return kept


def shares(scores: Sequence[Tensor], count: int, *, allow_empty: bool) -> list[int]:
    """Return how many of the `count` largest |s| of all layers of one network are in each (`allocation.global_pool`).

    It is the one threshold for a network in later versions of the code of Diffenderfer & Kailkhura 2021. Ties: the
    later index of the later layer first. Unless `allow_empty`, a layer without any keeps its largest, at the cost of
    the others.
    """
    flat = torch.cat([_in_memory(score.detach()) for score in scores])
    sizes = [score.numel() for score in scores]
    counts: list[int]
    if flat.is_cuda:
        parts = torch.split(marked(flat.unsqueeze(0), count)[0], sizes)
        counts = torch.stack([torch.count_nonzero(part) for part in parts]).tolist()
    else:
        least, surplus = _threshold(flat, count)
        mask = np.abs(flat.numpy()) >= least
        if surplus:
            mask[np.flatnonzero(np.abs(flat.numpy()) == least)[:surplus]] = False
        counts = [int(np.count_nonzero(part)) for part in np.split(mask, np.cumsum(sizes)[:-1])]
    if allow_empty or all(counts) or not any(counts):
        return counts
    rest = [score for score, own in zip(scores, counts, strict=True) if own]
    others = iter(shares(rest, count - counts.count(0), allow_empty=False))
    return [next(others) if own else 1 for own in counts]


def _threshold(score: Tensor, count: int) -> tuple[Any, int]:
    """Return the `count`-th largest |s|, and how many too many are as large; infinity for the 0th."""
    flat: Any = _in_memory(score).numpy()
    if count == 0:
        return flat.dtype.type(math.inf), 0
    kind = np.int64 if flat.dtype == np.float64 else np.int32
    sizes = flat.view(kind) & np.iinfo(kind).max  # without the sign, whole numbers in the order of |s|
    below = len(sizes) - count
    sizes.partition(below)
    return sizes[below : below + 1].view(flat.dtype)[0], int(np.count_nonzero(sizes[:below] == sizes[below]))


def marked(scores: Tensor, count: int) -> Tensor:
    """Mark the `count` largest |s| of each network in `scores` (R, *shape), without waiting for the device."""
    if count == 0:
        return torch.zeros_like(scores, dtype=torch.bool)
    sizes = scores.abs().flatten(1)
    least = sizes.topk(count, sorted=False).values.amin(1, keepdim=True)
    mask, ties = sizes >= least, sizes == least
    surplus = torch.count_nonzero(mask, 1).unsqueeze(1) - count
    ranks = ties.flatten().cumsum(0).view_as(ties)  # through all rows: for each by itself it takes longer on a GPU
    return (mask & ~(ties & (ranks - ranks[:, :1] + ties[:, :1] <= surplus))).view(scores.shape)


def _keep(kept: Tensor, values: Tensor, scores: Tensor, start: int, stop: int, count: int) -> Tensor:
    """Write into `kept` what `largest` keeps of networks start … stop − 1."""
    return torch.mul(values[start:stop], marked(scores[start:stop], count), out=kept[start:stop])


def _runs(counts: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """Yield first, end and count of neighbours that keep the same number."""
    start = 0
    for count, run in groupby(counts):
        stop = start + len(list(run))
        yield start, stop, count
        start = stop


def _in_memory(tensor: Tensor) -> Tensor:
    """Return `tensor` flattened in the order of its memory."""
    strides = tensor.stride()
    return tensor.permute(sorted(range(tensor.dim()), key=lambda dim: -strides[dim])).flatten()


def _uniform(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    bound = 1 / math.sqrt(math.prod(shape[1:]))
    return torch.empty(tuple(shape)).uniform_(-bound, bound, generator=generator)


def _signed(values: Tensor, scores: Tensor) -> Tensor:
    """Multiply `values` by sign s, in place and in one pass; the sign of 0 is −1 here, and no score stays 0."""
    signed: Tensor = _aten.leaky_relu_backward.grad_input(values, scores, -1.0, False, grad_input=values)
    return signed


def _through_sigmoid(values: Tensor, probability: Tensor) -> Tensor:
    """Multiply `values` by p(1 − p), in place and in one pass."""
    through: Tensor = _aten.sigmoid_backward.grad_input(values, probability, grad_input=values)
    return through


def _signs(theta: Tensor) -> Tensor:
    """Return 1 or −1 for each entry; that of 0 is 1."""
    return torch.ge(theta, 0, out=torch.empty_like(theta)).mul_(2).sub_(1)


def _summed(tensor: Tensor) -> Tensor:
    """Return the sum of each network, (R, 1, …)."""
    return tensor.sum(dim=tuple(range(1, tensor.dim())), keepdim=True)

"""Survivors: (evidence, masks) -> weights, what the weights that stay are set to (all parameters and buffers).

Each round starts from the run's own rewind point. The code of Zhou et al. (2019) changes what the round before began
with, so that its changes add up. Where whole layers are permuted the distribution is the same, for a permutation of a
permutation is one, and kept signs stay kept. Where kept weights are permuted among themselves it is not: ours are those
of the mask itself, theirs a sample of those of the masks before.
"""

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from ltl.masks import Masks, Tensors, dense, shuffled_weights
from ltl.pruning.allocation import lowest
from ltl.pruning.evidence import Evidence


def rewound(evidence: Evidence, masks: Masks) -> Tensors:
    """Back to the rewind point: θ₀ (Frankle & Carbin 2019), or θ_k with late rewinding (Frankle et al. 2020)."""
    return evidence.theta_k


def trained(evidence: Evidence, masks: Masks) -> Tensors:
    """Kept as they were trained: fine-tuning, or learning-rate rewinding (Renda et al. 2020)."""
    return evidence.weights


def reinitialised(evidence: Evidence, masks: Masks) -> Tensors:
    """A fresh initialisation, drawn independently of θ₀ (Frankle & Carbin 2019, §2)."""
    return evidence.initialise(evidence.generator)


def permuted(
    evidence: Evidence, masks: Masks, *, among: Literal["layer", "kept"], signs: Literal["moved", "kept"]
) -> Tensors:
    """The weights of the rewind point in random order, layer by layer (Zhou et al. 2019, §3).

    among: the whole `layer` (the paper's reinit, which its code does in this way), or the `kept` weights among the kept
    positions (reshuffle). signs: `moved` with the weights, or `kept` at their positions, where magnitudes alone move.
    """
    places = masks if among == "kept" else dense(masks)
    start = shuffled_weights(evidence.theta_k, places, evidence.generator)
    if signs == "kept":
        start |= {name: start[name].abs() * torch.sign(evidence.theta_k[name]) for name in masks}
    return start


def constant(evidence: Evidence, masks: Masks, *, signs: Literal["moved", "kept"]) -> Tensors:
    """α·sign(θ_k), α the standard deviation of the layer's θ₀ (Zhou et al. 2019, §3).

    signs: `kept` at their positions, or `moved`, permuted within each layer. Sums of equal magnitudes are often exactly
    0; with biases of 0, rounding then decides on ReLU's gradient, and with it the order of additions.
    """
    start = dict(evidence.theta_k)
    for name in masks:
        start[name] = torch.sign(evidence.theta_k[name]) * _deviation(evidence.theta_0[name])
    return start if signs == "kept" else shuffled_weights(start, dense(masks), evidence.generator)


def noised(evidence: Evidence, masks: Masks, *, deviations: float) -> Tensors:
    """The rewind point plus Gaussian noise of `deviations` times the standard deviation of the layer's θ₀.

    Frankle & Carbin 2019, App. F.7, add it to tickets that were found without; here the round's training, and so the
    next mask, has it too.
    """
    start = dict(evidence.theta_k)
    for name in masks:
        theta = evidence.theta_k[name]
        noise = torch.randn(theta.shape, generator=evidence.generator).to(theta)
        start[name] = theta + deviations * _deviation(evidence.theta_0[name]) * noise
    return start


def quantised(evidence: Evidence, masks: Masks, *, bits: int) -> Tensors:
    """The rewind point in 2^bits equal steps of each layer's range ±max|θ_k|, every weight in the middle of its step.

    One bit is the sign times a constant.
    """
    start = dict(evidence.theta_k)
    for name in masks:
        theta = evidence.theta_k[name]
        step = (theta.abs().max() / 2 ** (bits - 1)).clamp(min=torch.finfo(theta.dtype).tiny)  # of a layer of zeros
        level = (theta.abs() / step).floor().clamp(max=2 ** (bits - 1) - 1)
        start[name] = torch.sign(theta) * (level + 0.5) * step
    return start


def rescaled(evidence: Evidence, masks: Masks, *, survivors: Callable[[Evidence, Masks], Tensors]) -> Tensors:
    """What another such function gives, divided by each layer's density (as in the code of Zhou et al. 2019)."""
    start = dict(survivors(evidence, masks))
    for name, mask in masks.items():
        start[name] = start[name] * (mask.numel() / max(1, int(torch.count_nonzero(mask))))
    return start


def fan_scaled(evidence: Evidence, masks: Masks, *, survivors: Callable[[Evidence, Masks], Tensors]) -> Tensors:
    """What another such function gives, divided by the root of each layer's density (Ramanujan et al. 2020).

    With Kaiming's initialisers the variance is then 2/(k·fan_in), k the density. The authors' code has 1 − k in its
    place, the same at a half alone.
    """
    start = dict(survivors(evidence, masks))
    for name, mask in masks.items():
        start[name] = start[name] * math.sqrt(mask.numel() / max(1, int(torch.count_nonzero(mask))))
    return start


def zeroed(
    evidence: Evidence,
    masks: Masks,
    *,
    weights: Literal["pruned", "all"],
    where: Literal["shrank", "grew", "random"],
) -> Tensors:
    """The rewind point, but 0 where the magnitude `shrank` in training (Zhou et al. 2019, §4: variants 1 and 2).

    weights: the `pruned` ones alone, for `fillers.as_set` to hold, or `all`. where: `grew` turns the rule around, and
    `random` takes as many of those that were just pruned, anywhere in the layer: the paper's controls. What was decided
    when a weight was pruned stays: its weight is held at 0 or at θ_k, and one at either of these is left there.
    """
    start = dict(evidence.theta_k)
    for name, mask in masks.items():
        theta, now = evidence.theta_k[name], evidence.weights[name]
        zero = now.abs() < theta.abs()
        if where == "grew":
            zero = (now == 0) | (now.abs() > theta.abs())
        elif where == "random":
            undecided = ~mask & (now != 0) & (now != theta)
            chance = torch.rand(mask.shape, generator=evidence.generator).to(mask.device)
            zero = zero & ~undecided | lowest(chance, undecided, int(torch.count_nonzero(zero & undecided)))
        start[name] = theta.masked_fill(zero & ~mask if weights == "pruned" else zero, 0)
    return start


def _deviation(weight: Tensor) -> Tensor:
    return weight.std(correction=0)

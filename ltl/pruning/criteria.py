"""Criteria: evidence -> scores, one real number a prunable weight; the lowest scores are pruned first."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from ltl.masks import Tensors
from ltl.pruning.evidence import Evidence


def final_magnitude(evidence: Evidence) -> Tensors:
    """|θ_T|: the magnitude after this round's training (Frankle & Carbin 2019, §2)."""
    return {name: evidence.weights[name].abs() for name in evidence.masks}


def initial_magnitude(evidence: Evidence) -> Tensors:
    """|θ₀|: the magnitude before any training (Frankle & Carbin 2019, App. F.4)."""
    return {name: evidence.theta_0[name].abs() for name in evidence.masks}


def random(evidence: Evidence) -> Tensors:
    """Uniform scores: every survivor is equally likely to go."""
    return {
        name: torch.rand(mask.shape, generator=evidence.generator).to(mask.device)
        for name, mask in evidence.masks.items()
    }


def magnitude_increase(evidence: Evidence) -> Tensors:
    """|θ_T| − |θ₀|: how much the magnitude grew (Zhou et al. 2019, §2); equal scores go in random order."""
    increase = {name: evidence.weights[name].abs() - evidence.theta_0[name].abs() for name in evidence.masks}
    return in_random_order(increase, evidence.generator)


def movement(evidence: Evidence) -> Tensors:
    """|θ_T − θ₀|: how far each weight moved (Zhou et al. 2019, §2); equal scores go in random order."""
    distance = {name: (evidence.weights[name] - evidence.theta_0[name]).abs() for name in evidence.masks}
    return in_random_order(distance, evidence.generator)


def large_init_large_final(evidence: Evidence) -> Tensors:
    """The lower of the percentiles that |θ₀| and |θ_T| have among the survivors of their layer (Zhou et al. 2019, §2).

    To keep what scores p or more is to keep |θ₀| ≥ q(p) and |θ_T| ≥ q′(p) with one common percentile p: what the
    paper's code looks for by bisection, exactly. Equal scores go in random order.
    """
    return _lower_percentile(evidence, 1)


def small_init_small_final(evidence: Evidence) -> Tensors:
    """As `large_init_large_final`, of −|θ₀| and −|θ_T| (Zhou et al. 2019, §2)."""
    return _lower_percentile(evidence, -1)


def inverted(evidence: Evidence, *, criterion: Callable[[Evidence], Tensors]) -> Tensors:
    """The scores of another criterion, negated: what it prunes first goes last."""
    return {name: -score for name, score in criterion(evidence).items()}


def with_sign(
    evidence: Evidence, *, criterion: Callable[[Evidence], Tensors], sign: Literal["same", "different"]
) -> Tensors:
    """The scores of another criterion where θ_T has the `same` sign as θ₀, or a `different` one (Zhou et al. 2019, §5).

    All other weights score below these and go first, in random order. The paper sets their scores to 0, which is the
    same for magnitudes; but in its code a weight of the right sign that shrank has a negative magnitude increase and
    goes before those of the wrong sign, which turns the criterion around. A weight that is 0 has neither sign.
    """
    wanted = 1 if sign == "same" else -1
    signs, scores = same_sign(evidence), {}
    for name, score in criterion(evidence).items():
        fails = signs[name] != wanted
        scores[name] = score.masked_fill(fails & torch.isfinite(score), torch.finfo(score.dtype).min)
    return in_random_order(scores, evidence.generator)


def same_sign(evidence: Evidence) -> Tensors:
    """1 where θ_T has the sign of θ₀, −1 where it has the other one, 0 where either is 0 (Zhou et al. 2019, §5)."""
    return {name: torch.sign(evidence.weights[name]) * torch.sign(evidence.theta_0[name]) for name in evidence.masks}


def in_random_order(scores: Tensors, generator: torch.Generator) -> Tensors:
    """Return the ranks of `scores` over all layers, from 0, equal ones in random order; NaN for what is not finite."""
    flat = torch.cat([score.flatten() for score in scores.values()])
    shuffled = torch.randperm(len(flat), generator=generator).to(flat.device)
    order = shuffled[flat[shuffled].sort(stable=True).indices]
    ranks = torch.empty(len(flat), dtype=torch.float64, device=flat.device)  # exact up to 2⁵³
    ranks[order] = torch.arange(len(flat), dtype=torch.float64, device=flat.device)
    ranks[~torch.isfinite(flat)] = torch.nan
    parts = torch.split(ranks, [score.numel() for score in scores.values()])
    return {name: part.view(scores[name].shape) for name, part in zip(scores, parts, strict=True)}


def _lower_percentile(evidence: Evidence, sign: int) -> Tensors:
    lower = {}
    for name, mask in evidence.masks.items():
        states = (evidence.theta_0[name], evidence.weights[name])
        lower[name] = torch.minimum(*(_percentiles(sign * state.abs(), mask) for state in states))
    return in_random_order(lower, evidence.generator)


def _percentiles(values: Tensor, among: Tensor) -> Tensor:
    """The fraction of those `among` that do not exceed each of `values`; NaN where that is no finite number."""
    counts = torch.searchsorted(values[among].sort().values, values.contiguous(), right=True)
    return torch.where(torch.isfinite(values), counts.double() / torch.count_nonzero(among), torch.nan)

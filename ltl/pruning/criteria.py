"""Criteria: evidence -> scores, one real number a prunable weight; the lowest scores are pruned first."""

import torch

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

"""Fillers: (evidence, masks) -> weights, what the pruned entries are set to and held at."""

import torch

from ltl.masks import Masks, Tensors
from ltl.pruning.evidence import Evidence


def zero(evidence: Evidence, masks: Masks) -> Tensors:
    """Exactly 0, the usual meaning of pruned."""
    return {name: torch.zeros_like(evidence.weights[name]) for name in masks}


def initial(evidence: Evidence, masks: Masks) -> Tensors:
    """Frozen at θ₀ (Zhou et al. 2019, §4)."""
    return {name: evidence.theta_0[name] for name in masks}


def as_set(evidence: Evidence, masks: Masks) -> Tensors:
    """Frozen at what `survivors` set them to, where it decides about pruned weights too (Zhou et al. 2019, §4)."""
    return {name: evidence.weights[name] for name in masks}

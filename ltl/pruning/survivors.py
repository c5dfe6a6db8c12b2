"""Survivors: (evidence, masks) -> weights, what the weights that stay are set to (all parameters and buffers)."""

from ltl.masks import Masks, Tensors
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

"""What a pruning function may look at."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from ltl.masks import Masks, Tensors


@dataclass(frozen=True)
class Evidence:
    """All that is known of one network when it is pruned; tensors are keyed by parameter (or buffer) name."""

    weights: Tensors  # parameters and buffers now, or as the event says those of the trained dense network
    theta_0: Tensors  # at initialisation
    theta_k: Tensors  # at the rewind point
    masks: Masks  # m before this pruning
    generator: torch.Generator  # of the mask stream, keyed by round
    initialise: Callable[[torch.Generator], Tensors]  # draws a fresh initialisation

"""Dropout that draws from a generator of its own, never from the global one (DESIGN §6)."""

import torch
from torch import Tensor, nn

from ltl.errors import LtlError


class Dropout(nn.Module):
    """Set each unit to 0 with probability `p` in training and scale the others by 1/(1 − p) (Srivastava et al. 2014).

    `generator` must be set, on the device of the inputs, before the first training step; evaluation needs none.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise LtlError(f"model.dropout is the fraction of units to drop and must lie in [0, 1), got {p}.")
        self.p = p
        self.generator: torch.Generator | None = None

    def forward(self, inputs: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return inputs
        if self.generator is None:
            raise LtlError("model.dropout draws from its own stream: set the Dropout module's `generator` first.")
        kept = torch.empty_like(inputs).bernoulli_(1 - self.p, generator=self.generator)
        return inputs * kept / (1 - self.p)

    def extra_repr(self) -> str:
        return f"p={self.p}"

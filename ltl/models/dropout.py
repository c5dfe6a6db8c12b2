"""Dropout that draws from a generator of its own, never from the global one (docs/concepts.md)."""

import torch
from torch import Tensor, nn

from ltl.errors import LtlError


class Dropout(nn.Module):
    """Set each unit to 0 with probability `p` in training and scale the others by 1/(1 − p) (Srivastava et al. 2014).

    `generator` must be set, on the device of the inputs, before the first training step; evaluation needs none. Where
    networks are computed together, `kept` is set instead: what was drawn for each of them.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise LtlError(f"model.dropout is the fraction of units to drop and must lie in [0, 1), got {p}.")
        self.p = p
        self.generator: torch.Generator | None = None
        self.kept: Tensor | None = None

    def forward(self, inputs: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return inputs
        if self.kept is not None:
            return inputs * self.kept / (1 - self.p)
        if self.generator is None:
            raise LtlError("model.dropout draws from its own stream: set the Dropout module's `generator` first.")
        return inputs * self.draw(inputs, self.generator) / (1 - self.p)

    def draw(self, like: Tensor, generator: torch.Generator) -> Tensor:
        """Return which units are kept (1 or 0) of a tensor of the shape and type of `like`."""
        return torch.empty_like(like).bernoulli_(1 - self.p, generator=generator)

    def extra_repr(self) -> str:
        return f"p={self.p}"

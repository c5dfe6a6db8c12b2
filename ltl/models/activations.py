"""What hidden units do with their sums: ReLU, or a sign whose gradient is that of a smooth step."""

from typing import Any

import torch
from torch import Tensor, nn

from ltl.errors import LtlError


class Sign(nn.Module):
    """1 where an input is 0 or more, else −1; going back, the slope of a piecewise quadratic (Liu et al. 2018).

    The gradient is 2 (1 − |x|)₊, that of the step of width 2 from −1 to 1 that is 2x + x² below 0 and 2x − x² above,
    as binary activations are trained in Diffenderfer & Kailkhura (2021).
    """

    def forward(self, inputs: Tensor) -> Tensor:
        signs: Tensor = _Sign.apply(inputs)  # type: ignore[no-untyped-call]
        return signs


class _Sign(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor) -> Tensor:
        ctx.save_for_backward(inputs)
        return torch.ge(inputs, 0).to(inputs.dtype).mul_(2).sub_(1)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> Tensor:
        (inputs,) = ctx.saved_tensors
        slope: Tensor = (1 - inputs.abs()).clamp_(min=0).mul_(2)
        return slopes[0] * slope


ELEMENTWISE = (Sign, nn.ReLU, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Tanh, nn.Sigmoid, nn.Identity)


def activation(name: str) -> nn.Module:
    """Return the module called `name`, relu or sign; LtlError for any other."""
    if name == "relu":
        return nn.ReLU()
    if name == "sign":
        return Sign()
    raise LtlError(f"model.activation={name} is not possible: it must be relu or sign.")

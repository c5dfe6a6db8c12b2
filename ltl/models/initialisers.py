"""Initial weights θ₀: distributions for one weight tensor, and a whole network filled from one generator."""

import math
from typing import Protocol

import torch
from torch import Tensor, nn

from ltl.errors import LtlError
from ltl.masks import prunable

BATCH_NORM = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_RANDOM = (
    *(nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout),
    nn.RReLU,
)
BATCH_NORM_START = {"weight": 1, "bias": 0, "running_mean": 0, "running_var": 1, "num_batches_tracked": 0}


class WeightInit(Protocol):
    """Fill one weight tensor of shape (outputs, inputs, *kernel) in place with draws of `generator`."""

    def __call__(self, weight: Tensor, *, generator: torch.Generator) -> None: ...


def initialise(network: nn.Module, *, weight_init: WeightInit, generator: torch.Generator) -> None:
    """Fill every parameter and buffer of `network`: weights by `weight_init` in order of definition, biases with 0.

    BatchNorm starts as the identity (weight 1, bias 0, mean 0, variance 1). Draws are made in float32 on the
    generator's device, so that neither the network's device nor its memory format changes a bit of θ₀. LtlError for a
    parameter or buffer of any other kind, and for a module that draws from PyTorch's global generator.
    """
    weights = set(prunable(network))
    for prefix, module in network.named_modules():
        if isinstance(module, _RANDOM):
            raise LtlError(
                f"model: {prefix or 'it'} is a torch.nn.{type(module).__name__}, whose draws no seed of the run fixes: "
                "use ltl.models.dropout.Dropout, which draws from a generator of its own."
            )
        for name, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
            path = f"{prefix}.{name}".lstrip(".")
            with torch.no_grad():
                if path in weights:
                    draw = torch.empty(tensor.shape, dtype=torch.float32, device=generator.device)
                    weight_init(draw, generator=generator)
                    tensor.copy_(draw)
                elif isinstance(module, BATCH_NORM):
                    tensor.fill_(BATCH_NORM_START[name])
                elif name == "bias" and f"{path.removesuffix('bias')}weight" in weights:
                    tensor.zero_()
                else:
                    raise LtlError(
                        f"model: {path} of {type(module).__name__} cannot be initialised: only the parameters of "
                        "linear, convolution and BatchNorm layers can; build the model from these."
                    )


def glorot_normal(weight: Tensor, *, generator: torch.Generator) -> None:
    """Draw from N(0, 2/(fan_in + fan_out)) (Glorot & Bengio 2010); not cut off at 2σ as in TensorFlow's version."""
    nn.init.xavier_normal_(weight, generator=generator)


def kaiming_normal(weight: Tensor, *, generator: torch.Generator) -> None:
    """Draw from N(0, 2/fan_in) (He et al. 2015, for ReLU)."""
    nn.init.kaiming_normal_(weight, nonlinearity="relu", generator=generator)


def kaiming_uniform(weight: Tensor, *, generator: torch.Generator) -> None:
    """Draw from U(−b, b), b = √(6/fan_in), which has the variance of `kaiming_normal` (He et al. 2015)."""
    nn.init.kaiming_uniform_(weight, nonlinearity="relu", generator=generator)


def signed_constant(weight: Tensor, *, generator: torch.Generator) -> None:
    """Set every weight to ±√(2/fan_in), with the signs of `kaiming_normal` (Ramanujan et al. 2020)."""
    kaiming_normal(weight, generator=generator)
    deviation = math.sqrt(2 / weight[0].numel())
    weight.copy_(torch.where(weight < 0, -deviation, deviation))


def orthogonal(weight: Tensor, *, gain: float, generator: torch.Generator) -> None:
    """Draw a matrix (outputs, inputs·kernel) with orthogonal rows or columns of norm `gain` (Saxe et al. 2014)."""
    nn.init.orthogonal_(weight, gain=gain, generator=generator)

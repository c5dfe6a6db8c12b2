"""Wider and narrower networks of one family, such as a small dense one of as many weights as a ticket."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from ltl.errors import LtlError
from ltl.masks import prunable


def scaled(model: "partial[nn.Module]", scale: float) -> "partial[nn.Module]":
    """Return `model` with every width multiplied by `scale`, rounded, at least 1.

    The model class lists the keywords that are numbers of units or channels in `WIDTHS`; LtlError if it does not, or if
    the model is not given one of them.
    """
    names: Sequence[str] = getattr(model.func, "WIDTHS", ())
    if not names:
        raise LtlError(
            f"model: {model.func} does not list the keywords of its widths in WIDTHS, which control=small_dense and "
            "model.width_factor scale."
        )
    if absent := [name for name in names if name not in model.keywords]:
        raise LtlError(
            f"model.{absent[0]} is missing: WIDTHS of {model.func} names it as a width, so give it a value, or leave "
            "it out of WIDTHS."
        )
    return partial(model, **{name: _scale(model.keywords[name], scale) for name in names})


def smaller(model: "partial[nn.Module]", weights: int, shape: Mapping[str, Any]) -> "partial[nn.Module]":
    """Return the widest scaled version of `model` with at most `weights` prunable weights (at least width 1).

    `shape` are the model's input_shape and outputs. Found by bisection: the count grows with the scale.
    """
    low, high = 0.0, 1.0
    for _ in range(24):
        middle = (low + high) / 2
        if count(scaled(model, middle), shape) <= weights:
            low = middle
        else:
            high = middle
    return scaled(model, low)


def count(model: "partial[nn.Module]", shape: Mapping[str, Any]) -> int:
    """Return the number of prunable weights of the network that `model` builds, without allocating it."""
    with torch.device("meta"):
        network = model(**shape)
    return sum(math.prod(network.get_parameter(name).shape) for name in prunable(network))


def _scale(width: Any, scale: float) -> Any:
    return max(1, round(width * scale)) if isinstance(width, int) else [_scale(one, scale) for one in width]

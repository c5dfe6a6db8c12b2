"""A masked random network of twice the depth that computes what a trained one does: Pensia et al. 2020, section 3."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ltl.errors import LtlError
from ltl.masks import Tensors, density, kept, mask_sha256, tensors_sha256
from ltl.tickets import Ticket, effective

# Units beyond those needed, so that the last inputs find enough of either sign: fewer would be short of them too often.
SPARE = 64

Choose = Callable[[Tensor, Tensor], Tensor]
"""Masks (b, n) of those of the coefficients (b, n) whose sum is to be near the targets (b,)."""


class Pair(NamedTuple):
    """Two random layers V·relu(U·) in the place of one layer W·, their masks, and what they make of W."""

    first: Tensor  # U (units, in)
    second: Tensor  # V (out, units)
    first_mask: Tensor
    second_mask: Tensor
    sums: Sequence[Tensor]  # (out, in): the weights that inputs above 0 meet, and with `signed` those below 0

    def __call__(self, inputs: Tensor) -> Tensor:
        """Return the outputs (b, out) of the layer with the sums in the place of its weights, for inputs (b, in)."""
        parts = (inputs.clamp(min=0), inputs.clamp(max=0))
        outputs = [F.linear(part, weights) for part, weights in zip(parts, self.sums, strict=False)]
        return torch.stack(outputs).sum(0)


def replaced(weight: Tensor, *, n: int, signed: bool, choose: Choose, generator: torch.Generator) -> Pair:
    """Return random layers with masks that approximate `weight` (out, in), each entry by n products v·|u|.

    U is drawn from U[−1, 1], V from U[−s, s] with s = max |weight|. Each input has n hidden units to itself at which u
    is above 0, and with `signed` n more at which it is below 0, which see its negative part; all outputs share them.
    Units go to inputs by the signs they were drawn with, so that none needs to be drawn again. Of the products of an
    input and an output `choose` takes some, for each sign by itself. LtlError if the draw lacks units of a sign.
    """
    outputs, inputs = weight.shape
    signs = (1, -1) if signed else (1,)
    units = n * inputs * len(signs) + SPARE

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, dtype=weight.dtype) * 2 - 1

    first, second = uniform(units, inputs), uniform(outputs, units) * weight.abs().max()
    first_mask, second_mask = (torch.zeros_like(layer, dtype=torch.bool) for layer in (first, second))
    sums = [torch.zeros_like(weight) for _ in signs]
    free = torch.ones(units, dtype=torch.bool)
    for number in range(inputs):
        for sign, found in zip(signs, sums, strict=True):
            own = (free & (sign * first[:, number] > 0)).nonzero().flatten()[:n]
            if len(own) < n:
                raise LtlError(f"--n {n}: the random layer lacks units for input {number}: take another --seed.")
            free[own] = False
            products = second[:, own] * first[own, number].abs()
            chosen = choose(products, sign * weight[:, number])
            found[:, number] = sign * (products * chosen).sum(1)
            second_mask[:, own] = chosen
            first_mask[own, number] = chosen.any(0)
    return Pair(first, second, first_mask, second_mask, sums)


def outputs_of(pairs: Sequence[Pair], inputs: Tensor) -> Tensor:
    """Return the outputs (b, out) of the network whose weights are the sums, ReLU between layers, for inputs (b, *)."""
    hidden = inputs.flatten(1)
    for number, pair in enumerate(pairs):
        hidden = pair(F.relu(hidden) if number else hidden)
    return hidden


def weights_of(ticket: Ticket) -> list[Tensor]:
    """Return the weights of a trained perceptron, layer by layer; LtlError if it is another network, or has biases."""
    model = json.loads(ticket.metadata.get("model", "{}"))
    other = model.get("bias", True) or model.get("dropout") or model.get("activation", "relu") != "relu"
    if model.get("_target_") != "ltl.models.lenet.LeNet" or other:
        raise LtlError(
            f"a network of {model.get('_target_', 'an unknown model')} cannot be built from subset sums: train "
            "model=lenet_300_100 with model.bias=false, model.dropout=0.0 and model.activation=relu."
        )
    state = effective(ticket)
    return [state[name] for name in ticket.masks]


def ticket_of(pairs: Sequence[Pair], trained: Ticket, about: Mapping[str, Any]) -> Ticket:
    """Return the masked random network as a ticket: a perceptron of twice the depth of `trained`, never trained."""
    model = json.loads(trained.metadata["model"])
    sizes = [size for pair in pairs for size in (len(pair.first), len(pair.second))]
    model |= {"name": "subset_sum", "widths": sizes[:-1], "width_factor": 1}
    names = [f"fc{number}.weight" for number in range(1, len(sizes))] + ["output.weight"]
    masks = dict(zip(names, (mask for pair in pairs for mask in (pair.first_mask, pair.second_mask)), strict=True))
    state: Tensors = dict(zip(names, (layer for pair in pairs for layer in (pair.first, pair.second)), strict=True))
    same = ("dataset", "input_shape", "outputs", "corruption", "revision", "versions")
    metadata = {
        **{key: trained.metadata[key] for key in same if key in trained.metadata},
        "model": json.dumps(model, sort_keys=True),
        "pruner": "subset_sum",
        "density": str(density(masks)),
        "weights_left": str(kept(masks)),
        "init_sha256": tensors_sha256(state),
        "mask_sha256": mask_sha256(masks),
        **{key: str(value) for key, value in about.items()},
    }
    return Ticket(masks, state, metadata, gains={}, fills={})

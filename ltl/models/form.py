"""Whether a network is one that can be pruned and trained: checked before anything is."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ltl.errors import LtlError
from ltl.masks import prunable
from ltl.models.paths import live


def check_form(network: nn.Module, input_shape: Sequence[int], outputs: int) -> None:
    """LtlError unless `network` has weights to prune, each a parameter of its own, known paths, logits (n, outputs).

    It may be on the meta device, and is left on the CPU, without values.
    """
    if not isinstance(network, nn.Module):
        raise LtlError(f"model: its function returns {type(network).__name__}, and must return a torch.nn.Module.")
    names, own = prunable(network), dict(network.named_parameters())
    if not names:
        raise LtlError(f"model: {type(network).__name__} has no linear or convolution layer to prune.")
    if shared := [name for name in names if name not in own]:
        raise LtlError(
            f"model: {shared[0]} is tied to another weight or parametrised: give each layer a weight of its own."
        )
    given = torch.zeros(2, *input_shape)
    try:
        with torch.no_grad():
            made: object = network.to_empty(device="cpu").eval()(given)
        found = tuple(made.shape) if isinstance(made, Tensor) else type(made).__name__
        if found != (2, outputs):
            raise LtlError(
                f"model: of inputs {tuple(given.shape)} {type(network).__name__} makes {found}, and must make logits "
                f"{(2, outputs)}."
            )
        live(network, input_shape, {name: torch.ones(own[name].shape, dtype=torch.bool) for name in names})
    except RuntimeError as error:
        if "meta" not in str(error):  # of a tensor that is no parameter, and so has no values here
            raise

"""Live weights: which kept weights lie on a path of kept weights from an input to an output ("effective density")."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ltl.errors import LtlError
from ltl.masks import Masks
from ltl.models.activations import ELEMENTWISE
from ltl.models.dropout import Dropout
from ltl.models.initialisers import BATCH_NORM

_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_ELEMENTWISE = (
    *BATCH_NORM,
    *(Dropout, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d),
    *ELEMENTWISE,
)
_AVERAGE = {nn.MaxPool1d: nn.AvgPool1d, nn.MaxPool2d: nn.AvgPool2d, nn.MaxPool3d: nn.AvgPool3d}
_ADAPTIVE_AVERAGE = {
    nn.AdaptiveMaxPool1d: nn.AdaptiveAvgPool1d,
    nn.AdaptiveMaxPool2d: nn.AdaptiveAvgPool2d,
    nn.AdaptiveMaxPool3d: nn.AdaptiveAvgPool3d,
}
_KNOWN = (*_LAYERS, *_AVERAGE.values(), *_ADAPTIVE_AVERAGE.values(), nn.Sequential, nn.Identity, nn.Flatten)

# Between two layers a positive value shrinks at most by the averages over an image, and float64 rounds 0 to less.
_POSITIVE = 1e-9


def live(network: nn.Module, input_shape: Sequence[int], masks: Masks) -> Masks:
    """Return the masks without the weights that no path of kept weights connects to both an input and an output.

    Exact for networks of linear, convolution, BatchNorm, pooling, element-wise and flattening modules, joined by
    additions and concatenations: weights become their mask, every other module passes on whatever reaches it, and a
    weight is live if its gradient is positive. Biases start no path. A weight of a convolution that touches nothing but
    padding at this `input_shape` is dead. Prunable weights without a mask count as kept. LtlError for other modules.
    """
    with torch.inference_mode(False), torch.enable_grad():
        skeleton, weights = _skeleton(network, masks)
        device = next(iter(weights.values())).device
        inputs = torch.ones(1, *input_shape, dtype=torch.float64, device=device)
        names = list(masks)
        outputs = skeleton(inputs)
        gradients = torch.autograd.grad(outputs.sum(), [weights[name] for name in names], allow_unused=True)
    return {
        name: torch.zeros_like(masks[name]) if gradient is None else masks[name] & (gradient > _POSITIVE)
        for name, gradient in zip(names, gradients, strict=True)
    }


def dead_units(live: Masks) -> dict[str, tuple[int, int]]:
    """Return by layer how many (inputs, outputs) have no live weight: features, or channels of a convolution.

    In a grouped convolution an input is the position within its group.
    """
    counts = {}
    for name, mask in live.items():
        pairs = mask.flatten(2).any(2) if mask.dim() > 2 else mask
        counts[name] = (int((~pairs.any(0)).sum()), int((~pairs.any(1)).sum()))
    return counts


def _skeleton(network: nn.Module, masks: Masks) -> tuple[nn.Module, dict[str, Tensor]]:
    """Copy `network` with masks for weights and with every other module as one that only passes values on."""
    memo: dict[int, Any] = {}  # what deepcopy puts in the place of an object, by the object's id
    weights: dict[str, Tensor] = {}
    for path, module in network.named_modules():
        if isinstance(module, _LAYERS):
            if parametrize.is_parametrized(module):
                raise LtlError(f"model: the effective density is not defined for {path}, whose weight is parametrised.")
            name = f"{path}.weight".lstrip(".")
            kept = masks[name] if name in masks else torch.ones_like(module.weight)
            weights[name] = memo[id(module.weight)] = nn.Parameter(kept.to(torch.float64))
        elif isinstance(module, _ELEMENTWISE):
            memo[id(module)] = nn.Identity()
        elif type(module) in _AVERAGE:
            memo[id(module)] = _AVERAGE[type(module)](
                module.kernel_size, module.stride, module.padding, ceil_mode=module.ceil_mode
            )
        elif type(module) in _ADAPTIVE_AVERAGE:
            memo[id(module)] = _ADAPTIVE_AVERAGE[type(module)](module.output_size)
    skeleton = copy.deepcopy(network, memo)
    for path, module in skeleton.named_modules():
        if isinstance(module, _LAYERS):
            module.bias = None
            module.register_forward_hook(_binary)
        elif not isinstance(module, _KNOWN) and (_own_parameters(module) or not list(module.children())):
            module.register_forward_pre_hook(_refusal(path))
    return skeleton, weights


def _own_parameters(module: nn.Module) -> bool:
    return next(module.parameters(recurse=False), None) is not None


def _binary(layer: nn.Module, inputs: tuple[Tensor, ...], outputs: Tensor) -> Tensor:
    """Turn what leaves a layer, and the gradient that enters it, into 0 and 1: no depth makes it overflow or vanish."""
    reached = (outputs > _POSITIVE).to(outputs.dtype)
    binary = outputs + (reached - outputs).detach()
    binary.register_hook(lambda gradient: (gradient > _POSITIVE).to(gradient.dtype))  # type: ignore[no-untyped-call]
    return binary


def _refusal(path: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
    def refuse(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        raise LtlError(
            f"model: the effective density is not defined for {path or 'the model'}, a {type(module).__name__}: paths "
            "are known through linear, convolution, BatchNorm, pooling, dropout and element-wise modules."
        )

    return refuse

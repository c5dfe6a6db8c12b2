"""Networks of few channels that pass as one of many: block-diagonal kernels keep them apart, and fill a GPU."""

import torch
from torch import Tensor, nn

from ltl.models.activations import ELEMENTWISE

_CHANNELS = 64  # of the narrowest layer when several pass as one; more gained nothing (docs/performance.md)
_POOLS = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveMaxPool2d, nn.AdaptiveAvgPool2d)


def mergeable(network: nn.Module) -> int:
    """Return how many networks of this architecture may pass as one: 1 if it is unknown or has enough channels.

    Known are sequences of convolutions, BatchNorm, pooling and element-wise layers, then a flattening one and linear
    layers, each of exactly that type, as a subclass may compute something else. A module with a `forward` of its own
    says by `CHANNELWISE = True` that all it does itself, such as adding a shortcut, it does to each channel alike.
    """
    flat, channels = False, []
    for module in network.modules():
        if type(module) is nn.Conv2d and module.groups == 1 and not flat:
            channels.append(module.out_channels)
        elif type(module) is nn.Flatten and (module.start_dim, module.end_dim) == (1, -1):
            flat = True
        elif not (
            type(module) in ELEMENTWISE
            or (type(module) is nn.Linear and flat)
            or (type(module) in _POOLS and not flat)
            or (type(module) is (nn.BatchNorm1d if flat else nn.BatchNorm2d) and module.momentum is not None)
            or type(module).forward is nn.Sequential.forward
            or getattr(module, "CHANNELWISE", False)
        ):
            return 1
    return max(1, _CHANNELS // min(channels)) if channels else 1


def merged(tensor: Tensor, *, product: bool) -> Tensor:
    """Return what networks that pass as one have in place of `tensor` (g, *shape), one of their parameters or buffers.

    The weight of a linear or convolution layer (`product`) becomes block-diagonal, (g·out, g·in, *), in the layout that
    it has; anything else is laid end to end, as a view where that is possible.
    """
    if not product:
        return tensor.flatten(0, 1)
    spread = torch.diag_embed(tensor.movedim(0, -1))  # (out, in, *, g, g)
    (size, outputs, inputs), kernel = tensor.shape[:3], range(2, tensor.dim() - 1)
    last = spread.dim() - 1
    if tensor.dim() == 5 and not tensor[0].is_contiguous():
        whole = spread.permute(last - 1, 0, *kernel, last, 1).reshape(size * outputs, *tensor.shape[3:], size * inputs)
        return whole.movedim(-1, 1)  # channels-last
    return spread.permute(last - 1, 0, last, 1, *kernel).reshape(size * outputs, size * inputs, *tensor.shape[3:])


def merged_inputs(inputs: Tensor) -> Tensor:
    """Return images (g, b, channels, height, width) as (b, g·channels, height, width), in the layout that they have."""
    if inputs[0].is_contiguous():
        return inputs.transpose(0, 1).flatten(1, 2)
    return inputs.permute(1, 3, 4, 0, 2).flatten(3).movedim(-1, 1)


def separated(outputs: Tensor, size: int) -> Tensor:
    """Return outputs (b, g·classes) of `size` networks that passed as one, as (g, b, classes)."""
    return outputs.view(len(outputs), size, -1).transpose(0, 1)

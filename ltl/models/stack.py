"""Several networks of one architecture that are computed together: stacked parameters, one forward pass."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
from operator import attrgetter

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.utils import parametrize

from ltl.masks import Tensors
from ltl.models.activations import ELEMENTWISE
from ltl.models.dropout import Dropout
from ltl.models.initialisers import BATCH_NORM
from ltl.models.merging import mergeable, merged, merged_inputs, separated
from ltl.sparse_inputs import SparseBatch
from ltl.streams import beside

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


class Stack(nn.Module):
    """R networks of one architecture: inputs (R, b, *), outputs (R, b, *).

    A single network is called as it is, unless it is to give the bits that it gives among others (`stacked`). Several
    have each parameter and buffer stacked to (R, *shape), the weights of linear layers stored as (R, in, out). Chains
    of linear and element-wise layers and BatchNorm go through batched products; other networks are called one by one,
    on a GPU beside one another and, with `merge` and where they have few channels, some as one (`merging`). Dropout
    draws from each network's generator in training. `compiled` has `torch.compile` write the kernels of training.
    """

    def __init__(self, networks: Sequence[nn.Module], *, stacked: bool, compiled: bool, merge: bool) -> None:
        super().__init__()
        self.size, self.plain = len(networks), not stacked
        self.generators: list[torch.Generator] = []
        layers = dict(networks[0].named_modules())
        self._linear = {f"{path}.weight" for path, module in layers.items() if isinstance(module, nn.Linear)}
        convolutions = {f"{path}.weight" for path, module in layers.items() if isinstance(module, _CONVOLUTIONS)}
        self._products = self._linear | convolutions
        norms = {path: module for path, module in layers.items() if isinstance(module, BATCH_NORM)}
        self._counters = [
            f"{path}.num_batches_tracked"
            for path, norm in norms.items()
            if norm.num_batches_tracked is not None and norm.momentum
        ]
        if self.plain:
            self.network = networks[0]
            self._skeleton = (networks[0],)  # in a tuple: not a submodule
        else:
            states = [dict(chain(one.named_parameters(), one.named_buffers())) for one in networks]
            parameters = {name for name, _ in networks[0].named_parameters()}
            for name in states[0]:
                whole = _laid_out([state[name].detach() for state in states])
                if name in self._linear:
                    whole = whole.mT.contiguous()
                if name in parameters:
                    self.register_parameter(_flat(name), nn.Parameter(whole))
                else:
                    self.register_buffer(_flat(name), whole)
            self._names = list(states[0])
            self._skeleton = (networks[0].to("meta"),)
            for name in self._counters:
                norms[name.rpartition(".")[0]].num_batches_tracked = None  # counted for all at once
        self._mergeable = mergeable(self.skeleton) if merge and not self.plain else 1
        self._dropouts = [module for module in self.skeleton.modules() if isinstance(module, Dropout)]
        self.chain = is_chain(self.skeleton)
        self.takes_sparse = self.chain and _begins_linear(self.skeleton)
        self._call: Callable[..., Tensor] = partial(functional_call, self.skeleton)
        self._compiled = torch.compile(self._call) if compiled and not self._dropouts else None

    @property
    def skeleton(self) -> nn.Module:
        """The network itself, or what all have in common: its tensors hold nothing."""
        return self._skeleton[0]

    @property
    def draws(self) -> bool:
        """Whether training draws random numbers."""
        return bool(self._dropouts)

    def train(self, mode: bool = True) -> "Stack":
        """Set the mode of all networks."""
        self.skeleton.train(mode)
        return super().train(mode)

    def stacked(self, name: str) -> nn.Parameter:
        """Return the parameter that holds `name` of all networks, or the one network's own."""
        return self.network.get_parameter(name) if self.plain else self.get_parameter(_flat(name))

    def seen(self, name: str) -> Tensor:
        """Return what a pass sees of the stacked parameter or buffer `name`, or the one network's own."""
        seen: Tensor = attrgetter(name)(self.network) if self.plain else getattr(self, _flat(name))
        return seen

    def laid_out(self, name: str, tensors: Sequence[Tensor]) -> Tensor:
        """Return one tensor for each network, of the shape of its weight `name`, stacked as `stacked(name)` is."""
        if self.plain:
            return tensors[0]
        whole = torch.stack(list(tensors))
        return whole.mT.contiguous() if name in self._linear else whole

    def turned(self, name: str) -> bool:
        """Return whether weight `name` is stored as (R, in, out)."""
        return not self.plain and name in self._linear

    def parametrise(self, name: str, parametrisation: nn.Module) -> None:
        """Have every pass see what `parametrisation` makes of the stacked weight `name`, computed once a pass."""
        parametrize.register_parametrization(self, _flat(name), parametrisation)

    def original(self, name: str) -> Tensor:
        """Return what the parametrisation of `name` is given."""
        stored: Tensor = self.parametrizations[_flat(name)].original  # type: ignore[union-attr, index]
        return stored

    def batch_norm(self) -> list[nn.Parameter]:
        """Return scales and shifts of BatchNorm."""
        modules = self.skeleton.named_modules()
        layers = [path for path, module in modules if isinstance(module, BATCH_NORM) and module.affine]
        return [self.stacked(f"{path}.{name}") for path in layers for name in ("weight", "bias")]

    def count_batches(self) -> None:
        """Have every BatchNorm know of a further batch."""
        if self._counters:
            torch._foreach_add_([self.seen(name) for name in self._counters], 1)

    def normalised(self, path: str, hidden: Tensor, seen: Callable[[str], Tensor] | None = None) -> Tensor:
        """Return BatchNorm layer `path` of `hidden`, whose dimension 1 holds the units of all networks, R·units.

        `seen` gives its tensors by name, if they are not the stack's own; in training running statistics change.
        """
        layer: nn.BatchNorm1d = self.skeleton.get_submodule(path)  # type: ignore[assignment]
        names = ("running_mean", "running_var", *(("weight", "bias") if layer.affine else ()))
        tensors = {name: (seen or self.seen)(f"{path}.{name}").flatten() for name in names}
        return F.batch_norm(hidden, **tensors, training=layer.training, momentum=layer.momentum or 0.0, eps=layer.eps)

    def at_once(self, device: str) -> int:
        """Return how many networks pass as one: on a processor the zeros between them cost more than they gain."""
        return min(self.size, self._mergeable) if device == "cuda" else 1

    def members(self) -> list[Tensors]:
        """Return each network's parameters and buffers by name, as views on the storage that is trained.

        Those that are parametrised are what a pass sees, and no views.
        """
        if self.plain:
            return [dict(self.network.named_parameters()) | dict(self.network.named_buffers())]
        whole = {name: tensor.detach() for name, tensor in self._tensors().items()}
        return [{name: tensor[number] for name, tensor in whole.items()} for number in range(self.size)]

    def apart(self) -> list[Callable[[Tensor | SparseBatch], Tensor]]:
        """Return the function of each network as it is now, from inputs (b, *) to outputs (b, *)."""
        return [partial(self._alone, state) for state in self.members()]

    def outputs_of(self, weights: Tensors, inputs: Tensor, training: bool) -> Tensor:
        """Return the outputs (b, *) of the architecture with other parameters and buffers, none of which changes.

        `training` says whether BatchNorm takes the statistics of these inputs; dropout never draws.
        """
        modes = {module: module.training for module in self.skeleton.modules()}
        names = [*self._counters, *(name for name, _ in self.skeleton.named_buffers())]
        buffers = {name: weights[name].clone() for name in names} if training else {}
        try:
            for module in modes:
                module.training = training and isinstance(module, BATCH_NORM)
            outputs: Tensor = functional_call(self.skeleton, weights | buffers, (inputs,))
        finally:
            for module, mode in modes.items():
                module.training = mode
        return outputs

    def kept(self, module: Dropout, shape: torch.Size, like: Tensor) -> Tensor:
        """Draw what dropout `module` keeps of every network's tensor of `shape` (b, *): (R, b, *), typed as `like`."""
        return torch.stack([module.draw(like.new_empty(shape), generator) for generator in self.generators])

    def forward(self, inputs: Tensor | SparseBatch) -> Tensor:
        if self.plain and isinstance(inputs, Tensor):
            for module in self._dropouts:
                module.generator = self.generators[0]
            compiled = self._compiled if self.training else None
            outputs: Tensor = compiled({}, (inputs[0],)) if compiled else self.network(inputs[0])
            return outputs.unsqueeze(0)
        if self.training:
            self.count_batches()
        if self.chain or isinstance(inputs, SparseBatch):
            return self._through_chain(inputs, self.seen)
        return self._each(inputs)

    def _alone(self, state: Tensors, inputs: Tensor | SparseBatch) -> Tensor:
        if not isinstance(inputs, SparseBatch):
            outputs: Tensor = functional_call(self.skeleton, state, (inputs,))
            return outputs

        def weights(name: str) -> Tensor:
            return (state[name].mT.contiguous() if name in self._linear else state[name]).unsqueeze(0)

        return self._through_chain(inputs, weights)[0]

    def _tensors(self) -> Tensors:
        """Return what is stacked by name, as (R, *shape)."""
        stored = {name: getattr(self, _flat(name)) for name in self._names}
        return {name: tensor.mT if name in self._linear else tensor for name, tensor in stored.items()}

    def _through_chain(self, inputs: Tensor | SparseBatch, weights: Callable[[str], Tensor]) -> Tensor:
        hidden = inputs
        for path, module in self.skeleton.named_children():
            if isinstance(module, nn.Linear):
                weight = weights(f"{path}.weight")
                bias = None if module.bias is None else weights(f"{path}.bias").unsqueeze(1)
                if isinstance(hidden, SparseBatch):
                    product = hidden.product(weight)
                    hidden = product if bias is None else product + bias
                else:
                    hidden = torch.bmm(hidden, weight) if bias is None else torch.baddbmm(bias, hidden, weight)
            elif isinstance(module, nn.Flatten):
                hidden = hidden if isinstance(hidden, SparseBatch) else hidden.flatten(2)
            elif isinstance(module, nn.BatchNorm1d):
                assert isinstance(hidden, Tensor)
                turned = hidden.transpose(0, 1)
                hidden = self.normalised(path, turned.flatten(1), weights).view(turned.shape).transpose(0, 1)
            elif isinstance(module, Dropout) and module.training:
                assert isinstance(hidden, Tensor)
                module.kept = self.kept(module, hidden.shape[1:], hidden)
                hidden = module(hidden)
                module.kept = None
            else:
                hidden = module(hidden)
        assert isinstance(hidden, Tensor)
        return hidden

    def _each(self, inputs: Tensor) -> Tensor:
        size = self.at_once(inputs.device.type)
        names = [name for name in self._names if name not in self._counters]
        parts = {name: self._parts(name, inputs.device.type, size) for name in names}
        call = (self._compiled if self.training else None) or self._call

        def one(number: int) -> Tensor:
            for module in self._dropouts if self.training else ():
                module.generator = self.generators[number]
            state = {name: part[number] for name, part in parts.items()}
            outputs: Tensor = call(state, (inputs[number],))
            return outputs.unsqueeze(0)

        def several(number: int) -> Tensor:
            mine = inputs[number * size : (number + 1) * size]
            state = {name: merged(part[number], product=name in self._products) for name, part in parts.items()}
            return separated(call(state, (merged_inputs(mine),)), len(mine))

        read = [inputs, *(part[0] for part in parts.values())]
        calls = [partial(one if size == 1 else several, number) for number in range(-(-self.size // size))]
        return torch.cat(beside(calls, inputs.device, read))

    def _parts(self, name: str, device: str, size: int) -> Sequence[Tensor]:
        """Return the networks' own tensors of one name, or `size` networks' as one (size, *shape).

        What autocast would cast for each is cast for all at once.
        """
        whole: Tensor = getattr(self, _flat(name))
        if name in self._products and torch.is_autocast_enabled(device):
            whole = whole.to(torch.get_autocast_dtype(device))
        whole = whole.mT if name in self._linear else whole
        return whole.unbind() if size == 1 else torch.split(whole, size)


def _laid_out(tensors: Sequence[Tensor]) -> Tensor:
    """Stack `tensors` to (R, *shape), each with the strides that the first one has."""
    first = tensors[0]
    whole = first.new_empty_strided((len(tensors), *first.shape), (first.numel(), *first.stride()))
    return whole.copy_(torch.stack(list(tensors)))


def is_chain(network: nn.Module) -> bool:
    """Return whether `network` is a sequence of layers as a perceptron has them.

    They are linear, element-wise or flattening ones, and BatchNorm whose running statistics are moving averages; each
    is there once, and of exactly that type, as a subclass may compute something else.
    """
    if type(network).forward is not nn.Sequential.forward or not isinstance(network, nn.Sequential):
        return False
    return len(network) == len(list(network.children())) and all(
        type(module) in (nn.Linear, Dropout, *ELEMENTWISE)
        or (type(module) is nn.BatchNorm1d and module.track_running_stats and bool(module.momentum))
        or (type(module) is nn.Flatten and (module.start_dim, module.end_dim) == (1, -1))
        for module in network
    )


def _begins_linear(chain: nn.Module) -> bool:
    layers = [module for module in chain.children() if not isinstance(module, nn.Flatten)]
    return bool(layers) and isinstance(layers[0], nn.Linear)


def _flat(name: str) -> str:
    return name.replace(".", "/")  # parameters are not to have dots in their names

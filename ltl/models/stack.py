"""Several networks of one architecture that are computed together: stacked parameters, one forward pass."""

from collections.abc import Callable, Sequence
from itertools import chain

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from ltl.masks import Tensors
from ltl.models.dropout import Dropout
from ltl.models.initialisers import BATCH_NORM
from ltl.sparse_inputs import SparseBatch

_ELEMENTWISE = (nn.ReLU, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Tanh, nn.Sigmoid, nn.Identity)


class Stack(nn.Module):
    """R networks of one architecture: inputs (R, b, *), outputs (R, b, *).

    A single network is called as it is, unless it is to give the bits that it gives among others (`stacked`). Several
    have each parameter and buffer stacked to (R, *shape), the weights of linear layers stored as (R, in, out). Chains
    of linear and element-wise layers go through batched products, anything else through `torch.vmap`. A forward pass
    of all is for training: dropout draws from each network's generator.
    """

    def __init__(self, networks: Sequence[nn.Module], *, stacked: bool) -> None:
        super().__init__()
        self.size, self.plain = len(networks), not stacked
        self.generators: list[torch.Generator] = []
        layers = networks[0].named_modules()
        self._linear = {f"{path}.weight" for path, module in layers if isinstance(module, nn.Linear)}
        if self.plain:
            self.network = networks[0]
            self._skeleton = (networks[0],)  # in a tuple: not a submodule
        else:
            states = [dict(chain(one.named_parameters(), one.named_buffers())) for one in networks]
            parameters = {name for name, _ in networks[0].named_parameters()}
            for name in states[0]:
                whole = torch.stack([state[name].detach() for state in states])
                if name in self._linear:
                    whole = whole.mT.contiguous()
                if name in parameters:
                    self.register_parameter(_flat(name), nn.Parameter(whole))
                else:
                    self.register_buffer(_flat(name), whole)
            self._names = list(states[0])
            self._skeleton = (networks[0].to("meta"),)
        self._dropouts = [module for module in self.skeleton.modules() if isinstance(module, Dropout)]
        self.chain = is_chain(self.skeleton)
        self.takes_sparse = self.chain and not self.plain and _begins_linear(self.skeleton)

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

    def laid_out(self, name: str, tensors: Sequence[Tensor]) -> Tensor:
        """Return one tensor for each network, of the shape of its weight `name`, stacked as `stacked(name)` is."""
        if self.plain:
            return tensors[0]
        whole = torch.stack(list(tensors))
        return whole.mT.contiguous() if name in self._linear else whole

    def members(self) -> list[Tensors]:
        """Return each network's parameters and buffers by name, as views on the storage that is trained."""
        if self.plain:
            return [dict(self.network.named_parameters()) | dict(self.network.named_buffers())]
        whole = {name: tensor.detach() for name, tensor in self._tensors().items()}
        return [{name: tensor[number] for name, tensor in whole.items()} for number in range(self.size)]

    def alone(self, number: int) -> Callable[[Tensor | SparseBatch], Tensor]:
        """Return the function of one network, from inputs (b, *) to outputs (b, *)."""
        if self.plain:
            return self.network
        state = self.members()[number]

        def network(inputs: Tensor | SparseBatch) -> Tensor:
            if isinstance(inputs, SparseBatch):
                return self._through_chain(inputs, lambda name: self.stacked(name)[number : number + 1])[0]
            outputs: Tensor = functional_call(self.skeleton, state, (inputs,))
            return outputs

        return network

    def outputs_of(self, weights: Tensors, inputs: Tensor, training: bool) -> Tensor:
        """Return the outputs (b, *) of the architecture with other parameters and buffers, none of which changes.

        `training` says whether BatchNorm takes the statistics of these inputs; dropout never draws.
        """
        modes = {module: module.training for module in self.skeleton.modules()}
        buffers = {name: weights[name].clone() for name, _ in self.skeleton.named_buffers()} if training else {}
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
        if isinstance(inputs, SparseBatch):
            return self._through_chain(inputs, self.stacked)
        if self.plain:
            for module in self._dropouts:
                module.generator = self.generators[0]
            outputs: Tensor = self.network(inputs[0])
            return outputs.unsqueeze(0)
        return self._through_chain(inputs, self.stacked) if self.chain else self._through_vmap(inputs)

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
            elif isinstance(module, Dropout) and module.training:
                assert isinstance(hidden, Tensor)
                module.kept = self.kept(module, hidden.shape[1:], hidden)
                hidden = module(hidden)
                module.kept = None
            else:
                hidden = module(hidden)
        assert isinstance(hidden, Tensor)
        return hidden

    def _through_vmap(self, inputs: Tensor) -> Tensor:
        shapes = zip(self._dropouts, self._shapes(inputs), strict=True)
        kept = [self.kept(module, shape, inputs) for module, shape in shapes]

        def one(state: Tensors, kept: list[Tensor], inputs: Tensor) -> Tensor:
            for module, mask in zip(self._dropouts, kept, strict=True):
                module.kept = mask
            outputs: Tensor = functional_call(self.skeleton, state, (inputs,))
            return outputs

        outputs: Tensor = vmap(one)(self._tensors(), kept, inputs)
        for module in self._dropouts:
            module.kept = None
        return outputs

    def _shapes(self, inputs: Tensor) -> list[torch.Size]:
        """Return the shapes (b, *) that reach each dropout, in order."""
        shapes: list[torch.Size] = []
        if self._dropouts:
            hooks = [
                module.register_forward_pre_hook(lambda _, given: shapes.append(given[0].shape))
                for module in self._dropouts
            ]
            self.skeleton.eval()(inputs[0].to("meta"))
            self.skeleton.train()
            for hook in hooks:
                hook.remove()
        return shapes


def is_chain(network: nn.Module) -> bool:
    """Return whether `network` is a sequence of linear, element-wise and flattening layers, as a perceptron is."""
    return type(network).forward is nn.Sequential.forward and all(
        isinstance(module, (nn.Linear, Dropout, *_ELEMENTWISE))
        or (isinstance(module, nn.Flatten) and (module.start_dim, module.end_dim) == (1, -1))
        for module in network.children()
    )


def _begins_linear(chain: nn.Module) -> bool:
    layers = [module for module in chain.children() if not isinstance(module, nn.Flatten)]
    return bool(layers) and isinstance(layers[0], nn.Linear)


def _flat(name: str) -> str:
    return name.replace(".", "/")  # parameters are not to have dots in their names

"""Perceptrons trained over their kept weights alone: sparse products, block-diagonal over a stack of networks."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ltl.masks import Masks
from ltl.models.dropout import Dropout
from ltl.models.stack import Stack


class Layer:
    """The kept weights of one layer of R networks: a block-diagonal CSR matrix (R·out, R·in), and its transpose.

    `take` fills it from dense memory; what changes `values` in place from then on changes the matrix.
    """

    def __init__(self, stack: Stack, name: str, masks: Sequence[Tensor]) -> None:
        weight = stack.stacked(name)
        size, (out, features) = len(masks), masks[0].shape
        network, output, feature = torch.stack(list(masks)).nonzero(as_tuple=True)
        row, column = network * out + output, network * features + feature
        self.order = torch.argsort(column * (size * out) + row)  # of the kept weights in the transposed matrix
        inside = output * features + feature if stack.plain else feature * out + output
        self.places = network * (out * features) + inside  # in the memory of the dense weight
        self.counts = [int(torch.count_nonzero(mask)) for mask in masks]
        self.shape, self.own = (size * out, size * features), (out, features)
        self.values = nn.Parameter(weight.new_zeros(len(row)))
        pointers, pointers_t = _compressed(row, size * out), _compressed(column[self.order], size * features)
        columns, columns_t = column.int(), row[self.order].int()
        self._pointers, self._columns = pointers, columns
        self._turned = torch.zeros_like(self.values.data)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # said once in a process: the support of such matrices is in beta
            self.matrix = _csr(pointers, columns, self.values.data, self.shape)
            self.zeros = _csr(pointers, columns, torch.zeros_like(self.values.data), self.shape)
            self._transposed = _csr(pointers_t, columns_t, self._turned, (self.shape[1], self.shape[0]))

    def transposed(self) -> Tensor:
        """Return the transposed matrix."""
        torch.index_select(self.values.data, 0, self.order, out=self._turned)
        return self._transposed

    def alone(self, number: int, dense: Tensor) -> Tensor:
        """Return the matrix (out, in) of one network, filled from `dense`."""
        out, features = self.own
        pointers = self._pointers[number * out : (number + 1) * out + 1]
        first, last = sum(self.counts[:number]), sum(self.counts[: number + 1])
        values = dense.detach().contiguous().view(-1)[self.places[first:last]]
        return _csr(pointers - first, self._columns[first:last] - number * features, values, self.own)

    def take(self, dense: Tensor) -> Tensor:
        """Return the entries of the kept weights in `dense`, a tensor laid out as the weight."""
        return dense.detach().contiguous().view(-1)[self.places]

    def put(self, dense: Tensor, values: Tensor) -> None:
        """Write `values` to the entries of the kept weights in `dense`, in place."""
        dense.detach().view(-1)[self.places] = values.detach()


class _Product(torch.autograd.Function):
    """The product of a sparse and a dense matrix, plus a bias, with the gradient of the kept values alone."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, bias: Tensor | None, inputs: Tensor, layer: Layer) -> Tensor:
        inputs = inputs.to(values.dtype)
        ctx.layer, ctx.bias = layer, None if bias is None else bias.shape
        ctx.save_for_backward(inputs)
        with _no_autocast(inputs.device.type):
            return layer.matrix @ inputs if bias is None else torch.addmm(bias.view(-1, 1), layer.matrix, inputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None, None]:
        (inputs,), (gradient,) = ctx.saved_tensors, gradients
        layer: Layer = ctx.layer
        with _no_autocast(inputs.device.type):
            sampled = torch.sparse.sampled_addmm(layer.zeros, gradient, inputs.t(), beta=0.0).values()
            onward = layer.transposed() @ gradient if ctx.needs_input_grad[2] else None
        return sampled, None if ctx.bias is None else gradient.sum(1).view(ctx.bias), onward, None


class SparseChain:
    """The networks of a stack, all of them perceptrons (`is_chain`), computed from their kept weights alone.

    The dense weights stay what everything else reads and writes; `lifted` takes the kept ones out for as long as
    optimiser steps run, together with their optimiser state, and puts them back.
    """

    def __init__(self, stack: Stack, masks: Sequence[Masks]) -> None:
        self.stack = stack
        self.layers = {name: Layer(stack, name, [one[name] for one in masks]) for name in masks[0]}

    def parameters(self) -> list[nn.Parameter]:
        """Return what is trained: the kept values, and the stack's other parameters."""
        dense = {id(self.stack.stacked(name)) for name in self.layers}
        kept = [layer.values for layer in self.layers.values()]
        return [*kept, *(one for one in self.stack.parameters() if id(one) not in dense)]

    @contextmanager
    def lifted(self, optimizer: Optimizer) -> Iterator[None]:
        """Let `optimizer` step the kept values while the context lasts."""
        pairs = [(self.stack.stacked(name), layer) for name, layer in self.layers.items()]
        for weight, layer in pairs:
            layer.values.data.copy_(layer.take(weight))
            _exchange(optimizer, weight, layer.values)
            for key, slot in optimizer.state.pop(weight, {}).items():
                optimizer.state[layer.values][key] = layer.take(slot) if _of_shape(slot, weight) else slot
        try:
            yield
        finally:
            for weight, layer in pairs:
                layer.put(weight, layer.values)
                _exchange(optimizer, layer.values, weight)
                for key, slot in optimizer.state.pop(layer.values, {}).items():
                    if _of_shape(slot, layer.values):
                        optimizer.state[weight][key] = torch.zeros_like(weight, requires_grad=False, dtype=slot.dtype)
                        layer.put(optimizer.state[weight][key], slot)
                    else:
                        optimizer.state[weight][key] = slot

    def __call__(self, inputs: Tensor) -> Tensor:
        """Return the outputs (R, b, *) for inputs (R, b, *); features run down the rows on the way."""
        self.stack.count_batches()
        size, batch = inputs.shape[:2]
        hidden = inputs.flatten(2).transpose(1, 2).reshape(-1, batch)
        for path, module in self.stack.skeleton.named_children():
            if isinstance(module, nn.Linear):
                layer = self.layers[f"{path}.weight"]
                bias = None if module.bias is None else self.stack.stacked(f"{path}.bias")
                hidden = _Product.apply(layer.values, bias, hidden, layer)  # type: ignore[no-untyped-call]
            elif isinstance(module, nn.BatchNorm1d):
                hidden = self.stack.normalised(path, hidden.unsqueeze(0))[0]
            elif isinstance(module, Dropout):
                kept = self.stack.kept(module, torch.Size((batch, len(hidden) // size)), inputs)
                module.kept = kept.transpose(1, 2).reshape(-1, batch)
                hidden = module(hidden)
                module.kept = None
            elif not isinstance(module, nn.Flatten):
                hidden = module(hidden)
        return hidden.view(size, -1, batch).transpose(1, 2)

    def alone(self, number: int) -> Callable[[Sequence[Tensor]], Tensor]:
        """Return the function of one network as it is now, for evaluations: inputs in columns to outputs (b, *)."""
        state = self.stack.members()[number]
        matrices = {name: layer.alone(number, self.stack.stacked(name)) for name, layer in self.layers.items()}

        def network(columns: Sequence[Tensor]) -> Tensor:
            return torch.cat([few(inputs) for inputs in columns], dim=1).t().contiguous()

        def few(hidden: Tensor) -> Tensor:
            for path, module in self.stack.skeleton.named_children():
                if isinstance(module, nn.Linear):
                    with torch.autocast(hidden.device.type, enabled=False):
                        hidden = matrices[f"{path}.weight"] @ hidden
                    if module.bias is not None:
                        hidden = hidden + state[f"{path}.bias"].unsqueeze(1)
                elif isinstance(module, nn.BatchNorm1d):
                    hidden = self.stack.normalised(path, hidden.unsqueeze(0), state.__getitem__)[0]
                elif not isinstance(module, nn.Flatten):
                    hidden = module(hidden)
            return hidden

        return network

    def gradients(self) -> list[tuple[Tensor, ...]]:
        """Return the gradients of the kept values, each layer's cut into those of each network."""
        layers = self.layers.values()
        return [torch.split(one.values.grad, one.counts) for one in layers if one.values.grad is not None]


def _no_autocast(device: str) -> AbstractContextManager[Any]:
    """Let products keep their type; asked for always, it would take a twentieth of a step of one LeNet."""
    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()


def _csr(pointers: Tensor, columns: Tensor, values: Tensor, shape: tuple[int, int]) -> Tensor:
    return torch.sparse_csr_tensor(pointers, columns, values, shape, check_invariants=False)


def _compressed(rows: Tensor, count: int) -> Tensor:
    pointers = torch.zeros(count + 1, dtype=torch.int32, device=rows.device)
    pointers[1:] = torch.bincount(rows, minlength=count).cumsum(0)
    return pointers


def _of_shape(slot: Any, weight: Tensor) -> bool:
    return isinstance(slot, Tensor) and slot.shape == weight.shape


def _exchange(optimizer: Optimizer, old: Tensor, new: Tensor) -> None:
    for group in optimizer.param_groups:
        group["params"] = [new if one is old else one for one in group["params"]]

"""Perceptrons trained over their kept weights alone: sparse products, block-diagonal over a stack of networks."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ltl.masks import Masks
from ltl.models.dropout import Dropout
from ltl.models.stack import Stack


@dataclass(frozen=True)
class Pattern:
    """Where the kept weights of one layer of R networks are, in a block-diagonal matrix (R·out, R·in) in CSR form."""

    shape: tuple[int, int]
    rows: Tensor  # compressed, int32
    columns: Tensor
    order: Tensor  # of the kept weights in the transposed matrix
    rows_t: Tensor
    columns_t: Tensor
    places: Tensor  # of the kept weights in the memory of the dense weight
    counts: tuple[int, ...]  # of kept weights by network

    @staticmethod
    def of(masks: Sequence[Tensor], weight: Tensor) -> "Pattern":
        """Return the pattern of `masks` (out, in), for a `weight` (R, out, in) or, of one network, (out, in)."""
        stacked = torch.stack(list(masks))
        size, out, features = stacked.shape
        network, output, feature = stacked.nonzero(as_tuple=True)
        row, column = network * out + output, network * features + feature
        order = torch.argsort(column * (size * out) + row)
        strides = weight.stride() if weight.dim() == 3 else (0, *weight.stride())
        return Pattern(
            shape=(size * out, size * features),
            rows=_compressed(row, size * out),
            columns=column.int(),
            order=order,
            rows_t=_compressed(column[order], size * features),
            columns_t=row[order].int(),
            places=network * strides[0] + output * strides[1] + feature * strides[2],
            counts=tuple(int(torch.count_nonzero(mask)) for mask in masks),
        )

    def matrix(self, values: Tensor) -> Tensor:
        """Return the matrix with these values."""
        return torch.sparse_csr_tensor(self.rows, self.columns, values, self.shape, check_invariants=False)

    def transposed(self, values: Tensor) -> Tensor:
        """Return the transposed matrix with these values."""
        shape = (self.shape[1], self.shape[0])
        kept = values[self.order]
        return torch.sparse_csr_tensor(self.rows_t, self.columns_t, kept, shape, check_invariants=False)


class _Product(torch.autograd.Function):
    """The product of a sparse and a dense matrix, with the gradient of the kept values alone."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, inputs: Tensor, pattern: Pattern) -> Tensor:
        ctx.pattern = pattern
        ctx.save_for_backward(values, inputs)
        return pattern.matrix(values) @ inputs

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor | None, None]:
        values, inputs = ctx.saved_tensors
        (gradient,) = gradients
        pattern: Pattern = ctx.pattern
        zeros = pattern.matrix(torch.zeros_like(values))
        sampled = torch.sparse.sampled_addmm(zeros, gradient, inputs.t(), beta=0.0).values()
        back = pattern.transposed(values) @ gradient if ctx.needs_input_grad[1] else None
        return sampled, back, None


class SparseChain:
    """The networks of a stack, all of them chains of linear and element-wise layers, computed from kept weights alone.

    The dense weights stay what everything else reads and writes; `lifted` takes the kept ones out for as long as
    optimiser steps run, together with their optimiser state, and puts them back.
    """

    def __init__(self, stack: Stack, masks: Sequence[Masks]) -> None:
        self.stack = stack
        self.patterns = {name: Pattern.of([one[name] for one in masks], stack.stacked(name)) for name in masks[0]}
        self.values: dict[str, nn.Parameter] = {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # said once by the first such matrix of a process: the support is in beta
            for name, pattern in self.patterns.items():
                pattern.matrix(torch.zeros_like(pattern.columns, dtype=stack.stacked(name).dtype))

    def parameters(self) -> list[nn.Parameter]:
        """Return what is trained: the kept values, and the stack's other parameters."""
        dense = {id(self.stack.stacked(name)) for name in self.patterns}
        return [*self.values.values(), *(one for one in self.stack.parameters() if id(one) not in dense)]

    @contextmanager
    def lifted(self, optimizer: Optimizer) -> Iterator[None]:
        """Let `optimizer` step the kept values while the context lasts."""
        weights = {name: self.stack.stacked(name) for name in self.patterns}
        for name, weight in weights.items():
            places = self.patterns[name].places
            self.values[name] = values = nn.Parameter(_memory(weight)[places])
            _exchange(optimizer, weight, values)
            slots = optimizer.state.pop(weight, {})
            if slots:
                optimizer.state[values] = {
                    key: _memory(_laid_out(slot, weight))[places] if _of_shape(slot, weight) else slot
                    for key, slot in slots.items()
                }
        try:
            yield
        finally:
            for name, weight in weights.items():
                places, values = self.patterns[name].places, self.values.pop(name)
                _memory(weight)[places] = values.detach()
                _exchange(optimizer, values, weight)
                slots = optimizer.state.pop(values, {})
                if slots:
                    optimizer.state[weight] = {
                        key: _spread(slot, places, weight) if _of_shape(slot, values) else slot
                        for key, slot in slots.items()
                    }

    def __call__(self, inputs: Tensor) -> Tensor:
        """Return the outputs (R, b, *) for inputs (R, b, *); features run down the rows on the way."""
        size, batch = inputs.shape[:2]
        hidden = inputs.flatten(2).transpose(1, 2).reshape(-1, batch)
        for path, module in self.stack.skeleton.named_children():
            if isinstance(module, nn.Linear):
                name = f"{path}.weight"
                hidden = _Product.apply(self.values[name], hidden, self.patterns[name])  # type: ignore[no-untyped-call]
                if module.bias is not None:
                    hidden = hidden + self.stack.stacked(f"{path}.bias").reshape(-1, 1)
            elif isinstance(module, Dropout):
                kept = self.stack.kept(module, torch.Size((batch, len(hidden) // size)), inputs)
                module.kept = kept.transpose(1, 2).reshape(-1, batch)
                hidden = module(hidden)
                module.kept = None
            elif not isinstance(module, nn.Flatten):
                hidden = module(hidden)
        return hidden.view(size, -1, batch).transpose(1, 2)

    def gradients(self) -> list[tuple[Tensor, ...]]:
        """Return the gradients of the kept values, each layer's cut into those of each network."""
        return [
            torch.split(values.grad, list(self.patterns[name].counts))
            for name, values in self.values.items()
            if values.grad is not None
        ]


def _compressed(rows: Tensor, count: int) -> Tensor:
    pointers = torch.zeros(count + 1, dtype=torch.int32, device=rows.device)
    pointers[1:] = torch.bincount(rows, minlength=count).cumsum(0)
    return pointers


def _memory(tensor: Tensor) -> Tensor:
    """Return a dense tensor's entries in the order they have in memory."""
    return tensor.detach().as_strided((tensor.numel(),), (1,))


def _of_shape(slot: Any, weight: Tensor) -> bool:
    return isinstance(slot, Tensor) and slot.shape == weight.shape


def _laid_out(slot: Tensor, weight: Tensor) -> Tensor:
    return slot if slot.stride() == weight.stride() else torch.empty_like(weight, requires_grad=False).copy_(slot)


def _spread(slot: Tensor, places: Tensor, weight: Tensor) -> Tensor:
    dense = torch.zeros_like(weight, requires_grad=False, dtype=slot.dtype)
    _memory(dense)[places] = slot
    return dense


def _exchange(optimizer: Optimizer, old: Tensor, new: Tensor) -> None:
    for group in optimizer.param_groups:
        group["params"] = [new if one is old else one for one in group["params"]]

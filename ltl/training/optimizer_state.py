"""Optimiser state set aside and brought back through the public state_dict and load_state_dict alone."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

State = dict[str, Any]


def saved(optimizer: Optimizer) -> State:
    """Return a copy of the optimiser's state that shares no storage with it."""
    return copy.deepcopy(optimizer.state_dict())


def restore(optimizer: Optimizer, state: State) -> None:
    """Set the optimiser back to `state`, leaving `state` untouched by later steps."""
    optimizer.load_state_dict(copy.deepcopy(state))


def lay_out(optimizer: Optimizer) -> None:
    """Give every slot the strides of its parameter: fused steps go through memory, and a checkpoint may have others."""
    for parameter, slots in optimizer.state.items():
        for name, slot in slots.items():
            if isinstance(slot, Tensor) and slot.shape == parameter.shape and slot.stride() != parameter.stride():
                slots[name] = torch.empty_like(parameter, dtype=slot.dtype, requires_grad=False).copy_(slot)


def zero_pruned(optimizer: Optimizer, pruned: Sequence[tuple[Tensor, Tensor]]) -> None:
    """Set every slot (momentum, Adam moments …) of pruned weights to 0: carried momentum would move them.

    `pruned` pairs a parameter with a bool tensor that marks its pruned entries.
    """
    if not pruned or not optimizer.state:
        return
    state = copy.deepcopy(optimizer.state_dict())
    order = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    marks = {id(parameter): mark for parameter, mark in pruned}
    for index, slots in state["state"].items():
        mark = marks.get(id(order[index]))
        if mark is None:
            continue
        for slot in slots.values():
            if isinstance(slot, Tensor) and slot.shape == mark.shape:
                slot.masked_fill_(mark.to(slot.device), 0)
    optimizer.load_state_dict(state)

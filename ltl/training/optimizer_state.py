"""Optimiser state set aside and brought back through the public state_dict and load_state_dict alone."""

import copy
from typing import Any

import torch
from torch.optim import Optimizer

from ltl.masks import Masks

State = dict[str, Any]


def saved(optimizer: Optimizer) -> State:
    """Return a copy of the optimiser's state that shares no storage with it."""
    return copy.deepcopy(optimizer.state_dict())


def restore(optimizer: Optimizer, state: State) -> None:
    """Set the optimiser back to `state`, leaving `state` untouched by later steps."""
    optimizer.load_state_dict(copy.deepcopy(state))


def zero_pruned(optimizer: Optimizer, names: dict[int, str], masks: Masks) -> None:
    """Set every slot (momentum, Adam moments …) of a pruned weight to 0: carried momentum would move it.

    `names` maps id(parameter) to its name.
    """
    state = copy.deepcopy(optimizer.state_dict())
    order = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for index, slots in state["state"].items():
        mask = masks.get(names.get(id(order[index]), ""))
        if mask is None:
            continue
        for slot in slots.values():
            if isinstance(slot, torch.Tensor) and slot.shape == mask.shape:
                slot.masked_fill_(~mask.to(slot.device), 0)
    optimizer.load_state_dict(state)

"""What the prune-rewind cycle asks of the module it works on: ltl's own, or anybody's."""

from collections.abc import Sequence
from typing import Protocol

import pytorch_lightning as pl
import torch
from torch.optim import Optimizer

from ltl.errors import LtlError
from ltl.masks import Masks, Tensors
from ltl.pruning.evidence import Task
from ltl.training.start import Start
from ltl.training.timeline import Position, Timeline


class Host(Protocol):
    """A module whose networks can be read and set, and whose pruned weights are held."""

    timeline: Timeline
    position: Position
    lr_held: bool

    def networks(self) -> list[Tensors]:
        """Return every network's parameters and buffers by name, as views."""
        ...

    def hold(self, starts: Sequence[Start]) -> None:
        """Keep every network's pruned weights at its start's fill from now on."""
        ...

    def pruned(self) -> list[tuple[torch.nn.Parameter, torch.Tensor]]:
        """Return the parameters that have pruned entries, with a bool tensor that marks them."""
        ...

    def forget_lr(self) -> None:
        """Take note that the optimiser's learning rate was replaced."""
        ...

    def task(self, number: int) -> Task | None:
        """Return what network `number` is trained for, if that is known."""
        ...


class ForeignModule:
    """Any LightningModule as a host: its steps are epochs, and masks act in `on_before_optimizer_step`."""

    def __init__(self, module: pl.LightningModule, timeline: Timeline) -> None:
        self.module, self.timeline = module, timeline
        self.position: Position = (0, 0)
        self.lr_held = False
        self.lrs: dict[int, list[float]] = {}  # of the last step before they are held, by optimiser
        self._masks: Masks = {}
        self._fills: Tensors = {}
        self._weights: dict[str, torch.nn.Parameter] = {}
        self._float_masks: Tensors = {}
        self._hook_ran = False
        self._before: torch.Tensor | None = None

    def networks(self) -> list[Tensors]:
        """Return the module's own parameters and buffers."""
        return [dict(self.module.named_parameters()) | dict(self.module.named_buffers())]

    def hold(self, starts: Sequence[Start]) -> None:
        """Set pruned weights to their fill, and mask their gradients from now on."""
        (start,) = starts
        parameters = dict(self.module.named_parameters())
        self._masks = {name: mask for name, mask in start.masks.items() if not bool(mask.all())}
        self._fills = {name: start.fills[name] for name in self._masks if name in start.fills}
        self._weights = {name: parameters[name] for name in self._masks}
        self._float_masks = {name: mask.to(parameters[name].dtype) for name, mask in self._masks.items()}
        with torch.no_grad():
            for name, mask in self._masks.items():
                self._weights[name].masked_fill_(~mask, 0)
        self.write_fills()

    def pruned(self) -> list[tuple[torch.nn.Parameter, torch.Tensor]]:
        """Return the parameters that have pruned entries, with a bool tensor that marks them."""
        return [(self._weights[name], ~mask) for name, mask in self._masks.items()]

    def forget_lr(self) -> None:
        """Do nothing: a foreign module's learning rate lives in its optimiser and scheduler."""

    def task(self, number: int) -> None:
        """Return nothing: only the module itself knows its loss."""

    def before_step(self, number: int, optimizer: Optimizer) -> None:
        """Multiply the gradients of pruned weights by 0, before clipping and the step of optimiser `number`.

        A learning rate that is held is written here, after whatever its scheduler made of it.
        """
        self._hook_ran = True
        for name, weight in self._weights.items():
            if weight.grad is not None:
                weight.grad.mul_(self._float_masks[name])
        if self.lr_held:
            for group, lr in zip(optimizer.param_groups, self.lrs[number], strict=True):
                group["lr"] = lr
        else:
            self.lrs[number] = [float(group["lr"]) for group in optimizer.param_groups]

    def write_fills(self) -> None:
        """Set pruned weights to their fill again: the optimiser's weight decay moves values that are not 0."""
        with torch.no_grad():
            for name, fill in self._fills.items():
                self._weights[name].copy_(torch.where(self._masks[name], self._weights[name], fill))

    def watch(self, names: list[str]) -> None:
        """Remember one weight until it is known that the module's optimiser steps pass through the hook."""
        if not self._hook_ran and self._before is None:
            self._before = dict(self.module.named_parameters())[names[0]].detach().clone()

    def check_hook(self, names: list[str]) -> None:
        """Refuse a module that moves its weights without passing through the hook."""
        if self._hook_ran or self._before is None:
            return
        if not torch.equal(self._before, dict(self.module.named_parameters())[names[0]].detach()):
            raise LtlError(
                f"{type(self.module).__name__} steps its optimiser without Lightning's on_before_optimizer_step, so "
                "PruneRewind cannot mask it: call self.optimizers().step() instead of the bare optimiser's step."
            )

    def check_pruned(self) -> None:
        """Refuse weights that moved off 0."""
        for name, mask in self._masks.items():
            if name not in self._fills and bool((self._weights[name].detach()[~mask] != 0).any()):
                raise LtlError(
                    f"{type(self.module).__name__} changed pruned entries of {name} outside its optimiser's step: "
                    "PruneRewind needs them to stay 0."
                )

"""What the prune-rewind cycle asks of the module it works on: ltl's own, or anybody's."""

from typing import Any, Protocol

import pytorch_lightning as pl
import torch

from ltl.errors import LtlError
from ltl.masks import Masks, Tensors
from ltl.training.timeline import Position, Timeline


class Host(Protocol):
    """A module whose networks can be read and set, and whose pruned weights are held."""

    timeline: Timeline
    position: Position
    lr_held: bool

    def networks(self) -> list[Tensors]:
        """Return every network's parameters and buffers by name, as views."""
        ...

    def hold(self, masks: Masks, fills: Tensors) -> None:
        """Keep pruned weights at their fill from now on."""
        ...

    def forget_lr(self) -> None:
        """Take note that the optimiser's learning rate was replaced."""
        ...


class ForeignModule:
    """Any LightningModule as a host: its steps are epochs, and masks act in `on_before_optimizer_step`."""

    def __init__(self, module: pl.LightningModule, timeline: Timeline) -> None:
        self.module, self.timeline = module, timeline
        self.position: Position = (0, 0)
        self.lr_held = False
        self.masks: Masks = {}
        self.fills: Tensors = {}
        self._hook_ran = False
        self._before: torch.Tensor | None = None

    def networks(self) -> list[Tensors]:
        """Return the module's own parameters and buffers."""
        return [dict(self.module.named_parameters()) | dict(self.module.named_buffers())]

    def hold(self, masks: Masks, fills: Tensors) -> None:
        """Set pruned weights to their fill, and mask their gradients from now on."""
        self.masks = {name: mask for name, mask in masks.items() if not bool(mask.all())}
        self.fills = fills
        self._write_pruned()

    def forget_lr(self) -> None:
        """Do nothing: a foreign module's learning rate lives in its optimiser and scheduler."""

    def mask_gradients(self) -> None:
        """Multiply the gradients of pruned weights by 0, before clipping and the optimiser's step."""
        self._hook_ran = True
        parameters = dict(self.module.named_parameters())
        for name, mask in self.masks.items():
            gradient = parameters[name].grad
            if gradient is not None:
                gradient.mul_(mask)

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
        """Refuse weights that moved off their fill; write the fill back where one is given."""
        parameters = dict(self.module.named_parameters())
        for name, mask in self.masks.items():
            if name not in self.fills and bool((parameters[name].detach()[~mask] != 0).any()):
                raise LtlError(
                    f"{type(self.module).__name__} changed pruned entries of {name} outside its optimiser's step: "
                    "PruneRewind needs them to stay 0."
                )
        self._write_pruned()

    def _write_pruned(self) -> None:
        parameters: dict[str, Any] = dict(self.module.named_parameters())
        with torch.no_grad():
            for name, mask in self.masks.items():
                fill = self.fills.get(name)
                parameters[name].copy_(
                    parameters[name].masked_fill(~mask, 0)
                    if fill is None
                    else torch.where(mask, parameters[name], fill)
                )

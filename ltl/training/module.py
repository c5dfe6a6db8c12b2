"""The LightningModule that trains a masked network, f(x; m ⊙ θ), many optimiser steps at a time."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ltl.datasets.dataset import Dataset
from ltl.masks import Masks, Tensors
from ltl.models.dropout import Dropout
from ltl.rng import stream_seed
from ltl.training.order import DataOrder
from ltl.training.timeline import Position, Timeline


class MaskedTraining(pl.LightningModule):
    """Trains `network` on `dataset` with pruned weights held at their fill (0 unless the method says otherwise).

    One Lightning batch is a chunk of optimiser steps. Gradients are multiplied by the mask before clipping, and weights
    are set to m ⊙ θ when the mask changes: bit-identical to multiplying in the forward pass (DESIGN §3).
    `optimizer` is given the parameters; `lr_schedule` maps a step to a multiple of its learning rate.
    """

    def __init__(
        self,
        *,
        network: nn.Module,
        dataset: Dataset,
        order: DataOrder,
        timeline: Timeline,
        optimizer: Callable[..., Optimizer],
        lr_schedule: Callable[[int], float],
        clip: float | None,
        augmentation_seed: int,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.network, self.dataset, self.order, self.timeline = network, dataset, order, timeline
        self.build_optimizer, self.lr_schedule, self.clip = optimizer, lr_schedule, clip
        self.augmentation_seed = augmentation_seed
        self.position: Position = (0, timeline.first[0])
        self.lr_held = False  # the learning rate stays at the schedule's last value
        self.seconds = 0.0  # training alone, since reset by whoever records it
        self.interval_loss = torch.zeros(())  # summed on the device since the last evaluation
        self.interval_steps = 0
        self._draws = [module for module in network.modules() if isinstance(module, Dropout)]
        self._augments = dataset.augment is not None
        self._generator = torch.Generator(device=dataset.train.inputs.device)
        self._weights: list[nn.Parameter] = []
        self._float_masks: list[Tensor] = []
        self._fills: list[tuple[nn.Parameter, Tensor, Tensor]] = []
        self._base_lrs: list[float] = []
        self._lr_factor: float | None = None
        self._rank, self._processes, self._autocast = 0, 1, False

    def configure_optimizers(self) -> Optimizer:
        """Build the optimiser over all parameters."""
        optimizer = self.build_optimizer(self.network.parameters())
        self._base_lrs = [group["lr"] for group in optimizer.param_groups]
        return optimizer

    def train_dataloader(self) -> "Chunks":
        """Return the chunks of optimiser steps of one evaluation interval after another."""
        return Chunks(self)

    def networks(self) -> list[Tensors]:
        """Return every network's parameters and buffers by name, as views on the storage that is trained."""
        return [dict(self.network.named_parameters()) | dict(self.network.named_buffers())]

    def hold(self, masks: Masks, fills: Tensors) -> None:
        """Keep pruned weights at `fills` (0 where it has no entry) from now on, and set them to it."""
        parameters = dict(self.network.named_parameters())
        sparse = {name: mask for name, mask in masks.items() if not bool(mask.all())}
        self._weights = [parameters[name] for name in sparse]
        self._float_masks = [mask.to(parameters[name].dtype) for name, mask in sparse.items()]
        self._fills = []
        with torch.no_grad():
            for name, mask in sparse.items():
                fill = fills.get(name)
                parameters[name].masked_fill_(~mask, 0) if fill is None else parameters[name].copy_(
                    torch.where(mask, parameters[name], fill)
                )
                if fill is not None:
                    self._fills.append((parameters[name], ~mask, fill))

    def on_fit_start(self) -> None:
        """Look up once what every step asks."""
        self._rank, self._processes = self.trainer.global_rank, self.trainer.world_size
        self._autocast = "mixed" in str(self.trainer.precision)

    def forget_lr(self) -> None:
        """Write the learning rate anew at the next step: the optimiser's own copy was replaced."""
        self._lr_factor = None

    def lr(self) -> float:
        """Return the learning rate of the last optimiser step."""
        return self._base_lrs[0] * (self._lr_factor if self._lr_factor is not None else 1.0)

    def training_step(self, chunk: tuple[int, int, int], batch_idx: int) -> None:
        """Run the optimiser steps of one chunk; the last goes through Lightning, which counts it."""
        begun = time.perf_counter()
        turn, start, stop = chunk
        lightning_optimizer: Any = self.optimizers()
        optimizer: Optimizer = lightning_optimizer.optimizer
        total = torch.zeros((), device=self.device)
        for step in range(start, stop):
            inputs, targets = self._batch(turn, step)
            self._set_lr(optimizer, step)
            loss = self.masked_step(inputs, targets, lightning_optimizer if step == stop - 1 else optimizer)
            total += loss
        self.position = (turn, stop)
        self.interval_loss = self.interval_loss.to(total.device) + total
        self.interval_steps += stop - start
        self.seconds += time.perf_counter() - begun

    def masked_step(self, inputs: Tensor, targets: Tensor, optimizer: Any) -> Tensor:
        """Do one optimiser step on a batch: backward, mask, clip, step; return the detached loss."""
        loss = self.dataset.loss(self.network(inputs), targets)
        if self._processes > 1:
            self.manual_backward(loss)
        else:
            torch.autograd.backward(loss)
        if self._float_masks:
            gradients = [weight.grad for weight in self._weights if weight.grad is not None]
            torch._foreach_mul_(gradients, self._float_masks)
        if self.clip is not None:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.clip)
        optimizer.step()
        optimizer.zero_grad()
        for weight, pruned, fill in self._fills:
            weight.data[pruned] = fill[pruned]
        if self._autocast:
            torch.clear_autocast_cache()  # it holds low-precision copies of the weights before this step
        return loss.detach()

    def _batch(self, turn: int, step: int) -> tuple[Tensor, Tensor]:
        indices = self.order.indices(turn, step)
        if self._processes > 1:
            indices = indices[self._rank :: self._processes]
        if not self._augments and not self._draws:
            return self.dataset.batch(indices, None)
        key = 0 if self.order.by_round == "same" else turn
        keys = (key, step, self._rank)
        self._generator.manual_seed(stream_seed("augmentation", self.augmentation_seed, *keys))
        for module in self._draws:
            module.generator = self._generator
        return self.dataset.batch(indices, self._generator)

    def _set_lr(self, optimizer: Optimizer, step: int) -> None:
        factor = self.lr_schedule(self.timeline.length - 1 if self.lr_held else step)
        if factor != self._lr_factor:
            for group, base in zip(optimizer.param_groups, self._base_lrs, strict=True):
                group["lr"] = base * factor
            self._lr_factor = factor


class Chunks:
    """The loader: what it yields depends on the module's position alone, so a resumed run sees the same."""

    def __init__(self, module: MaskedTraining) -> None:
        self.module = module

    def __iter__(self) -> Iterator[tuple[int, int, int]]:
        return iter(list(self.module.timeline.chunks(self.module.position)))

"""The LightningModule that trains masked networks, f(x; m ⊙ θ), many optimiser steps at a time."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ltl.datasets.dataset import Dataset
from ltl.errors import LtlError
from ltl.masks import Tensors, density, mask_sha256
from ltl.models.stack import Stack
from ltl.pruning.evidence import Task
from ltl.rng import stream_seed
from ltl.training import optimizer_state
from ltl.training.evaluation import Form
from ltl.training.graph import StepGraph, recordable
from ltl.training.order import DataOrder
from ltl.training.sparse import SparseChain
from ltl.training.start import Start
from ltl.training.timeline import Position, Timeline

# Numbers of networks, their function from inputs to outputs (R, b, *), and how it takes the inputs.
Judged = tuple[list[int], Callable[..., Tensor], Form]


@dataclass(frozen=True)
class Streams:
    """What one network draws while it trains."""

    order: DataOrder
    augmentation_seed: int  # of crops, flips and dropout


class MaskedTraining(pl.LightningModule):
    """Trains networks of one architecture side by side, with pruned weights held at their fill (0 if nothing is said).

    One Lightning batch is a chunk of optimiser steps. Gradients are multiplied by the mask before clipping, and weights
    are set to m ⊙ θ when the mask changes: bit-identical to multiplying in the forward pass (docs/concepts.md). Every
    network has its own `streams`; `optimizer` is given the parameters of all and must treat each entry by itself, as
    SGD and Adam do; `lr_schedule` maps a step to a multiple of its learning rate.
    """

    def __init__(
        self,
        *,
        networks: Sequence[nn.Module],
        streams: Sequence[Streams],
        dataset: Dataset,
        timeline: Timeline,
        optimizer: Callable[..., Optimizer],
        lr_schedule: Callable[[int], float],
        clip: float | None,
        sparse_below: float,
        sparse_inputs_below: float,
        stacked: bool,
        graph: bool,
        compiled: bool,
        merge: bool,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.stack = Stack(networks, stacked=stacked, compiled=compiled, merge=merge)
        self.streams, self.dataset, self.timeline = streams, dataset, timeline
        self.build_optimizer, self.lr_schedule, self.clip = optimizer, lr_schedule, clip
        self.graph = graph  # optimiser steps are recorded and played back, where they can be
        self.sparse_below = sparse_below  # the density from which on perceptrons train by sparse products
        self.position: Position = (0, timeline.first[0])
        self.before_step: Callable[[int], None] | None = None  # draws, in fixed memory, what the due step takes
        self.lr_held = False  # the learning rate stays at the schedule's last value
        self.seconds = 0.0  # training alone, since reset by whoever records it
        self.interval_loss = torch.zeros(len(networks))  # summed on the device since the last evaluation
        self.interval_steps = 0
        self._keys = [(0, 0)] * len(networks)
        self._draws = dataset.augment is not None or self.stack.draws
        device = dataset.train.inputs.device
        self.sparse_inputs = (  # the first layer's products can leave out the inputs that are 0
            self.stack.takes_sparse
            and dataset.augment is None
            and device.type == "cpu"
            and dataset.train.filled <= sparse_inputs_below
        )
        self._filled = self.sparse_inputs and not self.stack.plain  # one network by itself trains faster with them
        self._generators = [torch.Generator(device=device) for _ in networks]
        self._weights: list[nn.Parameter] = []
        self._float_masks: list[Tensor] = []
        self._fills: list[tuple[Tensor, Tensor, Tensor]] = []  # weights, their masks, and what the pruned are held at
        self._densities: list[float] = []
        self._sparse: SparseChain | None = None
        self._graph: StepGraph | None = None
        self._graphs = False
        self._base_lrs: list[float] = []
        self._lr_factor: float | None = None
        self._rank, self._processes, self._autocast = 0, 1, False

    def configure_optimizers(self) -> Optimizer:
        """Build the optimiser over all parameters that are trained."""
        optimizer = self.build_optimizer([one for one in self.stack.parameters() if one.requires_grad])
        optimizer.register_load_state_dict_post_hook(optimizer_state.lay_out)
        self._base_lrs = [group["lr"] for group in optimizer.param_groups]
        return optimizer

    def train_dataloader(self) -> "Chunks":
        """Return the chunks of optimiser steps of one evaluation interval after another."""
        return Chunks(self)

    def networks(self) -> list[Tensors]:
        """Return every network's parameters and buffers by name, as views on the storage that is trained."""
        return self.stack.members()

    def judged(self, *, on_training_set: bool = False) -> Iterator[Judged]:
        """Yield the networks that are evaluated together: on a GPU all, on a processor each by itself.

        Where sparse products train, they evaluate too. The training set, looked at once a round, is taken without its
        zeros only where training takes it so: not worth a second copy.
        """
        filled = self._filled if on_training_set else self.sparse_inputs
        if self.device.type == "cuda" and self._sparse is None:
            size = self.stack.size
            yield list(range(size)), lambda inputs: self.stack(inputs.expand(size, *inputs.shape)), "rows"
            return
        for number, network in enumerate(self.stack.apart()):
            if self._sparse is not None and self._densities[number] <= self.sparse_below:
                yield [number], partial(_alone, self._sparse.alone(number)), "columns"
            else:
                yield [number], partial(_alone, network), "filled" if filled else "rows"

    def hold(self, starts: Sequence[Start]) -> None:
        """Keep each network's pruned weights at its start's fill from now on, and set them to it."""
        self._keys = [(start.round, start.draw) for start in starts]
        names = [name for name in starts[0].masks if not all(bool(start.masks[name].all()) for start in starts)]
        self._weights = [self.stack.stacked(name) for name in names]
        self._float_masks = [
            torch.empty_like(weight, requires_grad=False).copy_(
                self.stack.laid_out(name, [start.masks[name] for start in starts])
            )
            for name, weight in zip(names, self._weights, strict=True)
        ]
        self._fills = []
        for name, weight, mask in zip(names, self._weights, self._float_masks, strict=True):
            if any(name in start.fills for start in starts):
                zeros = torch.zeros_like(starts[0].masks[name], dtype=mask.dtype)
                held = [start.fills.get(name, zeros) for start in starts]
                fill = torch.empty_like(mask).copy_(self.stack.laid_out(name, held)).masked_fill_(mask != 0, 0)
                self._fills.append((weight.detach(), mask, fill))
        with torch.no_grad():
            for start, now in zip(starts, self.networks(), strict=True):
                for name in names:
                    now[name].masked_fill_(~start.masks[name], 0)
        self._fill()
        masks = [start.masks for start in starts]
        possible = self.stack.chain and names and not self._fills and self._processes == 1
        self._densities = [density(mask) for mask in masks] if possible else []
        pays = possible and self.sparse_below > 0 and sum(self._densities) <= self.sparse_below * len(masks)
        self._sparse = SparseChain(self.stack, masks) if pays else None
        self._graph = None  # it was recorded with other masks and optimiser state
        if self._processes > 1:
            self._agree([mask_sha256(mask) for mask in masks])

    def _agree(self, mine: list[str]) -> None:
        """LtlError unless all processes hold the same masks: averaged gradients would drift apart without a word."""
        every: list[list[str]] = [[]] * self._processes
        torch.distributed.all_gather_object(every, mine)
        if any(other != mine for other in every):
            raise LtlError(
                "the processes of hardware=ddp hold different masks: the pruner's criterion draws or sees "
                "something that differs from process to process; make it depend on its arguments alone, or use one "
                "process."
            )

    def task(self, number: int) -> Task:
        """Return what network `number` is trained for, for criteria that look at data."""
        return Task(
            outputs=self.stack.outputs_of,
            loss=self.dataset.loss,
            examples=self.dataset.examples,
            batches=partial(self._batches_of, number),
            input_shape=self.dataset.input_shape,
        )

    def pruned(self) -> list[tuple[nn.Parameter, Tensor]]:
        """Return the parameters that have pruned entries, with a bool tensor that marks them."""
        return [(weight, mask == 0) for weight, mask in zip(self._weights, self._float_masks, strict=True)]

    def on_fit_start(self) -> None:
        """Look up once what every step asks."""
        self._rank, self._processes = self.trainer.global_rank, self.trainer.world_size
        self._autocast = "mixed" in str(self.trainer.precision)
        alone = self._processes == 1 and not self.stack.draws  # an exchange or a draw within a step is not played back
        self._graphs = self.graph and alone and not self._filled and all(map(recordable, self.trainer.optimizers))

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
        total = torch.zeros(self.stack.size, device=self.device)
        graph = self._step_graph(optimizer)
        steps = [step for step in range(start, stop) if (turn, step) not in self.timeline.idle]
        indices = self._indices(start, stop)
        with self._sparse.lifted(optimizer) if self._sparse else nullcontext():
            for step in steps:
                given = self._given(indices[step - start], step)
                self._set_lr(optimizer, step)
                if self.before_step is not None:
                    self.before_step(step)
                last = step == steps[-1]
                if graph is None:
                    total += self.masked_step(given, lightning_optimizer if last else optimizer)
                elif last:  # without gradients of its own, it plays back and counts
                    total += lightning_optimizer.step(closure=partial(graph, given))
                else:
                    total += graph(given)
        if self._processes > 1 and ((turn, stop) in self.timeline.marks or stop == self.timeline.length):
            for buffer in self.stack.buffers():  # masks may change, and running statistics are each process's own
                torch.distributed.broadcast(buffer, 0)
        self.position = (turn, stop)
        self.interval_loss = self.interval_loss.to(total.device) + total
        self.interval_steps += len(steps)
        self.seconds += time.perf_counter() - begun

    def masked_step(self, given: Sequence[Any], optimizer: Any) -> Tensor:
        """Do one optimiser step: backward, mask, clip, step; return the detached losses (R,).

        `given` is (inputs, targets), batches of (R, b, *), or (indices,), (R, b), of what the step takes itself.
        """
        inputs, targets = given if len(given) == 2 else self.dataset.batches(given[0], [])
        outputs = self._sparse(inputs) if self._sparse and isinstance(inputs, Tensor) else self.stack(inputs)
        if self.stack.plain:
            losses = self.dataset.loss(outputs[0], targets[0]).unsqueeze(0)
        else:
            each = self.dataset.loss(outputs.flatten(0, 1), targets.flatten(0, 1), reduction="none")
            losses = each.view(self.stack.size, -1).mean(1)
        if self._processes > 1:
            self.manual_backward(losses.sum())
        else:
            torch.autograd.backward(losses.sum())
        if self._float_masks and not self._sparse:
            for weight, mask in zip(self._weights, self._float_masks, strict=True):
                if weight.grad is not None:
                    weight.grad.mul_(mask)  # one `foreach` for all leaves most of a GPU idle
        if self.clip is not None:
            self._clip(self.clip)
        optimizer.step()
        optimizer.zero_grad()
        self._fill()
        if self._autocast:
            torch.clear_autocast_cache()  # it holds low-precision copies of the weights before this step
        return losses.detach()

    def _fill(self) -> None:
        """Set pruned weights to what they are held at: weight decay would have moved them."""
        for weight, mask, fill in self._fills:
            torch.addcmul(fill, weight, mask, out=weight)  # a sixth of the time of `where`, and exact

    def _step_graph(self, optimizer: Optimizer) -> StepGraph | None:
        if self._graphs and self._sparse is None and self._graph is None:
            self._graph = StepGraph(self.masked_step, optimizer, self.device)
        return self._graph

    def _clip(self, largest: float) -> None:
        """Scale each network's gradient down to the norm `largest`, if it is longer."""
        if self.stack.plain:
            nn.utils.clip_grad_norm_(self._sparse.parameters() if self._sparse else self.stack.parameters(), largest)
            return
        parts = [one.grad.unbind() for one in self.stack.parameters() if one.grad is not None]
        parts += self._sparse.gradients() if self._sparse else []
        for mine in zip(*parts, strict=True):
            norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(part) for part in mine]))
            factor = (largest / (norm + 1e-6)).clamp(max=1)
            for part in mine:
                part.mul_(factor)

    def _indices(self, start: int, stop: int) -> Tensor:
        """Return the indices (stop − start, R, b) of the networks' batches at these steps."""
        spans = [one.order.span(key, start, stop) for one, key in zip(self.streams, self._keys, strict=True)]
        return torch.stack(spans, 1)[..., self._rank :: self._processes]

    def _given(self, indices: Tensor, step: int) -> Sequence[Any]:
        """Return what the optimiser step is given: batches at `indices` (R, b) or, where nothing is drawn, these."""
        if self._draws:
            for number in range(len(self.streams)):
                self._seed_augmentation(number, step, self._rank)
            self.stack.generators = self._generators
        if self._filled and self._sparse is None:
            return self.dataset.sparse_batches(indices)
        return (indices,) if self.dataset.augment is None else self.dataset.batches(indices, self._generators)

    def _batches_of(self, number: int, count: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the whole batches of network `number` at the step that is due and at up to count − 1 before it."""
        turn, due = self.position
        for step in range(due, max(due - count, self.timeline.first[turn] - 1), -1):
            if self._draws:
                self._seed_augmentation(number, step, rank=0)  # every process is to see the same
            indices = self.streams[number].order.indices(self._keys[number], step)
            yield self.dataset.batch(indices, self._generators[number])

    def _seed_augmentation(self, number: int, step: int, rank: int) -> None:
        streams = self.streams[number]
        keys = (*streams.order.key(self._keys[number]), step, rank)
        self._generators[number].manual_seed(stream_seed("augmentation", streams.augmentation_seed, *keys))

    def _set_lr(self, optimizer: Optimizer, step: int) -> None:
        factor = self.lr_schedule(self.timeline.length - 1 if self.lr_held else step)
        if factor != self._lr_factor:
            for group, base in zip(optimizer.param_groups, self._base_lrs, strict=True):
                if not self._graphs:
                    group["lr"] = base * factor
                elif isinstance(group["lr"], Tensor) and group["lr"].device == self.device:
                    group["lr"].fill_(base * factor)  # a recorded step reads it there
                else:
                    group["lr"] = torch.tensor(base * factor, dtype=torch.float32, device=self.device)
            self._lr_factor = factor


def _alone(network: Callable[..., Tensor], inputs: Any) -> Tensor:
    return network(inputs).unsqueeze(0)


class Chunks:
    """The loader: what it yields depends on the module's position alone, so a resumed run sees the same."""

    def __init__(self, module: MaskedTraining) -> None:
        self.module = module

    def __iter__(self) -> Iterator[tuple[int, int, int]]:
        return iter(list(self.module.timeline.chunks(self.module.position)))

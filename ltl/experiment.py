"""What a run consists of: every trial's search, then its controls, each one `Trainer.fit`."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from pytorch_lightning.loggers import Logger
from torch import nn
from torch.optim import Optimizer

from ltl.callbacks.prune_rewind import PruneRewind
from ltl.callbacks.retrain import Retrain
from ltl.datasets.dataset import Dataset
from ltl.errors import LtlError
from ltl.masks import Tensors, dense, kept, prunable
from ltl.models.initialisers import WeightInit, initialise
from ltl.models.scaling import smaller
from ltl.pruning.pruner import Pruner
from ltl.pruning.schedules import Event
from ltl.tickets import Ticket, load
from ltl.training.controls import Control, control_start
from ltl.training.start import Start, cloned
from ltl.training.timeline import Timeline


@dataclass(frozen=True)
class Seeds:
    """The seed of each stream in trial 0; trial i adds i to those that are not pinned."""

    seed: int
    init: int | None
    order: int | None
    augmentation: int | None
    mask: int | None
    order_by_round: Literal["same", "fresh"]

    def of(self, stream: Literal["init", "order", "augmentation", "mask"], trial: int) -> int:
        """Return the seed of `stream` in `trial`."""
        pinned: int | None = getattr(self, stream)
        return self.seed + trial if pinned is None else pinned


@dataclass(frozen=True)
class Hardware:
    """How the machine is used; nothing here decides a result except precision and the number of processes."""

    accelerator: Literal["cpu", "gpu"]
    devices: int
    strategy: str
    precision: Literal["32-true", "bf16-mixed"]
    memory_format: Literal["contiguous", "channels_last"]
    deterministic: bool | Literal["warn"]
    chunk: int
    eval_batch: int
    checkpoint_every: float


@dataclass(frozen=True)
class Job:
    """One `Trainer.fit`: an arm of a trial."""

    trial: int
    arm: str
    suffix: str  # told apart from other fits of the same arm
    model: Callable[[], "partial[nn.Module]"]  # called when its turn comes
    timeline: Timeline
    cycle: PruneRewind | Retrain
    keys: tuple[tuple[int, str, int, int], ...]  # the rows it will write: trial, arm, draw, round

    @property
    def name(self) -> str:
        """The name of its checkpoint."""
        return f"trial-{self.trial}-{self.arm}{self.suffix}"


@dataclass(frozen=True)
class Experiment:
    """All that a run consists of, built; lengths are in optimiser steps."""

    folder: Path
    dataset: Dataset
    model: "partial[nn.Module]"
    weight_init: WeightInit
    pruner: Pruner
    schedule: Callable[..., list[Event]]
    rounds: int
    rate: float
    length: int
    rewind_step: int
    eval_every: int
    batch: int
    clip: float | None
    optimizer: Callable[..., Optimizer]
    lr_schedule: Callable[[int], float]
    seeds: Seeds
    trials: int
    controls: Mapping[str, Control]
    hardware: Hardware
    loggers: Sequence[Logger]
    hardware_number: int  # 0, and one more each time that a resume changed the hardware
    provenance: Mapping[str, str]  # of the tickets
    tickets: Sequence[Path]  # given: they are trained, and nothing is searched

    def check(self) -> None:
        """Build the network without allocating it and prune once; LtlError for what does not fit together."""
        for path in self.tickets:
            self._fitting(path)
        network = self._skeleton()
        shapes = {name: network.get_parameter(name).shape for name in prunable(network)}
        for event in [] if self.tickets else self._events()[:1]:
            scores = {name: torch.arange(shape.numel()).float().view(shape) for name, shape in shapes.items()}
            self.pruner.allocation(scores, dense(scores), event.target)

    def counts(self) -> dict[str, int]:
        """Return the numbers of parameters and of prunable weights."""
        network = self._skeleton()
        parameters = dict(network.named_parameters())
        weights = sum(parameters[name].numel() for name in prunable(network))
        return {"parameters": sum(one.numel() for one in parameters.values()), "prunable": weights}

    def jobs(self) -> Iterator[Job]:
        """Yield the fits of the run in their order."""
        if self.tickets:
            given: dict[int, list[Path]] = {}
            for path in self.tickets:
                given.setdefault(int(load(path).metadata["trial"]), []).append(path)
            for trial, paths in sorted(given.items()):
                found = {int(load(path).metadata["round"]): path for path in paths}
                yield self._branch(trial, found)
                yield from self._controls(trial, found)
            return
        for trial in range(self.trials):
            yield self._search(trial)
            yield from self._controls(trial, {turn: self.ticket_path(trial, turn) for turn in range(self.rounds + 1)})

    def ticket_path(self, trial: int, turn: int) -> Path:
        """Return where the ticket of a round is kept."""
        return self.folder / "tickets" / f"trial-{trial}" / f"round-{turn:02d}.safetensors"

    def _search(self, trial: int) -> Job:
        events = self._events()
        first = (0,) + (self.rewind_step,) * self.rounds
        marks = frozenset({(event.round, event.step) for event in events} | {(0, self.rewind_step)})
        cycle = PruneRewind(
            pruner=self.pruner,
            events=events,
            rewind_step=self.rewind_step,
            seed=self.seeds.of("mask", trial),
            initialise=partial(self._initial, self.model),
        )
        keys = tuple((trial, "ticket", 0, turn) for turn in range(self.rounds + 1))
        return Job(trial, "ticket", "", lambda: self.model, self._timeline(first, marks), cycle, keys)

    def _branch(self, trial: int, found: Mapping[int, Path]) -> Job:
        turns = sorted(found)
        starts = [partial(self._given, found[turn]) for turn in turns]
        timeline = self._timeline([_number(load(found[turn]), "rewind_step") for turn in turns], frozenset())
        keys = tuple((trial, "ticket", 0, turn) for turn in turns)
        return Job(trial, "ticket", "", lambda: self.model, timeline, Retrain(starts=starts), keys)

    def _given(self, path: Path) -> Start:
        ticket = self._fitting(path)
        turn, step, search_steps = (_number(ticket, name) for name in ("round", "rewind_step", "search_steps"))
        return Start("ticket", 0, turn, ticket.masks, ticket.state, ticket.fills, step, search_steps)

    def _controls(self, trial: int, tickets: Mapping[int, Path]) -> Iterator[Job]:
        for arm, control in self.controls.items():
            turns = [
                turn for turn in sorted(tickets) if turn > 0 and (control.rounds is None or turn in control.rounds)
            ]
            members = [(turn, draw) for turn in turns for draw in range(control.draws)]
            keys = [(trial, arm, draw, turn) for turn, draw in members]
            starts = [partial(self._control, trial, arm, tickets[turn], turn, draw) for turn, draw in members]
            if control.weights == "fresh":
                first = [0] * len(members)
            elif self.tickets:
                first = [_number(load(tickets[turn]), "rewind_step") for turn, _ in members]
            else:
                first = [self.rewind_step] * len(members)
            if control.network == "same" and members:
                timeline = self._timeline(first, frozenset())
                yield Job(trial, arm, "", lambda: self.model, timeline, Retrain(starts=starts), tuple(keys))
            elif control.network == "small":
                for (turn, draw), start, key in zip(members, starts, keys, strict=True):
                    model = partial(self._small, tickets[turn])
                    cycle, timeline = Retrain(starts=[start]), self._timeline([0], frozenset())
                    yield Job(trial, arm, f"-{turn:02d}-{draw}", model, timeline, cycle, (key,))

    def _control(self, trial: int, arm: str, path: Path, turn: int, draw: int) -> Start:
        control, ticket = self.controls[arm], self._fitting(path)
        model = self._small(path) if control.network == "small" else self.model
        seeds = (self.seeds.of("init", trial), self.seeds.of("mask", trial))
        initial = partial(self._initial, model)
        return control_start(ticket, control, arm=arm, draw=draw, turn=turn, seeds=seeds, initialise=initial)

    def _small(self, path: Path) -> "partial[nn.Module]":
        return smaller(self.model, kept(load(path).masks), self._shape())

    def _fitting(self, path: Path) -> Ticket:
        """Load a ticket; LtlError if it is of another network than the one configured."""
        ticket = load(path)
        ours = {name: tuple(tensor.shape) for name, tensor in self._skeleton().state_dict().items()}
        theirs = {name: tuple(tensor.shape) for name, tensor in ticket.state.items()}
        if ours != theirs:
            odd = next(name for name in [*ours, *theirs] if ours.get(name) != theirs.get(name))
            raise LtlError(
                f"ticket={path} does not fit the network: {odd} is {theirs.get(odd, 'absent')} in the ticket and "
                f"{ours.get(odd, 'absent')} here; choose the model and a dataset of the shape it was found with."
            )
        return ticket

    def _events(self) -> list[Event]:
        return self.schedule(rounds=self.rounds, rate=self.rate, length=self.length, rewind_step=self.rewind_step)

    def _skeleton(self) -> nn.Module:
        with torch.device("meta"):
            return self.model(**self._shape())

    def _shape(self) -> dict[str, Any]:
        return {"input_shape": self.dataset.input_shape, "outputs": self.dataset.outputs}

    def _timeline(self, first: Sequence[int], marks: frozenset[tuple[int, int]]) -> Timeline:
        return Timeline(self.length, self.eval_every, tuple(first), self.hardware.chunk, marks)

    def network(self, model: "partial[nn.Module]", source: torch.Generator) -> nn.Module:
        """Return the network that `model` builds, initialised from `source`."""
        with torch.device("meta"):
            network = model(**self._shape())
        network = network.to_empty(device="cpu")
        initialise(network, weight_init=self.weight_init, generator=source)
        return network

    def _initial(self, model: "partial[nn.Module]", source: torch.Generator) -> Tensors:
        network = self.network(model, source)
        return cloned(dict(network.named_parameters()) | dict(network.named_buffers()))


def _number(ticket: Ticket, name: str) -> int:
    return int(ticket.metadata[name])

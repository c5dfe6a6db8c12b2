"""What a run consists of: every trial's search, then its controls, each one `Trainer.fit`."""

import hashlib
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.loggers import Logger
from torch import nn
from torch.optim import Optimizer

from ltl.callbacks.prune_rewind import PruneRewind
from ltl.callbacks.retrain import Given, Retrain
from ltl.callbacks.supermask import Supermask, TrainScores
from ltl.datasets.dataset import Dataset
from ltl.errors import LtlError
from ltl.hardware import Hardware
from ltl.masks import Tensors, kept, prunable
from ltl.models.form import check_form
from ltl.models.initialisers import WeightInit, initialise
from ltl.models.scaling import smaller
from ltl.models.stack import is_chain
from ltl.pruning.pruner import Pruner
from ltl.pruning.schedules import Event
from ltl.results import Key
from ltl.rng import Seeds
from ltl.tickets import Ticket, check_trials, load, start_of
from ltl.training.controls import Control, control_start
from ltl.training.scoring import Scoring, check_scoring
from ltl.training.search import Search
from ltl.training.start import Start, cloned
from ltl.training.timeline import Timeline

_NUMBERS = ("trial", "round", "rewind_step", "search_steps")  # of a ticket's metadata


@dataclass(frozen=True)
class Network:
    """One network of a job, with the rows that it will write, a turn each."""

    member: Search | Given | Supermask
    keys: tuple[Key, ...]

    @property
    def trial(self) -> int:
        """The trial that it belongs to."""
        return self.keys[0][0]


@dataclass(frozen=True)
class Job:
    """One `Trainer.fit`: networks that train side by side, through the rounds of a search or from given starts."""

    name: str  # of its checkpoint
    networks: tuple[Network, ...]
    model: Callable[[], "partial[nn.Module]"]  # called when its turn comes
    dataset: Dataset
    timeline: Timeline
    make_cycle: Callable[..., PruneRewind | Retrain | TrainScores]
    stacked: bool
    alike: Hashable  # what jobs of several runs must share to train as one; None: it trains by itself
    scoring: Scoring | None = None  # how scores are trained, if they are

    @property
    def arm(self) -> str:
        """The arm of all its networks."""
        return self.networks[0].keys[0][1]

    @property
    def keys(self) -> list[Key]:
        """The rows it will write."""
        return [key for network in self.networks for key in network.keys]

    def steps(self) -> int:
        """Return the optimiser steps of all its networks."""
        return self.timeline.steps() * len(self.networks)

    @property
    def searches(self) -> bool:
        """Whether its networks go through rounds together, and no row of one can be done without the others."""
        return self.scoring is None and self.make_cycle is not Retrain


@dataclass(frozen=True)
class Experiment:
    """All that a run consists of, built; lengths are in optimiser steps."""

    folder: Path
    dataset: Dataset  # that the search sees
    clean: Dataset  # the same without its corruption
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
    settings: Mapping[str, Any]  # that a checkpoint must share: all that decides a training, by key
    tickets: Sequence[Path]  # given: they are trained, and nothing is searched
    ends: bool  # keep the weights that every training ends with
    scoring: Scoring | None  # of supermasks: round 0 alone is then a search

    def check(self) -> None:
        """Build the network without drawing it and prune once; LtlError for what does not fit together."""
        self._check_tickets()
        network = self._skeleton()
        check_form(network, **self._shape())
        masks = {name: torch.ones(network.get_parameter(name).shape, dtype=torch.bool) for name in prunable(network)}
        events = [] if self.tickets else self._events()
        self.pruner.check(events)
        for event in events[:1]:
            scores = {name: torch.arange(mask.numel()).float().view_as(mask) for name, mask in masks.items()}
            self.pruner.allocate(scores, masks, event.target)
        if self.scoring:
            if self.rewind_step:
                raise LtlError(
                    "pruner.rewind_to is not possible with pruner.scores: weights stay as drawn; set it to 0it."
                )
            check_scoring(self.pruner, self.scoring.estimator, events, masks)

    def _check_tickets(self) -> None:
        found: dict[Path, dict[str, str]] = {}
        for path in self.tickets:
            ticket = self._fitting(path)
            if odd := [name for name in _NUMBERS if not ticket.metadata.get(name, "").isdecimal()]:
                raise LtlError(f"ticket={path} cannot be trained: its metadata has no whole number {odd[0]!r}.")
            step, found[path] = _number(ticket, "rewind_step"), ticket.metadata
            if step >= self.length:
                raise LtlError(
                    f"ticket={path} was rewound to step {step}, at or past the end of a round (length={self.length}it)."
                )
        check_trials(found)

    def counts(self) -> dict[str, int]:
        """Return the numbers of parameters and of prunable weights."""
        network = self._skeleton()
        parameters = dict(network.named_parameters())
        weights = sum(parameters[name].numel() for name in prunable(network))
        return {"parameters": sum(one.numel() for one in parameters.values()), "prunable": weights}

    def together(self) -> bool:
        """Return whether networks are stacked: as told, else where it was measured to pay (docs/performance.md)."""
        if self.hardware.stack == "auto":
            return self.hardware.accelerator == "gpu" or is_chain(self._skeleton())
        return self.hardware.stack == "together"

    def jobs(self, done: Callable[[Key], bool]) -> Iterator[Job]:
        """Yield the fits of the run in their order, without the rows that are done."""
        if self.tickets:
            yield from self._branches(done)
        elif self.together():
            for group in batched(range(self.trials), self.hardware.stack_size):
                yield from self._search(group, done)
            yield from self._supermasks(range(self.trials), done)
            yield from self._controls(self._found(range(self.trials)), done)
        else:
            for trial in range(self.trials):
                yield from self._search([trial], done)
                yield from self._supermasks([trial], done)
                yield from self._controls(self._found([trial]), done)

    def ticket_path(self, trial: int, turn: int) -> Path:
        """Return where the ticket of a round is kept."""
        return self.folder / "tickets" / f"trial-{trial}" / f"round-{turn:02d}.safetensors"

    def end_path(self, trial: int, arm: str, draw: int, turn: int) -> Path:
        """Return where the weights that a training ended with are kept."""
        return self.folder / "ends" / f"trial-{trial}" / f"{arm}-{draw}-round-{turn:02d}.safetensors"

    def _found(self, trials: Sequence[int]) -> dict[tuple[int, int], Path]:
        """Return where the tickets of the search will be, by trial and round."""
        return {(trial, turn): self.ticket_path(trial, turn) for trial in trials for turn in range(self.rounds + 1)}

    def _search(self, trials: Sequence[int], done: Callable[[Key], bool]) -> Iterator[Job]:
        rounds, events = (0, []) if self.scoring else (self.rounds, self._events())
        untrained = {event.round + 1 for event in events if event.untrained}
        last = self.length - 1  # a round that is not trained has one step, at which the optimiser does nothing
        first = (0, *(last if turn in untrained else self.rewind_step for turn in range(1, rounds + 1)))
        marks = frozenset({(event.round, event.step) for event in events} | {(0, self.rewind_step)})
        idle = frozenset((event.round, event.step) for event in events if event.replaces)
        idle |= {(turn, last) for turn in untrained}
        networks = tuple(
            Network(
                Search(
                    pruner=self.pruner,
                    events=events,
                    seed=self.seeds.of("mask", trial),
                    initialise=partial(self._initial, self.model),
                ),
                tuple((trial, "ticket", 0, turn) for turn in range(rounds + 1)),
            )
            for trial in trials
        )
        make_cycle = partial(PruneRewind, pruner=self.pruner, rewind_step=self.rewind_step)
        name = f"trial-{trials[0]}" + (f"-to-{trials[-1]}" if len(trials) > 1 else "")
        timeline = self._timeline(first, marks, idle)
        job = Job(
            f"{name}-ticket",
            networks,
            lambda: self.model,
            self.dataset,
            timeline,
            make_cycle,
            len(trials) > 1,
            ("search", replace(timeline, marks=frozenset()), self.rewind_step, self.pruner.momentum, self.pruner.lr),
        )
        if not all(map(done, job.keys)):
            yield job

    def _supermasks(self, trials: Sequence[int], done: Callable[[Key], bool]) -> Iterator[Job]:
        """Yield the jobs that look for the supermasks of the rounds after the dense one, each by itself."""
        how = self.scoring
        if how is None:
            return
        events, cycle = self._events(), partial(TrainScores, scoring=how, eval_batch=self.hardware.eval_batch)
        make = partial(Supermask, pruner=self.pruner, scoring=how, events=events)
        make = partial(make, initialise=partial(self._initial, self.model))
        timeline = replace(self._timeline([0], frozenset((0, event.step) for event in events)), length=how.length)
        same = sorted(one for one in self.settings.items() if one[0].startswith(("pruner.scores", "pruner.allocation")))
        alike = ("scores", replace(timeline, marks=frozenset()), repr(same))
        keys = [(trial, "ticket", 0, turn) for turn in range(1, self.rounds + 1) for trial in trials]
        for group in self._groups([key for key in keys if not done(key)]):
            members = [make(turn=turn, seed=self.seeds.of("mask", trial)) for trial, _, _, turn in group]
            networks = tuple(Network(member, (key,)) for member, key in zip(members, group, strict=True))
            yield Job(
                _name("scores", group), networks, lambda: self.model, self.dataset, timeline, cycle, True, alike, how
            )

    def _branches(self, done: Callable[[Key], bool]) -> Iterator[Job]:
        found: dict[tuple[int, int], Path] = {}
        for path in self.tickets:
            metadata = load(path).metadata
            found[int(metadata["trial"]), int(metadata["round"])] = path
        trials = sorted({trial for trial, _ in found})
        for group in [trials] if self.together() else [[trial] for trial in trials]:
            mine = {key: found[key] for key in sorted(found) if key[0] in group}
            members = [
                ((trial, "ticket", 0, turn), _number(load(path), "rewind_step"), partial(self._given, path))
                for (trial, turn), path in mine.items()
            ]
            yield from self._retrained(members, lambda: self.model, self.dataset, done)
            yield from self._controls(mine, done)

    def _given(self, path: Path) -> Start:
        ticket = self._fitting(path)
        turn, step, search_steps = (_number(ticket, name) for name in ("round", "rewind_step", "search_steps"))
        return Start("ticket", 0, turn, ticket.masks, start_of(ticket), ticket.fills, step, search_steps)

    def _controls(self, found: Mapping[tuple[int, int], Path], done: Callable[[Key], bool]) -> Iterator[Job]:
        for arm, control in self.controls.items():
            wanted = [key for key in found if key[1] > 0 and (control.rounds is None or key[1] in control.rounds)]
            members = [
                (
                    (trial, arm, draw, turn),
                    0 if control.weights == "fresh" else self._rewind_step(found[trial, turn]),
                    partial(self._control, trial, arm, found[trial, turn], turn, draw),
                )
                for trial, turn in wanted
                for draw in range(control.draws)
            ]
            dataset = self.clean if control.data == "clean" else self.dataset
            if control.network == "same":
                yield from self._retrained(members, lambda: self.model, dataset, done, train=control.train)
                continue
            for turn in sorted({turn for _, turn in wanted}):
                paths = {trial: found[trial, at] for trial, at in wanted if at == turn}
                for group in self._of_one_size(paths.values()):
                    alike = [one for one in members if one[0][3] == turn and paths[one[0][0]] in group]
                    yield from self._retrained(
                        alike, partial(self._small, group[0]), dataset, done, train=control.train, own_network=True
                    )

    def _of_one_size(self, paths: Iterable[Path]) -> list[list[Path]]:
        """Return the tickets of one round, those together that keep as many weights; all those of one search do."""
        if not self.tickets:
            return [list(paths)]
        sizes: dict[int, list[Path]] = {}
        for path in paths:
            sizes.setdefault(kept(load(path).masks), []).append(path)
        return list(sizes.values())

    def _retrained(
        self,
        members: Sequence[tuple[Key, int, Callable[[], Start]]],
        model: Callable[[], "partial[nn.Module]"],
        dataset: Dataset,
        done: Callable[[Key], bool],
        *,
        train: bool = True,
        own_network: bool = False,
    ) -> Iterator[Job]:
        """Yield the jobs that train `members` (key, first step, start), or only evaluate them, side by side or not."""
        for step in sorted({first for _, first, _ in members}):
            timeline = self._timeline([step])
            left = [(key, make) for key, first, make in members if first == step and not done(key)]
            left.sort(key=lambda member: member[0][3])  # by round: networks of one density share a stack
            if not train:  # one step at which the optimiser does nothing
                timeline = replace(timeline, length=step + 1, idle=frozenset({(0, step)}))
            for group in self._groups(left):
                networks = tuple(Network(Given(make), (key,)) for key, make in group)
                name = _name(group[0][0][1], [key for key, _ in group])
                alike = None if own_network else ("retrain", group[0][0][1], timeline, id(dataset))
                yield Job(name, networks, model, dataset, timeline, Retrain, self.together(), alike)

    def _groups(self, items: Sequence[Any]) -> Iterator[list[Any]]:
        """Yield `items` in groups that train side by side, or one by one."""
        return batched(items, self.hardware.stack_size if self.together() else 1)

    def _rewind_step(self, path: Path) -> int:
        return _number(load(path), "rewind_step") if self.tickets else self.rewind_step

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
        length = self.scoring.length if self.scoring else self.length
        return self.schedule(rounds=self.rounds, rate=self.rate, length=length, rewind_step=self.rewind_step)

    def _skeleton(self) -> nn.Module:
        with torch.device("meta"):
            return self.model(**self._shape())

    def _shape(self) -> dict[str, Any]:
        return {"input_shape": self.dataset.input_shape, "outputs": self.dataset.outputs}

    def _timeline(
        self,
        first: Sequence[int],
        marks: frozenset[tuple[int, int]] = frozenset(),
        idle: frozenset[tuple[int, int]] = frozenset(),
    ) -> Timeline:
        return Timeline(self.length, self.eval_every, tuple(first), self.hardware.chunk, marks, idle)

    def network(self, model: "partial[nn.Module]", source: torch.Generator) -> nn.Module:
        """Return the network that `model` builds, initialised from `source`."""
        with torch.device("meta"):
            network = model(**self._shape())
        network = network.to_empty(device="cpu")
        initialise(network, weight_init=self.weight_init, generator=source)
        return network.double() if self.hardware.precision == "64-true" else network

    def _initial(self, model: "partial[nn.Module]", source: torch.Generator) -> Tensors:
        network = self.network(model, source)
        return cloned(dict(network.named_parameters()) | dict(network.named_buffers()))


def _number(ticket: Ticket, name: str) -> int:
    return int(ticket.metadata[name])


def _name(what: str, keys: Sequence[Key]) -> str:
    """Return the name of a job, told by all its networks: a resume that adds controls may form other groups."""
    return f"{what}-{hashlib.sha256(repr(keys).encode()).hexdigest()[:12]}"


def batched(items: Sequence[Any], size: int) -> Iterator[list[Any]]:
    """Yield `items` in groups of up to `size`."""
    iterator = iter(items)
    while group := list(islice(iterator, size)):
        yield group

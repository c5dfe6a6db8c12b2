"""Runs experiments: one `Trainer.fit` a job, or for jobs of several runs, and the records left in the run folders."""

import gc
import hashlib
import json
import logging
import time
import warnings
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import nn

from ltl.callbacks.checkpoint import CheckedCheckpointIO, IntervalCheckpoint
from ltl.callbacks.progress import RunProgress, ShowProgress
from ltl.callbacks.record import Record
from ltl.dashboard.tracking import Tracking
from ltl.datasets.dataset import Dataset
from ltl.errors import Diverged
from ltl.experiment import Experiment, Job, Network, batched
from ltl.masks import Tensors
from ltl.results import LAYER_COLUMNS, ROUND_COLUMNS, Key, Row, rank
from ltl.rng import generator
from ltl.tickets import Ticket, save
from ltl.training.module import MaskedTraining, Streams
from ltl.training.order import DataOrder
from ltl.training.start import Scored, Start, cloned
from ltl.training.tables import Table
from ltl.training.timeline import Position


@dataclass(eq=False)
class _Run:
    """A run folder while it is trained: its tables, its loggers, and where it is on their axis."""

    experiment: Experiment
    rows: Table
    layers: Table
    tracking: Tracking
    place: int  # optimiser steps of all its networks before the fit that is due
    lost: dict[Key, str] = field(default_factory=dict)  # why rows are missing that were trained for


@dataclass(frozen=True)
class _Fit:
    """One `Trainer.fit`: a job with its networks, of one run or of several."""

    job: Job
    networks: list[tuple[_Run, Network]]
    checkpoint: Path
    settings: Mapping[str, Any]  # that its checkpoint must share

    def steps(self) -> int:
        """Return the optimiser steps of all its networks."""
        return self.job.timeline.steps() * len(self.networks)

    def left(self) -> "_Fit | None":
        """Return the fit without the controls of tickets that were lost; None if nothing else is left."""
        networks = [
            (run, network)
            for run, network in self.networks
            if (network.trial, "ticket", 0, network.keys[0][-1]) not in run.lost
        ]
        return replace(self, networks=networks) if networks else None

    def begun(self) -> bool:
        """Return whether there is a checkpoint of it."""
        return self.checkpoint.exists()

    def missing(self) -> bool:
        """Return whether any of its rows are missing."""
        return bool(_missing(self.networks))

    def runs(self) -> list[_Run]:
        """Return its runs, each once."""
        return list(dict.fromkeys(run for run, _ in self.networks))


def run(experiment: Experiment, progress: Callable[[int], RunProgress]) -> None:
    """Train everything that the run folder does not hold yet.

    Diverged, when all else is done, if the loss of some network was no finite number; Stopped when the time is up.
    """
    [lost] = side_by_side([experiment], progress, None, time.monotonic())
    if lost:
        raise Diverged(lost)


def side_by_side(
    experiments: Sequence[Experiment], progress: Callable[[int], RunProgress], sweep: Path | None, began: float
) -> list[str]:
    """Train everything that the run folders do not hold yet, of several as far as possible as one stack.

    Several differ in pruner, seeds, trials and controls only, and lie in the folder `sweep`, which gets their
    checkpoints. Returns why rows of each were lost, "" where none was; Stopped when the time is up, which counts
    from `began` on the clock of `time.monotonic`.
    """
    deadline = began + experiments[0].hardware.stop_after
    runs, total, last_round = [], 0, 0
    for experiment in experiments:
        rows = Table(experiment.folder / "rounds.csv", ROUND_COLUMNS)
        layers = Table(experiment.folder / "layers.csv", LAYER_COLUMNS)
        whole = list(experiment.jobs(lambda key: False))
        keys = [key for job in whole for key in job.keys]
        tracking = Tracking(folder=experiment.folder, loggers=experiment.loggers, keys=keys)
        place = sum(job.steps() for job in whole)
        runs.append(_Run(experiment, rows, layers, tracking, place))
        total, last_round = total + place, max(last_round, *(key[3] for key in keys))
    fits = _alone(runs[0]) if sweep is None else _merged(runs, sweep)
    for fit in fits:
        for owner, _ in fit.networks:
            owner.place -= fit.job.timeline.steps()
    for name in ("pytorch_lightning", "pytorch_lightning.utilities.rank_zero", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings(), progress(total) as display:
        warnings.filterwarnings("ignore", module=r"pytorch_lightning\.")  # advice on data loaders, not for our chunks
        display.skip(total - sum(fit.steps() for fit in fits))
        for planned in fits:
            left = planned.left()
            if left is not None:
                _train(left, last_round, deadline, display)
            display.skip(planned.steps() - (left.steps() if left else 0))
            for owner, _ in planned.networks:
                owner.place += planned.job.timeline.steps()
        if rank() == 0:
            for owner in runs:
                owner.tracking.rounds(owner.rows.has, whole=False)
    return [" ".join(dict.fromkeys(owner.lost.values())) for owner in runs]  # trials may share a reason


def _alone(owner: _Run) -> list[_Fit]:
    """Return what is left to fit of one run."""
    experiment, folder = owner.experiment, owner.experiment.folder / "checkpoints"
    return [
        _Fit(
            job,
            [(owner, network) for network in job.networks],
            folder / f"{job.name}.ckpt",
            {**experiment.settings, "job": job.name},
        )
        for job in experiment.jobs(owner.rows.has)
    ]


def searching(experiment: Experiment) -> bool:
    """Return whether rows of a search are missing in the run folder."""
    rows = Table(experiment.folder / "rounds.csv", ROUND_COLUMNS)
    return any(job.searches for job in experiment.jobs(rows.has))


def _merged(runs: Sequence[_Run], sweep: Path) -> list[_Fit]:
    """Return what is left to fit of several runs: jobs of one kind together, all searches before any control."""
    pools: dict[Hashable, list[tuple[_Run, Job, Network]]] = {}
    for owner in runs:
        searches = [job for job in owner.experiment.jobs(lambda key: False) if job.searches]
        others = [job for job in owner.experiment.jobs(owner.rows.has) if not job.searches]
        for job in [*searches, *others]:
            key = (owner, job.name) if job.alike is None else job.alike
            pools.setdefault(key, []).extend((owner, job, network) for network in job.networks)
    size, fits = runs[0].experiment.hardware.stack_size, []
    for pool in sorted(pools.values(), key=lambda pool: (not pool[0][1].searches, pool[0][1].arm != "ticket")):
        marks = frozenset[Position]().union(*(job.timeline.marks for _, job, _ in pool))
        job = replace(pool[0][1], stacked=True, timeline=replace(pool[0][1].timeline, marks=marks))
        members = [(owner, network) for owner, _, network in pool]
        if job.searches:  # the networks of a checkpoint stay together, whatever rows there are
            begun = [fit for fit in (_stack(job, group, sweep) for group in batched(members, size)) if fit.begun()]
            apart = {network for fit in begun for _, network in fit.networks}
            fits += [fit for fit in begun if fit.missing()]
            members = [one for one in _missing(members) if one[1] not in apart]
        else:
            members.sort(key=lambda member: member[1].keys[0][3])  # by round: networks of one density share a stack
        fits += [_stack(job, group, sweep) for group in batched(members, size)]
    return fits


def _stack(job: Job, networks: list[tuple[_Run, Network]], sweep: Path) -> _Fit:
    """Return the fit of networks of several runs in `sweep`, named for all of them."""
    called = {owner: str(owner.experiment.folder.resolve().relative_to(sweep.resolve())) for owner, _ in networks}
    # A search is named by its beginning: a resume may add rounds.
    keys = repr([(called[owner], network.keys[0]) for owner, network in networks])
    name = f"{job.arm}-{hashlib.sha256(keys.encode()).hexdigest()[:12]}"
    settings = {
        f"{called[owner]}: {key}": value for owner in called for key, value in owner.experiment.settings.items()
    }
    return _Fit(job, networks, sweep / "checkpoints" / f"{name}.ckpt", {**settings, "job": name})


def _missing(networks: Sequence[tuple[_Run, Network]]) -> list[tuple[_Run, Network]]:
    """Return the networks that rows are missing of."""
    return [(owner, network) for owner, network in networks if not all(map(owner.rows.has, network.keys))]


def _train(fit: _Fit, last_round: int, deadline: float, display: RunProgress) -> None:
    """Train one fit, and note which rows were lost on the way."""
    job, networks, runs = fit.job, fit.networks, fit.runs()
    experiment = runs[0].experiment
    recipe = job.scoring or experiment
    cycle = job.make_cycle(members=[network.member for _, network in networks])
    model = job.model()
    module = MaskedTraining(
        networks=[_network(owner.experiment, model, network.trial) for owner, network in networks],
        streams=[_streams(owner.experiment, job.dataset, network.trial) for owner, network in networks],
        dataset=job.dataset,
        timeline=job.timeline,
        optimizer=recipe.optimizer,
        lr_schedule=recipe.lr_schedule,
        clip=experiment.clip,
        sparse_below=experiment.hardware.sparse_below,
        sparse_inputs_below=experiment.hardware.sparse_inputs_below,
        stacked=job.stacked,
        graph=experiment.hardware.graph,
        compiled=experiment.hardware.compile,
        merge=experiment.hardware.merge,
    )
    mine = {owner: [number for number, (other, _) in enumerate(networks) if other is owner] for owner in runs}

    def begin(record: Record) -> None:
        for number, (owner, network) in enumerate(networks):
            for table, known in ((owner.rows, record.rows), (owner.layers, record.layer_rows)):
                table.drop(network.keys)
                table.add(known[number])

    def finish(number: int, start: Start, row: Row, layer_rows: Sequence[Row], now: Tensors) -> None:
        owner = networks[number][0]
        owner.rows.add([row])
        owner.layers.add(layer_rows)
        if rank() == 0:
            _keep(owner.experiment, start, row, now)

    def write() -> None:
        if rank() == 0:
            for owner in runs:
                owner.layers.write()
                owner.rows.write()
                owner.tracking.rounds(owner.rows.has, whole=True)

    def log(number: int, row: Row) -> None:
        owner = networks[number][0]
        own = mine[owner]
        # Every network has a place of its own on an axis that runs on over all fits of a run.
        owner.tracking.evaluation(row, owner.place + row["total_step"] * len(own) + own.index(number))

    record = Record(
        cycle=cycle,
        trials=[network.trial for _, network in networks],
        hardware=[owner.experiment.hardware_number for owner, _ in networks],
        eval_batch=experiment.hardware.eval_batch,
        begin=begin,
        finish=finish,
        write=write,
        log=log,
    )
    shown = ShowProgress(display=display, record=record, rounds=last_round)
    checkpoint = IntervalCheckpoint(path=fit.checkpoint, every=experiment.hardware.checkpoint_every, deadline=deadline)
    trainer = _trainer(fit, [cycle, record, shown, checkpoint])
    with suppress(Diverged):
        trainer.fit(module, ckpt_path=fit.checkpoint if fit.begun() else None, weights_only=True)
    if fit.missing():
        begin(record)  # the checkpoint was at the end, and a table had lost rows
        write()
    if not job.searches and rank() == 0:
        fit.checkpoint.unlink(missing_ok=True)  # its rows are written, and no later round goes on from it
    for number, reason in record.lost.items():
        owner, network = networks[number]
        owner.lost |= {key: reason for key in network.keys if not owner.rows.has(key)}
    del trainer, module, record, shown
    gc.collect()  # trainer, module and callbacks hold one another: without this every fit's tensors stay


def _keep(experiment: Experiment, start: Start, row: Row, now: Tensors) -> None:
    """Write the ticket of a round, and the weights `now` that its training ended with if they are asked for."""
    trial = int(row["trial"])
    if start.arm == "ticket" and not experiment.tickets:
        save(_ticket(experiment, start, row), experiment.ticket_path(trial, start.round))
    if experiment.ends:
        path = experiment.end_path(trial, start.arm, start.draw, start.round)
        # what a network computes with has the gains of a supermask in it
        save(replace(_ticket(experiment, start, row), state=cloned(now), gains={}), path)


def _network(experiment: Experiment, model: "partial[nn.Module]", trial: int) -> nn.Module:
    network = experiment.network(model, generator("init", experiment.seeds.of("init", trial)))
    if experiment.hardware.memory_format == "channels_last":
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


def _streams(experiment: Experiment, dataset: Dataset, trial: int) -> Streams:
    inputs = dataset.train.inputs
    order = DataOrder(
        examples=len(inputs),
        batch=experiment.batch,
        seed=experiment.seeds.of("order", trial),
        by_round=experiment.seeds.order_by_round,
        device=inputs.device,
    )
    return Streams(order, experiment.seeds.of("augmentation", trial))


def _trainer(fit: _Fit, callbacks: list[pl.Callback]) -> pl.Trainer:
    experiments = [owner.experiment for owner in fit.runs()]
    hardware = experiments[0].hardware
    return pl.Trainer(
        accelerator=hardware.accelerator,
        devices=hardware.devices,
        strategy=hardware.strategy,
        precision=hardware.precision,
        deterministic=hardware.deterministic,
        max_epochs=fit.job.timeline.epochs(),
        callbacks=callbacks,
        logger=[logger for experiment in experiments for logger in experiment.loggers] or False,
        plugins=[CheckedCheckpointIO(settings=fit.settings)],
        default_root_dir=experiments[0].folder,
        num_sanity_val_steps=0,
        limit_val_batches=0,
        use_distributed_sampler=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def _ticket(experiment: Experiment, start: Start, row: Row) -> Ticket:
    trial = int(row["trial"])
    measured = ("density", "effective_density", "weights_left", "mask_sha256", "init_sha256")
    accuracies = [name for name in row if name.endswith("_accuracy")]
    seeds = {stream: experiment.seeds.of(stream, trial) for stream in ("init", "order", "augmentation", "mask")}
    metadata = {
        **experiment.provenance,
        "input_shape": json.dumps(list(experiment.dataset.input_shape)),
        "outputs": json.dumps(experiment.dataset.outputs),
        "seeds": json.dumps({**seeds, "order_by_round": experiment.seeds.order_by_round}),
        "trial": str(trial),
        "round": str(start.round),
        "rewind_step": str(start.step),
        "search_steps": str(start.search_steps),
        **{name: str(row[name]) for name in (*measured, *accuracies) if row.get(name) is not None},
    }
    scored = start.scored or Scored({}, {}, {})
    return Ticket(
        masks=start.masks,
        state=start.theta,
        metadata=metadata,
        gains=scored.gains,
        fills=start.fills,
        probabilities=scored.probabilities,
    )

"""Runs an experiment: one `Trainer.fit` a job, and the records that each leaves in the run folder."""

import gc
import json
import logging
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial

import pytorch_lightning as pl
import torch
from torch import nn

from ltl.callbacks.checkpoint import CheckedCheckpointIO, IntervalCheckpoint
from ltl.callbacks.progress import RunProgress, ShowProgress
from ltl.callbacks.prune_rewind import PruneRewind
from ltl.callbacks.record import Record
from ltl.dashboard.tracking import Tracking
from ltl.datasets.dataset import Dataset
from ltl.errors import Diverged
from ltl.experiment import Experiment, Job
from ltl.masks import Tensors
from ltl.results import LAYER_COLUMNS, ROUND_COLUMNS, Row, rank
from ltl.rng import generator
from ltl.tickets import Ticket, save
from ltl.training.module import MaskedTraining, Streams
from ltl.training.order import DataOrder
from ltl.training.start import Scored, Start, cloned
from ltl.training.tables import Table


def run(experiment: Experiment, progress: Callable[[int], RunProgress]) -> None:
    """Train everything that the run folder does not hold yet.

    Diverged, when all else is done, if the loss of some trial was no finite number; Stopped when the time is up.
    """
    deadline = time.monotonic() + experiment.hardware.stop_after
    rows = Table(experiment.folder / "rounds.csv", ROUND_COLUMNS)
    layers = Table(experiment.folder / "layers.csv", LAYER_COLUMNS)
    whole = list(experiment.jobs(lambda key: False))
    keys = [key for job in whole for key in job.keys]
    total, last_round = sum(job.steps() for job in whole), max(key[3] for key in keys)
    tracking = Tracking(folder=experiment.folder, loggers=experiment.loggers, keys=keys)
    jobs = list(experiment.jobs(rows.has))
    for name in ("pytorch_lightning", "pytorch_lightning.utilities.rank_zero", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings(), progress(total) as display:
        warnings.filterwarnings("ignore", module=r"pytorch_lightning\.")  # advice on data loaders, not for our chunks
        first_step = total - sum(job.steps() for job in jobs)
        display.skip(first_step)
        lost: dict[int, str] = {}
        for planned in jobs:
            job = planned.without(lost)
            if job is not None:
                lost |= _fit(experiment, job, rows, layers, tracking, first_step, last_round, deadline, display)
            display.skip(planned.steps() - (job.steps() if job else 0))
            first_step += planned.steps()
        if rank() == 0:
            tracking.rounds(rows.has, whole=False)
    if lost:
        raise Diverged(" ".join(lost.values()))


def _fit(
    experiment: Experiment,
    job: Job,
    rows: Table,
    layers: Table,
    tracking: Tracking,
    first_step: int,
    last_round: int,
    deadline: float,
    display: RunProgress,
) -> dict[int, str]:
    """Train one job; return the trials that were lost on the way, and why."""
    cycle, trials = job.cycle(), [network.trial for network in job.networks]
    recipe = job.scoring or experiment
    module = MaskedTraining(
        networks=[_network(experiment, job.model(), trial) for trial in trials],
        streams=[_streams(experiment, job.dataset, trial) for trial in trials],
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
    )

    def begin(record: Record) -> None:
        for table, known in ((rows, record.rows), (layers, record.layer_rows)):
            table.drop(job.keys)
            table.add(known)

    def finish(start: Start, row: Row, layer_rows: Sequence[Row], now: Tensors) -> None:
        rows.add([row])
        layers.add(layer_rows)
        if rank() != 0:
            return
        if start.arm == "ticket" and not experiment.tickets:
            save(_ticket(experiment, start, row), experiment.ticket_path(int(row["trial"]), start.round))
        if experiment.ends:
            path = experiment.end_path(int(row["trial"]), start.arm, start.draw, start.round)
            save(replace(_ticket(experiment, start, row), state=cloned(now)), path)

    def write() -> None:
        if rank() == 0:
            layers.write()
            rows.write()
            tracking.rounds(rows.has, whole=True)

    record = Record(
        cycle=cycle,
        trials=trials,
        hardware=experiment.hardware_number,
        eval_batch=experiment.hardware.eval_batch,
        begin=begin,
        finish=finish,
        write=write,
        log=tracking.evaluation,
        first_step=first_step,
    )
    path = experiment.folder / "checkpoints" / f"{job.name}.ckpt"
    shown = ShowProgress(display=display, record=record, rounds=last_round)
    checkpoint = IntervalCheckpoint(path=path, every=experiment.hardware.checkpoint_every, deadline=deadline)
    trainer = _trainer(experiment, job, [cycle, record, shown, checkpoint])
    with suppress(Diverged):
        trainer.fit(module, ckpt_path=path if path.exists() else None, weights_only=True)
    if not all(map(rows.has, job.keys)):  # the checkpoint was at the end, and a table had lost rows
        begin(record)
        write()
    if not isinstance(cycle, PruneRewind) and rank() == 0:
        path.unlink(missing_ok=True)  # its rows are written, and no later round goes on from it
    lost = {trials[number]: reason for number, reason in record.lost.items()}
    del trainer, module, record, shown
    gc.collect()  # trainer, module and callbacks hold one another: without this every fit's tensors stay
    return lost


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


def _trainer(experiment: Experiment, job: Job, callbacks: list[pl.Callback]) -> pl.Trainer:
    hardware = experiment.hardware
    return pl.Trainer(
        accelerator=hardware.accelerator,
        devices=hardware.devices,
        strategy=hardware.strategy,
        precision=hardware.precision,
        deterministic=hardware.deterministic,
        max_epochs=job.timeline.epochs(),
        callbacks=callbacks,
        logger=list(experiment.loggers) or False,
        plugins=[CheckedCheckpointIO(settings={**experiment.settings, "job": job.name})],
        default_root_dir=experiment.folder,
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

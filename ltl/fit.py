"""Runs an experiment: one `Trainer.fit` a job, and the records that each leaves in the run folder."""

import gc
import json
import logging
import warnings
from collections.abc import Callable, Sequence

import pytorch_lightning as pl
import torch

from ltl.callbacks.checkpoint import CheckedCheckpointIO, IntervalCheckpoint
from ltl.callbacks.progress import RunProgress, ShowProgress
from ltl.callbacks.record import Record
from ltl.experiment import Experiment, Job
from ltl.results import LAYER_COLUMNS, ROUND_COLUMNS, Row, rank
from ltl.rng import generator
from ltl.tickets import Ticket, save
from ltl.training.module import MaskedTraining
from ltl.training.order import DataOrder
from ltl.training.start import Start
from ltl.training.tables import Table
from ltl.training.timeline import Timeline


def run(experiment: Experiment, progress: Callable[[int], RunProgress]) -> None:
    """Train everything that the run folder does not hold yet."""
    rows = Table(experiment.folder / "rounds.csv", ROUND_COLUMNS)
    layers = Table(experiment.folder / "layers.csv", LAYER_COLUMNS)
    jobs = list(experiment.jobs())
    for name in ("pytorch_lightning", "pytorch_lightning.utilities.rank_zero", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings(), progress(sum(job.timeline.steps() for job in jobs)) as display:
        warnings.filterwarnings("ignore", module=r"pytorch_lightning\.")  # advice on data loaders, not for our chunks
        first_step = 0
        for job in jobs:
            if all(rows.has(key) for key in job.keys):
                display.skip(job.timeline.steps())
            else:
                _fit(experiment, job, rows, layers, first_step, display)
            first_step += job.timeline.steps()


def _fit(experiment: Experiment, job: Job, rows: Table, layers: Table, first_step: int, display: RunProgress) -> None:
    network = experiment.network(job.model(), generator("init", experiment.seeds.of("init", job.trial)))
    if experiment.hardware.memory_format == "channels_last":
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    inputs = experiment.dataset.train.inputs
    order = DataOrder(
        examples=len(inputs),
        batch=experiment.batch,
        seed=experiment.seeds.of("order", job.trial),
        by_round=experiment.seeds.order_by_round,
        device=inputs.device,
    )
    module = MaskedTraining(
        network=network,
        dataset=experiment.dataset,
        order=order,
        timeline=job.timeline,
        optimizer=experiment.optimizer,
        lr_schedule=experiment.lr_schedule,
        clip=experiment.clip,
        augmentation_seed=experiment.seeds.of("augmentation", job.trial),
    )

    def begin(record: Record) -> None:
        rows.drop(job.keys)
        layers.drop(job.keys)
        rows.add(record.rows)
        layers.add(record.layer_rows)

    def finish(start: Start, row: Row, layer_rows: Sequence[Row]) -> None:
        rows.add([row])
        layers.add(layer_rows)
        if rank() > 0:
            return
        if start.arm == "ticket" and not experiment.tickets:
            _save_ticket(experiment, start, row, job.trial)
        layers.write()
        rows.write()

    record = Record(
        cycle=job.cycle,
        identity={"trial": job.trial},
        hardware=experiment.hardware_number,
        eval_batch=experiment.hardware.eval_batch,
        begin=begin,
        finish=finish,
        first_step=first_step,
    )
    path = experiment.folder / "checkpoints" / f"{job.name}.ckpt"
    shown = ShowProgress(
        display=display,
        cycle=job.cycle,
        record=record,
        trial=f"trial {job.trial}",
        rounds=max(key[3] for key in job.keys),
    )
    checkpoint = IntervalCheckpoint(path=path, every=experiment.hardware.checkpoint_every)
    trainer = _trainer(experiment, job.timeline, [job.cycle, record, shown, checkpoint])
    trainer.fit(module, ckpt_path=path if path.exists() else None, weights_only=True)
    del trainer, module, network, record, shown
    gc.collect()  # trainer, module and callbacks hold one another: without this every fit's tensors stay


def _trainer(experiment: Experiment, timeline: Timeline, callbacks: list[pl.Callback]) -> pl.Trainer:
    hardware = experiment.hardware
    return pl.Trainer(
        accelerator=hardware.accelerator,
        devices=hardware.devices,
        strategy=hardware.strategy,
        precision=hardware.precision,
        deterministic=hardware.deterministic,
        max_epochs=timeline.epochs(),
        callbacks=callbacks,
        logger=list(experiment.loggers) or False,
        plugins=[CheckedCheckpointIO()],
        default_root_dir=experiment.folder,
        num_sanity_val_steps=0,
        limit_val_batches=0,
        use_distributed_sampler=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def _save_ticket(experiment: Experiment, start: Start, row: Row, trial: int) -> None:
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
    ticket = Ticket(masks=start.masks, state=start.theta, metadata=metadata, gains={}, fills=start.fills)
    save(ticket, experiment.ticket_path(trial, start.round))

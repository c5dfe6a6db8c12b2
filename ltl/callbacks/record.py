"""Evaluates at every interval, and writes the row, the layers and the ticket of each round when it ends."""

import time
from collections.abc import Callable
from typing import Any, Protocol

import pytorch_lightning as pl
import torch

from ltl.errors import LtlError
from ltl.masks import Tensors, density, kept, mask_sha256
from ltl.models.paths import live
from ltl.results import Row
from ltl.training.evaluation import evaluate
from ltl.training.layers import layer_rows
from ltl.training.module import MaskedTraining
from ltl.training.start import Start

CENSORED = 0.95  # a lowest validation loss in the last 5% of a round may not be the lowest


class Cycle(Protocol):
    """The callback that says which start is being trained."""

    @property
    def current(self) -> Start | None:
        """What is being trained."""

    @property
    def theta_0(self) -> Tensors:
        """The initialisation that it goes back to."""

    @property
    def init_sha256(self) -> str:
        """The hash of `theta_0`."""


class Record(pl.Callback):
    """Keeps the evaluations of the round and hands on each finished round as rows, with its start.

    `begin(record)` is called once, with the rows of a checkpoint already taken up; `finish(start, row, layers)` writes
    those of a round before the checkpoint that holds them, so that a resumed run writes the same ones again. `identity`
    are the columns that all rows share (trial); `hardware` counts the changes of hardware that resumes have made.
    """

    def __init__(
        self,
        *,
        cycle: Cycle,
        identity: Row,
        hardware: int,
        eval_batch: int,
        begin: Callable[["Record"], None],
        finish: Callable[[Start, Row, list[Row]], None],
        first_step: int,
    ) -> None:
        self.cycle, self.identity, self.hardware, self.eval_batch = cycle, identity, hardware, eval_batch
        self.begin, self.finish = begin, finish
        self.first_step = first_step  # on the loggers' axis, which runs on over all fits of a run
        self.curve: list[Row] = []
        self.rows: list[Row] = []
        self.layer_rows: list[Row] = []
        self.steps_done = 0
        self.eval_seconds = 0.0
        self._seconds = 0.0
        self._module: MaskedTraining | None = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Find the module, whose clock is part of the state."""
        assert isinstance(pl_module, MaskedTraining)
        self._module = pl_module

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take up the clock and the rows of a checkpoint, if there is one."""
        assert self._module is not None
        self._module.seconds = self._seconds
        self.begin(self)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Evaluate; at the end of a round also write its records."""
        module, start = self._module, self.cycle.current
        assert module is not None
        assert start is not None
        if module.device.type == "cuda":
            begun = time.perf_counter()
            torch.cuda.synchronize()
            module.seconds += time.perf_counter() - begun
        begun = time.perf_counter()
        step, ended = module.position[1], module.position[1] == module.timeline.length
        summed = trainer.strategy.reduce(module.interval_loss, reduce_op="mean")  # over processes, each with its share
        train_loss = float(summed) / max(1, module.interval_steps)
        module.interval_loss, module.interval_steps = torch.zeros(()), 0
        point: Row = {"step": step, "train_loss": train_loss, "lr": module.lr()}
        if not torch.isfinite(torch.tensor(point["train_loss"])):
            raise LtlError(
                f"the training loss is {point['train_loss']} before step {step} of round {start.round} "
                f"({start.arm}, trial {self.identity['trial']}): lower optimizer.lr, or set clip=1.0; "
                "finished rounds are kept."
            )
        dataset, network = module.dataset, module.network
        context = trainer.precision_plugin.forward_context
        with context():
            if len(dataset.validation.targets):
                loss, accuracy = evaluate(network, dataset, dataset.validation, self.eval_batch)
                point |= {"val_loss": loss, "val_accuracy": accuracy}
            best = min((p["val_loss"] for p in self.curve if "val_loss" in p), default=torch.inf)
            if ended or point.get("val_loss", torch.inf) < best:
                loss, accuracy = evaluate(network, dataset, dataset.test, self.eval_batch)
                point |= {"test_loss": loss, "test_accuracy": accuracy}
        self.curve.append(point)
        done = self.steps_done + step - module.timeline.first[module.position[0]]
        self._log(trainer, {**self._identity(start), "total_step": done, **point}, done)
        self.eval_seconds += time.perf_counter() - begun
        if ended:
            self._finish(module, start, trainer)
            self.steps_done = done

    def state_dict(self) -> dict[str, Any]:
        """Return the whole state as tensors and plain values."""
        seconds = self._module.seconds if self._module is not None else 0.0
        return {name: getattr(self, name) for name in self._KEPT} | {"seconds": seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the state of a checkpoint."""
        for name in self._KEPT:
            setattr(self, name, state_dict[name])
        self._seconds = state_dict["seconds"]

    _KEPT = ("curve", "rows", "layer_rows", "steps_done", "eval_seconds")

    def _identity(self, start: Start) -> Row:
        return {**self.identity, "arm": start.arm, "draw": start.draw, "round": start.round}

    def _log(self, trainer: pl.Trainer, metrics: Row, done: int) -> None:
        for logger in trainer.loggers:
            logger.log_metrics(metrics, step=self.first_step + done)

    def _finish(self, module: MaskedTraining, start: Start, trainer: pl.Trainer) -> None:
        begun = time.perf_counter()
        dataset = module.dataset
        with trainer.precision_plugin.forward_context():
            train_loss, train_accuracy = evaluate(module.network, dataset, dataset.train, self.eval_batch)
        self.eval_seconds += time.perf_counter() - begun
        now = module.networks()[0]
        on_path = live(module.network, dataset.input_shape, start.masks)
        last, steps = self.curve[-1], module.timeline.length - start.step
        row: Row = {
            **self._identity(start),
            "density": density(start.masks),
            "weights_left": kept(start.masks),
            "effective_density": density(on_path),
            "train_accuracy": train_accuracy,
            "train_loss": train_loss,
            **{
                f"{split}_{what}": last.get(f"{split}_{what}")
                for split in ("val", "test")
                for what in ("accuracy", "loss")
            },
            **self._early_stop(module.timeline.length),
            "best_test_accuracy": max(point["test_accuracy"] for point in self.curve if "test_accuracy" in point),
            "steps": steps,
            "total_steps": start.search_steps + steps,
            "seconds": module.seconds,
            "eval_seconds": self.eval_seconds,
            "init_sha256": self.cycle.init_sha256,
            "mask_sha256": mask_sha256(start.masks),
            "hardware": self.hardware,
        }
        layers = layer_rows(now, start, self.cycle.theta_0, on_path)
        self.rows.append(row)
        self.layer_rows += [{**self._identity(start), **layer} for layer in layers]
        self.finish(start, row, self.layer_rows[-len(layers) :])
        self.curve, self.eval_seconds, module.seconds = [], 0.0, 0.0

    def _early_stop(self, length: int) -> Row:
        """The first evaluation with the lowest validation loss, found afterwards (Frankle & Carbin 2019, App. C)."""
        judged = [point for point in self.curve if "val_loss" in point]
        if not judged:
            return {}
        best = min(judged, key=lambda point: float(point["val_loss"]))
        return {
            "early_stop_step": best["step"],
            "early_stop_censored": int(best["step"] > CENSORED * length),
            "early_stop_test_accuracy": best["test_accuracy"],
        }

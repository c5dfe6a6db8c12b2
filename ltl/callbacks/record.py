"""Evaluates at every interval, and writes the row, the layers and the ticket of each round when it ends."""

import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Protocol

import pytorch_lightning as pl
import torch
from torch import Tensor

from ltl.datasets.dataset import Dataset, Split
from ltl.errors import Diverged, Spread
from ltl.masks import Tensors, density, kept, mask_sha256
from ltl.models.paths import live
from ltl.results import Row
from ltl.tickets import bits_of
from ltl.training.evaluation import awaited, evaluating
from ltl.training.layers import layer_rows
from ltl.training.module import Judged, MaskedTraining
from ltl.training.start import Start

CENSORED = 0.95  # a lowest validation loss in the last 5% of a round may not be the lowest


class Member(Protocol):
    """One of the networks that are trained side by side."""

    init_sha256: str  # of `theta_0`
    mask_flips: float | None  # fraction of the mask's entries that changed since the evaluation before; None: held
    lost: str  # why it is trained along, but not recorded any more; "" as long as it is

    @property
    def current(self) -> Start:
        """What is being trained."""

    @property
    def theta_0(self) -> Tensors:
        """The initialisation that it goes back to."""


class Cycle(Protocol):
    """The callback that says what is being trained."""

    @property
    def members(self) -> Sequence[Member]:
        """The networks."""


class Record(pl.Callback):
    """Keeps the evaluations of the round and hands on each finished round as rows, with its start.

    `begin(record)` is called once, with the rows of a checkpoint already taken up; `finish(number, start, row, layers,
    now)` writes those of a round of network `number`, which ended with the weights `now`, before the checkpoint that
    holds them, so that a resumed run writes the same ones again. `trials` numbers the trial of each network; `hardware`
    counts the changes of hardware that resumes of its run have made. Seconds are shared evenly among the networks.
    `log(number, row)` takes each evaluation.
    """

    def __init__(
        self,
        *,
        cycle: Cycle,
        trials: Sequence[int],
        hardware: Sequence[int],
        eval_batch: int,
        begin: Callable[["Record"], None],
        finish: Callable[[int, Start, Row, list[Row], Tensors], None],
        write: Callable[[], None],
        log: Callable[[int, Row], None],
    ) -> None:
        self.cycle, self.trials, self.hardware, self.eval_batch = cycle, trials, hardware, eval_batch
        self.begin, self.finish, self.write, self.log_row = begin, finish, write, log
        self.curves: list[list[Row]] = [[] for _ in trials]
        self.rows: list[list[Row]] = [[] for _ in trials]
        self.layer_rows: list[list[Row]] = [[] for _ in trials]
        self.steps_done = 0
        self.eval_seconds = 0.0
        self.lost: dict[int, str] = {}  # by number of the network, why
        self.latest: list[Row] = []  # what the last evaluation showed
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
        for number, reason in self.lost.items():
            self.cycle.members[number].lost = reason
        self.begin(self)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Evaluate every network; at the end of a round also write its records."""
        module = self._module
        assert module is not None
        begun = time.perf_counter()
        on_gpu = module.device.type == "cuda"
        trained = torch.cuda.current_stream(module.device).record_event() if on_gpu else None
        module.stack.eval()
        judged = list(module.judged())
        left = set(range(len(self.trials))) - set(self.lost)
        with trainer.precision_plugin.forward_context():  # a GPU is given this to do before it has finished training
            validated = self._judging(judged, module.dataset, module.dataset.validation, left)
        if trained is not None:
            trained.synchronize()
            module.seconds += time.perf_counter() - begun
            begun = time.perf_counter()
        turn, step = module.position
        trains = module.timeline.trains(turn)
        step = step if trains else 0
        summed = trainer.strategy.reduce(module.interval_loss, reduce_op="mean")  # over processes, each with its share
        losses = [one / max(1, module.interval_steps) for one in summed.tolist()]
        module.interval_loss, module.interval_steps = torch.zeros_like(summed), 0
        found = _found(validated, left)
        if module.stack.at_once(module.device.type) > 1:
            self._refuse_to_spread([*losses, *(loss for loss, _ in found.values())], step)
        done = self.steps_done + module.position[1] - module.timeline.first[module.position[0]]
        self._find_lost(losses, step)
        points: dict[int, Row] = {
            number: {"step": step, "lr": module.lr(), **({"train_loss": loss} if trains else {})}
            for number, loss in enumerate(losses)
            if number not in self.lost
        }
        for number, point in points.items():
            if (flips := self.cycle.members[number].mask_flips) is not None:
                point["mask_flips"] = flips
        ended = module.position[1] == module.timeline.length
        with trainer.precision_plugin.forward_context():
            self._evaluate(module.dataset, judged, found, points, ended=ended)
        self.latest = list(points.values())
        for number, point in points.items():
            self.curves[number].append(point)
            start = self.cycle.members[number].current
            self.log_row(number, {**self._identity(number, start), "total_step": done, **point})
        self.eval_seconds += time.perf_counter() - begun
        if ended:
            for logger in trainer.loggers:
                logger.save()  # a resumed run does not log again what has its rows
            self._finish(module, trainer)
            self.steps_done = done
        module.stack.train()

    def state_dict(self) -> dict[str, Any]:
        """Return the whole state as tensors and plain values."""
        seconds = self._module.seconds if self._module is not None else 0.0
        return {name: getattr(self, name) for name in self._KEPT} | {"seconds": seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the state of a checkpoint."""
        for name in self._KEPT:
            setattr(self, name, state_dict[name])
        for name in ("rows", "layer_rows"):  # older checkpoints, of one network a trial, hold one list for all
            rows = state_dict[name]
            if any(isinstance(one, dict) for one in rows):
                setattr(self, name, [[row for row in rows if row["trial"] == trial] for trial in self.trials])
        self._seconds = state_dict["seconds"]

    _KEPT = ("curves", "rows", "layer_rows", "steps_done", "eval_seconds", "lost")

    def _identity(self, number: int, start: Start) -> Row:
        return {"trial": self.trials[number], "arm": start.arm, "draw": start.draw, "round": start.round}

    def _refuse_to_spread(self, losses: Sequence[float], step: int) -> None:
        """Raise Spread if some loss is no finite number where networks pass as one: 0 times it is none either."""
        if not all(map(math.isfinite, losses)):
            raise Spread(
                f"the loss of some network is no finite number before step {step}, and hardware.merge=true spreads it "
                "to those that pass as one with it: resume=… hardware.merge=false goes on from the last checkpoint and "
                "loses that trial alone."
            )

    def _find_lost(self, losses: Sequence[float], step: int) -> None:
        """Mark networks that could not be pruned or whose loss is no finite number; Diverged if no other is left."""
        for number, (member, loss) in enumerate(zip(self.cycle.members, losses, strict=True)):
            start = member.current
            if not math.isfinite(loss) and not member.lost:
                member.lost = (
                    f"the training loss is {loss} before step {step} of round {start.round} ({start.arm}, trial "
                    f"{self.trials[number]}): lower optimizer.lr, or set clip=1.0; finished rounds are kept."
                )
            if member.lost:
                self.lost.setdefault(number, member.lost)
        if len(self.lost) == len(losses):
            raise Diverged(next(iter(self.lost.values())))

    def _evaluate(
        self,
        dataset: Dataset,
        judged: Sequence[Judged],
        found: Mapping[int, tuple[float, float]],
        points: Mapping[int, Row],
        *,
        ended: bool,
    ) -> None:
        """Add to each network's point what the evaluation shows, of the test set at the end and at the best so far."""
        best = {number: min(_losses(self._of_density(number)), default=math.inf) for number in points}
        for number, point in points.items():
            if number in found:
                point["val_loss"], point["val_accuracy"] = found[number]
        lowest = {number for number, point in points.items() if point.get("val_loss", math.inf) < best[number]}
        shown = points.keys() if ended else lowest
        for number, (loss, accuracy) in _found(self._judging(judged, dataset, dataset.test, shown), shown).items():
            points[number].update(test_loss=loss, test_accuracy=accuracy)

    def _of_density(self, number: int) -> list[Row]:
        """Return the evaluations of a network at the density that it has now: denser ones say nothing of it."""
        since = self.cycle.members[number].current.density_step
        return [point for point in self.curves[number] if point["step"] >= since]

    def _judging(
        self, judged: Sequence[Judged], dataset: Dataset, split: Split, wanted: Collection[int]
    ) -> list[tuple[list[int], Tensor]]:
        """Begin to evaluate those networks on `split`, if it has any examples, that hold one of the wanted."""
        return [
            (numbers, evaluating(networks, dataset, split, self.eval_batch, form=form))
            for numbers, networks, form in judged
            if len(split.targets) and not set(numbers).isdisjoint(wanted)
        ]

    def _finish(self, module: MaskedTraining, trainer: pl.Trainer) -> None:
        """Hand on the rows of a round that has ended, and begin to record the next."""
        begun = time.perf_counter()
        left = set(range(len(self.trials))) - set(self.lost)
        with trainer.precision_plugin.forward_context():
            judged = list(module.judged(on_training_set=True))
            trained = _found(self._judging(judged, module.dataset, module.dataset.train, left), left)
        self.eval_seconds += time.perf_counter() - begun
        networks = module.networks()
        for number, (loss, accuracy) in trained.items():
            self._finish_one(number, networks[number], loss, accuracy)
        self.write()
        self.curves, self.eval_seconds, module.seconds = [[] for _ in self.trials], 0.0, 0.0

    def _finish_one(self, number: int, now: Tensors, train_loss: float, train_accuracy: float) -> None:
        module, member, curve = self._module, self.cycle.members[number], self.curves[number]
        assert module is not None
        start, length, of_density = member.current, module.timeline.length, self._of_density(number)
        on_path = live(module.stack.skeleton, module.dataset.input_shape, start.masks)
        last, steps = curve[-1], length - start.step if module.timeline.trains(module.position[0]) else 0
        row: Row = {
            **self._identity(number, start),
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
            **_early_stop(of_density, length),
            "best_test_accuracy": max(point["test_accuracy"] for point in of_density if "test_accuracy" in point),
            "mask_step": start.mask_step,
            "steps": steps,
            "total_steps": start.search_steps + (0 if start.scored else steps),
            "seconds": module.seconds / len(self.trials),
            "eval_seconds": self.eval_seconds / len(self.trials),
            "init_sha256": member.init_sha256,
            "mask_sha256": mask_sha256(start.masks),
            "hardware": self.hardware[number],
            **({**start.scored.sampled, "bits": bits_of(start.masks, start.theta)} if start.scored else {}),
        }
        layers = [
            {**self._identity(number, start), **layer} for layer in layer_rows(now, start, member.theta_0, on_path)
        ]
        self.rows[number].append(row)
        self.layer_rows[number] += layers
        self.finish(number, start, row, layers, now)


def _found(judging: Sequence[tuple[list[int], Tensor]], wanted: Collection[int]) -> dict[int, tuple[float, float]]:
    """Wait for what was begun, and return loss and accuracy of the networks that are wanted, by number."""
    found = {
        number: pair for numbers, results in judging for number, pair in zip(numbers, awaited(results), strict=True)
    }
    return {number: pair for number, pair in found.items() if number in wanted}


def _losses(curve: Sequence[Row]) -> list[float]:
    return [point["val_loss"] for point in curve if "val_loss" in point]


def _early_stop(curve: Sequence[Row], length: int) -> Row:
    """The first evaluation with the lowest validation loss, found afterwards (Frankle & Carbin 2019, App. C)."""
    judged = [point for point in curve if "val_loss" in point]
    if not judged:
        return {}
    best = min(judged, key=lambda point: float(point["val_loss"]))
    return {
        "early_stop_step": best["step"],
        "early_stop_censored": int(best["step"] > CENSORED * length),
        "early_stop_test_accuracy": best["test_accuracy"],
    }

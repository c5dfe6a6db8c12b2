"""What a person sees while a run trains: one bar with an ETA of the whole run, or plain lines without a terminal."""

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any

import pytorch_lightning as pl
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ltl.callbacks.record import Record
from ltl.callbacks.supermask import Supermask
from ltl.masks import density
from ltl.results import Row
from ltl.training.module import MaskedTraining

_LINE_EVERY = 10.0  # seconds between plain lines
_SILENCE = 60.0  # after which there is a line between evaluations too
_BAR_EVERY = 0.25  # seconds between descriptions beside the bar


class RunProgress:
    """The display of one run: counts the optimiser steps of all its fits towards `total_steps`."""

    def __init__(self, *, total_steps: int, console: Console) -> None:
        self.total, self.console, self.done = total_steps, console, 0
        self.worked, self.begun, self._shown = 0, time.monotonic(), 0.0
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
            refresh_per_second=4,
            speed_estimate_period=120,
        )
        self.task = self.bar.add_task("starting", total=total_steps)

    def __enter__(self) -> "RunProgress":
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    def skip(self, steps: int) -> None:
        """Count `steps` that need no training: done before a resume."""
        self.done += steps
        self.bar.advance(self.task, steps)

    def advance(self, steps: int) -> None:
        """Count `steps` just trained."""
        self.worked += steps
        self.done += steps
        self.bar.advance(self.task, steps)

    def due(self) -> bool:
        """Return whether something new may be shown."""
        return time.monotonic() - self._shown >= (_BAR_EVERY if self.console.is_terminal else _LINE_EVERY)

    def silent(self) -> bool:
        """Return whether nothing has moved for so long that a person would ask whether the run does."""
        return not self.console.is_terminal and time.monotonic() - max(self._shown, self.begun) >= _SILENCE

    def show(self, text: str) -> None:
        """Show `text` beside the bar, or as a line where there is none."""
        self._shown = now = time.monotonic()
        if self.console.is_terminal:
            self.bar.update(self.task, description=text)
            return
        rate = self.worked / max(now - self.begun, 1e-9)
        left = (self.total - self.done) / rate if rate else 0.0
        self.console.print(
            f"{text} · {self.done / max(1, self.total):.0%} · ETA {left / 60:.1f} min", highlight=False, soft_wrap=True
        )


class ShowProgress(pl.Callback):
    """Feeds the display of a run from one of its fits."""

    def __init__(self, *, display: RunProgress, record: Record, rounds: int) -> None:
        self.display, self.record, self.rounds = display, record, rounds

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Count what a checkpoint says is done."""
        assert isinstance(pl_module, MaskedTraining)
        turn, step = pl_module.position
        done = self.record.steps_done + (step - pl_module.timeline.first[turn] if self.record.curves[0] else 0)
        self.display.skip(done * pl_module.stack.size)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: tuple[int, int, int],
        batch_idx: int,
    ) -> None:
        """Count the chunk, and describe what is being trained where evaluations are minutes apart."""
        assert isinstance(pl_module, MaskedTraining)
        self.display.advance((batch[2] - batch[1]) * pl_module.stack.size)
        if self.display.silent():
            self.display.show(self._description([]))

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Describe what is being trained, with the latest accuracy."""
        if self.display.due():
            self.display.show(self._description(self.record.latest))

    def _description(self, latest: Sequence[Row]) -> str:
        """Return which networks are being trained, with the accuracies of `latest`, if there are any."""
        record, members = self.record, self.record.cycle.members
        starts = [member.current for member in members]
        masks = [one.seen if isinstance(one, Supermask) else one.current.masks for one in members]
        rounds = _span([start.round for start in starts], "")
        trials = set(record.trials)
        many = f" ({len(starts)} networks)" if len(starts) > len(trials) else ""  # of several rounds or runs
        return " · ".join(
            [
                _span(sorted(trials), "trial ") + many,
                starts[0].arm,
                f"round {rounds} of {self.rounds}",
                f"density {_span([density(one) for one in masks], '', '.2%')}",
                *(
                    f"{split} {_span([row[f'{split}_accuracy'] for row in latest], '', '.2%')}"
                    for split in ("val", "test")
                    if latest and all(row.get(f"{split}_accuracy") is not None for row in latest)
                ),
            ]
        )


def _span(values: Sequence[float], word: str, form: str = "") -> str:
    """Return one value, or the least and the greatest."""
    low, high = (format(value, form) for value in (min(values), max(values)))
    return f"{word}{low}" if low == high else f"{word}{low}–{high}"

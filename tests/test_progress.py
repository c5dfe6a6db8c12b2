"""What a person sees of a run: a bar that is described a few times a second, or a line within a minute."""

import io
import time
from pathlib import Path

import pytest
from conftest import TINY, composed
from rich.console import Console

from ltl.callbacks import progress
from ltl.callbacks.progress import RunProgress
from ltl.launch import train


@pytest.mark.parametrize(("terminal", "seconds"), [(False, 10.0), (True, 0.25)])
def test_something_new_is_due_only_when_it_can_be_read(
    terminal: bool, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A description costs a look at every mask, so none is made that nobody would see."""
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    shown = io.StringIO()
    display = RunProgress(total_steps=400, console=Console(file=shown, force_terminal=terminal, width=80))
    assert display.due()
    now += 30
    display.advance(100)
    display.show("round 1 of 3")
    assert not display.due()
    now += seconds
    assert display.due()
    if terminal:
        assert display.bar.tasks[0].description == "round 1 of 3"
        assert shown.getvalue() == ""  # the bar was not started
    else:
        assert shown.getvalue() == "round 1 of 3 · 25% · ETA 1.5 min\n"


@pytest.mark.parametrize("terminal", [False, True])
def test_a_log_is_silent_for_a_minute_at_most(terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Evaluations may be an hour apart; a bar moves between them, a log without a terminal would not."""
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    display = RunProgress(total_steps=400, console=Console(file=io.StringIO(), force_terminal=terminal, width=80))
    now += 59
    assert not display.silent()
    now += 1
    assert display.silent() is not terminal
    display.show("round 1 of 3")
    assert not display.silent()


def test_lines_between_evaluations_tell_what_is_trained_and_how_far_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the accuracies of an evaluation that was of something else."""
    monkeypatch.setattr(progress, "_SILENCE", 0.0)
    monkeypatch.setattr(progress, "_LINE_EVERY", float("inf"))
    cfg = composed(*TINY, "control=none", "pruner.rounds=1", "eval_every=12it", "hardware.chunk=3")
    (tmp_path / ".hydra").mkdir()
    printed = io.StringIO()
    train(cfg, tmp_path, Console(file=printed, width=500))
    lines = [line.split(" · ") for line in printed.getvalue().splitlines() if " · ETA" in line]
    assert [line[:3] + line[4:5] for line in lines] == [
        ["trial 0", "ticket", f"round {turn} of 1", f"{done}%"]
        for turn, parts in enumerate([(12, 25, 38, 50), (62, 75, 88, 100)])
        for done in parts
    ]

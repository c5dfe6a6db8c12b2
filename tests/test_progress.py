"""What a person sees of a run: a bar that is described a few times a second, or a line every ten seconds."""

import io
import time

import pytest
from rich.console import Console

from ltl.callbacks.progress import RunProgress


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

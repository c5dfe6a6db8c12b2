"""What a run would cost: its trainings and steps are counted, its hours extrapolated from a few steps."""

import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console

from ltl import build, fit
from ltl.callbacks.progress import RunProgress
from ltl.console import print_table, terminal
from ltl.experiment import Experiment
from ltl.results import read_table

_SECONDS = 2.0  # of training that the estimate rests on
_FEW, _MOST = 3, 500  # optimiser steps in it
_EXAMPLES = 1000  # of each split that are evaluated in it
_IMPROVED = 0.05  # of evaluations go on to the test set: 3 to 12% in the rounds of frankle2019_lenet


@dataclass(frozen=True)
class Plan:
    """What a run consists of, and about how long it takes here."""

    name: str
    trainings: int
    controls: int  # of the trainings
    steps: int
    step_seconds: float  # of one network
    hours: float


def plan(cfg: DictConfig, name: str) -> Plan:
    """Count what `cfg` asks for and time a few of its steps; nothing is kept. LtlError for what cannot be run."""
    cfg.logger = {}
    with tempfile.TemporaryDirectory() as folder:
        built = build.experiment(cfg, Path(folder), hardware_number=0)
        jobs = list(built.jobs(lambda key: False))
        step, example = _measured(built, Path(folder))
    sizes = [len(split) for split in (built.dataset.train, built.dataset.validation, built.dataset.test)]
    trained = [
        (key, job.timeline.length - job.timeline.first[turn])
        for job in jobs
        for network in job.networks
        for turn, key in enumerate(network.keys)
        if job.timeline.trains(turn)
    ]
    steps = sum(count for _, count in trained)
    evaluations = sum(job.timeline.epochs() * len(job.networks) for job in jobs)
    ends = sum(len(job.keys) for job in jobs)
    examples = ends * (sizes[0] + sizes[2]) + evaluations * (sizes[1] + _IMPROVED * sizes[2])
    controls = sum(arm != "ticket" for (_, arm, _, _), _ in trained)
    return Plan(name, len(trained), controls, steps, step, (steps * step + examples * example) / 3600)


def show(plans: Sequence[Plan]) -> None:
    """Print a line for each job, and their sum."""
    rows = [[one.name, *_counts([one]), f"{one.step_seconds * 1e3:.2f}", _time(one.hours)] for one in plans]
    if len(plans) > 1:
        rows.append([f"{len(plans)} jobs", *_counts(plans), "", _time(sum(one.hours for one in plans))])
    console = terminal()
    header = ("job", "trainings", "of controls", "optimiser steps", "ms a step", "time")
    print_table(console, header, rows, left=("job",))
    console.print(
        "Nothing was kept. Times are of one job after another on this machine, by a few dense steps of each: "
        "sparse perceptrons take less.",
        highlight=False,
    )


def _counts(plans: Sequence[Plan]) -> list[str]:
    sums = [sum(getattr(one, what) for one in plans) for what in ("trainings", "controls", "steps")]
    return [f"{count:,}".replace(",", " ") for count in sums]


def _time(hours: float) -> str:
    minutes = hours * 60
    return f"{hours:.1f} h" if minutes >= 90 else f"{minutes:.0f} min" if minutes >= 2 else f"{minutes * 60:.0f} s"


def _measured(built: Experiment, folder: Path) -> tuple[float, float]:
    """Return the seconds of an optimiser step of one network and of the evaluation of one example."""
    least = max(_EXAMPLES, built.batch)
    few = {name: getattr(built.dataset, name).first(least) for name in ("train", "validation", "test")}
    dataset = replace(built.dataset, **few)
    examples = sum(map(len, few.values()))
    hardware = replace(built.hardware, devices=1, strategy="auto", stop_after=math.inf)
    trials = min(built.trials, built.hardware.stack_size) if built.together() else 1
    steps = _FEW
    for attempt in ("warm-up", "timed"):
        one = replace(
            built, folder=folder / attempt, dataset=dataset, trials=trials, rounds=0, controls={}, tickets=[],
            hardware=hardware, length=steps, rewind_step=0, eval_every=steps,
        )  # fmt: skip
        fit.run(one, lambda total: RunProgress(total_steps=total, console=Console(quiet=True)))
        rows = read_table(one.folder / "rounds.csv")
        step = sum(float(row["seconds"]) for row in rows) / (len(rows) * steps)
        example = sum(float(row["eval_seconds"]) for row in rows) / (len(rows) * examples)
        steps = max(_FEW, min(_MOST, int(_SECONDS / (step * trials))))
    return step, example

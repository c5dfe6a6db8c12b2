"""A run killed at any moment and resumed ends as the uninterrupted one: all columns but times, all ticket bytes."""

import os
import random
import signal
import time
from multiprocessing.context import ForkServerContext
from pathlib import Path

import forked
import kills
import pytest
from test_cycle import rows, tickets

from ltl.results import read_status, read_table

JOB = [
    "pruner=imp_late", "pruner.rewind_to=7it", "pruner.momentum=saved", "pruner.rounds=2", "control=[random_mask]",
    "trials=2", "length=40it", "eval_every=9it", "batch=20", "model.widths=[40,20]", "model.dropout=0.2",
    "dataset.augment=true", "optimizer=sgd", "lr_schedule=cosine", "hardware.chunk=4",
]  # fmt: skip


Wholes = dict[str, tuple[Path, float]]  # by way: the uninterrupted run, and the processor seconds it takes


@pytest.fixture(scope="module")
def context() -> ForkServerContext:
    return forked.context()


@pytest.fixture(scope="module")
def whole(context: ForkServerContext, tmp_path_factory: pytest.TempPathFactory) -> Wholes:
    """The uninterrupted runs, and the processor seconds they take: trials in turn, and side by side."""
    runs = {}
    for way in ("in_turn", "together"):
        folder = tmp_path_factory.mktemp("whole") / way
        process = context.Process(target=kills.run, args=(str(folder), job(way), None, 0))
        process.start()
        seconds = 0.0
        while process.is_alive():
            seconds = max(seconds, processor_seconds(process.pid))
            time.sleep(0.002)
        process.join()
        assert process.exitcode == 0
        runs[way] = folder, seconds
    return runs


def job(way: str) -> list[str]:
    return [*JOB, f"hardware.stack={way}"]


def processor_seconds(pid: int | None) -> float:
    """Return what a process has used so far (0 if it is gone): unlike the clock it does not run on under load."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def finish(context: ForkServerContext, folder: Path, overrides: list[str]) -> int | None:
    process = context.Process(target=kills.run, args=(str(folder), overrides, None, 0))
    process.start()
    process.join()
    return process.exitcode


def everything(folder: Path) -> dict[str, object]:
    tables = {name: read_table(folder / name) for name in ("layers.csv", "metrics.csv")}
    ordered = {name: sorted(map(str, table)) for name, table in tables.items()}
    return {"rounds": rows(folder), "tickets": tickets(folder), "state": read_status(folder)["state"], **ordered}


def check(context: ForkServerContext, folder: Path, whole: Path) -> None:
    assert read_status(folder)["state"] == "interrupted"
    assert finish(context, folder, []) == 0
    assert everything(folder) == everything(whole)
    leftovers = [path.name for path in folder.rglob(".*.tmp") if path.suffix in (".safetensors", ".csv")]
    assert not leftovers


@pytest.mark.parametrize("moment", range(20))
def test_killed_at_a_random_moment(context: ForkServerContext, whole: Wholes, tmp_path: Path, moment: int) -> None:
    """The moments are spread over the whole run: one at random in each twentieth of it."""
    way = ("in_turn", "together")[moment // 2 % 2]
    overrides = [*job(way), f"hardware.checkpoint_every={0 if moment % 2 else 300}"]
    share = (moment + random.Random(moment).random()) / 20
    for part in (0.9, 0.75, 0.6):  # the whole run may have been slower than this one, which then ends too soon
        folder = tmp_path / f"run-{part}"
        if killed_after(context, folder, overrides, share, part * whole[way][1]):
            break
    else:
        pytest.fail("the run had ended before it was killed, three times: make the job longer")
    check(context, folder, whole[way][0])


def killed_after(context: ForkServerContext, folder: Path, overrides: list[str], share: float, seconds: float) -> bool:
    """Start a run and kill it at a share of its time, up to `seconds`; return False if it had ended before."""
    process = context.Process(target=kills.run, args=(str(folder), overrides, None, 0))
    process.start()
    while not (folder / "status.json").exists():  # before that there is nothing to resume
        time.sleep(0.002)
    begun = processor_seconds(process.pid)
    while process.is_alive() and processor_seconds(process.pid) < begun + share * (seconds - begun):
        time.sleep(0.001)
    process.kill()
    process.join()
    return process.exitcode == -signal.SIGKILL


@pytest.mark.parametrize("count", [1, 4, 9])
@pytest.mark.parametrize("point", kills.POINTS)
def test_killed_at_a_named_point(
    context: ForkServerContext, whole: Wholes, tmp_path: Path, point: str, count: int
) -> None:
    """In training, an evaluation or a pruning, when rows are written, and with half of a ticket or a checkpoint."""
    way = "together" if count == 1 else "in_turn"  # which has more fits, hence more passages
    passages = {"training": 30 * count, "evaluation": 8 * count, "pruning": min(count, 4), "ticket": min(count, 6)}
    passages["rows"] = {1: 15, 4: 20, 9: 45}[count]  # the end of a search, of a round within one, and of a control
    folder = tmp_path / "run"
    process = context.Process(target=kills.run, args=(str(folder), job(way), point, passages.get(point, count)))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    check(context, folder, whole[way][0])

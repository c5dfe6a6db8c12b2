"""Jobs of a sweep that train as one stack: each is, in its own folder, what it is alone, and goes on as it would."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import TIME_COLUMNS, TINY, train_in
from omegaconf import OmegaConf

from ltl import fit, report, run
from ltl.results import Row, read_config, read_status, read_table
from ltl.tickets import load

DOUBLE = ("hardware.precision=64-true", "length=40it", "eval_every=20it")
Sweep = Callable[..., None]


@pytest.fixture(autouse=True)
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty folder, and leave out the reports, which take most of the time."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["ltl"])
    for name in ("write", "show", "line"):
        monkeypatch.setattr(report, name, lambda *given, **more: None)


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """The arm and the number of networks of each fit, as they are trained."""
    seen: list[tuple[str, int]] = []
    train = fit._train

    def noted(one: fit._Fit, *rest: object) -> None:
        seen.append((one.job.arm, len(one.networks)))
        train(one, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(fit, "_train", noted)
    return seen


def sweep(folder: str, *overrides: str) -> str:
    """Run a sweep in this process; return the code that it ends with, "" for success."""
    return cli("-m", f"hydra.sweep.dir={folder}", *TINY, *overrides)


def cli(*arguments: str) -> str:
    """Run a command line in this process; return the code that it ends with, "" for success."""
    try:
        run.cli(arguments)
    except SystemExit as left:
        return str(left.code)
    return ""


def states(folder: str) -> set[str]:
    """The states of a sweep's jobs."""
    return {str(job["state"]) for job in read_table(Path(folder) / "jobs.csv")}


def rows(folder: Path | str) -> list[Row]:
    """The rows of a run without what time and load decide."""
    apart = dict.fromkeys((*TIME_COLUMNS, "hardware"))
    return [{**row, **apart} for row in read_table(Path(folder) / "rounds.csv")]


def tickets(folder: Path | str) -> dict[str, bytes]:
    """The tickets of a run."""
    return {path.name + path.parent.name: path.read_bytes() for path in Path(folder).glob("tickets/*/*")}


def assert_same(folder: Path, alone: Path) -> None:
    """The same masks, and weights and losses but for the order of sums."""
    ours, theirs = rows(folder), rows(alone)
    assert [list(row.values())[:4] for row in ours] == [list(row.values())[:4] for row in theirs]
    for one, two in zip(ours, theirs, strict=True):
        for name in ("mask_sha256", "init_sha256", "total_steps", "early_stop_step"):
            assert one[name] == two[name], name
        for name in ("train_loss", "val_loss", "test_loss", "test_accuracy"):
            assert float(one[name]) == pytest.approx(float(two[name]), abs=1e-9, rel=0), name
    found = sorted(alone.glob("tickets/*/*"))
    assert found
    for path in found:
        state = load(folder / path.relative_to(alone)).state
        for name, value in load(path).state.items():
            assert torch.allclose(value, state[name], rtol=0, atol=1e-9)


def places(folder: Path) -> list[list[str]]:
    """Where each evaluation of a run is on the loggers' axis."""
    named = ("trial", "arm", "draw", "round", "step", "total_step")
    return [[row[name] for name in named] for row in read_table(folder / "metrics.csv")]


def test_each_job_of_a_stack_is_what_it_is_alone(tmp_path: Path, fits: list[tuple[str, int]]) -> None:
    """Other criteria, survivors, seeds, trials and controls; twelve networks go eight and four at a time."""
    varied = ("pruner=imp,zhou_signed_reinit,snip", "seed=0,5")
    fixed = (*DOUBLE, "control=[reinit]", "control.reinit.rounds=[2]", "trials=2")
    assert sweep("sweep", *varied, *fixed) == ""
    assert fits == [("ticket", 8), ("ticket", 4), ("reinit", 8), ("reinit", 4)]
    for folder in sorted((tmp_path / "sweep").glob("[0-9]*")):
        own = [str(one) for one in OmegaConf.load(folder / ".hydra/overrides.yaml")]
        assert read_status(folder)["state"] == "done"
        assert len(read_status(folder)["beside"]) == 6
        alone = train_in(tmp_path / "alone" / folder.name, *own)
        assert_same(folder, alone)
        assert places(folder) == places(alone)


def test_jobs_that_differ_between_prunings_train_apart(tmp_path: Path, fits: list[tuple[str, int]]) -> None:
    """Another batch is another stack, and a late rewind another fit."""
    assert sweep("sweep", "batch=20,10", "pruner=imp,gradual,imp_late", "recipe.rewind_to=4it", "control=none") == ""
    assert fits == [("ticket", 2), ("ticket", 1)] * 2
    fits.clear()
    assert sweep("turn", "seed=0,1", "hardware.stack=in_turn", "control=none") == ""
    assert fits == [("ticket", 1)] * 2
    assert "beside" not in read_status(tmp_path / "turn/0-seed-0")
    assert not (tmp_path / "turn/checkpoints").exists()


def test_scores_of_jobs_train_as_one_stack(tmp_path: Path, fits: list[tuple[str, int]]) -> None:
    """Of one estimator and recipe, whatever initialisers, seeds, survivors and schedules; each as it is alone."""
    varied = ("pruner=multi_prize,multi_prize_gradual,edge_popup,edge_popup_scaled",)
    varied += ("initialiser=glorot_normal,orthogonal",)
    fixed = (*DOUBLE, "control=[trained]", "control.trained.rounds=[2]", "hardware.stack_size=16", "pruner.rate=0.5")
    assert sweep("sweep", *varied, *fixed) == ""
    assert fits == [("ticket", 8), ("ticket", 8), ("ticket", 8), ("trained", 8)]
    for folder in sorted((tmp_path / "sweep").glob("[0-9]*"))[::3]:
        alone = train_in(tmp_path / "alone" / folder.name, *map(str, OmegaConf.load(folder / ".hydra/overrides.yaml")))
        assert_same(folder, alone)
        assert places(folder) == places(alone)
    fits.clear()
    assert sweep("apart", "pruner=edge_popup,edge_popup_global,zhou_supermask", "control=none") == ""
    assert fits == [("ticket", 3), ("ticket", 2), ("ticket", 2), ("ticket", 2)]


def test_a_stack_that_was_cut_goes_on_to_the_same_bits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Killed at every evaluation in turn; it cannot go on as one job alone, and says so."""
    fixed = ("pruner=imp,random", "control=[random_mask]", "trials=2", "pruner.rounds=1", "eval_every=6it")
    assert sweep("whole", *fixed) == ""
    assert sweep("cut", *fixed, "hardware.stop_after=0s") == ""
    printed = capsys.readouterr().out
    assert "`python -m ltl.run resume=cut` goes on" in printed
    assert "trial 0–1 (4 networks) · ticket · round 0 of 1" in printed
    assert "trains side by side with 1 other jobs: resume its sweep" in cli("resume=cut/0-pruner-imp")
    resumes = 0
    while states("cut") != {"done"}:
        assert cli("resume=cut") == ""
        resumes += 1
    assert resumes == 2 * 2 + 2
    for name in ("0-pruner-imp", "1-pruner-random"):
        assert rows(f"cut/{name}") == rows(f"whole/{name}")
        assert tickets(f"cut/{name}") == tickets(f"whole/{name}")


def test_a_stack_of_scores_that_was_cut_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    """Killed at every evaluation in turn; four masks of two jobs go three and one at a time."""
    fixed = ("pruner=edge_popup_global", "seed=0,1", "control=none", "eval_every=6it", "hardware.stack_size=3")
    assert sweep("whole", *fixed) == ""
    assert sweep("cut", *fixed, "hardware.stop_after=0s") == ""
    resumes = 0
    while states("cut") != {"done"}:
        assert cli("resume=cut") == ""
        resumes += 1
    assert resumes == 3 * 2
    for folder in sorted((tmp_path / "whole").glob("[0-9]*")):
        assert rows(f"cut/{folder.name}") == rows(folder)
        assert tickets(f"cut/{folder.name}") == tickets(folder)


def test_rounds_and_controls_are_added_to_a_whole_stack(tmp_path: Path) -> None:
    """As if asked for at once; controls can be added to one job too, rounds to all only."""
    fixed = ("pruner=imp,random", "trials=2", "hardware.precision=64-true")
    assert sweep("more", *fixed, "control=none", "pruner.rounds=1") == ""
    assert "trains side by side" in cli("resume=more/0-pruner-imp", "pruner.rounds=2")
    assert cli("resume=more/0-pruner-imp", "control=[random_mask]") == ""
    assert cli("resume=more", "pruner.rounds=2", "control=[random_mask]") == ""
    assert sweep("once", *fixed, "control=[random_mask]") == ""
    for name in ("0-pruner-imp", "1-pruner-random"):
        assert_same(Path("more") / name, Path("once") / name)


def test_what_one_job_cannot_do_leaves_the_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A rate that empties a layer fails its own job alone, when it is due; its rows until then are kept.

    Both trials for one reason, which is said once.
    """
    job = ("allocation=global", "control=none", "pruner.rounds=3", "trials=2")
    assert sweep("some", "pruner.rate=0.2,0.97", *job) == "1"
    said = capsys.readouterr().err
    assert "some/1-pruner.rate-0.97 failed" in said
    assert said.count("without emptying a layer") == 1
    states = {job["job"]: job["state"] for job in read_table(tmp_path / "some/jobs.csv")}
    assert states == {"0-pruner.rate-0.2": "done", "1-pruner.rate-0.97": "failed"}
    assert [len(rows(f"some/{name}")) for name in states] == [8, 4]
    train_in(tmp_path / "alone", "pruner.rate=0.2", *job)
    assert [row["mask_sha256"] for row in rows("alone")] == [
        row["mask_sha256"] for row in rows("some/0-pruner.rate-0.2")
    ]


def test_a_job_whose_folder_is_gone_begins_anew(tmp_path: Path) -> None:
    """What the others have is left as it is."""
    assert sweep("sweep", "seed=0,1", "control=none") == ""
    before, kept = rows("sweep/1-seed-1"), (tmp_path / "sweep/0-seed-0/rounds.csv").stat().st_mtime_ns
    shutil.rmtree(tmp_path / "sweep/1-seed-1")
    assert cli("resume=sweep") == ""
    assert [row["mask_sha256"] for row in rows("sweep/1-seed-1")] == [row["mask_sha256"] for row in before]
    assert (tmp_path / "sweep/0-seed-0/rounds.csv").stat().st_mtime_ns == kept


def test_what_a_resume_changes_is_changed_in_finished_jobs_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is told again, once; what one job may not change is refused by that job, as it is alone."""
    assert sweep("whole", "seed=0,1", "control=none", "pruner.rounds=1") == ""
    names = ("0-seed-0", "1-seed-1")
    for says, refuse in (("foo.bar=3", names), ("seed=0", names[1:]), ("report.margin=2", names)):
        capsys.readouterr()
        assert cli("resume=whole", says) == "1"
        lines = capsys.readouterr().err.splitlines()
        assert [line.partition(f" failed: {says} ")[0] for line in lines] == [f"ltl: whole/{name}" for name in refuse]
    told: list[str] = []
    monkeypatch.setattr(report, "write", lambda folders, **more: told.extend(folder.name for folder in folders))
    before = [rows(f"whole/{name}") for name in names]
    for _ in range(2):
        assert cli("resume=whole", "report.margin=0.01", "logger=none") == ""
    assert told == [*names, "whole", "whole"]
    for name in names:
        cfg = read_config(tmp_path / "whole" / name)
        assert (cfg.report.margin, cfg.logger) == (0.01, {})
    assert [rows(f"whole/{name}") for name in names] == before
    assert {job["state"] for job in read_table(tmp_path / "whole/jobs.csv")} == {"done"}

"""What a command line stands for: sweeps that experiments describe, and folders of further configurations."""

import sys
from collections.abc import Callable
from pathlib import Path

import data_files
import pytest
from conftest import CONF
from omegaconf import OmegaConf

from ltl import run
from ltl.errors import LtlError
from ltl.results import read_status, read_table
from ltl.shorthand import searchpath, spelled_out

SGD = "experiment=frankle2019_lenet_sgd"
FLAT = """\
from ltl.masks import Tensors
from ltl.pruning.evidence import Evidence


def flat(evidence: Evidence) -> Tensors:
    return {name: -evidence.weights[name].abs() for name in evidence.masks}
"""


@pytest.fixture
def ltl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undrawn: None) -> Callable[..., None]:
    """The command line in this process, in a folder with a user's own criterion and MNIST in small."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("LTL_DATA_DIR", str(tmp_path))
    data_files.write_idx(tmp_path, "mnist", train=300, test=100)
    (tmp_path / "flat_criterion.py").write_text(FLAT)
    folder = tmp_path / "it's mine" / "pruner"
    folder.mkdir(parents=True)
    text = "defaults: [imp, _self_]\nname: flat\ncriterion: {_target_: flat_criterion.flat, _partial_: true}\n"
    (folder / "flat.yaml").write_text(text)

    def command(*arguments: str) -> None:
        monkeypatch.setattr(sys, "argv", ["ltl", *arguments])
        run.cli(list(arguments))

    return command


@pytest.mark.parametrize(
    ("arguments", "swept"),
    [
        ([SGD], ["optimizer.lr=0.4,0.8"]),
        ([SGD, "optimizer.lr=0.1"], []),
        ([SGD, "++optimizer.lr=0.1,0.2"], []),
        (["-m", SGD, "seed=0,1"], ["optimizer.lr=0.4,0.8"]),
    ],
)
def test_an_experiment_that_needs_several_jobs_is_a_sweep(arguments: list[str], swept: list[str]) -> None:
    """What the command line sets itself takes the place of the file's values."""
    given = [one for one in arguments if one != "-m"]
    assert spelled_out(arguments, CONF) == ["-m", *given, *swept, "hydra.sweeper.params=null"]


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["seed=1"],
        ["experiment=frankle2019_lenet"],
        ["-m", "experiment=frankle2019_lenet", "seed=0,1"],
        [SGD, "hydra.mode=RUN"],
        ["--cfg", "job", SGD],
    ],
)
def test_anything_else_stays_as_it_is(arguments: list[str]) -> None:
    assert spelled_out(arguments, CONF) == arguments


def test_its_jobs_are_those_of_the_file_and_it_reports_once(
    ltl: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ("debug=fast", "dataset.verify=false", "logger=none")
    ltl("plan=true", SGD, *small)
    assert "2 jobs" in capsys.readouterr().out
    ltl(SGD, *small, "hydra.sweep.dir=sweep")
    jobs = read_table(tmp_path / "sweep/jobs.csv")
    assert [(job["job"], job["state"]) for job in jobs] == [
        ("0-optimizer.lr-0.4", "done"),
        ("1-optimizer.lr-0.8", "done"),
    ]
    for job, lr in zip(jobs, (0.4, 0.8), strict=True):
        assert OmegaConf.load(tmp_path / "sweep" / job["job"] / ".hydra/config.yaml").optimizer.lr == lr
    shown = capsys.readouterr().out
    assert shown.count("dense accuracy at early stop") == 1
    assert (tmp_path / "sweep/report.html").is_file()


def test_a_run_with_a_folder_of_ones_own_goes_on_without_naming_it_again(
    ltl: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also planned, swept, and the sweep resumed; near matches know the folder's options."""
    own = ("--config-dir", "it's mine")
    small = ("debug=fast", "control=none", "logger=none")
    with pytest.raises(SystemExit, match=r"pruner=flt is not an option\. Did you mean flat\?"):
        ltl(*own, "pruner=flt")
    ltl(*own, "plan=true", "pruner=flat", *small)
    assert "run" in capsys.readouterr().out
    ltl(*own, "pruner=flat", *small, "hydra.run.dir=one")
    ltl("resume=one", "pruner.rounds=3")
    assert [row["round"] for row in read_table(tmp_path / "one/rounds.csv")] == ["0", "1", "2", "3"]
    ltl("-m", "--config-dir=it's mine", "pruner=flat,imp", *small, "hydra.sweep.dir=sweep")
    first = tmp_path / "sweep/0-pruner-flat"
    before = (first / "rounds.csv").read_text().splitlines()
    for path in sorted(first.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    first.rmdir()
    ltl("resume=sweep")
    assert read_status(first)["state"] == "done"
    assert len((first / "rounds.csv").read_text().splitlines()) == len(before)


def test_the_last_folder_counts_and_one_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    assert spelled_out(["--config-dir", "gone", "-cd", str(tmp_path)], CONF) == [
        f"hydra.searchpath=['file://{tmp_path}']"
    ]
    assert searchpath(["seed=1"], tmp_path) == []
    with pytest.raises(LtlError, match="--config-dir gone is no folder"):
        spelled_out(["--config-dir", "gone"], CONF)

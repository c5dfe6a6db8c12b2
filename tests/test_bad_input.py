"""Bad input on the command line: one clear line, an exit code that is not 0, and nothing lost.

Here is what concerns several rooms at once; values are in test_schema.py and test_command_line.py, data files in
test_datasets_*.py, tickets in test_tickets.py and test_ticket_cli.py.
"""

import dataclasses
import errno
import hashlib
import io
import os
import pickle
import random
import re
import resource
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import CONF, TIME_COLUMNS, TINY, composed, train_in
from data_files import files_below
from omegaconf import OmegaConf
from rich.console import Console
from torch import nn

from ltl import build, fit, resume, run, shorthand, sweeps, ticket, tickets
from ltl.callbacks.checkpoint import CheckedCheckpointIO
from ltl.errors import LtlError
from ltl.experiment import Experiment
from ltl.launch import train
from ltl.report import __main__ as report
from ltl.report.load import load
from ltl.results import LAYER_COLUMNS, ROUND_COLUMNS, read_status, read_table, write_atomic
from ltl.training.loggers import CsvLogger
from ltl.training.module import MaskedTraining
from ltl.training.tables import Table

Change = Callable[[bytes], bytes]
Say = Callable[..., str]

CHECKPOINT = "checkpoints/trial-0-ticket.ckpt"
CONFIG, OVERRIDES, HYDRA = (f".hydra/{name}.yaml" for name in ("config", "overrides", "hydra"))
MORE = ("resume=run", "pruner.rounds=3")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, in `run` below the folder that is returned; without its report, which takes a second."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "run" / ".hydra").mkdir(parents=True)
    OmegaConf.save(cfg := composed(*TINY), folder / "run" / CONFIG)
    OmegaConf.save(OmegaConf.create(list(TINY)), folder / "run" / OVERRIDES)
    OmegaConf.save({"hydra": {"searchpath": []}}, folder / "run" / HYDRA)
    train(cfg, folder / "run", Console(quiet=True))
    return folder


@pytest.fixture
def here(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a copy of the finished run in it."""
    shutil.copytree(made / "run", tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["ltl"])
    return tmp_path


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Say:
    """Call a command in this process, which has PyTorch loaded already, and return the one line it ends with."""
    mains: dict[str, Callable[[list[str]], Any]] = {"run": run.cli, "ticket": ticket.main, "report": report.main}

    def call(command: str, *arguments: str) -> str:
        capsys.readouterr()
        try:
            code = mains[command](list(arguments))
        except SystemExit as left:
            code = left.code
        out, err = capsys.readouterr()
        line = f"{code}\n" if isinstance(code, str) else err
        assert code not in (0, None)
        assert "Traceback" not in out + err
        assert line.count("\n") == 1, line
        assert line.startswith("ltl: " if command == "run" else f"ltl-{command}: ")
        return line

    return call


# Files of a run folder


def cut(part: float) -> Change:
    return lambda content: content[: int(part * len(content))]


def put(old: str, new: str) -> Change:
    def change(content: bytes) -> bytes:
        assert old.encode() in content
        return content.replace(old.encode(), new.encode("latin-1"), 1)

    return change


def be(new: str) -> Change:
    return lambda content: new.encode("latin-1")


TAG = "!!python/object/apply:os.mkdir [harm]"  # what a careless YAML reader would run
NO_YAML = "is not readable as YAML ("
NO_STATUS = "is not valid JSON of a run's status: put back a copy, or write"
READERS: dict[str, list[Callable[[Path], object]]] = {
    "status.json": [read_status, load],
    "rounds.csv": [lambda folder: Table(folder / "rounds.csv", ROUND_COLUMNS), load],
    "layers.csv": [lambda folder: Table(folder / "layers.csv", LAYER_COLUMNS), load],
    "metrics.csv": [lambda folder: CsvLogger(folder=folder), load],
    CONFIG: [lambda folder: resume._stored(folder, WHOLE), load],
    OVERRIDES: [resume._overrides],
    HYDRA: [lambda folder: shorthand.searchpath([], folder)],
    "jobs.csv": [sweeps.check],
}
WHOLE = composed()


# A file, what happens to it, and what is said of it.
DAMAGED: list[tuple[str, Change, str]] = [
    ("status.json", cut(0.5), NO_STATUS),
    ("status.json", be(""), NO_STATUS),
    ("status.json", be("[" * 100_000), NO_STATUS),
    ("status.json", put('"done"', '"dome"'), NO_STATUS),
    ("status.json", put('"dataset": {', '"dataset": 3, "datasex": {'), NO_STATUS),
    ("status.json", put('"hardware": [', '"hardware": 3, "hardwarf": ['), NO_STATUS),
    ("rounds.csv", cut(0.7), "line 5 is not a row of it (too few cells): put back a copy, or take the line out."),
    ("rounds.csv", put("\n0,", "\n0,0,"), "line 2 is not a row of it (too many cells)"),
    ("rounds.csv", put("\n0,", "\nO,"), "line 2 is not a row of it ("),
    ("rounds.csv", put(",steps", ",stebs"), "line 2 is not a row of it ("),
    ("rounds.csv", put("1.0,", "1.\xff,"), "line 2 is not a row of it (invalid start byte)"),
    ("rounds.csv", put("\n0", "\n\r0"), "line 1 is not a row of it (new-line character"),
    ("rounds.csv", put("\n0", '\n"' + "0" * 200_000), "is not a row of it (field larger than field limit"),
    ("layers.csv", cut(0.5), "is not a row of it (too few cells)"),
    ("layers.csv", put("fc1", "f\xe91"), "line 2 is not a row of it (invalid continuation byte)"),
    ("layers.csv", put("\n0,ticket,0,", "\n0,ticket,,"), "line 2 is not a row of it ("),
    ("metrics.csv", put(",ticket,0,", ",ticket\n0,"), "line 2 is not a row of it (too few cells)"),
    ("metrics.csv", put("0,5,5,", "0,5.,5,"), "line 2 is not a row of it (step is 5.)"),
    (CONFIG, be("a: ["), NO_YAML),
    (CONFIG, put("seed: 0", "seed: \xff"), NO_YAML),
    (CONFIG, put("seed: 0", "seed: \x07"), NO_YAML),
    (CONFIG, put("seed: 0", f"seed: {TAG}"), f"{NO_YAML}could not determine a constructor"),
    (CONFIG, be("- 1\n"), "is not the configuration of a run: it holds no keys."),
    (CONFIG, put("seed: 0", "seed: o"), ": seed=o is not possible: it must be a whole number"),
    (
        CONFIG,
        put("batch:", "botch:"),
        ": botch=20 is not possible: nothing reads a key of this name. Did you mean batch?",
    ),
    (CONFIG, put("hardware:", "hardware: 3\nh:"), ": hardware=3 is not possible"),
    (CONFIG, put("threads:", "thrones:"), ": hardware.thrones=1 is not possible"),
    (CONFIG, put("rate: 0.2", "rate: 2"), ": pruner.rate=2 is not possible: it must be the fraction"),
    (CONFIG, put("${recipe.rates.conv}", "${recipe.rat}"), "pruner.allocation.conv cannot be resolved"),
    (OVERRIDES, be("- [\n"), NO_YAML),
    (OVERRIDES, be(f"- {TAG}\n"), f"{NO_YAML}could not determine a constructor"),
    (OVERRIDES, be(""), "is not a list of overrides: it was altered or cut off."),
    (HYDRA, be(f"hydra: {TAG}\n"), f"{NO_YAML}could not determine a constructor"),
    ("jobs.csv", cut(0.8), "is not the index of a sweep: it was altered or cut off"),
    ("jobs.csv", put("seed=0", "seed=\xff"), "is not the index of a sweep"),
    ("jobs.csv", put("job,", "jab,"), "is not the index of a sweep"),
]


@pytest.mark.parametrize(
    ("file", "change", "words"), [pytest.param(*case, id=f"{case[0]}-{number}") for number, case in enumerate(DAMAGED)]
)
def test_a_damaged_file_of_a_run_is_named_by_whatever_reads_it(
    here: Path, file: str, change: Change, words: str
) -> None:
    path = made_of(here / "run", file)
    path.write_bytes(change(path.read_bytes()))
    lines: list[str] = []
    for read in READERS[file]:
        with kept(lines):
            read(here / "run")
    assert any(words in line for line in lines)
    assert all(f"run/{file}" in line for line in lines)
    assert not (here / "harm").exists()


@contextmanager
def kept(lines: list[str]) -> Iterator[None]:
    """Keep the one line of an error."""
    try:
        yield
    except LtlError as error:
        assert "\n" not in str(error)
        lines.append(str(error))


def made_of(run_folder: Path, file: str) -> Path:
    """Return the path of a file of a run; the index of a sweep is put there."""
    if file == "jobs.csv":
        job = sweeps.Job("0-seed-0", ["seed=0", "model.widths=[12,8]", "tags=['a b']"], "failed", 'a "b"')
        sweeps._write(run_folder, [job])
    return run_folder / file


RUN, REPORT = ("run", *MORE), ("report", "run")


@pytest.mark.parametrize(
    ("file", "change", "command", "words"),
    [
        ("status.json", be("[]"), RUN, f"ltl: run/status.json {NO_STATUS}"),
        ("rounds.csv", put("1.0,", "1.o,"), REPORT, "ltl-report: run/rounds.csv line 2 is not a row of it (could not"),
        ("layers.csv", cut(0.5), RUN, "ltl: run/layers.csv line "),
        (CONFIG, put("seed: 0", "seed: -1"), RUN, f"ltl: run/{CONFIG}: seed=-1 is not possible"),
        (
            CONFIG,
            put("lr: 0.0012", "lr: 0.0072"),
            RUN,
            f"ltl: run/{CHECKPOINT} is of another run: optimizer.lr=0.0012 ",
        ),
        (CONFIG, be("- 1"), REPORT, f"ltl-report: run/{CONFIG} is not the configuration of a run"),
        (OVERRIDES, put("batch=", "botch="), RUN, f"ltl: run/{OVERRIDES}: botch=20 is not possible"),
        (
            CHECKPOINT,
            cut(0.5),
            RUN,
            f"ltl: run/{CHECKPOINT} is damaged: its checksum does not match. Delete it to train",
        ),
    ],
)
def test_a_damaged_file_is_one_line_on_the_command_line_and_nothing_else_changes(
    here: Path, said: Say, file: str, change: Change, command: tuple[str, ...], words: str
) -> None:
    """Before anything is trained; what the file held is left for the user to look at."""
    path = here / "run" / file
    path.write_bytes(change(path.read_bytes()))
    before = contents(here)
    assert said(*command).startswith(words)
    after = contents(here)
    assert before.keys() == after.keys()
    # A resume keeps its configuration, and why it failed.
    assert {name for name in before if before[name] != after[name]} <= {"run/status.json", f"run/{CONFIG}"}


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in files_below(folder)}


def test_a_missing_configuration_is_one_line(here: Path, said: Say) -> None:
    (here / "run" / CONFIG).unlink()
    for command in (RUN, REPORT):
        assert "run is not a whole run folder: it has no .hydra/config.yaml." in said(*command)


@pytest.mark.parametrize("file", READERS)
def test_a_file_cut_or_flipped_anywhere_is_read_or_refused_in_one_line(here: Path, file: str) -> None:
    """Cuts, flipped bits and flipped bytes at places drawn from a fixed seed: never another exception."""
    source, path, lines = random.Random(file), made_of(here / "run", file), list[str]()
    whole = path.read_bytes()
    for _ in range(15 if file == CONFIG else 40):
        path.write_bytes(spoilt(whole, source))
        for read in READERS[file]:
            with kept(lines):
                read(here / "run")
    assert len(lines) > 2
    assert all(f"run/{file}" in line for line in lines)


def spoilt(content: bytes, source: random.Random) -> bytes:
    """Return `content` cut, or with one bit or one byte flipped, at a place that `source` chooses."""
    place, kind = source.randrange(len(content)), source.choice(["cut", "bit", "byte"])
    if kind == "cut":
        return content[:place]
    flip = 1 << source.randrange(8) if kind == "bit" else source.randrange(1, 256)
    return content[:place] + bytes([content[place] ^ flip]) + content[place + 1 :]


def test_a_last_line_of_metrics_without_an_end_is_written_again(here: Path) -> None:
    """A full disk or a kill may cut it: it is no row yet, for a report and for a resume alike."""
    path = here / "run" / "metrics.csv"
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    assert len(load(here / "run").metrics) == whole.count(b"\n0,ticket,")
    go_on(here / "run", "pruner.rounds=3")
    assert [row["round"] for row in read_table(path) if row["arm"] == "ticket"] == [r for r in "0123" for _ in range(3)]
    assert all(None not in row.values() for row in read_table(path))


@pytest.mark.parametrize("advice", ["take a line out", "write a status", "delete the checkpoint"])
def test_what_the_lines_advise_is_enough(here: Path, made: Path, advice: str) -> None:
    """A resume then ends with the rows and tickets of the whole run, or of its extension."""
    if advice == "take a line out":
        lines = (here / "run/rounds.csv").read_text().splitlines(keepends=True)
        (here / "run/rounds.csv").write_text("".join(lines[:2] + lines[3:]))
    elif advice == "write a status":
        (here / "run/status.json").write_text('{"state": "failed"}')
    else:
        shutil.copytree("run", "other")
        (here / "run" / CHECKPOINT).unlink()
        assert results(go_on(here / "run", "pruner.rounds=3")) == results(go_on(here / "other", "pruner.rounds=3"))
        return
    assert results(go_on(here / "run")) == results(made / "run")


def go_on(folder: Path, *overrides: str) -> Path:
    """Resume a run without its report, and return its folder."""
    train(resume.configuration(folder, overrides, CONF), folder, Console(quiet=True))
    return folder


def results(folder: Path) -> dict[str, object]:
    """The rows, times apart, and the tickets of a run."""
    rows = [{**row, **dict.fromkeys(TIME_COLUMNS)} for row in read_table(folder / "rounds.csv")]
    return {"rows": rows} | {name: (folder / name).read_bytes() for name in files_below(folder) if "tickets/" in name}


# Checkpoints


SETTINGS = {"seed": 0, "optimizer.lr": 1e-3, "model.widths": [3, 2], "ticket": None, "job": "trial-0-ticket"}


def sealed(content: bytes) -> bytes:
    """Return `content` with the checksum that a checkpoint ends with."""
    return content + hashlib.sha256(content).digest()


def saved(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def test_every_flipped_byte_of_a_checkpoint_and_every_cut_is_found(tmp_path: Path) -> None:
    """Each byte of the file in turn, every second one by a bit, as a fixed seed draws them."""
    files, path = CheckedCheckpointIO(settings=SETTINGS), tmp_path / "one.ckpt"
    files.save_checkpoint({"callbacks": {}, "state_dict": {"weight": torch.arange(6.0)}}, path)
    assert torch.equal(files.load_checkpoint(path)["state_dict"]["weight"], torch.arange(6.0))
    whole, source = path.read_bytes(), random.Random(0)
    flips = [1 << source.randrange(8) if place % 2 else source.randrange(1, 256) for place in range(len(whole))]
    flipped = [whole[:at] + bytes([whole[at] ^ flip]) + whole[at + 1 :] for at, flip in enumerate(flips)]
    for content in (*flipped, *(whole[:length] for length in range(0, len(whole), 7))):
        path.write_bytes(content)
        lines: list[str] = []
        with kept(lines):
            files.load_checkpoint(path)
        assert lines == [
            f"{path} is damaged: its checksum does not match. Delete it to train this arm again from its start."
        ]


class Bomb:
    """What runs code when a careless reader unpickles it."""

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, ("harm",)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(saved({"callbacks": {}, "x": Bomb()}), id="torch.save that runs code"),
        pytest.param(pickle.dumps(Bomb()), id="pickle that runs code"),
        pytest.param(pickle.dumps(Bomb(), protocol=2), id="old pickle that runs code"),
        pytest.param(saved([1]), id="a list"),
        pytest.param(saved({"state_dict": {}}), id="a state dict"),
        pytest.param(saved(torch.ones(1)), id="a tensor"),
        pytest.param(b"", id="nothing"),
        pytest.param(b"trial,arm\n", id="a table"),
    ],
)
def test_a_foreign_file_in_the_place_of_a_checkpoint_is_refused_and_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    """With the right checksum too, which anybody can compute."""
    monkeypatch.chdir(tmp_path)
    for written, words in ((content, "is damaged: its checksum"), (sealed(content), "is no checkpoint of ltl, and")):
        Path("one.ckpt").write_bytes(written)
        with pytest.raises(LtlError, match=rf"^one\.ckpt {words}.*Delete it to train this arm again") as error:
            CheckedCheckpointIO(settings=SETTINGS).load_checkpoint(Path("one.ckpt"))
        assert "\n" not in str(error.value)
    assert not Path("harm").exists()


@pytest.mark.parametrize(
    ("key", "there"),
    [
        ("optimizer.lr", 2e-3),
        ("seed", 1),
        ("model.widths", [3, 3]),
        ("ticket", "runs/a@1"),
        ("job", "trial-1-ticket"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused_by_the_key_that_differs(
    tmp_path: Path, key: str, there: object
) -> None:
    """Its shapes may fit all the same: nothing else would tell."""
    path = tmp_path / "one.ckpt"
    CheckedCheckpointIO(settings={**SETTINGS, key: there}).save_checkpoint({"callbacks": {}}, path)
    with pytest.raises(LtlError) as error:
        CheckedCheckpointIO(settings=SETTINGS).load_checkpoint(path)
    assert f"is of another run: {key}={there} there and {SETTINGS[key]} here." in str(error.value)
    assert "\n" not in str(error.value)


def test_keys_that_only_one_of_checkpoint_and_run_has_are_no_difference(tmp_path: Path) -> None:
    """One of the two may be of a younger ltl."""
    path = tmp_path / "one.ckpt"
    for settings in ({}, {**SETTINGS, "younger": 1}, {"seed": 0}):
        CheckedCheckpointIO(settings=settings).save_checkpoint({"callbacks": {}}, path)
        assert CheckedCheckpointIO(settings=SETTINGS).load_checkpoint(path) == {"callbacks": {}}


# Configurations, flags and folders


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"defaults: [imp, _self_]\nname: {TAG}\n", "pruner=mine is not possible: could not determine a constructor"),
        ("defaults: [imp, _self_]\nname: [\n", "pruner=mine is not possible: while parsing"),
        ("defaults: [imq, _self_]\n", "pruner=imq is not an option. Did you mean imp?"),
        ("defaults: [imp, _self_]\nrate: 2\n", "pruner.rate=2 is not possible"),
        ("defaults: [imp, _self_]\nrote: 2\n", "pruner.rote=2 is not possible: nothing reads a key of this name."),
    ],
)
def test_a_configuration_of_ones_own_that_is_broken_is_one_line(here: Path, said: Say, text: str, words: str) -> None:
    (here / "my/pruner").mkdir(parents=True)
    (here / "my/pruner/mine.yaml").write_bytes(text.encode("latin-1"))
    assert words in said("run", "--config-dir", "my", "pruner=mine")
    assert sorted(path.name for path in here.iterdir()) == ["my", "run"]


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (
            ("run", "--seed=3"),
            "unrecognized arguments: --seed=3: values are set without dashes, as in seed=3; see --help.",
        ),
        (("run", "--cfg", "jb"), "argument --cfg/-c: invalid choice: 'jb'"),
        (("run", "--experimental-rerun", "a file"), "--experimental-rerun would unpickle a file, which can run code"),
        (("run", "-m", "seed=range(0,2"), "the command line cannot be read: no viable alternative at input"),
        (("run", "-m", "hydra.sweeper.max_batch_size=x", "seed=0,1"), "hydra.sweeper.max_batch_size=x is not possible"),
        (
            ("run", "hydra.run.dir=a file"),
            "hydra.run.dir, or hydra.sweep.dir for a sweep, cannot be written: File exists",
        ),
        (("run", "hydra.run.dir=a file/x"), "cannot be written: Not a directory: a file/x; choose another folder"),
        (("run", "hydra.run.dir=/proc/x"), "cannot be written: No such file or directory: /proc/x"),
        (("run", "-m", "seed=0,1", "hydra.sweep.dir=a file/x"), "cannot be written: Not a directory: a file/x"),
        (("run", "dataset=mnist", "dataset.root=a file"), "Not a directory: 'a file/mnist'"),
        (("run", "resume=empty"), "empty is not a run folder: it has no status.json."),
        (("run", "ticket=empty/*/none-*"), "ticket=empty/*/none-*: no such file or run folder"),
        (("run", "ticket=a file"), "ticket 'a file': is not a safetensors file"),
        (("run", "ticket=run@1", "model=conv2"), "does not fit the network: conv1.weight is absent in the ticket"),
        (("report", "empty"), "empty holds no run: no folder in it has a status.json"),
        (("report", "run", "--out", "a file"), "Not a directory: 'a file/figures'"),
        (("report", "run", "--compare"), "--compare takes two paths, got 1"),
        (("ticket", "show", "empty"), "this folder holds no tickets"),
        (("ticket", "export", "run@1", "a file/x.safetensors"), "File exists: 'a file'"),
        (("ticket", "import", "run/rounds.csv", "t"), "run/rounds.csv is not a whole torch.save file: "),
        (("ticket", "import", f"run/{CHECKPOINT}", "t"), "no *.weight_orig"),
    ],
)
def test_a_mistake_in_flags_and_folders_is_one_line_and_leaves_nothing(
    here: Path, said: Say, command: tuple[str, ...], words: str
) -> None:
    (here / "empty").mkdir()
    (here / "a file").write_text("mine")
    before = contents(here)
    assert words in said(*command)
    assert contents(here) == before
    assert sorted(path.name for path in here.iterdir() if path.name != "multirun") == ["a file", "empty", "run"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"trial": None}, "cannot be trained: its metadata has no whole number 'trial'."),
        ({"round": "x"}, "cannot be trained: its metadata has no whole number 'round'."),
        ({"rewind_step": "1e9"}, "cannot be trained: its metadata has no whole number 'rewind_step'."),
        ({"search_steps": ""}, "cannot be trained: its metadata has no whole number 'search_steps'."),
        ({"rewind_step": "12"}, r"was rewound to step 12, at or past the end of a round \(length=12it\)."),
    ],
)
def test_a_ticket_that_is_not_of_ltls_own_runs_is_refused_before_it_is_trained(
    built: Experiment, here: Path, changes: dict[str, str | None], words: str
) -> None:
    """One made by `ltl-ticket import`, or written by a program of somebody's."""
    whole = tickets.load(here / "run/tickets/trial-0/round-01.safetensors")
    metadata = {key: changes.get(key, value) for key, value in whole.metadata.items()}
    foreign = {key: value for key, value in metadata.items() if value is not None}
    tickets.save(dataclasses.replace(whole, metadata=foreign), here / "foreign")
    with pytest.raises(LtlError, match=f"^ticket=foreign {words}$"):
        dataclasses.replace(built, tickets=[Path("foreign")]).check()


@pytest.mark.parametrize("given", [("pruner.rounds=2",), ("ticket=run@2", "pruner.rounds=9")])
def test_a_control_of_rounds_that_no_ticket_is_of_is_refused(here: Path, said: Say, given: tuple[str, ...]) -> None:
    """Of a search, and of a branch; with one round that there is, the others may come with more rounds."""
    line = said("run", *TINY, *given, "control.reinit.rounds=[7]")
    assert "control.reinit.rounds=[7] names no round that this run has a ticket of: name some of " in line
    cfg = composed(*TINY, *given, "control.reinit.rounds=[2,7]")
    assert build.experiment(cfg, here / "new", hardware_number=0).controls["reinit"].rounds == (2, 7)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    return build.experiment(composed(*TINY), tmp_path_factory.mktemp("built"), hardware_number=0)


def test_two_tickets_of_one_trial_and_round_are_refused(here: Path, said: Say) -> None:
    """One would be trained in the other's place."""
    shutil.copytree("run", "other")
    line = said("run", *TINY, "ticket=*/tickets/trial-0/round-01.safetensors")
    assert "/round-01.safetensors are both of trial 0, round 1: train them in two runs." in line


def test_tickets_of_one_trial_and_two_initialisations_are_refused(here: Path, said: Say) -> None:
    """Their rounds would be compared as those of one search; without one of them the rest is trained."""
    train_in(here / "other", "seed=5", "control=none")
    (here / "pick").mkdir()
    for turn, folder in enumerate(("run", "other", "run")):
        shutil.copy(here / folder / f"tickets/trial-0/round-{turn:02d}.safetensors", "pick")
    line = said("run", *TINY, "ticket=pick/*.safetensors")
    assert "ticket=pick/round-01.safetensors and pick/round-00.safetensors are both of trial 0 and were found" in line
    (here / "pick/round-01.safetensors").unlink()
    branch = train_in(here / "branch", "ticket=pick/*.safetensors", "control=none")
    assert [row["round"] for row in read_table(branch / "rounds.csv")] == ["0", "2"]


# A full disk


@contextmanager
def room(size: int) -> Iterator[None]:
    """Let no file grow beyond `size` bytes, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(
    ("size", "file"),
    [(10_000, CHECKPOINT), (60_000, "figures/")],
)
def test_a_disk_that_fills_stops_the_run_in_one_line_and_loses_nothing(
    here: Path, said: Say, made: Path, size: int, file: str
) -> None:
    """Of checkpoints and figures; with room again, a resume ends as the whole run did."""
    with room(size):
        line = said("run", *TINY, "hydra.run.dir=full")
    assert f"the run in {here}/full stopped: File too large: {here}/full/{file}" in line
    assert f"`python -m ltl.run resume={here}/full` goes on." in line
    assert not [name for name in files_below(here) if name.endswith(".tmp")]
    assert read_status(here / "full")["state"] == ("done" if file == "figures/" else "failed")
    go_on(here / "full")
    assert results(here / "full") == results(made / "run")


def test_a_disk_without_room_for_a_configuration_is_one_line(here: Path, said: Say) -> None:
    with room(500):
        line = said("run", *TINY, "hydra.run.dir=full")
    assert "hydra.run.dir, or hydra.sweep.dir for a sweep, cannot be written: " in line
    assert "File too large" in line


@pytest.mark.parametrize("part", [0.0, 0.5, 0.99])
def test_a_file_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: float) -> None:
    """The system does not name it when a disk is full."""

    def full(descriptor: int) -> None:
        os.truncate(descriptor, int(part * os.fstat(descriptor).st_size))
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "old.csv").write_text("old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*/old\.csv'"):
        write_atomic(tmp_path / "old.csv", b"new and longer")
    assert contents(tmp_path) == {"old.csv": b"old"}


# Memory that runs out


@pytest.mark.parametrize(
    ("error", "where"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), "the GPU"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 400 bytes."), "this machine"),
        (MemoryError(), "this machine"),
        (RuntimeError("anything else"), None),
    ],
)
def test_memory_that_runs_out_is_one_line_and_loses_nothing(
    here: Path, said: Say, made: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, where: str | None
) -> None:
    """In the second round; with memory again, a resume ends as the whole run did."""
    step = MaskedTraining.masked_step

    def short(self: MaskedTraining, given: Any, optimizer: Any) -> Any:
        if self.position[0] == 1:
            raise error
        return step(self, given, optimizer)

    with monkeypatch.context() as patch:
        patch.setattr(MaskedTraining, "masked_step", short)
        if where is None:  # what is not ltl's own code is named by its line
            assert re.match(
                rf"ltl: {re.escape(__file__)}, line \d+, in short: RuntimeError: anything else\. What is finished is "
                rf"kept; when that is mended, `python -m ltl.run resume={here}/short` goes on\.\n",
                said("run", *TINY, "hydra.run.dir=short"),
            )
            return
        line = said("run", *TINY, "hydra.run.dir=short")
    assert f"the run in {here}/short stopped: {where} has no memory left for it." in line
    assert f"`python -m ltl.run resume={here}/short` goes on" in line
    assert read_status(here / "short")["state"] == "failed"
    go_on(here / "short")
    assert results(here / "short") == results(made / "run")


# A loss that is no number


def test_a_run_in_which_every_loss_is_nan_says_so(here: Path, said: Say) -> None:
    """There is nothing to report; the line is the reason, and a resume says it again."""
    loss = "the training loss is nan before step 5 of round 0 (ticket, trial 0): lower optimizer.lr, or set clip=1.0"
    sgd = (*TINY, "optimizer=sgd", "optimizer.lr=1e30", "control=none")
    assert loss in said("run", *sgd, "hydra.run.dir=lost")
    status = read_status(here / "lost")
    assert status["state"] == "failed"
    assert loss in status["reason"]
    assert loss in said("run", "resume=lost")


def test_a_trial_whose_loss_is_nan_is_marked_and_the_others_are_reported(
    here: Path, said: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of their rounds, in the tables and on the page; the exit code is not 0 all the same."""
    make = fit._network

    def spoilt_network(experiment: Experiment, model: Callable[..., nn.Module], trial: int) -> nn.Module:
        network = make(experiment, model, trial)  # type: ignore[arg-type]
        if trial == 1:
            with torch.no_grad():
                network.get_parameter("fc1.weight").fill_(1e38)
        return network

    monkeypatch.setattr(fit, "_network", spoilt_network)
    line = said("run", *TINY, "trials=2", "control=none", "hydra.run.dir=part")
    assert "of round 0 (ticket, trial 1): lower optimizer.lr" in line
    rows = read_table(here / "part/rounds.csv")
    assert [(row["trial"], row["round"]) for row in rows] == [("0", turn) for turn in "012"]
    assert "trial 1" in read_status(here / "part")["reason"]
    assert "trial 1" in (here / "part/report.html").read_text()

"""Weights & Biases: what a run logs is read back from its offline files, and the dashboard names nothing else."""

import base64
import hashlib
import json
import math
import re
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import wandb
from conftest import TINY, train_in
from pytorch_lightning.loggers import CSVLogger
from scipy import stats
from test_command_line import environment, typed
from wandb.util import get_core_path

from ltl import run
from ltl.dashboard.__main__ import main as dashboard
from ltl.dashboard.tracking import Tracking
from ltl.dashboard.wandb_run import WandbRun
from ltl.errors import LtlError, Stopped
from ltl.results import METRIC_COLUMNS, read_table
from ltl.tickets import load

pytestmark = pytest.mark.usefixtures("alone")


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pytest.MonkeyPatch]:
    """No key, no settings of this machine's user, and nothing written into their folders; read anew by W&B."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in environment() if name.startswith("WANDB_")]:
            patch.delenv(name)
        for name in ("CONFIG", "CACHE", "DATA"):
            patch.setenv(f"WANDB_{name}_DIR", str(home))
        patch.setenv("NETRC", str(home / "netrc"))
        patch.setenv("WANDB_SILENT", "true")
        wandb.teardown()
        yield patch
    wandb.teardown()


Records = dict[str, list[Any]]


def records(file: Path) -> Records:
    """What the file of an offline run holds, by type of record; W&B's service closes it a while after the run."""
    deadline = time.monotonic() + 60
    while not (found := _records(file))["exit"] and time.monotonic() < deadline:
        time.sleep(0.2)
    return found


def _records(file: Path) -> Records:
    """What W&B's own reader finds in the file now."""
    inspect = [get_core_path(), "leet", "inspect", "--no-observability", "--json", "--run-file"]
    shown = subprocess.run([*inspect, str(file), str(file.parent)], capture_output=True, text=True, check=True)
    found: Records = defaultdict(list)
    for record in map(json.loads, shown.stdout.splitlines()):
        found[record["type"]].append(record[record["type"]])
    return found


def files(folder: Path) -> list[Path]:
    """The files of offline runs in a run folder, oldest first."""
    return sorted(folder.glob("wandb/offline-run-*/*.wandb"), key=lambda file: file.stat().st_ctime_ns)


def history(found: Records, axis: str) -> list[dict[str, float]]:
    """The points that were logged with `axis`."""
    return [record["item"] for record in found["history"] if axis in record["item"]]


@pytest.fixture(scope="module")
def folder(alone: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two trials, one after the other, with two controls at one round each, one of them drawn twice."""
    controls = ("control=[reinit,small_dense]", "control.reinit.draws=2", "hardware.stack=in_turn", "trials=2")
    controls += ("control.reinit.rounds=[2]", "control.small_dense.rounds=[1]")
    return train_in(tmp_path_factory.mktemp("wandb") / "run", "logger=wandb", "tags=[tried]", *controls)


@pytest.fixture(scope="module")
def found(folder: Path) -> Records:
    """What that run logged."""
    (file,) = files(folder)
    return records(file)


def test_one_run_says_what_it_is_and_how_it_ended(found: Records, folder: Path) -> None:
    (told,) = found["run"]
    assert told["display_name"] == "imp-lenet_300_100-s0"
    assert (told["project"], told["job_type"], told["tags"]) == ("ltl", "imp", ["tried"])
    assert "run_group" not in told
    assert (folder / "wandb" / "run-id").read_text() == told["run_id"]
    assert [record["update"]["pruner"]["rate"] for record in found["config"]] == [0.2]
    assert [record.get("exit_code", 0) for record in found["exit"]] == [0]
    assert not found["preempting"]


def test_axes_are_the_density_for_rounds_and_the_step_for_curves(found: Records) -> None:
    """And no other pattern fits the same names: W&B would take either."""
    axes = [(record.get("name") or record["glob_name"], record.get("step_metric")) for record in found["metric"]]
    assert axes == [
        ("round/density", None),
        ("round/*", "round/density"),
        ("curve/step", None),
        ("curve/*", "curve/step"),
    ]


def test_curves_are_those_of_the_first_trial_and_draw(found: Records, folder: Path) -> None:
    """Every evaluation of theirs in its place, along an axis that never runs backwards."""
    rows = [row for row in read_table(folder / "metrics.csv") if row["trial"] == row["draw"] == "0"]
    points = history(found, "curve/step")
    assert len(points) == len(rows) == 3 * (3 + 1 + 1)
    for point, row in zip(points, rows, strict=True):
        name = f"curve/{row['arm']}/round-{int(row['round']):02d}/"
        told = {key.removeprefix(name): value for key, value in point.items() if key.startswith(name)}
        assert told == {key: pytest.approx(float(row[key]), rel=1e-6) for key in METRIC_COLUMNS[6:] if row[key]}
        assert {key for key in point if key.startswith("curve/")} - {name + key for key in told} == {
            "curve/step",
            "curve/total_step",
        }
        assert point["curve/step"] == int(row["step"])
    places = [point["curve/total_step"] for point in points]
    assert places == sorted(set(places))


def test_every_round_is_told_once_as_the_mean_over_trials(found: Records, folder: Path) -> None:
    """Draws are averaged within a trial first; the interval is Student's, as scipy has it."""
    rows, points = read_table(folder / "rounds.csv"), history(found, "round/density")
    told = {(arm, point["round/number"]): point for point in points for arm in _arms(point)}
    assert len(told) == len(points) == 3 + 1 + 1
    for arm, number in told:
        point = told[arm, number]
        mine = [row for row in rows if (row["arm"], int(row["round"])) == (arm, number)]
        assert len(mine) == (4 if arm == "reinit" else 2)
        dense = [float(row["density"]) for row in rows if (row["arm"], int(row["round"])) == ("ticket", number)]
        assert point["round/density"] == pytest.approx(fmean(dense))
        for what in ("test_accuracy", "early_stop_test_accuracy", "early_stop_step", "total_steps"):
            trials = [fmean(float(row[what]) for row in mine if row["trial"] == trial) for trial in "01"]
            assert point[f"round/{arm}/{what}"] == pytest.approx(fmean(trials), rel=1e-6)
            if what.endswith("accuracy"):
                low, high = (point[f"round/{arm}/{what}_{end}"] for end in ("low", "high"))
                expected = stats.t.interval(0.95, 1, loc=fmean(trials), scale=stats.sem(trials))
                assert all(map(math.isfinite, expected))
                assert (low, high) == pytest.approx(expected, rel=1e-6)
        assert point[f"round/{arm}/trials"] == 2


def _arms(point: dict[str, float]) -> list[str]:
    return [key.split("/")[1] for key in point if key.endswith("/trials")]


def test_layers_of_the_tickets_are_told_by_density(found: Records, folder: Path) -> None:
    rows = [row for row in read_table(folder / "layers.csv") if row["arm"] == "ticket"]
    for point in history(found, "round/ticket/trials"):
        for name in ("fc1.weight", "fc2.weight", "output.weight"):
            kept = [
                float(row["density"])
                for row in rows
                if (row["layer"], int(row["round"])) == (name, point["round/number"])
            ]
            assert point[f"round/layer/{name}"] == pytest.approx(fmean(kept), rel=1e-6)


@pytest.mark.parametrize("name", ["rounds", "layers"])
def test_tables_hold_the_rows_of_the_files(found: Records, folder: Path, name: str) -> None:
    (point,) = history(found, f"{name}.path")
    table = json.loads((files(folder)[0].parent / "files" / str(point[f"{name}.path"])).read_text())
    rows = read_table(folder / f"{name}.csv")
    assert table["columns"] == list(rows[0])
    assert len(table["data"]) == len(rows) == {"rounds": 12, "layers": 36}[name]
    for cells, row in zip(table["data"], rows, strict=True):
        for cell, text in zip(cells, row.values(), strict=True):
            assert cell is None if text == "" else cell == text or cell == pytest.approx(float(text))


def test_tickets_are_one_artifact_of_the_files_themselves(found: Records, folder: Path) -> None:
    """By W&B's checksum; nothing was copied for it, and its metadata say which ticket is which."""
    (artifact,) = [record for record in found["artifact"] if record["type"] == "ticket"]
    paths = sorted(folder.glob("tickets/*/*"))
    assert len(paths) == 2 * 3
    contents = artifact["manifest"]["contents"]
    assert [one["path"] for one in contents] == [str(path.relative_to(folder / "tickets")) for path in paths]
    assert [Path(one["local_path"]) for one in contents] == paths
    for one, path in zip(contents, paths, strict=True):
        assert one["digest"] == base64.b64encode(hashlib.md5(path.read_bytes()).digest()).decode()
        assert one["skip_cache"]
    metadata = json.loads(artifact["metadata"])
    assert metadata["pruner"] == "imp"
    for told, path in zip(metadata["tickets"], paths, strict=True):
        ticket = load(path).metadata
        assert told == {name: ticket[name] for name in ("trial", "round", "density", "test_accuracy", "mask_sha256")}


# How a run ends, goes on and is told of afterwards


def test_an_interrupted_run_is_preempted_and_goes_on_under_its_id(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both files together hold every evaluation once, the second one every round; one line says that it is offline."""
    values = ("logger=wandb", "control=none", "logger.wandb.tickets=false")
    with pytest.raises(Stopped):
        train_in(tmp_path / "run", *values, "hardware.stop_after=0s")
    assert capsys.readouterr().out.count("ltl: W&B is offline: no key is known (WANDB_API_KEY, or `wandb login`)") == 1
    train_in(tmp_path / "run", *values)
    first, second = map(records, files(tmp_path / "run"))
    assert [len(one["preempting"]) for one in (first, second)] == [1, 0]
    assert [one["exit"][0].get("exit_code", 0) for one in (first, second)] == [1, 0]
    assert first["run"][0]["run_id"] == second["run"][0]["run_id"]
    assert all(one["run"][0]["resume"] for one in (first, second))
    steps = [point["curve/total_step"] for one in (first, second) for point in history(one, "curve/step")]
    assert steps == [5, 10, 12, 17, 22, 24, 29, 34, 36]
    assert [len(history(one, "round/density")) for one in (first, second)] == [0, 3]
    assert not [record for record in second["artifact"] if record["type"] == "ticket"]


def test_a_finished_run_can_be_told_afterwards(tmp_path: Path) -> None:
    """Rounds, tables and tickets, from its files."""
    values = ("trials=2", "control=none", "pruner.rounds=1")
    train_in(tmp_path / "run", *values)
    table = (tmp_path / "run" / "rounds.csv").read_text()
    train_in(tmp_path / "run", *values, "logger=wandb")
    assert (tmp_path / "run" / "rounds.csv").read_text() == table
    (file,) = files(tmp_path / "run")
    told = records(file)
    assert [point["round/ticket/trials"] for point in history(told, "round/density")] == [2, 2]
    assert {record["type"] for record in told["artifact"]} == {"run_table", "ticket"}
    assert not history(told, "curve/step")


def test_each_job_of_a_sweep_is_a_run_with_its_own_outcome(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one process, grouped by the sweep's folder: the second job diverges."""
    sweep = ("optimizer.lr=1e-3,1e30", "optimizer=sgd", "logger=wandb", "control=none", "pruner.rounds=0")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["ltl"])
    with pytest.raises(SystemExit):
        run.cli(["-m", *TINY, *sweep, "hydra.sweep.dir=multirun/rates"])
    told = [records(file) for job in sorted(Path("multirun/rates").glob("*-*")) for file in files(job)]
    assert [one["exit"][0].get("exit_code", 0) for one in told] == [0, 1]
    assert [one["run"][0]["run_group"] for one in told] == ["rates", "rates"]
    assert len({one["run"][0]["run_id"] for one in told}) == 2
    assert [len(history(one, "round/density")) for one in told] == [1, 0]


@pytest.mark.slow
def test_jobs_in_processes_of_their_own_are_runs_too(tmp_path: Path) -> None:
    joblib = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "hydra.sweep.dir=multirun/seeds")
    done = typed(tmp_path, "-m", "seed=0,1", "debug=fast", "control=none", "logger=wandb", *joblib)
    assert done.returncode == 0, done.stderr
    told = [records(file) for job in sorted(tmp_path.glob("multirun/seeds/*-*")) for file in files(job)]
    assert [one["exit"][0].get("exit_code", 0) for one in told] == [0, 0]
    assert [one["run"][0]["run_group"] for one in told] == ["seeds", "seeds"]


# Online or offline


def logger(folder: Path, **values: Any) -> WandbRun:
    given = {"project": "ltl", "entity": None, "mode": "auto", "group": None, "tickets": False, "tags": []}
    return WandbRun(folder=folder, job_type="imp", name="tried", **{**given, **values})


def test_online_without_a_key_is_one_line_before_training(tmp_path: Path) -> None:
    with pytest.raises(
        LtlError, match=r"^logger\.wandb\.mode=online is not possible: no key is known .*auto or offline\.$"
    ):
        train_in(tmp_path / "run", "logger=wandb", "logger.wandb.mode=online")
    assert not (tmp_path / "run" / "status.json").exists()


def test_what_wandb_refuses_is_one_line(launch: Callable[..., Path]) -> None:
    with pytest.raises(LtlError, match=r"^logger\.wandb cannot open a run: Invalid project name 'a/b': .*csv\.$"):
        launch("logger=wandb", "logger.wandb.project=a/b")


class Refusing(BaseHTTPRequestHandler):
    """A server that knows no key."""

    def do_POST(self) -> None:
        self.send_error(401)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.mark.parametrize("known", ["environment", "netrc"])
def test_a_key_that_is_known_is_tried(known: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the environment or netrc; where the server refuses it, auto is offline and online says why."""
    server = HTTPServer(("127.0.0.1", 0), Refusing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.server_port}")
    if known == "netrc":
        (tmp_path / "netrc").write_text(f"machine 127.0.0.1:{server.server_port} login user password {'a' * 40}\n")
        monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    else:
        monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    wandb.teardown()
    try:
        refused = logger(tmp_path)
        assert refused.mode == "offline"
        assert refused.why_offline.startswith("Failed to authenticate with http://127.0.0.1")
        with pytest.raises(LtlError, match=re.escape(refused.why_offline)):
            logger(tmp_path, mode="online")
    finally:
        server.shutdown()
        server.server_close()
        wandb.teardown()


def test_the_environment_decides_over_auto_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert (logger(tmp_path).mode, logger(tmp_path, mode="offline").mode) == (None, "offline")


def test_a_run_that_is_no_job_belongs_to_its_experiment_unless_told(tmp_path: Path) -> None:
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "hydra.yaml").write_text("hydra: {runtime: {choices: {experiment: frankle2019_lenet}}}")
    offline = [logger(tmp_path, mode="offline", group=group) for group in (None, "mine")]
    assert [one.about["group"] for one in offline] == ["frankle2019_lenet", "mine"]


# Other loggers


def test_any_lightning_logger_is_told_numbers_in_the_run_folder(tmp_path: Path) -> None:
    added = "+logger.plain={_target_: pytorch_lightning.loggers.CSVLogger, name: plain}"
    where = train_in(tmp_path / "run", "control=none", "pruner.rounds=1", added)
    rows = read_table(where / "plain" / "version_0" / "metrics.csv")
    assert [row["step"] for row in rows] == ["5", "10", "12", "0", "17", "22", "24", "1"]
    assert [row["round/density"] != "" for row in rows] == [row["step"] in "01" for row in rows]
    assert all(float(value) is not None for row in rows for value in row.values() if value)
    assert len(read_table(where / "metrics.csv")) == 6


def test_rounds_wait_for_all_trials_or_the_end(folder: Path, tmp_path: Path) -> None:
    """Where a trial was lost its rounds never become whole: they are told at the end, and once."""
    rows = read_table(folder / "rounds.csv")
    keys = [(int(row["trial"]), row["arm"], int(row["draw"]), int(row["round"])) for row in rows]
    plain = CSVLogger(tmp_path, name="plain")
    tracking = Tracking(folder=folder, loggers=[plain], keys=keys)
    told = []
    for whole in (True, False, False):
        tracking.rounds(lambda key: key[0] == 0, whole=whole)
        told.append(len(plain.experiment.metrics))
    assert told == [0, 5, 5]


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("collections.Counter", r"logger\.mine\._target_=collections\.Counter is not possible: it makes no logger"),
        ("pytorch_lightning.loggers.MLFlowLogger", r"logger\.mine needs a package that is not installed: .*mlflow"),
    ],
)
def test_what_is_no_logger_is_one_line(target: str, says: str, launch: Callable[..., Path]) -> None:
    with pytest.raises(LtlError, match=says):
        launch(f"+logger.mine._target_={target}")


# The dashboard


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert dashboard(["team/ltl", "--show", *arguments]) == 0
    section: dict[str, Any] = json.loads(capsys.readouterr().out)["spec"]["section"]
    return section


def test_the_dashboard_names_only_what_a_run_logs(capsys: pytest.CaptureFixture[str], found: Records) -> None:
    """Axes, metrics, patterns and tables; every panel but those of tables is a line plot of something."""
    sections = shown(capsys)["panelBankConfig"]["sections"]
    names = {key for record in found["history"] for key in record["item"]}
    assert [section["name"] for section in sections] == [
        "Accuracy against density", "Speed and cost against density", "Density by layer", "Curves by round", "Tables",
    ]  # fmt: skip
    *plots, tables = [section["panels"] for section in sections]
    for panel in [panel["config"] for panels in plots for panel in panels]:
        assert panel["xAxis"] in names
        pattern = panel.get("metricRegex")
        drawn = [name for name in names if re.search(pattern, name)] if pattern else panel["metrics"]
        assert drawn and set(drawn) <= names
        assert pattern is None or all(name.startswith(panel["xAxis"].split("/")[0]) for name in drawn)
        if "interval" not in panel["chartTitle"]:
            assert (panel["groupBy"], panel["groupAgg"], panel["groupArea"]) == ("jobType", "mean", "stderr")
    for panel in tables:
        table = panel["config"]["panel2Config"]["exp"]["fromOp"]["inputs"]["key"]["val"]
        assert f"{table}.path" in names


def test_the_dashboard_can_be_of_one_group(capsys: pytest.CaptureFixture[str]) -> None:
    """Runs of a project that differ in more than the pruner are not averaged then."""
    assert shown(capsys)["runSets"][0]["filters"]["filters"] == []
    (only,) = shown(capsys, "--group", "seeds")["runSets"][0]["filters"]["filters"]
    assert (only["key"], only["op"], only["value"]) == ({"section": "run", "name": "group"}, "=", "seeds")


@pytest.mark.parametrize(
    ("project", "says"),
    [("ltl", "ltl is no project: write ENTITY/PROJECT"), ("team/ltl", "cannot be written to: No API key configured")],
)
def test_what_cannot_be_published_is_one_line(project: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert dashboard([project]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("ltl-dashboard: ") and says in line


def test_without_the_extra_the_dashboard_names_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "ltl.dashboard.workspace", raising=False)
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    monkeypatch.setitem(sys.modules, "wandb_workspaces.workspaces", None)
    assert dashboard(["team/ltl", "--show"]) == 1
    assert (
        capsys.readouterr().err
        == "ltl-dashboard: the dashboard needs wandb-workspaces: pip install 'ltl[dashboards]'.\n"
    )

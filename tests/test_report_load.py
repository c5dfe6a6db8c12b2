"""Run folders are found, read and named; what is not one is refused in a line."""

from pathlib import Path

import pytest
from report_rows import make_run

from ltl.errors import LtlError
from ltl.report.load import find_runs, load
from ltl.results import read_table, write_table


def test_a_multirun_folder_gives_its_runs_in_order_of_their_numbers(tmp_path: Path) -> None:
    for job in (10, 2, 1):
        make_run(tmp_path / str(job), trials=1, rounds=0)
    assert [folder.name for folder in find_runs([tmp_path])] == ["1", "2", "10"]
    assert [folder.name for folder in find_runs([Path(f"{tmp_path}/1*")])] == ["1", "10"]
    assert find_runs([tmp_path / "2", tmp_path / "2"]) == [tmp_path / "2"]


def test_a_folder_by_two_names_is_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_run(tmp_path / "run", trials=1, rounds=0)
    (tmp_path / "latest").symlink_to("run")
    monkeypatch.chdir(tmp_path)
    assert find_runs([Path("run"), tmp_path / "run", Path("latest")]) == [Path("run")]


def test_nothing_there_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(LtlError, match="nothing of that name exists"):
        find_runs([tmp_path / "absent"])
    with pytest.raises(LtlError, match=r"no folder in it has a status\.json"):
        find_runs([tmp_path])


def test_trials_are_numbered_by_seed(tmp_path: Path) -> None:
    run = load(make_run(tmp_path, trials=2, rounds=1, config={"seed": 3}))
    assert {row.trial for row in run.rows} == {3, 4}
    assert {row.trial for row in run.layers} == {3, 4}


def test_every_row_knows_the_theta0_of_its_trial(tmp_path: Path) -> None:
    run = load(make_run(tmp_path, trials=2, rounds=1, gains={"ticket": lambda r: 0, "reinit": lambda r: 0}))
    assert {(row.arm, row.trial, row.unit) for row in run.rows} == {
        (arm, trial, f"theta-{trial}") for arm in ("ticket", "reinit") for trial in (0, 1)
    }


def test_empty_cells_are_not_numbers(tmp_path: Path) -> None:
    run = load(make_run(tmp_path, trials=1, rounds=0))
    assert run.rows[0].train_loss is None
    assert run.rows[0].test_accuracy is not None


def test_a_run_without_a_living_process_is_interrupted(tmp_path: Path) -> None:
    assert load(make_run(tmp_path, trials=1, state="running")).status["state"] == "interrupted"


def test_a_cut_table_is_named_with_its_line(tmp_path: Path) -> None:
    make_run(tmp_path, trials=1, rounds=1)
    table = tmp_path / "rounds.csv"
    table.write_text(table.read_text()[:-100])
    with pytest.raises(LtlError, match=r"rounds\.csv line 3 is not a row of it"):
        load(tmp_path)


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    make_run(tmp_path, trials=1, rounds=1)
    table = tmp_path / "rounds.csv"
    table.write_text(table.read_text().replace(",density,", ",dens,"))
    with pytest.raises(LtlError, match="'density'"):
        load(tmp_path)


def test_columns_that_older_runs_do_not_have_are_not_measured(tmp_path: Path) -> None:
    make_run(tmp_path, trials=1, rounds=1, curves=True)
    for name, new in (("rounds", ("sampled_test_accuracy", "bits")), ("metrics", ("mask_flips",))):
        rows = read_table(tmp_path / f"{name}.csv")
        old = [{key: value for key, value in row.items() if not key.startswith(new)} for row in rows]
        assert len(old[0]) < len(rows[0])
        write_table(tmp_path / f"{name}.csv", list(old[0]), old)
    run = load(tmp_path)
    assert {row.bits for row in run.rows} == {None}
    assert {row.sampled_test_accuracy for row in run.rows} == {row.mask_flips for row in run.metrics} == {None}


@pytest.mark.parametrize("content", ["a: [", "- 1\n"])
def test_an_unreadable_config_is_named(tmp_path: Path, content: str) -> None:
    make_run(tmp_path, trials=1)
    (tmp_path / ".hydra" / "config.yaml").write_text(content)
    with pytest.raises(LtlError, match=r"config\.yaml is not"):
        load(tmp_path)


def test_a_setting_that_cannot_be_resolved_is_none(tmp_path: Path) -> None:
    run = load(make_run(tmp_path, trials=1, config={"where": "${absent_resolver:1}"}))
    assert run.setting("where") is None
    assert run.setting("optimizer.lr") == 0.0012
    assert run.setting("model") == {"name": "lenet_300_100", "_target_": "ltl.models.lenet.LeNet"}

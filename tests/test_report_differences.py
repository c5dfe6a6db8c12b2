"""Two runs set against each other: paired differences as an independent library computes them, and as LaTeX."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from report_rows import flat, make_rows, make_run
from scipy import stats

import ltl.report
from ltl.errors import LtlError
from ltl.report.__main__ import main
from ltl.report.differences import common_rounds
from ltl.report.tables import Table
from ltl.results import read_table, write_table

OTHER = {"pruner": {"name": "random"}}


def pair(folder: Path, **second: object) -> tuple[Path, Path]:
    """Two runs of the same five θ₀ by two methods, the first 0.4 pp more accurate and twice as fast."""
    more = {"gains": {"ticket": flat(0.0)}, "speeds": {"ticket": flat(1.0)}, "config": OTHER, "noise": 0.0003}
    first = make_run(folder / "a", gains={"ticket": flat(0.004)}, speeds={"ticket": flat(2.0)}, noise=0.0005)
    return first, make_run(folder / "b", **{**more, **second})  # type: ignore[arg-type]


def at(run: Path, turn: int, column: str) -> list[float]:
    return [float(row[column]) for row in read_table(run / "rounds.csv") if row["round"] == str(turn)]


def test_differences_are_those_of_a_paired_t_test(tmp_path: Path) -> None:
    """Means, intervals and Holm's p values against scipy's paired test and a plain reading of Holm (1979).

    Dense networks that are the same on both sides are none of the tests that Holm corrects.
    """
    first, second = pair(tmp_path)
    rows, others = (read_table(run / "rounds.csv") for run in (first, second))
    same = [row for row in rows if row["round"] == "0"] + [row for row in others if row["round"] != "0"]
    write_table(second / "rounds.csv", list(rows[0]), same)
    for row in rows:
        row["test_accuracy"] = str(float(row["test_accuracy"]) + 1e-4 * int(row["trial"]) * int(row["round"]))
    write_table(first / "rounds.csv", list(rows[0]), rows)
    report = ltl.report.write([first, second], out=tmp_path / "out", compare=True)
    assert report.differences is not None
    table = report.differences.table
    assert len(table.rows) == 11
    assert table.rows[0][2:4] == ["+0.00 ± 0.00", ""]
    p_values = {}
    for cell, column in ((2, "early_stop_test_accuracy"), (4, "test_accuracy")):
        for turn in range(1, 11):
            test = stats.ttest_rel(at(first, turn, column), at(second, turn, column))
            low, high = test.confidence_interval(0.95)
            mean = f"{50 * (low + high):+.2f}".replace("-", "−")
            assert table.rows[turn][cell] == f"{mean} ± {50 * (high - low):.2f}"
            p_values.setdefault(turn, float(test.pvalue))
    largest = 0.0
    for rank, turn in enumerate(sorted(p_values, key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (10 - rank) * p_values[turn]))
        assert table.rows[turn][3] == ("< 0.001" if largest < 0.001 else f"{largest:.3f}")
    assert table.rows[5][:2] == ["32.8", "5"]
    assert 0.4 < float(table.rows[5][5].split()[0]) < 0.6  # half the steps


def test_rounds_are_compared_where_densities_differ_by_a_hundredth_at_most(tmp_path: Path) -> None:
    first, second = (make_rows(tmp_path / name, trials=1, rounds=3) for name in "ab")
    for factor, common in ((1.009, [(1, 1), (2, 2), (3, 3)]), (1.011, []), (0.8, [(2, 1), (3, 2)])):
        moved = [replace(row, density=factor * row.density) for row in second if row.round]
        assert common_rounds(first, moved) == common


@pytest.mark.parametrize("side", ["a", "b"])
def test_there_is_no_ratio_of_steps_where_one_is_censored(tmp_path: Path, side: str) -> None:
    """The censored trials are the slow ones: the ratio of the others would make their side faster than it is."""
    first, second = pair(tmp_path)
    folder = tmp_path / side
    rows = read_table(folder / "rounds.csv")
    for row in rows:
        row["early_stop_censored"] = str(int((row["trial"], row["round"]) == ("2", "5")))
    write_table(folder / "rounds.csv", list(rows[0]), rows)
    report = ltl.report.write([first, second], out=tmp_path / "out", compare=True)
    assert report.differences is not None
    assert [row[5] == "censored" for row in report.differences.table.rows] == [turn == 5 for turn in range(11)]
    assert report.differences.table.rows[5][1] == "5"


def test_the_command_prints_and_writes_them(tmp_path: Path, capsys: pytest.CaptureFixture[str], undrawn: None) -> None:
    first, second = pair(tmp_path)
    assert main(["--compare", str(first), str(second), "--out", str(tmp_path / "out")]) == 0
    assert f"Differences: {first} − {second}, paired by θ₀" in capsys.readouterr().out
    assert (tmp_path / "out/figures/differences.md").read_text().startswith("| density (%) | pairs |")
    assert "<h2>Differences</h2>" in (tmp_path / "out/report.html").read_text()


def test_a_folder_by_two_names_is_compared_with_itself(tmp_path: Path, undrawn: None) -> None:
    run = make_run(tmp_path / "run", rounds=1)
    (tmp_path / "latest").symlink_to(run)
    found = ltl.report.write([run, tmp_path / "latest"], out=tmp_path / "out", compare=True).differences
    assert found is not None and [row[2] for row in found.table.rows] == ["+0.00 ± 0.00"] * 2


def test_what_cannot_be_compared_is_said_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = pair(tmp_path, config={**OTHER, "seed": 50})
    for arguments, says in (
        ([first, second], "share no θ₀, so their trials cannot be paired: give both the same seeds"),
        ([first], "--compare takes two paths, got 1: give A and B to have A − B."),
        ([tmp_path, first], f"--compare {tmp_path} holds 2 settings: give a path whose runs differ in the seed alone."),
    ):
        assert main(["--compare", *map(str, arguments), "--out", str(tmp_path / "out")]) == 1
        error = capsys.readouterr().err
        assert says in error
        assert error.count("\n") == 1
    rows = read_table(second / "rounds.csv")
    write_table(second / "rounds.csv", list(rows[0]), [{**row, "density": float(row["density"]) / 3} for row in rows])
    with pytest.raises(LtlError, match="have no density in common"):
        ltl.report.write([first, second], out=tmp_path / "out", compare=True)


def test_a_table_in_latex_says_what_the_table_says(tmp_path: Path) -> None:
    """Every letter that LaTeX reads otherwise is escaped, and each line has as many cells as the header."""
    text = Table(["a_b (%)", "−1 ± 2"], [["5 & 6", "≥ 3"], ["x\\y", "$7"]]).latex()
    assert text.splitlines()[2] == r"a\_b (\%) & $-$1 $\pm$ 2 \\"
    assert text.splitlines()[4] == r"5 \& 6 & $\geq$ 3 \\"
    assert text.splitlines()[5] == r"x\textbackslash{}y & \$7 \\"
    first, _ = pair(tmp_path)
    ltl.report.write([first])
    lines = (first / "figures/rounds.tex").read_text().splitlines()
    rows = [line for line in lines if line.endswith(r"\\")]
    assert len(rows) == 12
    assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {len(lines[1].split("{")[-1]) - 2}
    assert all(ord(letter) < 128 for line in rows for letter in line)

"""From which value of a swept key on an arm matches a dense network: each answer for rows that deserve it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from report_rows import make_run, merged
from scipy import stats

import ltl.report
from ltl import schema
from ltl.errors import LtlError
from ltl.report.across import across
from ltl.report.canvas import Sheet
from ltl.report.claims import claim_of
from ltl.report.gallery import draw
from ltl.report.load import Run, find_runs, load
from ltl.report.reach import Reached, judge_reach
from ltl.report.study import studies
from ltl.report.widths import WIDTHS
from ltl.results import read_table, write_table

REACH: dict[str, Any] = {
    "sentence": "a wide one matches",
    "quantity": "accuracy",
    "along": "model.width_factor",
    "baseline": {"model.width_factor": 1},
}
SETTING = {"length": "50000it"}
SPREAD = (-0.05, 0.0, 0.05)  # of three trials, percentage points

# Against a dense network at 98.0% with the margin of 0.2 pp: Welch's half width for two samples of deviation 0.05 is
# 0.05 · √(2/3) · 2.132 = 0.087 (4 degrees of freedom), that of pairs which differ by a constant is 0.
MATCHING, UNDECIDED, FAILING = 97.95, 97.8, 97.6


def claimed(*reach: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "sentence": "s",
        "source": "p",
        "against": "x",
        "setting": SETTING,
        "published": [],
        "reach": list(reach) or [REACH],
    }


def sweep(
    folder: Path,
    levels: Mapping[float, float],
    *reach: Mapping[str, Any],
    trials: int = 3,
    config: Mapping[float, Mapping[str, Any]] | None = None,
    **settings: Any,
) -> list[Run]:
    """Write a job for each width, whose ticket is at its level in round 2 and two points lower in round 1.

    The dense network is at 98% in the narrowest and half a point higher in each wider one; widths share no θ₀.
    """
    for place, (width, level) in enumerate(levels.items()):
        own = merged({"claim": claimed(*reach), "model": {"width_factor": width}}, (config or {}).get(width, {}))
        job = make_run(folder / f"{place}", trials=trials, rounds=2, config=own, **settings)
        rows = read_table(job / "rounds.csv")
        for row in rows:
            round, trial = int(row["round"]), int(row["trial"])
            accuracy = [98 + 0.5 * place, level - 2, level][round] + SPREAD[trial]
            row["early_stop_test_accuracy"], row["val_accuracy"] = accuracy / 100, (accuracy - 0.1) / 100
            row["test_accuracy"], row["best_test_accuracy"] = (accuracy - 1) / 100, (accuracy + 1) / 100
            row["init_sha256"] = f"width-{width}-{row['trial']}"
        write_table(job / "rounds.csv", list(rows[0]), rows)
    return [load(run) for run in find_runs([folder])]


def judged(runs: Sequence[Run]) -> Reached:
    claim = claim_of(runs[0])
    assert claim is not None
    return judge_reach(studies(runs), claim, claim.reach[0])


@pytest.mark.parametrize(
    ("levels", "answer"),
    [
        ((FAILING, FAILING, MATCHING), "matches from 4 on"),
        ((FAILING, MATCHING, MATCHING), "matches from 2 on"),
        ((FAILING, MATCHING, 99.0), "matches from 2 on"),
        ((MATCHING, MATCHING, MATCHING), "matches from 1 on (the smallest value of all)"),
        ((FAILING, UNDECIDED, MATCHING), "matches from 4 on (undecided at 2)"),
        ((MATCHING, FAILING, MATCHING), "matches from 4 on"),
        ((FAILING, FAILING, FAILING), "not reached by 4"),
        ((FAILING, UNDECIDED, FAILING), "not reached by 4"),
        ((FAILING, MATCHING, FAILING), "not reached by 4 (though matching in accuracy at 2)"),
        ((FAILING, FAILING, UNDECIDED), "undecided (at 4)"),
        ((MATCHING, MATCHING, UNDECIDED), "undecided (at 4)"),
    ],
)
def test_the_answer_is_where_the_unbroken_run_begins_that_ends_at_the_largest_value(
    tmp_path: Path, levels: tuple[float, ...], answer: str
) -> None:
    result = judged(sweep(tmp_path, dict(zip((1, 2, 4), levels, strict=True))))
    assert result.answer == answer
    words = {MATCHING: "matching in accuracy", 99.0: "matching in accuracy", FAILING: "not matching"}
    assert [step.word for step in result.steps] == [words.get(level, "undecided") for level in levels]


def test_values_are_put_in_order_whatever_that_of_the_jobs(tmp_path: Path) -> None:
    result = judged(sweep(tmp_path, {16: 98.5, 1: FAILING, 0.5: FAILING, 2: FAILING}))
    assert [step.value for step in result.steps] == [0.5, 1, 2, 16]
    assert result.answer == "matches from 16 on"


def test_differences_are_of_welch_and_where_initialisations_are_shared_of_pairs(tmp_path: Path) -> None:
    result = judged(sweep(tmp_path, {1: UNDECIDED, 2: UNDECIDED}))
    narrow, wide = result.steps
    dense, ticket = [98 + each for each in SPREAD], [UNDECIDED + each for each in SPREAD]
    ends = stats.ttest_ind(ticket, dense, equal_var=False).confidence_interval(0.9)
    assert (100 * wide.difference.low, 100 * wide.difference.high) == pytest.approx((ends.low, ends.high), rel=1e-6)
    assert (narrow.trials, wide.trials) == ("3 pairs", "3 and 3 (Welch)")
    # The pairs differ by the same amount in every trial, and so without any doubt.
    assert (100 * narrow.difference.low, 100 * narrow.difference.high) == pytest.approx((-0.2, -0.2), abs=1e-6)
    assert 100 * wide.dense.mean == pytest.approx(98.5)  # its own, which is not what is to be matched


@pytest.mark.parametrize("strict", [1, 2])
def test_the_narrower_margin_of_both_sides_counts(tmp_path: Path, strict: int) -> None:
    """The lower bound is 0.137 pp below the dense network: within 0.2 pp, and not within 0.1."""
    own = {strict: {"report": {"margin": 0.001}}}
    assert judged(sweep(tmp_path, {1: FAILING, 2: MATCHING}, config=own)).answer == "undecided (at 2)"


def test_the_density_is_chosen_by_validation_and_not_by_test(tmp_path: Path) -> None:
    runs = sweep(tmp_path, {1: FAILING, 2: MATCHING})
    assert [step.density for step in judged(runs).steps] == pytest.approx([0.64, 0.64])
    better = [replace(row, val_accuracy=0.99 if row.round == 1 else row.val_accuracy) for row in runs[1].rows]
    result = judged([runs[0], replace(runs[1], rows=better)])
    assert [step.density for step in result.steps] == pytest.approx([0.64, 0.8])
    assert 100 * result.steps[1].accuracy.mean == pytest.approx(MATCHING - 2)
    assert result.answer == "not reached by 2"
    assert judged([replace(runs[0], rows=[replace(row, val_accuracy=None) for row in runs[0].rows]), runs[1]]).steps[
        0
    ].words() == ("not measured (a side without any value)")


@pytest.mark.parametrize(("quantity", "shift"), [("accuracy", 0), ("end_accuracy", -1), ("best_accuracy", 1)])
def test_the_quantity_and_the_arm_are_those_named(tmp_path: Path, quantity: str, shift: float) -> None:
    arms = {"ticket": lambda round: 0.0, "untrained": lambda round: 0.0}
    reach = {**REACH, "quantity": quantity, "arm": "untrained"}
    runs = sweep(tmp_path, {1: MATCHING}, reach, gains=arms)
    own = [
        replace(row, val_accuracy=0.9 if row.round == 1 else 0.1) if row.arm == "untrained" else row
        for row in runs[0].rows
    ]
    [step] = judged([replace(runs[0], rows=own)]).steps
    assert (100 * step.accuracy.mean, step.density) == pytest.approx((MATCHING - 2 + shift, 0.8))
    assert 100 * step.dense.mean == pytest.approx(98 + shift)
    assert step.word == "not matching"


def test_what_cannot_be_judged_says_why(tmp_path: Path) -> None:
    few = judged(sweep(tmp_path / "few", {1: FAILING, 2: MATCHING}, trials=2))
    assert [step.trials for step in few.steps] == ["2 pairs", "2 and 2 (Welch)"]
    assert (few.steps[1].words(), few.answer) == ("not judged (n = 2)", "not judged (at 2)")
    small = judged(sweep(tmp_path / "small", {1: FAILING, 2: MATCHING}, test_images=360))
    assert small.steps[1].words() == "no verdict (a test set of 360 images is too small)"
    assert small.answer == "no verdict (at 2)"
    short = {2: {"length": "9it"}}
    other = judged(sweep(tmp_path / "short", {1: FAILING, 2: MATCHING, 4: MATCHING}, config=short))
    assert other.steps[1].words() == "not comparable (length: 9it, published with 50000it)"
    assert other.answer == "matches from 4 on (not comparable at 2)"
    absent = judged(sweep(tmp_path / "absent", {2: MATCHING, 4: MATCHING}))
    assert (absent.steps, absent.answer) == ([], "not measured (no run of model.width_factor=1)")
    key = {**REACH, "along": "dataset", "baseline": {"model.name": "lenet_300_100", "model.width_factor": 1}}
    without = judged(sweep(tmp_path / "without", {1: MATCHING, 2: MATCHING}, key))
    assert (without.steps, without.answer) == ([], "not measured (no run has a number at dataset)")
    runs = sweep(tmp_path / "twice", {1: FAILING, 2: MATCHING})
    again = sweep(tmp_path / "again", {2: MATCHING}, config={2: {"batch": 9}})
    assert judged([*runs, *again]).answer == "not judged (at 2)"
    half = [row for row in runs[1].rows if row.round == 0]
    assert judged([runs[0], replace(runs[1], rows=half)]).answer == "not measured (at 2)"


def test_the_joint_report_has_table_answer_and_figure_and_that_of_one_job_has_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both = (REACH, {**REACH, "sentence": "of the best", "quantity": "best_accuracy"})
    sweep(tmp_path, {1: FAILING, 2: FAILING, 4: MATCHING}, *both)
    ltl.report.show(ltl.report.write([tmp_path]), brief=True)
    printed, figures = capsys.readouterr().out, tmp_path / "figures"
    page, markdown = (tmp_path / "report.html").read_text(), (figures / "comparisons.md").read_text()
    cells = ["model.width_factor=4", "64.0", "97.95 ± 0.12", "99.00 ± 0.12", "−0.05 ± 0.09", "3 and 3 (Welch)"]
    assert f"| {' | '.join([*cells, 'matching in accuracy'])} |" in markdown
    for text in (page, markdown, printed):
        assert "A wide one matches: matches from 4 on." in text
        assert all(cell in text for cell in cells)
        assert "best test accuracy (selected on test)" in text
    assert "| comparison |" not in markdown
    assert "p (Holm)" not in page
    assert (figures / "comparisons.tex").read_text().count(r"\begin{tabular}") == 2
    assert "Test accuracy at early stop for each model.width_factor" in page
    ltl.report.write([tmp_path / "0"])
    assert not (tmp_path / "0" / "figures" / "comparisons.md").exists()


def test_the_figure_holds_the_arms_and_the_dense_network_of_every_width(tmp_path: Path) -> None:
    """Each arm at the density of its highest validation accuracy, with its 95% interval."""
    arms = {"ticket": lambda round: 0.0, "reinit": lambda round: 0.0}
    runs = sweep(tmp_path, {1: FAILING, 2: 97.7, 4: MATCHING}, gains=arms)
    _, drawing = draw(studies(runs), across(studies(runs)), Sheet(tmp_path / "drawn", WIDTHS["page"], pdf=False))["all"]
    rows = read_table(tmp_path / "drawn" / "accuracy_vs_model.width_factor.csv")
    half = 4.303 * 0.05 / 3**0.5
    expected = {
        **{(arm, width): level for arm in arms for width, level in zip("124", (FAILING, 97.7, MATCHING), strict=True)},
        **{("dense", width): level for width, level in zip("124", (98, 98.5, 99), strict=True)},
    }
    assert {(row["series"], row["model.width_factor"]) for row in rows} == set(expected)
    for row in rows:
        level = expected[row["series"], row["model.width_factor"]]
        found = [float(row[key]) for key in ("mean", "low", "high")]
        assert found == pytest.approx([level, level - half, level + half], abs=1e-4)
        assert float(row["density"]) == pytest.approx(1 if row["series"] == "dense" else 0.64)
    assert "dense network of model.width_factor=1" in drawing.svg
    assert "<!-- model.width_factor -->" in drawing.svg


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"along": None}, "must have sentence, quantity, along and baseline"),
        ({"baseline": None}, "must have sentence, quantity, along and baseline"),
        ({"alnog": "model.width_factor"}, "must have sentence, quantity, along and baseline"),
        ({"along": 3}, ".along=3 is not possible: it must be the key that a sweep varies"),
        ({"baseline": "dense"}, ".baseline=dense is not possible: it must be settings by key"),
        ({"baseline": {}}, ".baseline={} is not possible"),
        ({"quantity": "speedup"}, ".quantity=speedup is not possible: it must be accuracy or end_accuracy or best"),
        ({"quantity": "sampled_accuracy"}, ".quantity=sampled_accuracy is not possible"),  # dense networks have none
        ({"arm": ["ticket"]}, ".arm=['ticket'] is not possible"),
        ({"sentence": " "}, ".sentence= is not possible"),
    ],
)
def test_an_entry_that_cannot_be_read_is_named(change: dict[str, Any], message: str) -> None:
    schema._check_reach({"reach": [REACH, {**REACH, "arm": "reinit"}]})
    wrong = {key: value for key, value in {**REACH, **change}.items() if value is not None}
    with pytest.raises(LtlError) as error:
        schema._check_reach({"reach": [REACH, wrong]})
    assert str(error.value).startswith("claim.reach[1]")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_the_entries_are_a_list() -> None:
    with pytest.raises(LtlError, match=r"^claim\.reach=\{.* is not possible: it must be a list of entries with along"):
        schema._check_reach({"reach": REACH})
    schema._check_reach(None)
    schema._check_reach({"published": []})

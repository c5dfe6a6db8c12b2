"""Settings of a sweep against each other: each word for rows that deserve it, and withheld from rows that do not."""

from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from report_rows import make_run, merged
from scipy.stats import ttest_ind

import ltl.report
from ltl import schema
from ltl.errors import LtlError
from ltl.report import forest
from ltl.report.across import Judged, across, judge
from ltl.report.claims import claim_of
from ltl.report.load import find_runs, load
from ltl.report.quantities import AT_ROUND
from ltl.report.study import studies
from ltl.results import read_table, write_table

BETTER = {"sentence": "A beats B", "better": {"pruner.name": "a"}, "worse": {"pruner.name": "b"}}
ORDER: dict[str, Any] = {**BETTER, "quantity": "accuracy"}
EQUAL = {"sentence": "A is as B", "quantity": "accuracy", "equal": [{"pruner.name": "a"}, {"pruner.name": "b"}]}
ASKED = {"sentence": "A or B?", "quantity": "accuracy", "between": [{"pruner.name": "a"}, {"pruner.name": "b"}]}
SETTING = {"length": "50000it"}

# Test accuracies at early stop in %, by trial and then by round 0, 1, 2 (densities 1, 0.8 and 0.64).
A = [[98.0, 97.3, 96.5], [97.0, 97.1, 95.5], [99.0, 97.5, 96.9]]
B = [[98.0, 97.0, 96.0], [97.0, 96.5, 95.0], [99.0, 97.0, 96.0]]
# A − B, averaged over rounds 1 and 2: (0.3 + 0.5)/2, (0.6 + 0.5)/2, (0.5 + 0.9)/2 = 0.40, 0.55, 0.70.
# Their mean is 0.55 and their standard deviation 0.15, so t = 0.55 / (0.15 / √3) = 6.351 with 2 degrees of freedom,
# where p = 1 − t / √(t² + 2) = 0.0239; the half width is 4.303 × 0.0866 = 0.373, that at 90% 2.920 × 0.0866 = 0.253.


def sweep(
    folder: Path,
    comparisons: list[dict[str, Any]],
    tables: dict[str, list[list[float]]] | None = None,
    *,
    config: dict[str, dict[str, Any]] | None = None,
    **settings: Any,
) -> list[Judged]:
    """Judge `comparisons` by a job for each table, named for its pruner; `config` changes single ones."""
    claim = {
        "sentence": "s",
        "source": "p",
        "against": "x",
        "setting": SETTING,
        "published": [],
        "comparisons": comparisons,
    }
    for name, table in (tables or {"a": A, "b": B}).items():
        own = merged({"claim": claim, "pruner": {"name": name.partition("-")[0]}}, (config or {}).get(name, {}))
        job = make_run(folder / name, trials=len(table), rounds=len(table[0]) - 1, config=own, **settings)
        rows = read_table(job / "rounds.csv")
        for row in rows:
            row["early_stop_test_accuracy"] = table[int(row["trial"])][int(row["round"])] / 100
            row["best_test_accuracy"] = row["early_stop_test_accuracy"] - 0.01 * (name == "a")
        write_table(job / "rounds.csv", list(rows[0]), rows)
    runs = [load(run) for run in find_runs([folder])]
    found = claim_of(runs[0])
    assert found is not None
    return judge(studies(runs), found)


def test_the_order_holds_as_computed_by_hand(tmp_path: Path) -> None:
    (result,) = sweep(tmp_path, [ORDER])
    assert result.densities == [pytest.approx((0.8, 0.8)), pytest.approx((0.64, 0.64))]
    assert result.difference.n == 3
    assert 100 * result.difference.mean == pytest.approx(0.55)
    assert 100 * (result.difference.high - result.difference.mean) == pytest.approx(0.3726, abs=1e-4)
    assert result.p == pytest.approx(0.0239, abs=1e-4)
    assert result.words() == "holds"


def test_arms_of_one_setting_are_compared_where_both_were_trained(tmp_path: Path) -> None:
    """Tickets of pruner a against its reinitialised masks, which have no round 1."""
    arms = {**ORDER, "worse": {"pruner.name": "a"}, "arms": ["ticket", "reinit"]}
    sweep(tmp_path, [arms], {"a": A}, gains={"ticket": lambda round: 0.0, "reinit": lambda round: 0.0})
    path = tmp_path / "a" / "rounds.csv"
    rows = [row for row in read_table(path) if (row["arm"], row["round"]) != ("reinit", "1")]
    for row in rows:
        if row["arm"] == "reinit":
            row["early_stop_test_accuracy"] = B[int(row["trial"])][2] / 100
    write_table(path, list(rows[0]), rows)
    runs = [load(run) for run in find_runs([tmp_path])]
    claim = claim_of(runs[0])
    assert claim is not None
    (result,) = judge(studies(runs), claim)
    assert result.densities == [pytest.approx((0.64, 0.64))]
    assert 100 * result.difference.mean == pytest.approx((0.5 + 0.5 + 0.9) / 3)
    assert across(studies(runs))[0].table.rows[0][2] == "pruner=a, ticket − pruner=a, reinit"


def test_a_side_may_ask_for_a_corruption(tmp_path: Path) -> None:
    """Where it does not, a corrupted training set is no test of the claim."""
    config = {"b": {"corruption": {"name": "subset"}}}
    (result,) = sweep(tmp_path / "silent", [ORDER], config=config)
    assert result.words() == "not comparable (corruption: subset)"
    asked = {**ORDER, "worse": {"pruner.name": "b", "corruption.name": "subset"}}
    (result,) = sweep(tmp_path / "asked", [asked], config=config)
    assert result.words() == "holds"


def test_the_opposite_order_is_contradicted(tmp_path: Path) -> None:
    (result,) = sweep(tmp_path, [ORDER], {"a": B, "b": A})
    assert result.words() == "contradicted"


def test_holm_takes_back_an_order_that_alone_would_hold(tmp_path: Path) -> None:
    """At 64% alone the differences are 0.5, 0.5, 0.9: mean 0.633, deviation 0.231, t = 4.750, p = 0.0416.

    At 80% they are 0.3, 0.6, 0.5: mean 0.467, deviation 0.153, t = 5.292, p = 0.0339. Holm doubles the smaller of two.
    """
    one, other = {**ORDER, "densities": [0.64]}, {**ORDER, "densities": [0.8]}
    assert [each.word for each in sweep(tmp_path / "alone", [one])] == ["holds"]
    results = sweep(tmp_path / "both", [one, other])
    assert [each.word for each in results] == ["undecided", "undecided"]
    assert [each.p for each in results] == pytest.approx([0.0678, 0.0678], abs=2e-4)


def test_comparisons_that_are_not_judged_are_not_counted_among_the_tests(tmp_path: Path) -> None:
    absent = {**ORDER, "worse": {"pruner.name": "c"}}
    result, missing = sweep(tmp_path, [ORDER, absent])
    assert (result.p, result.word) == (pytest.approx(0.0239, abs=1e-4), "holds")
    assert (missing.p, missing.words()) == (None, "not measured (no run of pruner=c)")


@pytest.mark.parametrize(
    ("sides", "words"),
    [
        ([{"pruner.name": "a", "batch": 60}, {"pruner.name": "b", "batch": 60}], "pruner=a − pruner=b"),
        ([{"pruner.name": "a", "batch": 60}, {"pruner.name": "a"}], "pruner=a, batch=60 − pruner=a"),
        ([{"batch": 60}, {"pruner.name": "b"}], "batch=60 − pruner=b"),
    ],
)
def test_a_difference_is_told_by_names_where_they_differ(
    tmp_path: Path, sides: list[dict[str, Any]], words: str
) -> None:
    sweep(tmp_path, [{**ASKED, "between": sides}])
    runs = [load(run) for run in find_runs([tmp_path])]
    assert across(studies(runs))[0].table.rows[0][2] == words


def test_a_difference_that_changes_its_sign_between_trials_is_undecided(tmp_path: Path) -> None:
    mixed = [B[0], [97.0, 97.1, 96.0], B[2]]
    (result,) = sweep(tmp_path, [ORDER], {"a": A, "b": mixed})
    assert result.words() == "undecided"


@pytest.mark.parametrize(
    ("tables", "word"),
    [({"a": A, "b": B}, "above"), ({"a": B, "b": A}, "below"), ({"a": A, "b": A}, "no difference shown")],
)
def test_a_question_has_no_order_that_could_hold(tmp_path: Path, tables: dict[str, Any], word: str) -> None:
    (result,) = sweep(tmp_path, [ASKED], tables)
    assert result.words() == word


@pytest.mark.parametrize(
    ("tables", "margin", "word"),
    [
        ({"a": A, "b": A}, 0.002, "holds"),
        ({"a": A, "b": B}, 0.0081, "holds"),  # the interval is 0.297 to 0.803
        ({"a": B, "b": A}, 0.0081, "holds"),
        ({"a": A, "b": B}, 0.0080, "undecided"),
        ({"a": B, "b": A}, 0.0080, "undecided"),
        ({"a": A, "b": B}, 0.0030, "undecided"),
        ({"a": A, "b": B}, 0.0029, "contradicted"),
        ({"a": B, "b": A}, 0.0029, "contradicted"),
        ({"a": A, "b": [B[0], [97.0, 97.1, 96.0], B[2]]}, 0.002, "undecided"),  # no difference is shown either
    ],
)
def test_two_are_equal_where_the_90_percent_interval_lies_within_the_margin(
    tmp_path: Path, tables: dict[str, Any], margin: float, word: str
) -> None:
    both = {name: {"report": {"margin": margin}} for name in "ab"}
    equal, order = sweep(tmp_path, [EQUAL, ORDER], tables, config=both)
    assert (equal.words(), equal.p) == (word, None)
    assert equal.margin == margin
    if tables["b"] is B:
        assert 100 * (equal.difference.high - equal.difference.mean) == pytest.approx(0.2529, abs=1e-4)
        assert order.p == pytest.approx(0.0239, abs=1e-4)  # an equality is none of the tests that Holm corrects


def test_equality_takes_the_narrower_margin_and_is_judged_by_three_trials_at_least(tmp_path: Path) -> None:
    margins = {"a": {"report": {"margin": 0.009}}, "b": {"report": {"margin": 0.005}}}
    (result,) = sweep(tmp_path / "margins", [EQUAL], config=margins)
    assert (result.words(), result.margin) == ("undecided", 0.005)
    (result,) = sweep(tmp_path / "few", [EQUAL], {"a": A[:2], "b": A})
    assert result.words() == "not judged (n = 2)"
    (result,) = sweep(tmp_path / "none", [{**EQUAL, "equal": [{"pruner.name": "a"}, {"pruner.name": "c"}]}])
    assert result.words() == "not measured (no run of pruner=c)"


def test_the_quantity_is_the_one_named(tmp_path: Path) -> None:
    """Here A is a point below its accuracy at early stop where B is not: 0.40, 0.55, 0.70 less 1."""
    (result,) = sweep(tmp_path, [{**ORDER, "quantity": "best_accuracy"}])
    assert 100 * result.difference.mean == pytest.approx(-0.45)
    assert result.words() == "contradicted"


def test_two_trials_are_not_judged(tmp_path: Path) -> None:
    (result,) = sweep(tmp_path, [ORDER], {"a": A[:2], "b": B})
    assert result.words() == "not judged (n = 2)"
    assert 100 * result.difference.mean == pytest.approx(0.475)


def test_a_trial_without_one_of_the_rounds_is_left_out(tmp_path: Path) -> None:
    sweep(tmp_path, [ORDER])
    rows = read_table(tmp_path / "a" / "rounds.csv")
    kept = [row for row in rows if (row["trial"], row["round"]) != ("1", "2")]
    write_table(tmp_path / "a" / "rounds.csv", list(rows[0]), kept)
    runs = [load(tmp_path / name) for name in "ab"]
    claim = claim_of(runs[0])
    assert claim is not None
    (result,) = judge(studies(runs), claim)
    assert (result.difference.n, result.words()) == (2, "not judged (n = 2)")
    assert 100 * result.difference.mean == pytest.approx(0.55)


def test_a_density_that_one_side_lacks_is_not_replaced_by_another(tmp_path: Path) -> None:
    (result,) = sweep(tmp_path, [{**ORDER, "densities": [0.8, 0.5]}])
    assert result.words() == "not measured (not at these densities on both sides)"
    (near,) = sweep(tmp_path / "near", [{**ORDER, "densities": [0.6]}])
    assert near.densities == [pytest.approx((0.64, 0.64))]


def test_two_densities_of_one_setting_are_compared(tmp_path: Path) -> None:
    """A at 80% against A at 64%: 0.8, 1.6 and 0.6 points by trial; their order is given by the pair's."""
    alone = {**ORDER, "worse": {"pruner.name": "a"}}
    pairs = [[0.8, 0.64]], [[0.64, 0.8]], [[0.8, 0.5]]
    better, worse, missing = sweep(tmp_path, [{**alone, "densities": pair} for pair in pairs])
    assert better.densities == [pytest.approx((0.8, 0.64))]
    assert (better.difference.n, 100 * better.difference.mean) == (3, pytest.approx((0.8 + 1.6 + 0.6) / 3))
    assert 100 * worse.difference.mean == pytest.approx(-1.0)
    assert (missing.p, missing.words()) == (None, "not measured (not at these densities on both sides)")
    table = across(studies([load(run) for run in find_runs([tmp_path])]))[0].table
    assert table is not None
    assert [row[4] for row in table.rows] == ["80.0 − 64.0", "64.0 − 80.0", ""]


def test_masks_whose_density_is_an_outcome_are_compared_by_their_last_rounds(tmp_path: Path) -> None:
    """A at 64% against B at 80%: 96.5 − 97.0, 95.5 − 96.5 and 96.9 − 97.0; no density is common to both."""
    short = {"a": A, "b": [trial[:2] for trial in B]}
    last, both = sweep(tmp_path, [{**ORDER, "densities": "last"}, {**ORDER, "densities": [0.64]}], short)
    assert last.densities == [pytest.approx((0.64, 0.8))]
    assert (last.difference.n, 100 * last.difference.mean) == (3, pytest.approx((-0.5 - 1.0 - 0.1) / 3))
    assert both.words() == "not measured (not at these densities on both sides)"
    table = across(studies([load(run) for run in find_runs([tmp_path])]))[0].table
    assert table is not None
    assert [row[4] for row in table.rows] == ["64.0 − 80.0", ""]
    [dense] = sweep(tmp_path / "dense", [{**ORDER, "densities": "last"}], {"a": A, "b": [trial[:1] for trial in B]})
    assert dense.words() == "not measured (not at these densities on both sides)"


def test_other_initialisations_are_compared_by_welchs_test(tmp_path: Path) -> None:
    """As those of networks of other widths must be: by the means of each trial over both densities."""
    order, equal = sweep(tmp_path, [ORDER, EQUAL], config={"b": {"seed": 50}})
    a, b = ([sum(trial[1:]) / 2 for trial in table] for table in (A, B))
    welch = ttest_ind(a, b, equal_var=False)
    assert order.p == pytest.approx(welch.pvalue)
    for result, level in ((order, 0.95), (equal, 0.9)):
        ends = welch.confidence_interval(level)
        assert (100 * result.difference.low, 100 * result.difference.high) == pytest.approx((ends.low, ends.high))
        assert (result.words(), result.trials) == ("undecided", "3 and 3 (Welch)")


def test_one_side_of_another_setting_is_not_comparable(tmp_path: Path) -> None:
    (result,) = sweep(tmp_path, [ORDER], config={"b": {"length": "15000it"}})
    assert result.words() == "not comparable (length: 15000it, published with 50000it)"
    assert 100 * result.difference.mean == pytest.approx(0.55)


def test_of_several_settings_those_of_the_claim_are_compared(tmp_path: Path) -> None:
    (result,) = sweep(tmp_path, [ORDER], {"a": A, "b": B, "b-short": A}, config={"b-short": {"length": "9it"}})
    assert result.words() == "holds"
    (result,) = sweep(tmp_path / "two", [ORDER], {"a": A, "b": B, "b-2": A}, config={"b-2": {"batch": 9}})
    assert result.words() == "not judged (2 settings of pruner=b)"


def test_a_small_test_set_gives_no_verdict(tmp_path: Path) -> None:
    (result,) = sweep(tmp_path, [ORDER], test_images=360)
    assert result.words() == "no verdict (a test set of 360 images is too small)"


def test_the_figure_draws_what_the_table_says(tmp_path: Path) -> None:
    """Every measured difference with its interval, and none for what was not measured."""
    missing = {**ORDER, "sentence": "A beats C", "worse": {"pruner.name": "c"}}
    judged = sweep(tmp_path, [ORDER, EQUAL, missing])
    written = ltl.report.write([tmp_path])
    rows = read_table(tmp_path / "figures" / "comparisons.csv")
    assert [row["comparison"] for row in rows] == ["A beats B", "A is as B"]
    for row, each in zip(rows, judged, strict=False):
        drawn = [float(row[name]) for name in ("difference_pp", "low_pp", "high_pp")]
        assert drawn == pytest.approx([100 * getattr(each.difference, name) for name in ("mean", "low", "high")])
        assert (int(row["n"]), row["verdict"]) == (3, each.words())
    assert [(row["interval_percent"], row["margin_pp"]) for row in rows] == [("95", ""), ("90", "0.2")]
    assert "Not drawn: 1 that is not measured." in written.page.read_text()


def test_a_difference_of_two_trials_is_drawn_without_a_bar(tmp_path: Path) -> None:
    (two,) = sweep(tmp_path, [ORDER], {"a": A[:2], "b": B[:2]})
    axes = Figure().add_subplot()
    forest._rows(axes, [two])
    assert [len(line.get_xdata()) for line in axes.lines[1:]] == [1]  # the first is 0
    assert axes.get_xlim()[1] == pytest.approx(1.05 * 100 * two.difference.mean)


def test_one_long_bar_does_not_rule_the_axis_and_no_difference_at_all_has_one(tmp_path: Path) -> None:
    far = [[98.0, 97.3, 96.5], [97.0, 93.0, 95.5], [99.0, 92.5, 96.9]]
    other = {**ORDER, "better": {"pruner.name": "far"}}
    usual, wide, none = sweep(
        tmp_path, [ORDER, other, {**ORDER, "worse": {"pruner.name": "a"}}], {"a": A, "b": B, "far": far}
    )
    assert wide.difference.low < -3 * usual.difference.high
    axes = Figure().add_subplot()
    forest._rows(axes, [usual, usual, wide])
    assert axes.get_xlim()[1] == pytest.approx(1.05 * 3 * 100 * usual.difference.high)
    bar, _ = axes.lines[-2:]
    assert list(bar.get_xdata()) == pytest.approx([axes.get_xlim()[0], 100 * wide.difference.high])
    assert none.difference.n == 3
    axes = Figure().add_subplot()
    forest._rows(axes, [none])
    assert axes.get_xlim() == (-1, 1)


@pytest.mark.usefixtures("undrawn")
def test_the_joint_report_shows_the_table_and_that_of_one_job_does_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep(tmp_path, [ORDER, {**ASKED, "quantity": "best_accuracy"}, EQUAL])
    ltl.report.show(ltl.report.write([tmp_path]), brief=True)
    printed = capsys.readouterr().out
    page, markdown = (tmp_path / "report.html").read_text(), (tmp_path / "figures" / "comparisons.md").read_text()
    quantity = "test accuracy at early stop"
    cells = [
        "A beats B",
        quantity,
        "pruner=a − pruner=b",
        "above 0",
        "80.0, 64.0",
        "3 pairs",
        "+0.55 ± 0.37",
        "0.048",
        "holds",
    ]
    assert f"| {' | '.join(cells)} |" in markdown
    for text in (page, printed):
        assert "What the claim compares" in text
        assert all(cell in text for cell in cells)
        assert "best test accuracy (selected on test)" in text
    assert "not stated" in markdown
    assert "| within ±0.2 (90% interval) | 80.0, 64.0 | 3 pairs | +0.55 ± 0.25 |  | contradicted |" in markdown
    assert (tmp_path / "figures" / "comparisons.tex").read_text().startswith("% p\n\\begin{tabular}")
    ltl.report.write([tmp_path / "a"])
    assert "What the claim compares" not in (tmp_path / "a" / "report.html").read_text()
    assert not (tmp_path / "a" / "figures" / "comparisons.md").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"quantity": "accuracy_gian"}, "quantity=accuracy_gian is not possible: it must be accuracy or end_accuracy"),
        ({"quantity": "speedup"}, "quantity=speedup is not possible"),
        ({"densities": [20]}, "densities=[20] is not possible: it must be a list of fractions between 0 and 1"),
        ({"densities": []}, "densities=[] is not possible"),
        ({"densities": [[0.5, 0.2, 0.1]]}, "densities=[[0.5, 0.2, 0.1]] is not possible"),
        ({"densities": [[0.5, 1]]}, "or pairs of one for each side, or last, or null for all that both measured"),
        ({"densities": "first"}, "densities=first is not possible"),
        ({"densities": [[0.5, [0.2, 0.1]]]}, "densities=[[0.5, [0.2, 0.1]]] is not possible"),
        ({"better": "rigl"}, "better=rigl is not possible: it must be settings by key"),
        ({"sentence": ""}, "sentence= is not possible"),
        ({"than": 1}, "must have sentence, quantity, and either better and worse, or equal, or between"),
        ({"equal": [{"a": 1}, {"b": 1}]}, "must have sentence, quantity, and either better and worse, or equal"),
        (
            {"between": [{"a": 1}, {"b": 1}]},
            "must have sentence, quantity, and either better and worse, or equal, or between",
        ),
    ],
)
def test_a_comparison_that_cannot_be_read_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(LtlError) as error:
        schema._check_comparisons({"comparisons": [ORDER, {**ORDER, **change}]})
    assert str(error.value).startswith("claim.comparisons[1]")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_question_needs_two_settings() -> None:
    schema._check_comparisons({"comparisons": [ASKED, {**ORDER, "densities": None}]})
    for between in ([{"a": 1}], [{"a": 1}, {}], "ab"):
        with pytest.raises(LtlError, match=r"^claim\.comparisons\[0\]\.between=.* it must be two settings"):
            schema._check_comparisons({"comparisons": [{**ASKED, "between": between}]})
        with pytest.raises(LtlError, match=r"^claim\.comparisons\[0\]\.equal=.* it must be two settings"):
            schema._check_comparisons({"comparisons": [{**EQUAL, "equal": between}]})
    with pytest.raises(LtlError, match=r"^claim\.comparisons=3 is not possible: it must be a list of comparisons"):
        schema._check_comparisons({"comparisons": 3})


def test_every_level_of_accuracy_can_be_compared() -> None:
    """And nothing else: a speed would need the rules of censoring."""
    levels = [name for name, quantity in AT_ROUND.items() if quantity.kind == "level"]
    assert schema._COMPARISON["quantity"].words == " or ".join(levels)
    assert schema._REACH["quantity"].words == " or ".join(levels[:-1])  # dense networks have no drawn masks

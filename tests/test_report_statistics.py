"""The report's statistics agree with scipy's own tests and treat draws, censoring and θ₀ as docs/verdicts.md says."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
from report_rows import flat, make_rows
from scipy import stats

from ltl.report import statistics
from ltl.report.statistics import by_trial, early_stop_accuracy, holm, log_step, paired

VALUES = [0.31, -0.12, 0.44, 0.08, 0.29, 0.17]


def test_two_sided_interval_is_scipys() -> None:
    expected = stats.ttest_1samp(VALUES, 0).confidence_interval(0.95)
    interval = statistics.two_sided(VALUES)
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high), rel=1e-9)
    assert interval.n == len(VALUES)


def test_one_sided_bounds_are_scipys() -> None:
    low = stats.ttest_1samp(VALUES, 0, alternative="greater").confidence_interval(0.95).low
    high = stats.ttest_1samp(VALUES, 0, alternative="less").confidence_interval(0.95).high
    interval = statistics.one_sided(VALUES)
    assert (interval.low, interval.high) == pytest.approx((low, high), rel=1e-9)


def test_p_value_is_scipys() -> None:
    assert statistics.p_value(VALUES) == pytest.approx(stats.ttest_1samp(VALUES, 0).pvalue, rel=1e-9)


def test_a_difference_of_samples_that_are_not_paired_is_scipys_welch_test() -> None:
    """Also of samples whose sizes and variances differ; bounds at 90% are two one-sided ones at 95%."""
    other = [0.9, -0.7, 0.2, 0.55]
    expected = stats.ttest_ind(VALUES, other, equal_var=False)
    difference = statistics.unpaired(VALUES, other)
    assert difference.mean == pytest.approx(sum(VALUES) / 6 - sum(other) / 4)
    assert (difference.p(), difference.n) == (pytest.approx(expected.pvalue, rel=1e-9), 4)
    for level, interval in ((0.95, difference.two_sided()), (0.9, difference.one_sided())):
        ends = expected.confidence_interval(level)
        assert (interval.low, interval.high) == pytest.approx((ends.low, ends.high), rel=1e-9)


def test_one_value_carries_no_interval_and_no_p() -> None:
    interval = statistics.two_sided([0.3])
    assert (interval.mean, interval.low, interval.high) == (0.3, -math.inf, math.inf)
    assert statistics.p_value([0.3]) == 1
    assert math.isnan(statistics.two_sided([]).mean)
    alone = statistics.unpaired(VALUES, [0.3])
    assert (alone.one_sided().low, alone.p(), alone.n) == (-math.inf, 1, 1)
    assert math.isnan(statistics.unpaired(VALUES, []).mean)


def test_values_without_spread_are_certain() -> None:
    assert statistics.p_value([0.5, 0.5, 0.5]) == 0
    assert statistics.p_value([0.0, 0.0, 0.0]) == 1
    certain = statistics.unpaired([0.5, 0.5], [0.25, 0.25, 0.25])
    assert (certain.p(), certain.two_sided().low, certain.two_sided().high) == (0, 0.25, 0.25)


def test_holm_on_a_worked_example() -> None:
    # Holm (1979): 4·0.005, 3·0.01, then max(0.03, 2·0.03), then max(0.06, 0.04).
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
    assert max(holm([0.9, 0.8])) == 1


def test_draws_are_averaged_within_their_trial(tmp_path: Path) -> None:
    rows = make_rows(
        tmp_path, trials=3, rounds=1, draws=4, gains={"ticket": flat(0), "reinit": flat(-0.01)}, noise=0.004
    )
    values = by_trial(rows, "reinit", 1, early_stop_accuracy)
    assert len(values) == 3
    own = [row.early_stop_test_accuracy for row in rows if row.arm == "reinit" and row.trial == 1]
    assert len(own) == 4
    assert values["theta-1"] == pytest.approx(sum(value for value in own if value is not None) / 4)


def test_trials_that_share_theta0_are_one_unit(tmp_path: Path) -> None:
    rows = [replace(row, unit="the same") for row in make_rows(tmp_path, trials=4, rounds=1)]
    assert list(by_trial(rows, "ticket", 0, early_stop_accuracy)) == ["the same"]


def test_one_censored_draw_leaves_its_trial_out(tmp_path: Path) -> None:
    rows = make_rows(
        tmp_path,
        trials=3,
        rounds=1,
        draws=2,
        gains={"ticket": flat(0), "reinit": flat(0)},
        censored=lambda arm, trial, round: arm == "reinit" and trial == 2,
    )
    assert set(by_trial(rows, "reinit", 1, log_step)) == {"theta-0", "theta-1"}
    assert set(by_trial(rows, "ticket", 1, log_step)) == {"theta-0", "theta-1", "theta-2"}


def test_a_density_is_the_search_s_or_the_arm_s_own(tmp_path: Path) -> None:
    """A search that has no row of the round leaves those of the arm, and not of others."""
    rows = make_rows(tmp_path, trials=2, rounds=1, gains=dict.fromkeys(("ticket", "reinit", "small_dense"), flat(0)))
    rows = [replace(row, density=1.0) if row.arm == "small_dense" else row for row in rows]
    assert statistics.density_at(rows, 1, "small_dense") == pytest.approx(0.8)
    without = [row for row in rows if row.arm != "ticket"]
    assert statistics.density_at(without, 1, "small_dense") == 1
    assert statistics.density_at(without, 1, "reinit") == pytest.approx(0.8)


def test_a_step_of_0_has_no_logarithm(tmp_path: Path) -> None:
    """That of a network which is evaluated and not trained."""
    row = make_rows(tmp_path, trials=1, rounds=0)[0]
    assert log_step(row) == math.log(row.early_stop_step or 0)
    assert log_step(replace(row, early_stop_step=0)) is None


def test_pairs_are_formed_by_trial_not_by_position() -> None:
    assert paired({"a": 3.0, "b": 5.0}, {"b": 1.0, "c": 9.0}) == [4.0]

"""Each verdict word is given for rows that deserve it and withheld from rows that must fail it."""

import math
from pathlib import Path

import pytest
from report_rows import flat, make_rows
from scipy import stats

from ltl.report.load import RoundRow
from ltl.report.verdict import against_controls, all_matching, matching, smallest, too_small

MARGIN = 0.002


def only(rows: list[RoundRow], round: int = 1) -> str:
    return matching(rows, round, margin=MARGIN).word


def test_level_with_dense_is_matching(tmp_path: Path) -> None:
    assert only(make_rows(tmp_path)) == "matching"


def test_better_than_dense_is_matching(tmp_path: Path) -> None:
    assert only(make_rows(tmp_path, gains={"ticket": flat(0.003)})) == "matching"


def test_worse_than_dense_must_not_be_matching(tmp_path: Path) -> None:
    match = matching(make_rows(tmp_path, gains={"ticket": flat(-0.006)}), 1, margin=MARGIN)
    assert match.word == "not matching"
    assert match.accuracy.mean == pytest.approx(-0.006, abs=0.001)


def test_as_accurate_but_slower_must_not_be_matching(tmp_path: Path) -> None:
    match = matching(make_rows(tmp_path, gains={"ticket": flat(0.003)}, speeds={"ticket": flat(0.5)}), 1, margin=MARGIN)
    assert match.words() == "not matching (slower)"


def test_interval_across_the_margin_is_undecided(tmp_path: Path) -> None:
    assert only(make_rows(tmp_path, gains={"ticket": flat(-0.002)}, noise=0.002)) == "undecided"
    assert only(make_rows(tmp_path / "wide", gains={"ticket": flat(0.0)}, noise=0.01, trials=3)) == "undecided"


def test_an_interval_across_zero_but_above_the_margin_is_matching(tmp_path: Path) -> None:
    match = matching(make_rows(tmp_path, noise=0.0005), 1, margin=MARGIN)
    assert match.accuracy.low < 0 < match.accuracy.high
    assert match.word == "matching"


def test_two_trials_are_not_judged(tmp_path: Path) -> None:
    match = matching(make_rows(tmp_path, trials=2, gains={"ticket": flat(0.05)}), 1, margin=MARGIN)
    assert match.words() == "not judged (n = 2)"


def test_trials_missing_in_a_round_are_not_counted(tmp_path: Path) -> None:
    rows = [row for row in make_rows(tmp_path, trials=4) if row.round < 2 or row.trial < 2]
    assert only(rows, 1) == "matching"
    assert matching(rows, 2, margin=MARGIN).words() == "not judged (n = 2)"


def test_a_censored_step_of_a_trial_without_a_partner_hinders_no_verdict(tmp_path: Path) -> None:
    rows = make_rows(tmp_path, trials=4, censored=lambda arm, trial, round: (trial, round) == (3, 0))
    assert only([row for row in rows if row.round == 0 or row.trial < 3]) == "matching"


@pytest.mark.parametrize("round_censored", [0, 1])
def test_a_censored_early_stop_enters_no_claim_about_speed(tmp_path: Path, round_censored: int) -> None:
    rows = make_rows(
        tmp_path,
        speeds={"ticket": flat(3.0)},
        censored=lambda arm, trial, round: trial == 0 and round == round_censored,
    )
    match = matching(rows, 1, margin=MARGIN)
    assert match.speed_word == "not judged"
    assert match.words() == "matching in accuracy (speed not judged: early stop censored in 1 of 5 trials)"
    assert smallest([match]).matching is None
    assert smallest([match]).in_accuracy == match


def test_smallest_matching_density_ends_at_the_first_gap(tmp_path: Path) -> None:
    judged = all_matching(
        make_rows(tmp_path, gains={"ticket": lambda round: -0.02 if round in (4, 9, 10) else 0.001}), margin=MARGIN
    )
    assert [match.word for match in judged][3:8] == ["not matching"] + ["matching"] * 4
    end = smallest(judged).matching
    assert end is not None
    assert end.round == 3
    assert end.density == pytest.approx(0.512)


def test_no_smallest_density_if_the_first_round_fails(tmp_path: Path) -> None:
    judged = all_matching(make_rows(tmp_path, gains={"ticket": lambda r: -0.02 if r == 1 else 0.01}), margin=MARGIN)
    assert smallest(judged).matching is None
    assert smallest(judged).in_accuracy is None


def test_ticket_above_and_below_its_controls(tmp_path: Path) -> None:
    rows = make_rows(
        tmp_path,
        gains={"ticket": flat(0.002), "reinit": flat(-0.004), "random_mask": flat(0.008)},
        speeds={"ticket": flat(1.0), "reinit": flat(0.5), "random_mask": flat(2.0)},
        draws=3,
    )
    words = {(c.arm, c.accuracy_word, c.speed_word) for c in against_controls(rows)}
    assert words == {("reinit", "above", "faster"), ("random_mask", "below", "slower")}


def test_equal_arms_show_no_difference(tmp_path: Path) -> None:
    """Ticket − control, and log of control steps / ticket steps, with the intervals of paired tests at 95%."""
    rows = make_rows(tmp_path, gains={"ticket": flat(0), "reinit": flat(0)}, noise=0.001)
    contrasts = against_controls(rows)
    assert {contrast.accuracy_word for contrast in contrasts} == {"no difference shown"}
    assert [contrast.density for contrast in contrasts] == pytest.approx([0.8**turn for turn in range(1, 11)])
    ticket, control = ([row for row in rows if (row.arm, row.round) == (arm, 3)] for arm in ("ticket", "reinit"))
    for found, sides in (
        (contrasts[2].accuracy, [[row.early_stop_test_accuracy for row in side] for side in (ticket, control)]),
        (contrasts[2].speed, [[math.log(row.early_stop_step or 0) for row in side] for side in (control, ticket)]),
    ):
        ends = stats.ttest_rel(*sides).confidence_interval(0.95)
        assert (found.low, found.high) == pytest.approx((ends.low, ends.high), rel=1e-6)


def test_holm_takes_back_a_difference_that_alone_would_count(tmp_path: Path) -> None:
    rows = make_rows(
        tmp_path, trials=3, gains={"ticket": flat(0), "reinit": lambda r: -0.0012 if r == 1 else 0.0}, noise=0.0002
    )
    alone = against_controls([row for row in rows if row.round <= 1])
    family = against_controls(rows)
    assert alone[0].accuracy_word == "above"
    assert family[0].accuracy_word == "no difference shown"


def test_controls_of_two_trials_are_not_judged(tmp_path: Path) -> None:
    rows = make_rows(tmp_path, trials=2, gains={"ticket": flat(0.01), "reinit": flat(-0.05)})
    assert {contrast.accuracy_word for contrast in against_controls(rows)} == {"not judged"}


@pytest.mark.parametrize("side", ["ticket", "reinit"])
def test_speed_is_not_judged_where_a_step_of_ticket_or_control_is_censored(tmp_path: Path, side: str) -> None:
    rows = make_rows(
        tmp_path,
        gains={"ticket": flat(0.01), "reinit": flat(-0.05)},
        censored=lambda arm, trial, round: arm == side and trial == 0,
    )
    assert {(c.accuracy_word, c.speed_word) for c in against_controls(rows)} == {("above", "not judged")}


def test_speeds_that_are_not_judged_are_none_of_the_tests_that_holm_corrects(tmp_path: Path) -> None:
    rows = make_rows(
        tmp_path,
        gains=dict.fromkeys(("ticket", "reinit", "random_mask"), flat(0.0)),
        censored=lambda arm, trial, round: arm == "reinit" and trial == 0,
    )
    alone = against_controls([row for row in rows if row.arm != "reinit"])
    assert [one.p_speed for one in against_controls(rows)] == [1.0] * len(alone) + [one.p_speed for one in alone]


def test_a_small_test_set_carries_no_verdict() -> None:
    assert too_small(360) == "no verdict: a test set of 360 images is too small"
    assert too_small(999) is not None
    assert too_small(1000) is None

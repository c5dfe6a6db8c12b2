"""Published v. measured: each word of docs/verdicts.md for rows that deserve it, and withheld from rows that do not."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from report_rows import Curve, flat, make_rows, make_run

from ltl.errors import LtlError
from ltl.report import comparison
from ltl.report.claims import claim_of, compare, not_comparable
from ltl.report.comparison import Comparison, judge
from ltl.report.load import load
from ltl.report.quantities import below_dense
from ltl.report.statistics import Interval

SETTING = {"dataset.name": "mnist", "length": "50000it", "optimizer.lr": 0.0012}


def figure(quantity: str, value: float, unit: str, density: float | None = 0.211, **more: Any) -> dict[str, Any]:
    return {"quantity": quantity, "density": density, "value": value, "unit": unit, "source": "Fig. 4a", **more}


def claimed(published: dict[str, Any]) -> dict[str, Any]:
    return {"sentence": "s", "source": "p", "against": "a", "setting": SETTING, "published": [published]}


def judged(folder: Path, published: dict[str, Any], **settings: Any) -> Comparison:
    config = {"claim": claimed(published), **settings.pop("config", {})}
    run = load(make_run(folder, config=config, **settings))
    found = claim_of(run)
    assert found is not None
    return compare([run], run.rows, found, margin=0.002)[0]


GAIN = figure("accuracy_gain", 0.3, "pp", density=0.135, tolerance=0.2)


def gains(ticket: float, **others: float) -> dict[str, Curve]:
    return {"ticket": flat(ticket)} | {arm: flat(value) for arm, value in others.items()}


def test_the_published_gain_is_reproduced(tmp_path: Path) -> None:
    result = judged(tmp_path, GAIN, gains=gains(0.003))
    assert result.word == "reproduced"
    assert result.density == pytest.approx(0.8**9)
    assert result.measured is not None
    assert result.measured.mean == pytest.approx(0.3, abs=0.1)


def test_a_larger_gain_is_direction_only(tmp_path: Path) -> None:
    assert judged(tmp_path, GAIN, gains=gains(0.02)).word == "direction only"


def test_a_loss_is_not_a_reproduced_gain(tmp_path: Path) -> None:
    assert judged(tmp_path, GAIN, gains=gains(-0.004)).word == "not reproduced"


def test_a_tolerance_wider_than_the_value_does_not_make_no_gain_a_reproduced_one(tmp_path: Path) -> None:
    wide = figure("accuracy_gain", 0.3, "pp", density=0.135)
    result = judged(tmp_path, wide, gains=gains(0.0))
    assert result.measured is not None
    assert -0.2 < result.measured.low < 0 < result.measured.high < 0.8
    assert result.word == "undecided"


def test_noise_leaves_a_gain_undecided(tmp_path: Path) -> None:
    assert judged(tmp_path, GAIN, gains=gains(0.002), noise=0.01).word == "undecided"


def test_two_trials_are_not_judged(tmp_path: Path) -> None:
    assert judged(tmp_path, GAIN, gains=gains(0.003), trials=2).words() == "not judged (n = 2)"


def test_a_density_that_was_not_measured_is_not_replaced_by_another(tmp_path: Path) -> None:
    assert judged(tmp_path, GAIN, gains=gains(0.003), rounds=4).word == "not measured"


def test_a_shorter_training_is_not_comparable(tmp_path: Path) -> None:
    result = judged(tmp_path, GAIN, gains=gains(0.003), config={"length": "15000it"})
    assert result.words() == "not comparable (length: 15000it, published with 50000it)"
    assert result.measured is not None


def test_other_files_are_not_comparable(tmp_path: Path) -> None:
    result = judged(tmp_path, GAIN, gains=gains(0.003), canonical=False)
    assert result.words() == "not comparable (data: not the canonical files)"


def test_a_setting_that_the_run_does_not_have_is_not_comparable(tmp_path: Path) -> None:
    result = judged(tmp_path, GAIN, gains=gains(0.003), config={"optimizer": {"lr": None}})
    assert result.words() == "not comparable (optimizer.lr: not set, published with 0.0012)"


def test_numbers_are_compared_as_numbers(tmp_path: Path) -> None:
    run = load(make_run(tmp_path, config={"optimizer": {"lr": 12e-4}, "batch": 60.0}))
    claim = {"sentence": "", "source": "", "against": "", "setting": {"optimizer.lr": 0.0012, "batch": 60}}
    run.config.claim = claim | {"published": []}
    found = claim_of(run)
    assert found is not None
    assert not_comparable(run, found) is None


def test_a_small_test_set_gives_no_verdict(tmp_path: Path) -> None:
    result = judged(tmp_path, GAIN, gains=gains(0.003), test_images=360)
    assert result.words() == "no verdict (a test set of 360 images is too small)"


EARLIER = figure("early_stop_earlier", 38, "percent")


@pytest.mark.parametrize(
    ("speed", "word"),
    [(1 / (1 - 0.38), "reproduced"), (1.15, "direction only"), (4.0, "direction only"), (0.7, "not reproduced")],
)
def test_speed_is_judged_within_a_factor(tmp_path: Path, speed: float, word: str) -> None:
    result = judged(tmp_path, EARLIER, speeds={"ticket": flat(speed)})
    assert result.word == word
    assert result.measured is not None
    assert result.measured.mean == pytest.approx(100 * (1 - 1 / speed), abs=7)


def test_a_censored_step_enters_no_claim_about_speed(tmp_path: Path) -> None:
    result = judged(
        tmp_path,
        EARLIER,
        speeds={"ticket": flat(1.6)},
        censored=lambda arm, trial, round: round == 7 and trial == 3,
    )
    assert result.words() == "not judged (early stop censored in 1 of 5 trials)"


def test_speed_over_reinitialised_masks(tmp_path: Path) -> None:
    published = figure("speedup_over_reinit", 2.51, "times")
    speeds = {"ticket": flat(1.6), "reinit": flat(1.6 / 2.51)}
    result = judged(tmp_path, published, gains=gains(0.0, reinit=-0.01), speeds=speeds, draws=3)
    assert result.word == "reproduced"
    assert result.measured is not None
    assert result.measured.mean == pytest.approx(2.51, abs=0.2)


def test_a_censored_step_of_none_of_both_sides_is_no_hindrance(tmp_path: Path) -> None:
    """A ratio of steps is of two trainings: the dense network's is none of ticket and reinitialised mask."""
    arms = {"gains": gains(0.0, reinit=-0.01), "speeds": {"ticket": flat(1.6), "reinit": flat(1.6 / 2.51)}}

    def word(where: tuple[str, int], **changes: Any) -> str:
        published = figure("speedup_over_reinit", 2.51, "times") | changes
        folder = tmp_path / f"{published['quantity']}-{where}"
        return judged(folder, published, **arms, censored=lambda arm, trial, round: (arm, round) == where).word

    assert word(("ticket", 0)) == "reproduced"
    assert word(("ticket", 7)) == word(("reinit", 7)) == "not judged"
    dense = {"quantity": "speedup", "arm": "reinit", "value": 1.6 / 2.51}
    assert word(("ticket", 7), **dense) == "reproduced"
    assert word(("ticket", 0), **dense) == word(("reinit", 7), **dense) == "not judged"


def test_a_censored_dense_step_of_a_trial_without_a_ticket_is_no_hindrance(tmp_path: Path) -> None:
    run = load(
        make_run(
            tmp_path,
            config={"claim": claimed(EARLIER)},
            speeds={"ticket": flat(1 / (1 - 0.38))},
            censored=lambda arm, trial, round: (trial, round) == (4, 0),
        )
    )
    found = claim_of(run)
    assert found is not None
    assert compare([run], run.rows, found, margin=0.002)[0].word == "not judged"
    pruned_in_four = [row for row in run.rows if row.round == 0 or row.trial < 4]
    assert compare([run], pruned_in_four, found, margin=0.002)[0].word == "reproduced"


def test_the_nearest_density_is_that_of_the_smallest_ratio(tmp_path: Path) -> None:
    rows = [replace(row, density=0.9**row.round) for row in make_rows(tmp_path, rounds=2)]
    assert comparison.nearest_round(rows, "ticket", 0.8545) == 1  # 0.81 is nearer by difference
    assert comparison.nearest_round(rows, "ticket", 0.853) == 2


def test_a_gain_over_reinitialised_masks_is_that_of_the_arm_named(tmp_path: Path) -> None:
    published = figure("accuracy_gain_over_reinit", 1.0, "pp", arm="random_mask")
    assert judged(tmp_path, published, gains=gains(0.02, random_mask=0.0, reinit=-0.01)).word == "reproduced"


def test_a_missing_control_is_not_measured(tmp_path: Path) -> None:
    assert judged(tmp_path, figure("accuracy_gain_over_reinit", 0.5, "pp")).word == "not measured"


def test_a_level_has_no_direction(tmp_path: Path) -> None:
    level = figure("end_accuracy", 90.5, "percent", density=1.0)
    assert judged(tmp_path, level).word == "not reproduced"
    assert judged(tmp_path / "same", level | {"value": 97.9}).word == "reproduced"


def test_best_accuracy_says_that_it_was_selected_on_test(tmp_path: Path) -> None:
    result = judged(tmp_path, figure("best_accuracy", 98.1, "percent", density=1.0))
    assert (result.word, result.selected_on_test) == ("reproduced", True)


SAMPLED = figure("sampled_accuracy", 95.3, "percent", density=None)


@pytest.mark.parametrize(
    ("accuracies", "words"),
    [
        ((95.0, 95.3, 95.2, 95.4, 95.1), "reproduced"),  # mean 95.2, half width 0.20, in 95.3 ± 0.5
        ((96.0, 96.3, 96.2, 96.4, 96.1), "not reproduced"),
        ((95.0, 96.4, 95.2, 94.6, 95.1), "undecided"),
        ((95.0, 95.3), "not judged (n = 2)"),
        ((), "not measured (no row at this density)"),
    ],
)
def test_the_accuracy_of_drawn_masks_is_judged_as_others_are(
    tmp_path: Path, accuracies: tuple[float, ...], words: str
) -> None:
    """Of one density, which learned probabilities come to, none is selected; the dense network has no drawn masks."""
    run = load(make_run(tmp_path, rounds=1, trials=len(accuracies) or 3, config={"claim": claimed(SAMPLED)}))
    rows = [
        replace(row, sampled_test_accuracy=accuracies[row.trial] / 100 if row.round and accuracies else None)
        for row in run.rows
    ]
    found = claim_of(run)
    assert found is not None
    [result] = compare([run], rows, found, margin=0.002)
    assert (result.words(), result.selected_on_test) == (words, False)
    if accuracies:
        assert result.measured is not None
        assert result.measured.mean == pytest.approx(sum(accuracies) / len(accuracies))
        assert result.density == pytest.approx(0.8)


def test_a_maximum_over_densities_says_that_it_was_selected_on_test(tmp_path: Path) -> None:
    published = figure("end_accuracy_gain", 0.35, "pp", density=None, tolerance=0.2)
    result = judged(tmp_path, published, gains={"ticket": lambda round: 0.0035 if round == 5 else 0.0})
    assert (result.word, result.selected_on_test) == ("reproduced", True)
    assert result.density == pytest.approx(0.8**5)


SMALLEST = figure("matching_density", 21, "percent", density=None)


def until(last: int) -> dict[str, Curve]:
    return {"ticket": lambda round: 0.002 if round <= last else -0.03}


@pytest.mark.parametrize(("last", "word"), [(9, "reproduced"), (7, "reproduced"), (5, "direction only")])
def test_how_far_down_tickets_reach(tmp_path: Path, last: int, word: str) -> None:
    assert judged(tmp_path, SMALLEST, gains=until(last)).word == word


@pytest.mark.parametrize(("percent", "word"), [(19.5, "reproduced"), (19.0, "direction only")])
def test_a_reach_is_reproduced_within_a_tenth_of_the_published_density(
    tmp_path: Path, percent: float, word: str
) -> None:
    assert judged(tmp_path, SMALLEST | {"value": percent}, gains=until(7)).word == word  # 20.97%


def test_a_procedure_that_finds_no_ticket_refutes_none(tmp_path: Path) -> None:
    result = judged(tmp_path, SMALLEST, gains=until(0))
    assert result.words() == "undecided (no ticket found here, which does not refute that one exists)"


def test_rounds_that_end_too_early_measure_no_reach(tmp_path: Path) -> None:
    assert judged(tmp_path, SMALLEST, rounds=4).words() == "not measured (the rounds end at 41%)"


def test_reach_of_two_trials_is_not_judged(tmp_path: Path) -> None:
    assert judged(tmp_path, SMALLEST, trials=2).words() == "not judged (n = 2)"


def test_reach_in_accuracy_ignores_speed_and_honours_its_margin(tmp_path: Path) -> None:
    speeds = {"ticket": flat(0.5)}
    assert judged(tmp_path, SMALLEST, speeds=speeds).word == "undecided"
    end = SMALLEST | {"quantity": "end_accuracy_density"}
    assert judged(tmp_path / "end", end, speeds=speeds).word == "reproduced"
    lower = gains(-0.006)
    assert judged(tmp_path / "low", end, gains=lower).word == "undecided"
    assert judged(tmp_path / "wide", end | {"margin": 0.01}, gains=lower).word == "reproduced"


EARLIER_REACH = figure("earlier_density", 21, "percent", density=None, start=0.6)


def test_how_far_down_tickets_are_faster_within_a_published_range(tmp_path: Path) -> None:
    def speeds(last: int) -> dict[str, Curve]:
        return {"ticket": lambda round: 1.5 if 3 <= round <= last else 0.7}

    assert judged(tmp_path, EARLIER_REACH, speeds=speeds(8)).word == "reproduced"
    assert judged(tmp_path / "from-dense", EARLIER_REACH | {"start": None}, speeds=speeds(8)).word == "undecided"
    assert judged(tmp_path / "short", EARLIER_REACH, speeds=speeds(5)).word == "direction only"
    slow_at_its_start = EARLIER_REACH | {"start": 0.8**2}
    assert judged(tmp_path / "start", slow_at_its_start, speeds=speeds(8)).word == "undecided"
    cut = judged(tmp_path / "cut", EARLIER_REACH, speeds=speeds(8), censored=lambda arm, trial, round: round == 4)
    assert cut.words() == "undecided (speed: not judged at 41%)"


ONSET = figure("reinit_below_dense_density", 21.1, "percent", density=None)


def falling(first: int) -> dict[str, Curve]:
    return {"ticket": flat(0.0), "reinit": lambda round: 0.004 if round < first else -0.004 * (round - first + 1)}


@pytest.mark.parametrize(("first", "word"), [(7, "reproduced"), (3, "not reproduced"), (10, "not reproduced")])
def test_where_reinitialised_masks_fall_below_dense(tmp_path: Path, first: int, word: str) -> None:
    result = judged(tmp_path, ONSET, gains=falling(first))
    assert result.word == word
    assert result.measured is not None
    assert result.measured.mean == pytest.approx(100 * 0.8**first)


def test_a_control_that_never_falls_does_not_reproduce_its_fall(tmp_path: Path) -> None:
    result = judged(tmp_path, ONSET, gains=falling(11), rounds=7)
    assert result.words() == "undecided (not below dense in the last round in 5 trials)"


def test_equal_accuracy_is_not_below_dense(tmp_path: Path) -> None:
    rows = [replace(row, early_stop_test_accuracy=0.98) for row in make_rows(tmp_path, rounds=3, gains=falling(1))]
    onsets, bounded = below_dense(rows, "reinit")
    assert bounded == len(onsets) == 5


def test_rounds_that_end_too_early_measure_no_onset(tmp_path: Path) -> None:
    """Below dense in the last rounds there are; whether it would have lasted is not known."""
    result = judged(tmp_path, ONSET, gains=falling(3), rounds=5)
    assert result.words() == "not measured (the rounds end at 32.8%)"


@pytest.mark.parametrize(("bounded", "word"), [(0, "not reproduced"), (1, "undecided")])
def test_an_onset_that_may_lie_lower_is_not_shown_to_lie_higher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bounded: int, word: str
) -> None:
    """One of five trials is above dense again in the last round, so its onset is an upper bound."""
    onsets = {str(trial): math.log(0.8) for trial in range(4)} | {"4": math.log(0.2)}
    monkeypatch.setattr(comparison, "below_dense", lambda rows, arm: (onsets, bounded))
    assert judged(tmp_path, ONSET, gains=falling(1)).word == word


def test_an_interval_that_meets_the_band_only_in_part_is_undecided() -> None:
    assert judge(Interval(1.0, 0.4, 1.6, 5), 0.5, 0.2, signed=False) == "undecided"
    assert judge(Interval(1.0, 0.8, 1.2, 5), 0.5, 0.2, signed=False) == "not reproduced"
    assert judge(Interval(0.5, 0.4, 0.6, 5), 0.5, 0.2, signed=True) == "reproduced"
    assert judge(Interval(-0.5, -0.6, -0.4, 5), -0.5, 0.2, signed=True) == "reproduced"
    for sign in (1, -1):  # no side of 0 is shown to be the wrong one
        ends = sorted((-0.6 * sign, 0.2 * sign))
        assert judge(Interval(-0.2 * sign, *ends, 5), 0.5 * sign, 2.0, signed=True) == "undecided"
    assert judge(Interval(1.0, -math.inf, math.inf, 1), 0.5, 0.2, signed=False) == "undecided"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"quantity": "accuracy_gian"}, "claim.published[0].quantity=accuracy_gian is unknown"),
        ({"unit": "%"}, "claim.published[0].unit=% is unknown"),
    ],
)
def test_a_claim_that_cannot_be_read_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(LtlError, match="^" + message.replace("[", r"\[")):
        judged(tmp_path, GAIN | change)

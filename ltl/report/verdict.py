"""Verdicts on tickets, computed from rows by the rules of docs/verdicts.md."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ltl.report.load import RoundRow
from ltl.report.statistics import (
    FEWEST_TRIALS,
    LEVEL,
    Interval,
    Measure,
    by_trial,
    density_at,
    early_stop_accuracy,
    holm,
    log_step,
    one_sided,
    p_value,
    paired,
    rounds_of,
    two_sided,
)

SMALLEST_TEST_SET = 1000

MatchWord = Literal["matching", "matching in accuracy", "not matching", "undecided", "not judged"]
SpeedWord = Literal["faster", "slower", "no difference shown", "not judged"]
ControlWord = Literal["above", "below", "no difference shown", "not judged"]


@dataclass(frozen=True)
class Matching:
    """The verdict on one round: does the ticket reach the dense network of its own trial, and as soon?

    `accuracy`: ticket − dense, a fraction, with one-sided 95% bounds. `speed`: log(ticket step / dense step), likewise.
    """

    round: int
    density: float
    word: MatchWord
    accuracy: Interval
    speed: Interval
    speed_word: SpeedWord
    censored: int

    def words(self) -> str:
        """Return the verdict with the reason that belongs to it."""
        if self.word == "not judged":
            return f"not judged (n = {self.accuracy.n})"
        if self.word == "matching in accuracy":
            return f"matching in accuracy ({self.speed_reason()})"
        if self.word == "not matching" and self.speed_word == "slower":
            return "not matching (slower)"
        return self.word

    def speed_reason(self) -> str:
        """Return why speed was not judged."""
        if self.censored:
            return f"speed not judged: early stop censored in {self.censored} of {self.accuracy.n} trials"
        return f"speed not judged: n = {self.speed.n}"


@dataclass(frozen=True)
class Smallest:
    """The end of the unbroken run of matching rounds downwards from round 0; None if round 1 already breaks it."""

    matching: Matching | None
    in_accuracy: Matching | None


@dataclass(frozen=True)
class Contrast:
    """Ticket against one control in one round.

    `accuracy`: ticket − control, a fraction. `speed`: log(control step / ticket step). Both two-sided.
    """

    round: int
    density: float
    arm: str
    accuracy: Interval
    p_accuracy: float
    accuracy_word: ControlWord
    speed: Interval
    p_speed: float
    speed_word: SpeedWord


def too_small(test_images: int | None) -> str | None:
    """Return why a test set carries no verdict at all, or None if it is large enough or its size is unknown."""
    if test_images is None or test_images >= SMALLEST_TEST_SET:
        return None
    return f"no verdict: a test set of {test_images} images is too small"


def data_cautions(*, canonical: bool, no_verdict: str | None) -> list[str]:
    """Return what every figure must say of its data; `no_verdict` is what `too_small` gave."""
    return [*([] if canonical else ["not the canonical files"]), *([no_verdict] if no_verdict else [])]


def matching(rows: Sequence[RoundRow], round: int, *, margin: float) -> Matching:
    """Judge one round of the search against round 0, at the early-stop step; `margin` is a fraction."""
    accuracy, speed, censored = differences(rows, round, early_stop_accuracy)
    word = speed_word(speed, censored)
    return Matching(
        round, density_at(rows, round), _match_word(accuracy, word, margin), accuracy, speed, word, censored
    )


def differences(rows: Sequence[RoundRow], round: int, measure: Measure) -> tuple[Interval, Interval, int]:
    """Return ticket − dense of `measure`, log(ticket step / dense step), and the trials with a censored step."""
    values, dense = by_trial(rows, "ticket", round, measure), by_trial(rows, "ticket", 0, measure)
    steps, dense_steps = by_trial(rows, "ticket", round, log_step), by_trial(rows, "ticket", 0, log_step)
    both = values.keys() & dense.keys()
    censored = {row.unit for row in rows if row.arm == "ticket" and row.round in (0, round) and row.early_stop_censored}
    return one_sided(paired(values, dense)), one_sided(paired(steps, dense_steps)), len(censored & both)


def speed_word(log_ratio: Interval, censored: int) -> SpeedWord:
    """Judge log(ticket step / dense step) by its one-sided bounds; `censored` counts trials with a censored step."""
    # Censored trials are the slow ones: judging the rest of them would be a choice in favour of speed.
    if censored or log_ratio.n < FEWEST_TRIALS:
        return "not judged"
    if log_ratio.low > 0:
        return "slower"
    return "faster" if log_ratio.high < 0 else "no difference shown"


def _match_word(accuracy: Interval, speed: SpeedWord, margin: float) -> MatchWord:
    if accuracy.n < FEWEST_TRIALS:
        return "not judged"
    if accuracy.high < -margin or speed == "slower":
        return "not matching"
    if accuracy.low <= -margin:
        return "undecided"
    return "matching in accuracy" if speed == "not judged" else "matching"


def all_matching(rows: Sequence[RoundRow], *, margin: float) -> list[Matching]:
    """Judge every round after round 0, in order."""
    return [matching(rows, round, margin=margin) for round in rounds_of(rows) if round > 0]


def smallest(judged: Sequence[Matching]) -> Smallest:
    """Return the last round of the unbroken run downwards: with speed, and in accuracy alone.

    The tests are taken in the fixed order of the rounds and stop at the first failure, so none needs correcting.
    """
    ends: list[Matching | None] = []
    for words in (("matching",), ("matching", "matching in accuracy")):
        end = None
        for match in judged:
            if match.word not in words:
                break
            end = match
        ends.append(end)
    return Smallest(*ends)


def against_controls(rows: Sequence[RoundRow]) -> list[Contrast]:
    """Compare the ticket with every control in every round after round 0.

    Two-sided 95% intervals; the words go by p values corrected by Holm over all rounds and controls, for accuracy and
    for speed as a family each.
    """
    pairs = [
        (arm, round)
        for arm in dict.fromkeys(row.arm for row in rows if row.arm != "ticket")
        for round in rounds_of(rows, arm)
        if round > 0
    ]
    accuracies = [_contrast(rows, arm, round, early_stop_accuracy) for arm, round in pairs]
    speeds = [[-value for value in _contrast(rows, arm, round, log_step)] for arm, round in pairs]
    censored = [_any_censored(rows, arm, round) for arm, round in pairs]
    judged_speeds = [[] if cut else values for values, cut in zip(speeds, censored, strict=True)]
    p_accuracies, p_speeds = _family(accuracies), _family(judged_speeds)
    return [
        Contrast(
            round,
            density_at(rows, round, arm),
            arm,
            two_sided(accuracy),
            p_accuracy,
            _control_word(accuracy, p_accuracy),
            two_sided(speed),
            p_speed,
            _faster_word(speed, p_speed),
        )
        for (arm, round), accuracy, p_accuracy, speed, p_speed in zip(
            pairs, accuracies, p_accuracies, judged_speeds, p_speeds, strict=True
        )
    ]


def _contrast(rows: Sequence[RoundRow], arm: str, round: int, measure: Measure) -> list[float]:
    return paired(by_trial(rows, "ticket", round, measure), by_trial(rows, arm, round, measure))


def _any_censored(rows: Sequence[RoundRow], arm: str, round: int) -> bool:
    return any(row.early_stop_censored for row in rows if row.round == round and row.arm in ("ticket", arm))


def _family(tests: Sequence[Sequence[float]]) -> list[float]:
    judged = [index for index, values in enumerate(tests) if len(values) >= FEWEST_TRIALS]
    adjusted = dict(zip(judged, holm([p_value(tests[index]) for index in judged]), strict=True))
    return [adjusted.get(index, 1.0) for index in range(len(tests))]


def _control_word(values: Sequence[float], p: float) -> ControlWord:
    if len(values) < FEWEST_TRIALS:
        return "not judged"
    if p >= 1 - LEVEL:
        return "no difference shown"
    return "above" if sum(values) > 0 else "below"


def _faster_word(values: Sequence[float], p: float) -> SpeedWord:
    word = _control_word(values, p)
    return "faster" if word == "above" else "slower" if word == "below" else word

"""One published figure against the measured one: reproduced, direction only, not reproduced, or why not judged."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from statistics import fmean
from typing import Literal

from ltl.report.load import RoundRow
from ltl.report.quantities import AT_ROUND, ONSET, UNITS, Quantity, below_dense
from ltl.report.statistics import (
    FEWEST_TRIALS,
    Interval,
    density_at,
    early_stop_accuracy,
    end_accuracy,
    rounds_of,
    two_sided,
)
from ltl.report.verdict import all_matching, differences, speed_word
from ltl.report.words import with_reason

Word = Literal[
    "reproduced",
    "direction only",
    "not reproduced",
    "undecided",
    "not comparable",
    "not judged",
    "not measured",
    "no verdict",
]

ACCURACY_TOLERANCE = 0.005
SPEED_TOLERANCE = 1.25
ONSET_TOLERANCE = 1.25
SAME_DENSITY = 1.1
DENSE = ("ticket", 0)  # arm and round of the dense network


@dataclass(frozen=True)
class Published:
    """One published figure; `value` is in `unit` (pp, percent or times), `density` and `start` are fractions or None.

    `start`: the density at which a published range of densities begins, where it does not begin at dense.
    """

    quantity: str
    arm: str
    density: float | None
    value: float
    unit: str
    tolerance: float | None
    margin: float | None
    start: float | None
    source: str


@dataclass(frozen=True)
class Comparison:
    """A published figure beside the measured one; `measured` is in the unit of the published figure."""

    published: Published
    density: float | None
    measured: Interval | None
    word: Word
    reason: str
    selected_on_test: bool = False

    def words(self) -> str:
        """Return the verdict with the reason that belongs to it."""
        return with_reason(self.word, self.reason)


def compare_figure(rows: Sequence[RoundRow], published: Published, *, margin: float) -> Comparison:
    """Judge one published figure by the rows of a comparable run; `margin` (a fraction) is that of matching."""
    if published.quantity in AT_ROUND:
        return _compare_at_round(rows, published, AT_ROUND[published.quantity])
    if published.quantity in ONSET:
        return _compare_onset(rows, published, ONSET[published.quantity][0])
    return _compare_smallest(rows, published, margin)


def nearest_round(rows: Sequence[RoundRow], arm: str, density: float) -> int | None:
    """Return the round whose density is nearest to `density`, None if it is more than 10% off."""
    rounds = [round for round in rounds_of(rows, arm) if density_at(rows, round, arm) > 0]
    if not rounds:
        return None
    nearest = min(rounds, key=lambda round: abs(math.log(density_at(rows, round, arm) / density)))
    # 1e-9: a density that is exactly 10% off counts as the same.
    return nearest if abs(density_at(rows, nearest, arm) / density - 1) <= SAME_DENSITY - 1 + 1e-9 else None


def _compare_at_round(rows: Sequence[RoundRow], published: Published, quantity: Quantity) -> Comparison:
    means = _means(rows, published.arm, quantity) if published.density is None else {}
    selected = quantity.selected_on_test or len(means) > 1
    round = (
        max(means, key=means.__getitem__, default=None)
        if published.density is None
        else nearest_round(rows, published.arm, published.density)
    )
    if round is None:
        return Comparison(published, None, None, "not measured", "no row at this density", selected)
    density = density_at(rows, round, published.arm)
    values = list(quantity.values(rows, published.arm, round).values())
    show, scale = _scales(published, quantity)
    measured = two_sided(values)
    shown = measured.map(show) if values else None
    own, other = (published.arm, round), ("reinit", round) if published.quantity.endswith("over_reinit") else DENSE
    trials = {row.unit for row in rows if (row.arm, row.round) == own}
    compared = [row for row in rows if (row.arm, row.round) in (own, other) and row.unit in trials]
    censored = {row.unit for row in compared if row.early_stop_censored}
    if quantity.kind == "speed" and censored:
        reason = f"early stop censored in {len(censored)} of {len(trials)} trials"
        return Comparison(published, density, shown, "not judged", reason, selected)
    if measured.n == 0:
        return Comparison(published, density, None, "not measured", "no pairs of rows at this density", selected)
    if measured.n < FEWEST_TRIALS:
        return Comparison(published, density, shown, "not judged", f"n = {measured.n}", selected)
    center = scale(published.value)
    if quantity.kind == "speed":
        half = math.log(published.tolerance or SPEED_TOLERANCE)
    else:
        half = published.tolerance * 0.01 if published.tolerance is not None else ACCURACY_TOLERANCE
    word = judge(measured, center, half, signed=quantity.kind != "level")
    return Comparison(published, density, shown, word, "", selected)


def _means(rows: Sequence[RoundRow], arm: str, quantity: Quantity) -> dict[int, float]:
    values = {round: list(quantity.values(rows, arm, round).values()) for round in rounds_of(rows, arm) if round > 0}
    return {round: fmean(found) for round, found in values.items() if found}


def _scales(published: Published, quantity: Quantity) -> tuple[Callable[[float], float], Callable[[float], float]]:
    """Return the functions from the measured scale to the published unit and back."""
    unit = UNITS[published.unit]
    if published.quantity == "early_stop_earlier":
        return lambda log_ratio: (1 - _exp(-log_ratio)) / unit, lambda value: -math.log(1 - value * unit)
    if quantity.kind == "speed":
        return lambda log_ratio: _exp(log_ratio) / unit, lambda value: math.log(value * unit)
    return lambda fraction: fraction / unit, lambda value: value * unit


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf


def judge(measured: Interval, center: float, half: float, *, signed: bool) -> Word:
    """Judge a two-sided interval against a published value ± half; `signed`: the value's sign is itself a finding."""
    inside = center - half <= measured.low and measured.high <= center + half
    same_sign = measured.low > 0 if center > 0 else measured.high < 0
    if inside and (same_sign or not signed):
        return "reproduced"
    if signed and same_sign:
        return "direction only"
    outside = measured.high < center - half or measured.low > center + half
    wrong_sign = signed and (measured.high < 0 if center > 0 else measured.low > 0)
    return "not reproduced" if outside or wrong_sign else "undecided"


def _compare_onset(rows: Sequence[RoundRow], published: Published, arm: str) -> Comparison:
    onsets, bounded = below_dense(rows, arm)
    measured = two_sided(list(onsets.values()))
    unit = UNITS[published.unit]
    shown = measured.map(lambda log_density: _exp(log_density) / unit) if onsets else None
    if not onsets:
        return Comparison(published, None, None, "not measured", f"no rows of arm {arm}")
    tolerance = published.tolerance or ONSET_TOLERANCE
    end = density_at(rows, max(rounds_of(rows, arm)), arm)
    if end > published.value * unit * tolerance:  # an onset above it might not have lasted
        return Comparison(published, None, None, "not measured", f"the rounds end at {100 * end:.3g}%")
    if bounded == len(onsets):
        return Comparison(published, None, None, "undecided", f"not below dense in the last round in {bounded} trials")
    if measured.n < FEWEST_TRIALS:
        return Comparison(published, None, shown, "not judged", f"n = {measured.n}")
    center = math.log(published.value * unit)
    word = judge(measured, center, math.log(tolerance), signed=False)
    if bounded and (word == "reproduced" or measured.mean > center):  # the true onsets lie lower than measured
        return Comparison(published, None, shown, "undecided", f"not below dense in the last round in {bounded} trials")
    return Comparison(published, None, shown, word, "")


@dataclass(frozen=True)
class _Rung:
    """One round on the way down: does it reach the dense network, and if not, has it been shown to fail?"""

    density: float
    n: int
    reaches: bool
    fails: bool
    words: str


def _rungs(rows: Sequence[RoundRow], quantity: str, margin: float) -> list[_Rung]:
    if quantity == "matching_density":
        return [
            _Rung(
                match.density, match.accuracy.n, match.word == "matching", match.word == "not matching", match.words()
            )
            for match in all_matching(rows, margin=margin)
        ]
    measure = end_accuracy if quantity == "end_accuracy_density" else early_stop_accuracy
    rungs = []
    for round in rounds_of(rows):
        if round > 0:
            gain, log_ratio, censored = differences(rows, round, measure)
            if quantity == "earlier_density":
                speed = speed_word(log_ratio, censored)
                reaches, fails, words = speed == "faster", speed == "slower", f"speed: {speed}"
            else:
                judged = gain.n >= FEWEST_TRIALS
                reaches, fails = judged and gain.low > -margin, judged and gain.high < -margin
                words = "interval across the margin"
            rungs.append(_Rung(density_at(rows, round), gain.n, reaches, fails, words))
    return rungs


def _compare_smallest(rows: Sequence[RoundRow], published: Published, margin: float) -> Comparison:
    """A claim that tickets exist: a procedure that finds them supports it, one that finds none does not refute it."""
    unit = UNITS[published.unit]
    start = 1.0 if published.start is None else published.start
    allowed = margin if published.margin is None else published.margin
    rungs = [rung for rung in _rungs(rows, published.quantity, allowed) if rung.density <= start]
    reached = list(takewhile(lambda rung: rung.reaches, rungs))
    density = reached[-1].density if reached else None
    shown = None if density is None else Interval(density / unit, density / unit, density / unit, reached[-1].n)
    word, reason = _smallest_word(rungs, len(reached), published.value * unit * (published.tolerance or SAME_DENSITY))
    return Comparison(published, density, shown, word, reason)


def _smallest_word(rungs: Sequence[_Rung], reached: int, bound: float) -> tuple[Word, str]:
    if not rungs:
        return "not measured", "no round beside dense"
    if reached and rungs[reached - 1].density <= bound:
        return "reproduced", ""
    if reached == len(rungs):
        return "not measured", f"the rounds end at {100 * rungs[-1].density:.3g}%"
    broken = rungs[reached]
    if broken.n < FEWEST_TRIALS:
        return "not judged", f"n = {broken.n}"
    if not broken.fails:
        return "undecided", f"{broken.words} at {100 * broken.density:.3g}%"
    if reached:
        return "direction only", "tickets, but none as sparse"
    return "undecided", "no ticket found here, which does not refute that one exists"

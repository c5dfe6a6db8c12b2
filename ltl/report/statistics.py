"""The statistics of the report: per-trial means, paired differences, Student t intervals, Holm."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from scipy.special import stdtr, stdtrit

from ltl.report.load import RoundRow

FEWEST_TRIALS = 3
LEVEL = 0.95

Measure = Callable[[RoundRow], float | None]


@dataclass(frozen=True)
class Interval:
    """A mean over n trials with the bounds of its confidence interval (infinite for n < 2)."""

    mean: float
    low: float
    high: float
    n: int

    def map(self, function: Callable[[float], float]) -> "Interval":
        """Return the interval of an increasing `function` of the mean, such as `exp` of a log ratio."""
        return Interval(function(self.mean), function(self.low), function(self.high), self.n)


@dataclass(frozen=True)
class Estimate:
    """A mean with its standard error and degrees of freedom; `n` is the size of the smallest sample behind it."""

    mean: float
    error: float
    freedom: float
    n: int

    def two_sided(self) -> Interval:
        """Return the two-sided 95% t interval."""
        return self._interval((1 + LEVEL) / 2)

    def one_sided(self) -> Interval:
        """Return two one-sided 95% bounds: each alone holds with 95%, both together with 90%."""
        return self._interval(LEVEL)

    def p(self) -> float:
        """Return the two-sided p of a t test of mean 0; 1 for n < 2."""
        if self.n < 2:
            return 1.0
        if self.error == 0:
            return 1.0 if self.mean == 0 else 0.0
        return 2 * float(stdtr(self.freedom, -abs(self.mean) / self.error))

    def _interval(self, quantile: float) -> Interval:
        if self.n < 2:
            return Interval(self.mean, -math.inf, math.inf, self.n)
        half = float(stdtrit(self.freedom, quantile)) * self.error if self.error else 0.0
        return Interval(self.mean, self.mean - half, self.mean + half, self.n)


def estimate(values: Sequence[float]) -> Estimate:
    """Return the mean of a sample; that of no values is nan."""
    n = len(values)
    error = stdev(values) / math.sqrt(n) if n > 1 else math.nan
    return Estimate(fmean(values) if values else math.nan, error, n - 1, n)


def unpaired(minuends: Sequence[float], subtrahends: Sequence[float]) -> Estimate:
    """Return the difference of the means of two samples whose variances may differ. Welch (1947)."""
    one, other = estimate(minuends), estimate(subtrahends)
    n, squares = min(one.n, other.n), (one.error**2, other.error**2)
    error = math.sqrt(sum(squares))
    parts = squares[0] ** 2 / one.freedom + squares[1] ** 2 / other.freedom if n > 1 else 0.0
    return Estimate(one.mean - other.mean, error, error**4 / parts if parts else math.inf, n)


def two_sided(values: Sequence[float]) -> Interval:
    """Return the mean with its two-sided 95% t interval; the mean of no values is nan."""
    return estimate(values).two_sided()


def one_sided(values: Sequence[float]) -> Interval:
    """Return the mean with two one-sided 95% bounds: each alone holds with 95%, both together with 90%."""
    return estimate(values).one_sided()


def p_value(values: Sequence[float]) -> float:
    """Return the two-sided p of a t test of mean 0; 1 for n < 2."""
    return estimate(values).p()


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p values adjusted for a family of tests, in the order given. Holm (1979)."""
    adjusted = [1.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, (len(p_values) - rank) * p_values[index])
        adjusted[index] = min(1.0, largest)
    return adjusted


def by_trial(rows: Iterable[RoundRow], arm: str, round: int, measure: Measure) -> dict[str, float]:
    """Return the mean of `measure` for each unit of replication (one θ₀): draws and orders are averaged within it.

    A unit is left out if any of its rows lacks the measure: the mean of the remaining draws would be a biased choice.
    """
    values: defaultdict[str, list[float | None]] = defaultdict(list)
    for row in rows:
        if row.arm == arm and row.round == round:
            values[row.unit].append(measure(row))
    whole = {unit: [value for value in found if value is not None] for unit, found in values.items()}
    return {unit: fmean(found) for unit, found in whole.items() if len(found) == len(values[unit])}


def paired(minuends: Mapping[str, float], subtrahends: Mapping[str, float]) -> list[float]:
    """Return the differences of the trials that both have, in the first one's order."""
    return [value - subtrahends[unit] for unit, value in minuends.items() if unit in subtrahends]


def early_stop_accuracy(row: RoundRow) -> float | None:
    """Test accuracy at the early-stop step, a fraction."""
    return row.early_stop_test_accuracy


def end_accuracy(row: RoundRow) -> float | None:
    """Test accuracy after the last step, a fraction."""
    return row.test_accuracy


def best_accuracy(row: RoundRow) -> float | None:
    """Highest test accuracy at any evaluation, a fraction: selected on test, only for figures published that way."""
    return row.best_test_accuracy


def sampled_accuracy(row: RoundRow) -> float | None:
    """Mean test accuracy of masks drawn by learned probabilities, a fraction; Zhou et al. (2019), Table 1."""
    return row.sampled_test_accuracy


def log_step(row: RoundRow) -> float | None:
    """Natural log of the early-stop step; None if censored, since a censored step enters no claim about speed."""
    if row.early_stop_censored or row.early_stop_step is None or row.early_stop_step <= 0:
        return None
    return math.log(row.early_stop_step)


def rounds_of(rows: Iterable[RoundRow], arm: str = "ticket") -> list[int]:
    """Return the rounds that an arm was trained in, in order."""
    return sorted({row.round for row in rows if row.arm == arm})


def density_at(rows: Iterable[RoundRow], round: int, arm: str = "ticket") -> float:
    """Return the density of a round: the search's own, or the arm's where the search has no such row."""
    there = [row for row in rows if row.round == round]
    own = [row.density for row in there if row.arm == "ticket"] or [row.density for row in there if row.arm == arm]
    return fmean(own) if own else math.nan

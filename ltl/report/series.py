"""What a figure of lines draws: a mean with its bar for each arm and round, and the same numbers as a table."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ltl.report.load import RoundRow
from ltl.report.statistics import FEWEST_TRIALS, Measure, by_trial, density_at, rounds_of, two_sided
from ltl.report.study import Bars, Study
from ltl.report.words import arm_words, in_order


@dataclass(frozen=True)
class Point:
    """One arm in one round: the mean over trials and its bar, or without one the values by θ₀.

    There is no bar for fewer than 3 trials, nor where the point is hollow: some trial's early stop is censored. `x` is
    where it stands: at its density, or at the value of a key that a sweep varies.
    """

    x: float
    round: int
    density: float
    mean: float
    bar: tuple[float, float] | None
    values: Mapping[str, float]
    hollow: bool

    @property
    def ends(self) -> tuple[float, float]:
        """The lowest and the highest value drawn."""
        return self.bar or (min(self.values.values()), max(self.values.values()))


@dataclass(frozen=True)
class Series:
    """One line of a figure, from dense downwards; `name` is the arm or the setting, `label` its words in the legend.

    `place` among all of them decides its colour and marker, so that an arm has the same ones in every figure.
    """

    name: str
    label: str
    place: int
    points: Sequence[Point]


def arms(study: Study, measure: Measure, *, hollow: bool = False) -> list[Series]:
    """Return a line for each arm that has the measure, the ticket first; `hollow` marks censored rounds."""
    found = [
        Series(arm, arm_words(arm, study.first), place, _points(study.rows, arm, measure, study.bars, hollow))
        for place, arm in enumerate(in_order(row.arm for row in study.rows))
    ]
    return [line for line in found if line.points]


def tickets(studies: Sequence[Study], measure: Measure, bars: Bars) -> list[Series]:
    """Return a line for each study's own arm."""
    found = [
        Series(study.label, study.label, place, _points(study.rows, "ticket", measure, bars, False))
        for place, study in enumerate(studies)
    ]
    return [line for line in found if line.points]


def point(
    x: float, round: int, density: float, values: Mapping[str, float], bars: Bars, *, hollow: bool = False
) -> Point:
    """Return the point of one arm in one round from its values by θ₀, of which there is at least one."""
    interval = two_sided(list(values.values()))
    ends = (interval.low, interval.high) if bars == "interval" else (min(values.values()), max(values.values()))
    return Point(
        x, round, density, interval.mean, ends if interval.n >= FEWEST_TRIALS and not hollow else None, values, hollow
    )


def dense(lines: Sequence[Series]) -> Point | None:
    """Return the dense network's point: the ticket's at round 0."""
    return next((point for line in lines[:1] for point in line.points if point.density == 1), None)


def own_masks(lines: Sequence[Series]) -> list[Series]:
    """Return the ticket's line and those that differ from it: where a control has the ticket's masks, they coincide."""
    ticket = {point.round: point.values for line in lines[:1] for point in line.points}

    def same(point: Point) -> bool:
        known = ticket.get(point.round, {})
        return all(math.isclose(value, known.get(unit, math.nan)) for unit, value in point.values.items())

    return [line for index, line in enumerate(lines) if index == 0 or not all(map(same, line.points))]


def data(lines: Sequence[Series], unit: str, bars: Bars) -> list[dict[str, Any]]:
    """Return the numbers drawn, a row a point: `low` and `high` are the ends of its bar, `trials` the short dashes."""
    return [
        {
            "series": line.name,
            "round": point.round,
            "density": point.density,
            "unit": unit,
            "mean": point.mean,
            "bar": bars if point.bar else "",
            "low": point.bar[0] if point.bar else "",
            "high": point.bar[1] if point.bar else "",
            "n": len(point.values),
            "hollow": int(point.hollow),
            "trials": "" if point.bar else " ".join(map(repr, point.values.values())),
        }
        for line in lines
        for point in line.points
    ]


def _points(rows: Sequence[RoundRow], arm: str, measure: Measure, bars: Bars, hollow: bool) -> list[Point]:
    points = []
    for round in rounds_of(rows, arm):
        values = by_trial(rows, arm, round, measure)
        density = density_at(rows, round, arm)
        if values and density > 0:
            cut = hollow and any(row.early_stop_censored for row in rows if row.arm == arm and row.round == round)
            points.append(point(density, round, density, values, bars, hollow=cut))
    return points

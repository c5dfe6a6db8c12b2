"""The figures against density: test accuracy at early stop, the early-stop step, and what a step costs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes

from ltl.report.axes import COLOURS, GREY, MARKERS, Drawing, canvas, density_axis, percent_axis, save, step_axis
from ltl.report.load import RoundRow
from ltl.report.statistics import (
    FEWEST_TRIALS,
    Interval,
    Measure,
    by_trial,
    density_at,
    early_stop_accuracy,
    rounds_of,
    two_sided,
)
from ltl.report.study import Study
from ltl.report.words import arm_words, in_order

_CUT_WORDS = " some intervals reach beyond this axis"
_HOLLOW_WORDS = (
    "Hollow points lie in the last 5% of training in at least one trial, so that the true step may be later; "
    "they enter no claim about speed. "
)


@dataclass(frozen=True)
class Point:
    """One arm in one round: the interval over trials, the trials, and whether any early stop was censored."""

    density: float
    interval: Interval
    values: Sequence[float]
    censored: bool


@dataclass(frozen=True)
class Series:
    """One line of a figure, from dense downwards."""

    label: str
    points: Sequence[Point]


def accuracy_against_density(study: Study, folder: Path) -> Drawing | None:
    """Draw test accuracy (%) at early stop against density, with controls and dense level; None without data."""
    lines = _arms(study, lambda row: _percent(early_stop_accuracy(row)))
    if not lines:
        return None
    with canvas("Test accuracy at early stop", _subtitle(study, lines), study.cautions) as (figure, axes):
        _draw(axes, lines, dense=_dense(lines), floor=_floor(lines))
        percent_axis(axes, "test accuracy at early stop")
        figure.legend(loc="outside lower left", ncols=1)
        return save(
            figure,
            folder,
            "accuracy_vs_density",
            "Test accuracy at the step with the lowest validation loss, for each share of weights left. "
            + _interval_words(lines),
        )


def early_stop_against_density(study: Study, folder: Path) -> Drawing | None:
    """Draw the early-stop step against density, hollow where a trial is censored; None without data."""
    lines = _arms(study, lambda row: row.early_stop_step)
    if not lines:
        return None
    with canvas("Early-stop step: lower is faster", _subtitle(study, lines), study.cautions) as (figure, axes):
        _draw(axes, lines, dense=_dense(lines), floor=0.0, hollow=True)
        axes.set_ylim(bottom=0)
        step_axis(axes, "y", "early-stop step (optimiser steps)")
        censored = any(point.censored for line in lines for point in line.points)
        if censored:
            axes.plot(
                [], [], "o", color=GREY, markerfacecolor="white", label="hollow: still improving at the end (censored)"
            )
        figure.legend(loc="outside lower left", ncols=1)
        return save(
            figure,
            folder,
            "early_stop_vs_density",
            "Optimiser steps until the validation loss is lowest: lower is faster. "
            + (_HOLLOW_WORDS if censored else "")
            + _interval_words(lines),
        )


def seconds_against_density(study: Study, folder: Path) -> Drawing | None:
    """Draw the training time of an optimiser step (ms, the network's share) against density; None without data."""
    lines = _arms(study, lambda row: 1000 * row.seconds / row.steps if row.seconds and row.steps else None)
    if not lines:
        return None
    with canvas("What a step costs", _subtitle(study, lines), study.cautions) as (figure, axes):
        _draw(axes, lines, dense=_dense(lines), floor=0.0)
        axes.set_ylim(bottom=0)
        axes.set_ylabel("training time of a step (ms)")
        figure.legend(loc="outside lower left", ncols=1)
        return save(
            figure,
            folder,
            "seconds_vs_density",
            "Training time of one optimiser step on one network (its share, where networks train side by side), for "
            "each share of weights left. Masks alone save none: dense kernels multiply zeros too. Where a perceptron "
            "is sparse enough, sparse products take over. " + _interval_words(lines),
        )


def studies_against_density(studies: Sequence[Study], folder: Path) -> Drawing | None:
    """Draw the tickets of several studies together, accuracy (%) at early stop against density; None without data."""
    lines = [
        Series(study.label, _points(study.rows, "ticket", lambda row: _percent(early_stop_accuracy(row))))
        for study in studies
    ]
    lines = [line for line in lines if line.points]
    if not lines:
        return None
    cautions = list(dict.fromkeys(caution for study in studies for caution in study.cautions))
    with canvas("Test accuracy at early stop, side by side", _trials_words(studies), cautions) as (figure, axes):
        _draw(axes, lines, dense=None, floor=_floor(lines))
        percent_axis(axes, "test accuracy at early stop")
        figure.legend(loc="outside lower left", ncols=1)
        return save(
            figure,
            folder,
            "studies_vs_density",
            "Test accuracy at the early-stop step of each setting's own arm, without controls. Bars are 95% confidence "
            "intervals where there are 3 trials or more.",
        )


def _percent(fraction: float | None) -> float | None:
    return None if fraction is None else 100 * fraction


def _arms(study: Study, measure: Measure) -> list[Series]:
    arms = in_order(row.arm for row in study.rows)
    lines = [Series(arm_words(arm, study.first), _points(study.rows, arm, measure)) for arm in arms]
    return [line for line in lines if line.points]


def _points(rows: Sequence[RoundRow], arm: str, measure: Measure) -> list[Point]:
    points = []
    for round in rounds_of(rows, arm):
        values = list(by_trial(rows, arm, round, measure).values())
        censored = any(row.early_stop_censored for row in rows if row.arm == arm and row.round == round)
        if values and density_at(rows, round, arm) > 0:
            points.append(Point(density_at(rows, round, arm), two_sided(values), values, censored))
    return points


def _dense(lines: Sequence[Series]) -> Point | None:
    points = [point for line in lines[:1] for point in line.points if point.density == 1]
    return points[0] if points else None


def _floor(lines: Sequence[Series]) -> float:
    """The lowest accuracy worth a place on the axis: an arm that collapses must not flatten what is compared."""
    first = [point.interval.mean for line in lines[:1] for point in line.points]
    deficit = max(first) - min(first) if first else 0.0
    return max((max(first, default=0.0)) - max(3.0, 3 * deficit), 0.0)


def _draw(axes: Axes, lines: Sequence[Series], *, dense: Point | None, floor: float, hollow: bool = False) -> None:
    """Draw all lines and the dense level, and say in words what lies below `floor`, if anything does."""
    if dense is not None:
        if dense.interval.n >= FEWEST_TRIALS and not (hollow and dense.censored):
            axes.axhspan(dense.interval.low, dense.interval.high, color=GREY, alpha=0.13, linewidth=0)
        axes.axhline(
            dense.interval.mean, color=GREY, linestyle=(0, (4, 2)), linewidth=1.3, label="dense network (all weights)"
        )
    for index, line in enumerate(lines):
        _draw_line(axes, line, index, len(lines), hollow)
    means = [point.interval.mean for line in lines for point in line.points]
    ends = [_ends(point) for line in lines for point in line.points]
    low, high = min(low for low, _ in ends), max(high for _, high in ends)
    spread = max(max(means) - max(min(means), floor), 0.02 * max(means))
    cut = low < max(floor, min(means) - 1.5 * spread) or high > max(means) + 1.5 * spread
    low, high = max(low, floor, min(means) - 1.5 * spread), min(high, max(means) + 1.5 * spread)
    edge = 0.06 * (high - low) or 0.5  # equal values have no range of their own
    axes.set_ylim(low - edge, high + edge)
    density_axis(axes, [point.density for line in lines for point in line.points])
    hidden = [mean for mean in means if mean < low]
    if hidden or cut:
        lie = "1 point lies" if len(hidden) == 1 else f"{len(hidden)} points lie"
        words = f" {lie} below this axis, down to {min(hidden):.1f}%" if hidden else _CUT_WORDS
        frame = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
        axes.text(0, 0.02, words, transform=axes.transAxes, fontsize=8.5, color=GREY, bbox=frame, zorder=30)


def _draw_line(axes: Axes, line: Series, index: int, of: int, hollow: bool) -> None:
    colour, marker = COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
    # Arms stand side by side at a density, or their intervals would hide one another.
    aside = 1.012 ** (index - (of - 1) / 2)
    x = [point.density / aside for point in line.points]
    y = [point.interval.mean for point in line.points]
    axes.plot(x, y, color=colour, marker=marker, markersize=5, label=line.label, zorder=3 + of - index)
    for at, point in zip(x, line.points, strict=True):
        if hollow and point.censored:
            axes.plot(at, point.interval.mean, marker, color=colour, markerfacecolor="white", markersize=5, zorder=20)
        elif point.interval.n >= FEWEST_TRIALS:
            axes.plot([at, at], [point.interval.low, point.interval.high], color=colour, linewidth=1.1, zorder=2)
        if 1 < point.interval.n < FEWEST_TRIALS or (hollow and point.censored):
            axes.plot([at] * len(point.values), point.values, "_", color=colour, markersize=9, zorder=2)


def _ends(point: Point) -> tuple[float, float]:
    if point.interval.n >= FEWEST_TRIALS:
        return point.interval.low, point.interval.high
    return min(point.values), max(point.values)


def _subtitle(study: Study, lines: Sequence[Series]) -> str:
    label = f" · {study.label}" if study.label else ""
    return f"{study.title}{label} · {_trials_words([study])}"


def _trials_words(studies: Sequence[Study]) -> str:
    numbers = sorted({study.trials for study in studies})
    if len(numbers) > 1:
        return f"mean of n = {numbers[0]} to {numbers[-1]} trials"
    if numbers[0] == 1:
        return "n = 1 trial"
    return f"mean of n = {numbers[0]} trials" + (
        ", 95% intervals" if numbers[0] >= FEWEST_TRIALS else " (dashes: each trial)"
    )


def _interval_words(lines: Sequence[Series]) -> str:
    numbers = [point.interval.n for line in lines for point in line.points]
    if max(numbers) >= FEWEST_TRIALS:
        band = "; the grey band is that of the dense network" if _dense(lines) else ""
        return f"Bars are 95% confidence intervals of the mean over trials{band}."
    return "Fewer than 3 trials: no interval; short dashes are single trials."

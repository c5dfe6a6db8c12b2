"""What happens while a round trains, one line a round: validation accuracy and loss, changes of a supermask."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Literal

import matplotlib
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from ltl.report.axes import percent_axis, percent_log_axis, step_axis
from ltl.report.canvas import SHADES, Drawing, Sheet, Words, canvas, note, save
from ltl.report.statistics import density_at
from ltl.report.study import Study
from ltl.report.words import mean_of

_MOST_POINTS = 250


@dataclass(frozen=True)
class Curve:
    """One round: a value by step, means over the trials that were evaluated there."""

    density: float
    steps: Sequence[float]
    values: Sequence[float]
    trials: Sequence[int]


def learning_curves(study: Study, sheet: Sheet, column: Literal["val_accuracy", "val_loss"]) -> Drawing | None:
    """Draw validation accuracy (%) or loss against the step, one line a round; None without data."""
    accuracy = column == "val_accuracy"
    curves = _curves(study, column, 100 if accuracy else 1)
    if not curves:
        return None
    title = f"Validation {'accuracy' if accuracy else 'loss'} while training"
    with canvas(sheet) as (figure, axes):
        _lines(figure, axes, curves)
        _limit(axes, [curve.values for curve in curves.values()], accuracy)
        if accuracy:
            percent_axis(axes, "validation accuracy")
        else:
            axes.set_ylabel("validation loss (cross entropy, nats)")
        name = "validation_accuracy" if accuracy else "validation_loss"
        return save(figure, sheet, name, _words(title, study), _data(curves, "%" if accuracy else "nats"))


def mask_flips(study: Study, sheet: Sheet) -> Drawing | None:
    """Draw against the step how much of the mask (%) each evaluation finds changed; None without supermasks."""
    curves = _curves(study, "mask_flips", 1)
    values = [value for curve in curves.values() for value in curve.values]
    if not any(values):
        return None
    caption = (
        "A supermask leaves the weights as they are and trains scores, that decide which are kept. Share of the "
        "prunable weights that the mask has taken in or left out since the evaluation before, every "
        f"{study.first.setting('eval_every')} (at the first point since the scores were drawn; the last one may follow "
        "sooner). Where it nears 0, the mask has settled. "
    )
    with canvas(sheet) as (figure, axes):
        _lines(figure, axes, curves)
        percent_log_axis(axes, "entries of the mask that changed")
        if still := values.count(0):
            note(axes, f"{still} point{'s' * (still > 1)} without any change lie{'s' * (still == 1)} below this axis")
        words = _words("How the mask changes while scores are trained", study, caption)
        return save(figure, sheet, "mask_flips", words, _data(curves, "fraction"))


def _curves(study: Study, column: str, scale: float) -> dict[int, Curve]:
    found: defaultdict[int, defaultdict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in study.metrics:
        value = getattr(row, column)
        if row.arm == "ticket" and value is not None:
            found[row.round][row.step].append(scale * value)
    curves = {}
    for round, by_step in sorted(found.items()):
        steps = sorted(by_step)
        kept = steps[:: -(-len(steps) // _MOST_POINTS)]
        values, trials = [fmean(by_step[step]) for step in kept], [len(by_step[step]) for step in kept]
        curves[round] = Curve(density_at(study.rows, round), kept, values, trials)
    return curves


def _lines(figure: Figure, axes: Axes, curves: Mapping[int, Curve]) -> None:
    colours = _density_colours(figure, axes, [curve.density for curve in curves.values()])
    thin = 0.7 * matplotlib.rcParams["lines.linewidth"]
    for curve in curves.values():
        axes.plot(curve.steps, curve.values, color=colours(curve.density), linewidth=thin)
    step_axis(axes, "x", "optimiser step within the round")


def _words(title: str, study: Study, caption: str = "") -> Words:
    mean = ", mean over trials" if study.trials > 1 else ""
    caption += f"One line for each round, coloured by the share of weights left{mean}."
    return Words(title, f"{study.heading} · one line a round, {mean_of(study.trials)}", caption, study.cautions)


def _data(curves: Mapping[int, Curve], unit: str) -> list[dict[str, Any]]:
    return [
        {"round": round, "density": curve.density, "step": step, "unit": unit, "mean": value, "n": n}
        for round, curve in curves.items()
        for step, value, n in zip(curve.steps, curve.values, curve.trials, strict=True)
    ]


def _limit(axes: Axes, curves: Sequence[Sequence[float]], accuracy: bool) -> None:
    """Leave the first steep steps outside the axis: what is compared happens later."""
    late = [value for values in curves for value in values[len(values) // 10 :]]
    low, high = min(late), max(late)
    room = 0.05 * (high - low) or 0.01
    everything = [value for values in curves for value in values]
    axes.set_ylim(
        (low if accuracy else min(everything)) - room,
        (max(everything) if accuracy else high) + room,
    )


def _density_colours(figure: Figure, axes: Axes, densities: Sequence[float]) -> Callable[[float], Any]:
    lowest = min([0.9, *(density for density in densities if density > 0)])
    scale = LogNorm(lowest, 1.0)
    bar = figure.colorbar(
        ScalarMappable(scale, SHADES), ax=axes, label="density: prunable weights left (%)", aspect=30, pad=0.02
    )
    marks = [mark for mark in (1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001) if mark >= lowest]
    if len(marks) == 1:
        marks.append(lowest)  # one label says of no other colour what it is
    bar.ax.yaxis.set_major_locator(FixedLocator(marks))
    bar.ax.yaxis.set_minor_locator(NullLocator())
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.3g}"))
    return lambda density: SHADES(float(scale(max(density, lowest))))  # a network without weights as the sparsest

"""The figures of single rounds: learning curves, and how density is spread over the layers."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from ltl.report.axes import (
    COLOURS,
    GREY,
    MARKERS,
    SHADES,
    Drawing,
    canvas,
    density_axis,
    percent_axis,
    percent_log_axis,
    save,
    step_axis,
)
from ltl.report.load import LayerRow
from ltl.report.statistics import density_at
from ltl.report.study import Study

_MOST_POINTS = 250
_MOST_NAMED_LAYERS = len(COLOURS)

Curves = dict[int, tuple[list[float], list[float]]]


def learning_curves(study: Study, folder: Path, column: Literal["val_accuracy", "val_loss"]) -> Drawing | None:
    """Draw validation accuracy (%) or loss against the step, one line a round; None without data."""
    curves = _curves(study, column)
    if not curves:
        return None
    accuracy = column == "val_accuracy"
    title = "Validation accuracy while training" if accuracy else "Validation loss while training"
    with canvas(title, _subtitle(study, "one line a round"), study.cautions) as (figure, axes):
        densities = {round: density_at(study.rows, round) for round in curves}
        colours = _density_colours(figure, axes, list(densities.values()))
        for round, (steps, values) in curves.items():
            axes.plot(steps, values, color=colours(densities[round]), linewidth=1.3)
        _limit(axes, curves, accuracy)
        step_axis(axes, "x", "optimiser step within the round")
        if accuracy:
            percent_axis(axes, "validation accuracy")
        else:
            axes.set_ylabel("validation loss (cross entropy, nats)")
        return save(
            figure,
            folder,
            "validation_accuracy" if accuracy else "validation_loss",
            f"{title}: one line for each round, coloured by the share of weights left"
            + (", mean over trials." if study.trials > 1 else "."),
        )


def density_by_layer(study: Study, folder: Path) -> Drawing | None:
    """Draw each layer's density and effective density against the density of the whole; None without data."""
    layers: defaultdict[str, defaultdict[int, list[LayerRow]]] = defaultdict(lambda: defaultdict(list))
    for row in study.layers:
        if row.arm == "ticket":
            layers[row.layer][row.round].append(row)
    if not layers:
        return None
    with canvas("Where the weights are left", _subtitle(study, "density by layer"), study.cautions) as (figure, axes):
        shades = SHADES([index / max(len(layers) - 1, 1) for index in range(len(layers))])
        few = len(layers) <= _MOST_NAMED_LAYERS
        overall: list[float] = []
        for index, (name, by_round) in enumerate(layers.items()):
            overall = [density_at(study.rows, round) for round in sorted(by_round)]
            colour = COLOURS[index] if few else shades[index]
            own = [fmean(row.density for row in by_round[round]) for round in sorted(by_round)]
            live = [_effective(by_round[round]) for round in sorted(by_round)]
            named = few or index in (0, len(layers) - 1)
            place = "" if few else " (first)" if index == 0 else " (last)"
            label = f"{name}{place}" if named else None
            # Later layers are drawn thinner, so that equal ones do not hide one another.
            size = 1 - index / len(layers)
            marker = MARKERS[index] if few else ""
            axes.plot(
                overall,
                own,
                color=colour,
                linewidth=1.1 + 2 * size,
                label=label,
                marker=marker,
                markersize=3 + 4 * size,
            )
            axes.plot(overall, live, color=colour, linestyle="--", linewidth=1.1)
        axes.plot(overall, overall, color=GREY, linewidth=1, linestyle=":", label="all layers alike")
        axes.plot([], [], color=GREY, linestyle="--", linewidth=1.1, label="effective: on a live path")
        density_axis(axes, overall)
        percent_log_axis(axes, "weights left in the layer")
        figure.legend(loc="outside lower left", ncols=2)
        return save(
            figure,
            folder,
            "density_by_layer",
            "Share of each layer's weights that is left, against the share of all. Dashed: only those weights that lie "
            "on a path of kept weights from input to output."
            + ("" if few else f" {len(layers)} layers, from the first (dark) to the last (light)."),
        )


def _subtitle(study: Study, what: str) -> str:
    label = f" · {study.label}" if study.label else ""
    trials = "n = 1 trial" if study.trials == 1 else f"mean of n = {study.trials} trials"
    return f"{study.title}{label} · {what}, {trials}"


def _curves(study: Study, column: str) -> Curves:
    values: defaultdict[int, defaultdict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in study.metrics:
        value = getattr(row, column)
        if row.arm == "ticket" and value is not None:
            values[row.round][row.step].append(100 * value if column == "val_accuracy" else value)
    curves: Curves = {}
    for round, by_step in sorted(values.items()):
        steps = sorted(by_step)
        kept = steps[:: -(-len(steps) // _MOST_POINTS)]
        curves[round] = kept, [fmean(by_step[step]) for step in kept]
    return curves


def _limit(axes: Axes, curves: Curves, accuracy: bool) -> None:
    """Leave the first steep steps outside the axis: what is compared happens later."""
    late = [value for _, values in curves.values() for value in values[len(values) // 10 :]]
    low, high = min(late), max(late)
    room = 0.05 * (high - low) or 0.01
    everything = [value for _, values in curves.values() for value in values]
    axes.set_ylim(
        (low if accuracy else min(everything)) - room,
        (max(everything) if accuracy else high) + room,
    )


def _density_colours(figure: Figure, axes: Axes, densities: Sequence[float]) -> Callable[[float], Any]:
    lowest = min(min(densities), 0.9)
    scale = LogNorm(lowest, 1.0)
    bar = figure.colorbar(
        ScalarMappable(scale, SHADES), ax=axes, label="density: prunable weights left (%)", aspect=30, pad=0.02
    )
    marks = [mark for mark in (1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001) if mark >= lowest]
    bar.ax.yaxis.set_major_locator(FixedLocator(marks))
    bar.ax.yaxis.set_minor_locator(NullLocator())
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g}"))
    return lambda density: SHADES(float(scale(density)))


def _effective(rows: Sequence[LayerRow]) -> float:
    live = [row.effective_density for row in rows if row.effective_density is not None]
    return fmean(live) if live else float("nan")

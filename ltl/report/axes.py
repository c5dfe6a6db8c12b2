"""The kinds of axis that figures have: density, percent, steps."""

from collections.abc import Sequence

import matplotlib
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from ltl.report.words import count, percent


def density_axis(axes: Axes, densities: Sequence[float]) -> None:
    """Make x a reversed log axis of densities with a tick at each measured one, labelled wherever there is room."""
    measured = sorted({density for density in densities if density > 0}, reverse=True)
    axes.set_xscale("log")
    axes.set_xlim(max(measured) * 1.12, min(measured) / 1.12)
    # A label takes 3.1 em with its gap; 0.55 inches are the other axis'.
    labels = (matplotlib.rcParams["figure.figsize"][0] - 0.55) * 72 / matplotlib.rcParams["xtick.labelsize"] / 3.1
    apart = (max(measured) / min(measured)) ** (1 / labels)
    labelled: list[float] = []
    for density in measured:
        if not labelled or labelled[-1] / density >= apart * 0.999:
            labelled.append(density)
    axes.xaxis.set_major_locator(FixedLocator(labelled))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: percent(value)))
    axes.xaxis.set_minor_locator(FixedLocator([density for density in measured if density not in labelled]))
    axes.xaxis.set_minor_formatter(FuncFormatter(lambda value, _: ""))
    axes.set_xlabel("density: prunable weights left (%)")


def key_axis(axes: Axes, values: Sequence[float], label: str) -> None:
    """Make x a log axis with a tick at each value of a key that a sweep varies; a linear one if one is not above 0."""
    measured = sorted(set(values))
    if measured[0] > 0:
        axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(measured))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(label)


def percent_axis(axes: Axes, label: str) -> None:
    """Make y an axis of percent."""
    axes.yaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 2.5, 5, 10]))
    axes.set_ylabel(f"{label} (%)")


def step_axis(axes: Axes, which: str, label: str) -> None:
    """Make an axis of optimiser steps with spaces between thousands."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    # A label takes 4.5 em with its gap; 1.3 inches are the other axis' and the colour bar's.
    em = matplotlib.rcParams["xtick.labelsize"] / 72
    most = int((matplotlib.rcParams["figure.figsize"][0] - 1.3) / em / 4.5) if which == "x" else 6
    axis.set_major_locator(MaxNLocator(most, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(FuncFormatter(lambda value, _: count(value)))
    axis.set_label_text(label)


def percent_log_axis(axes: Axes, label: str) -> None:
    """Make y a log axis of percent, for values that are fractions."""
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    # 1, 2 and 5 would leave an axis of less than half a decade with one label or none.
    digits = range(1, 10) if high < 4 * low else (1, 2, 5)
    marks = [digit * 10.0**power for power in range(-6, 1) for digit in digits if digit * 10.0**power <= 1]
    axes.yaxis.set_major_locator(FixedLocator([mark for mark in marks if low <= mark <= high]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g}"))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_ylabel(f"{label} (%)")

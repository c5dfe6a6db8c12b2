"""How lines are drawn: side by side, with bars or single trials, and beside the dense level."""

import math
from collections.abc import Callable, Sequence

import matplotlib
from matplotlib.axes import Axes

from ltl.report.axes import density_axis
from ltl.report.canvas import COLOURS, DASHES, GREY, MARKERS, note
from ltl.report.series import Point, Series

Axis = Callable[[Axes, Sequence[float]], None]


def draw(
    axes: Axes,
    lines: Sequence[Series],
    *,
    dense: Point | None,
    level: str = "dense network (all weights)",
    floor: float = 0.0,
    most: float = math.inf,
    from_zero: bool = False,
    axis: Axis = density_axis,
) -> None:
    """Draw all lines and the dense `level`, and say in words what lies below `floor` or reaches beyond the axis.

    No value is higher than `most`, though the end of an interval may be.
    """
    if dense is not None:
        if dense.bar is not None:
            axes.axhspan(*dense.bar, color=GREY, alpha=0.13, linewidth=0)
        thin = 0.7 * matplotlib.rcParams["lines.linewidth"]
        axes.axhline(dense.mean, color=GREY, linestyle=(0, (4, 2)), linewidth=thin, label=level)
    draw_points(axes, lines, axis)
    means = [point.mean for line in lines for point in line.points]
    ends = [point.ends for line in lines for point in line.points]
    lowest, highest = min(low for low, _ in ends), max(high for _, high in ends)
    spread = max(max(means) - max(min(means), floor), 0.02 * max(means))
    low, high = max(lowest, floor, min(means) - 1.5 * spread), min(highest, max(means) + 1.5 * spread, most)
    if from_zero:
        low = 0.0
    edge = 0.06 * (high - low) or 0.5  # equal values have no range of their own
    axes.set_ylim(low - edge * (not from_zero), high + edge)
    hidden = [mean for mean in means if mean < low]
    if hidden:
        lie = "1 point lies" if len(hidden) == 1 else f"{len(hidden)} points lie"
        note(axes, f"{lie} below this axis, down to {min(hidden):.1f}%")
    elif lowest < low or highest > high:
        bars = any(point.bar for line in lines for point in line.points)
        note(axes, f"some {'bars reach' if bars else 'trials lie'} beyond this axis")


def draw_points(axes: Axes, lines: Sequence[Series], axis: Axis = density_axis) -> None:
    """Draw each line's means with their bars, or the single trials where there is none, and the log axis below."""
    thin, dash = 0.6 * matplotlib.rcParams["lines.linewidth"], 1.8 * matplotlib.rcParams["lines.markersize"]
    for index, line in enumerate(lines):
        colour, marker = COLOURS[line.place % len(COLOURS)], MARKERS[line.place % len(MARKERS)]
        # Arms stand side by side at a value of x, or their bars would hide one another.
        aside = 1.012 ** (index - (len(lines) - 1) / 2)
        x = [point.x / aside for point in line.points]
        y = [point.mean for point in line.points]
        dashes = DASHES[min(line.place // len(COLOURS), len(DASHES) - 1)]
        axes.plot(x, y, color=colour, marker=marker, ls=dashes, label=line.label, zorder=3 + len(lines) - index)
        for at, point in zip(x, line.points, strict=True):
            if point.hollow:
                axes.plot(at, point.mean, marker, color=colour, markerfacecolor="white", zorder=20)
            if point.bar is not None:
                axes.plot([at, at], point.bar, color=colour, linewidth=thin, zorder=2)
            elif len(point.values) > 1:
                axes.plot([at] * len(point.values), list(point.values.values()), "_", color=colour, ms=dash, zorder=2)
    axis(axes, [point.x for line in lines for point in line.points])


def floor(lines: Sequence[Series]) -> float:
    """Return the lowest value worth a place on the axis: an arm that collapses must not flatten what is compared."""
    first = [point.mean for point in lines[0].points]
    lowest = min(point.mean for line in lines for point in line.points)
    room = max(3.0, 3 * (max(first) - min(first)))
    return max(max(first) - room, 0.0) if max(first) - lowest > 1.5 * room else 0.0

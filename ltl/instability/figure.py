"""The figure of instability against density, and the words for it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from ltl.report.axes import COLOURS, GREY, MARKERS, Drawing, canvas, density_axis, percent_axis, save
from ltl.report.statistics import FEWEST_TRIALS, Interval, one_sided, two_sided

STABLE = 0.02  # of error: Frankle et al. 2020, §3


def word(values: Sequence[float]) -> str:
    """Return whether networks of instabilities `values`, one for each start, are stable: one-sided 95% bounds."""
    if len(values) < FEWEST_TRIALS:
        return f"not judged (n = {len(values)})"
    bounds = one_sided(values)
    return "stable" if bounds.high < STABLE else "unstable" if bounds.low > STABLE else "undecided"


def draw(splits: Mapping[str, Sequence[tuple[float, Sequence[float]]]], title: str, folder: Path) -> Drawing:
    """Draw instability (%) against density, one line for each split of the data: (density, values by start)."""
    with canvas("Instability to SGD noise", title, []) as (figure, axes):
        axes.axhline(100 * STABLE, color=GREY, linestyle=(0, (4, 2)), linewidth=1.3, label="2%: stable below")
        densities: list[float] = []
        for index, (split, points) in enumerate(splits.items()):
            x, shown = [density for density, _ in points], [_percent(values) for _, values in points]
            densities += x
            colour, marker = COLOURS[index], MARKERS[index]
            axes.plot(x, [one.mean for one in shown], color=colour, marker=marker, markersize=5, label=f"{split} error")
            for density, one in zip(x, shown, strict=True):
                if one.n >= FEWEST_TRIALS:
                    axes.plot([density, density], [one.low, one.high], color=colour, linewidth=1.1)
        density_axis(axes, densities)
        percent_axis(axes, "rise of error between two copies")
        figure.legend(loc="outside lower left", ncols=1)
        return save(
            figure,
            folder,
            "instability",
            "Highest error on the straight line between two networks trained from the same weights and mask in other "
            "data orders, less the mean error of the two. Bars are 95% confidence intervals over starts.",
        )


def _percent(values: Sequence[float]) -> Interval:
    return two_sided([100 * value for value in values])

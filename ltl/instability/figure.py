"""The figure of instability against density, and the words for it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from ltl.report.axes import density_axis, percent_axis
from ltl.report.canvas import COLOURS, GREY, MARKERS, Drawing, Sheet, Words, canvas, legend, save
from ltl.report.statistics import FEWEST_TRIALS, one_sided, two_sided
from ltl.report.widths import WIDTHS

STABLE = 0.02  # of error: Frankle et al. 2020, §3


def word(values: Sequence[float]) -> str:
    """Return whether networks of instabilities `values`, one for each start, are stable: one-sided 95% bounds."""
    if len(values) < FEWEST_TRIALS:
        return f"not judged (n = {len(values)})"
    bounds = one_sided(values)
    return "stable" if bounds.high < STABLE else "unstable" if bounds.low > STABLE else "undecided"


def draw(splits: Mapping[str, Sequence[tuple[float, Sequence[float]]]], subtitle: str, folder: Path) -> Drawing:
    """Draw instability (%) against density, one line for each split of the data: (density, values by start)."""
    caption = (
        "Highest error on the straight line between two networks trained from the same weights and mask in other data "
        "orders, less the mean error of the two. Bars are 95% confidence intervals over starts."
    )
    data = []
    with canvas(Sheet(folder, WIDTHS["page"], pdf=True)) as (figure, axes):
        axes.axhline(100 * STABLE, color=GREY, linestyle=(0, (4, 2)), linewidth=1.3, label="2%: stable below")
        for index, (split, points) in enumerate(splits.items()):
            shown = [two_sided([100 * value for value in values]) for _, values in points]
            for (density, _), one in zip(points, shown, strict=True):
                judged = one.n >= FEWEST_TRIALS
                if judged:
                    axes.plot([density, density], [one.low, one.high], color=COLOURS[index], linewidth=1.1)
                ends = {"low": one.low if judged else None, "high": one.high if judged else None}
                data.append({"split": split, "density": density, "unit": "%", "mean": one.mean, **ends, "n": one.n})
            means = [one.mean for one in shown]
            densities = [density for density, _ in points]
            axes.plot(densities, means, color=COLOURS[index], marker=MARKERS[index], label=f"{split} error")
        density_axis(axes, [density for points in splits.values() for density, _ in points])
        percent_axis(axes, "rise of error between two copies")
        legend(figure, axes)
        words = Words("Instability to SGD noise", subtitle, caption, [])
        return save(figure, Sheet(folder, WIDTHS["page"], pdf=True), "instability", words, data)

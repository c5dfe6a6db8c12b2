"""The figures of instability and of error along the lines, and the words for it."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from ltl.instability.lines import Kind, Line, instability
from ltl.report.axes import density_axis, percent_axis
from ltl.report.canvas import COLOURS, GREY, MARKERS, SHADES, Drawing, Sheet, Words, canvas, legend, save
from ltl.report.statistics import FEWEST_TRIALS, one_sided, two_sided
from ltl.report.widths import WIDTHS
from ltl.report.words import count, percent

STABLE = 0.02  # of error: Frankle et al. 2020, §3


def word(values: Sequence[float]) -> str:
    """Return whether networks of instabilities `values`, one for each start, are stable: one-sided 95% bounds."""
    if len(values) < FEWEST_TRIALS:
        return f"not judged (n = {len(values)})"
    bounds = one_sided(values)
    return "stable" if bounds.high < STABLE else "unstable" if bounds.low > STABLE else "undecided"


class Start(NamedTuple):
    """The means over the pairs of one start: instabilities, and test errors along the line at `alphas`."""

    test: float
    train: float
    alphas: Sequence[float]
    errors: Sequence[float]

    @classmethod
    def of(cls, lines: Sequence[Line]) -> "Start":
        """Average the lines between pairs that share a start."""
        return cls(
            fmean(instability(one.test) for one in lines),
            fmean(instability(one.train) for one in lines),
            lines[0].alphas,
            [fmean(errors) for errors in zip(*(one.test for one in lines), strict=True)],
        )


class Measured(NamedTuple):
    """What was measured of one kind of network."""

    kind: Kind
    starts: Sequence[Start]


def draw(measured: Sequence[Measured], subtitle: str, cautions: Sequence[str], folder: Path) -> Drawing:
    """Draw instability (%): against the step k of the starts if there are several, else against density."""
    steps = sorted({kind.step for kind, _ in measured})
    series: dict[str, list[tuple[float, list[float]]]] = {}
    for kind, starts in measured:
        arm, at = kind.arm.replace("_", " "), f"density {percent(kind.density)}%"
        for split, values in (("test", [one.test for one in starts]), ("train", [one.train for one in starts])):
            label = f"{arm}, {at}, {split} error" if len(steps) > 1 else f"{arm}, {split} error"
            series.setdefault(label, []).append((kind.step if len(steps) > 1 else kind.density, values))
    caption = (
        "Highest error on the straight line between two networks trained from the same weights and mask in other data "
        "orders, less the mean error of the two. Bars are 95% confidence intervals over starts."
    )
    data, sheet = [], Sheet(folder, WIDTHS["page"], pdf=True)
    with canvas(sheet) as (figure, axes):
        axes.axhline(100 * STABLE, color=GREY, linestyle=(0, (4, 2)), linewidth=1.3, label="2%: stable below")
        for index, (label, points) in enumerate(series.items()):
            colour, marker = COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
            shown = [two_sided([100 * value for value in values]) for _, values in points]
            places = [steps.index(int(place)) if len(steps) > 1 else place for place, _ in points]
            for place, (measured_at, _), one in zip(places, points, shown, strict=True):
                judged = one.n >= FEWEST_TRIALS
                if judged:
                    axes.plot([place, place], [one.low, one.high], color=colour, linewidth=1.1)
                ends = {"low": one.low if judged else None, "high": one.high if judged else None}
                where = {"rewind_step" if len(steps) > 1 else "density": measured_at}
                data.append({"series": label, **where, "unit": "%", "mean": one.mean, **ends, "n": one.n})
            axes.plot(places, [one.mean for one in shown], color=colour, marker=marker, label=label)
        if len(steps) > 1:
            axes.set_xticks(range(len(steps)), [count(step) for step in steps])
            axes.set_xlabel("step k of the weights that the copies began from")
        else:
            density_axis(axes, [kind.density for kind, _ in measured])
        percent_axis(axes, "rise of error between two copies")
        legend(figure, axes)
        words = Words("Instability to SGD noise", subtitle, caption, cautions)
        return save(figure, sheet, "instability", words, data)


def draw_lines(measured: Sequence[Measured], subtitle: str, cautions: Sequence[str], folder: Path) -> Drawing:
    """Draw test error (%) along the lines, a curve for each kind of network: the mean over its starts."""
    caption = (
        "Test error of (1 − α)·a + α·b on the way from one network, a, to another, b, that was trained from the same "
        "weights and mask in another data order: means over starts."
    )
    data, sheet = [], Sheet(folder, WIDTHS["page"], pdf=True)
    with canvas(sheet) as (figure, axes):
        for index, (kind, starts) in enumerate(measured):
            colour = COLOURS[index] if len(measured) <= len(COLOURS) else SHADES(index / (len(measured) - 1))
            marker = MARKERS[index % len(MARKERS)]
            errors = [100 * fmean(one) for one in zip(*(start.errors for start in starts), strict=True)]
            axes.plot(starts[0].alphas, errors, color=colour, marker=marker, markersize=4, label=str(kind))
            for alpha, error in zip(starts[0].alphas, errors, strict=True):
                data.append({"kind": str(kind), "alpha": alpha, "unit": "%", "mean": error, "n": len(starts)})
        axes.set_xlabel("α: place on the line from one copy (0) to the other (1)")
        percent_axis(axes, "test error")
        legend(figure, axes)
        words = Words("Error between two copies", subtitle, caption, cautions)
        return save(figure, sheet, "error_along_lines", words, data)

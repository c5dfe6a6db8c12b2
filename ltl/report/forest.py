"""The figure of a claim's comparisons: one difference below the other, with its interval and what the claim says."""

import textwrap
from collections.abc import Sequence
from statistics import median
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.transforms import blended_transform_factory

from ltl.report.across import Across, Judged
from ltl.report.canvas import COLOURS, GREY, Drawing, Sheet, Words, canvas, letters, save
from ltl.report.statistics import FEWEST_TRIALS
from ltl.report.study import Study

_COLOURS = {"holds": COLOURS[0], "contradicted": COLOURS[1], "above": COLOURS[6], "below": COLOURS[6]}
_LINE, _POINT = 1.3, 2.2  # em: of a line of a sentence, and of the difference below it
_BAND = "#e4e4e4"


def comparisons(studies: Sequence[Study], across: Across, sheet: Sheet, name: str) -> Drawing | None:
    """Draw every measured difference of a claim in percentage points; None if there is none."""
    drawn = [each for each in across.judged if each.difference.n]
    if not drawn:
        return None
    left_out = len(across.judged) - len(drawn)
    not_drawn = f" Not drawn: {left_out} that {'is' if left_out == 1 else 'are'} not measured." if left_out else ""
    words = Words(
        "What the claim compares",
        across.claim.source,
        "Differences in percentage points, each averaged over its densities in every trial, with their verdicts. Bars: "
        "95% intervals over trials, 90% where the claim says equal; one that ends at the edge goes on. Grey: where the "
        "difference lies if the claim holds." + not_drawn,
        list(dict.fromkeys(caution for study in studies for caution in study.cautions)),
    )
    with canvas(sheet) as (figure, axes):
        em = matplotlib.rcParams["font.size"] / 72
        figure.set_figheight((_rows(axes, drawn) + 4) * em)
        axes.set_xlabel("difference (percentage points)")
        return save(figure, sheet, name, words, [_numbers(each) for each in drawn])


def _rows(axes: Axes, drawn: Sequence[Judged]) -> float:
    """Draw each sentence with its difference below it, and return the height of all in em."""
    edge = _edge(drawn)
    axes.set_xlim(-edge, edge)
    axes.yaxis.set_visible(False)
    axes.spines["left"].set_visible(False)
    axes.axvline(0, color=GREY, linewidth=0.8, zorder=1.6)  # above the grid
    across = blended_transform_factory(axes.transAxes, axes.transData)
    y = 0.0
    for each in drawn:
        lines = textwrap.wrap(f"{each.claimed.sentence}: {each.words()}", letters(columns=1))
        white = {"facecolor": "white", "edgecolor": "none", "pad": 0}
        axes.text(0, y - 0.2, "\n".join(lines), transform=across, va="top", linespacing=1.2, bbox=white)
        y -= _LINE * len(lines) + _POINT / 2
        _difference(axes, y, each, edge)
        y -= _POINT / 2
    axes.set_ylim(y, 0)
    return -y


def _difference(axes: Axes, y: float, each: Judged, edge: float) -> None:
    mean, low, high = (100 * value for value in (each.difference.mean, each.difference.low, each.difference.high))
    expected = {"equal": (-100 * each.margin, 100 * each.margin), "better": (0.0, edge)}.get(each.claimed.says)
    if expected is not None:
        axes.barh(y, expected[1] - expected[0], left=expected[0], height=0.6 * _POINT, color=_BAND, zorder=0)
    colour = _COLOURS.get(each.word, GREY)
    if _barred(each):
        axes.plot([max(low, -edge), min(high, edge)], [y, y], color=colour, solid_capstyle="butt")
    axes.plot([mean], [y], marker="o", color=colour, linestyle="none")


def _edge(drawn: Sequence[Judged]) -> float:
    """Return where the axis ends on either side: one interval may be so long that nothing else could be seen."""
    ends = [max(-each.difference.low, each.difference.high) for each in drawn if _barred(each)]
    means = [abs(each.difference.mean) for each in drawn]
    margins = [each.margin for each in drawn if each.claimed.says == "equal"]
    longest = min(max(ends), 3 * median(ends)) if ends else 0.0
    return 105 * max([*means, *margins, longest]) or 1.0


def _barred(each: Judged) -> bool:
    return each.difference.n >= FEWEST_TRIALS


def _numbers(each: Judged) -> dict[str, Any]:
    low, high = (100 * end if _barred(each) else None for end in (each.difference.low, each.difference.high))
    return {
        "comparison": each.claimed.sentence,
        "difference_pp": 100 * each.difference.mean,
        "low_pp": low,
        "high_pp": high,
        "interval_percent": 90 if each.claimed.says == "equal" else 95,
        "margin_pp": 100 * each.margin if each.claimed.says == "equal" else None,
        "n": each.difference.n,
        "verdict": each.words(),
    }

"""The figures against density: test accuracy and step of the early stop, effective density, what a step costs."""

from collections.abc import Sequence

from ltl.report import series
from ltl.report.axes import percent_axis, percent_log_axis, step_axis
from ltl.report.canvas import GREY, Drawing, Sheet, Words, canvas, legend, note, save
from ltl.report.lines import draw, draw_points, floor
from ltl.report.load import RoundRow
from ltl.report.series import Series
from ltl.report.statistics import FEWEST_TRIALS, early_stop_accuracy
from ltl.report.study import Bars, Study, common_title
from ltl.report.words import percent

_HOLLOW_WORDS = (
    "Hollow points lie in the last 5% of training in at least one trial, so that the true step may be later; "
    "they enter no claim about speed. They have no bars: their short dashes are single trials. "
)
_BARS: dict[Bars, tuple[str, str]] = {
    "interval": ("95% intervals", "are 95% confidence intervals of the mean over trials"),
    "range": ("min–max", "go from the least to the greatest of the trials (min–max)"),
}


def accuracy_against_density(study: Study, sheet: Sheet) -> Drawing | None:
    """Draw test accuracy (%) at early stop against density, with controls and dense level; None without data."""
    lines = series.arms(study, _accuracy)
    if not lines:
        return None
    caption = "Test accuracy at the step with the lowest validation loss, for each share of weights left. "
    words = _words("Test accuracy at early stop", study, lines, caption)
    with canvas(sheet) as (figure, axes):
        draw(axes, lines, dense=series.dense(lines), floor=0.0 if _has_untrained(study) else floor(lines), most=100.0)
        percent_axis(axes, "test accuracy at early stop")
        legend(figure, axes)
        return save(figure, sheet, "accuracy_vs_density", words, series.data(lines, "%", study.bars))


def early_stop_against_density(study: Study, sheet: Sheet) -> Drawing | None:
    """Draw the early-stop step against density, hollow where a trial is censored; None without data."""
    lines = series.arms(study, lambda row: row.early_stop_step if row.steps != 0 else None, hollow=True)
    if _dense_alone(study, lines):
        return None
    hollow = any(point.hollow for line in lines for point in line.points)
    caption = "Optimiser steps until the validation loss is lowest: lower is faster. " + (_HOLLOW_WORDS * hollow)
    words = _words("Early-stop step: lower is faster", study, lines, caption)
    with canvas(sheet) as (figure, axes):
        draw(axes, lines, dense=series.dense(lines), from_zero=True)
        step_axis(axes, "y", "early-stop step (optimiser steps)")
        if hollow:
            label = "hollow: still improving at the end (censored)"
            axes.plot([], [], "o", color=GREY, markerfacecolor="white", label=label)
        legend(figure, axes)
        return save(figure, sheet, "early_stop_vs_density", words, series.data(lines, "steps", study.bars))


def effective_against_density(study: Study, sheet: Sheet) -> Drawing | None:
    """Draw effective density against density, arms with masks of their own; None without data."""
    lines = series.own_masks(series.arms(study, _effective_density))
    if not lines or all(point.round == 0 for line in lines for point in line.points):
        return None
    last = lines[0].points[-1]
    caption = (
        "Share of the prunable weights that lie on a path of kept weights from input to output, against the share "
        f"kept. On the dotted line every kept weight does; of the ticket's at a density of {percent(last.density)}%, "
        f"{100 * last.mean / last.density:.1f}% do. Arms with the ticket's own masks are left out. "
    )
    words = _words("Effective density: weights on a live path", study, lines, caption, band=False)
    with canvas(sheet) as (figure, axes):
        draw_points(axes, lines)
        points = [point for line in lines for point in line.points]
        drawn = [point.density for point in points] + [point.mean for point in points if point.mean > 0]
        ends = max(point.density for point in points), min(point.density for point in points)
        axes.plot(ends, ends, color=GREY, linewidth=1, linestyle=":", label="all kept weights on a live path", zorder=1)
        axes.set_ylim(min(drawn) / 1.3, 1.3 * max(drawn))
        percent_log_axis(axes, "effective density")
        dead = sum(point.mean == 0 for point in points)
        if dead:
            note(axes, f"{dead} point{'s' * (dead > 1)} of no live path at all: 0%")
        legend(figure, axes)
        return save(figure, sheet, "effective_vs_density", words, series.data(lines, "fraction", study.bars))


def seconds_against_density(study: Study, sheet: Sheet) -> Drawing | None:
    """Draw the training time of an optimiser step (ms, the network's share) against density; None without data."""
    lines = series.arms(study, lambda row: 1000 * row.seconds / row.steps if row.seconds and row.steps else None)
    if _dense_alone(study, lines):
        return None
    caption = (
        "Training time of one optimiser step on one network (its share, where networks train side by side), for each "
        "share of weights left. Masks alone save none: dense kernels multiply zeros too. Where a perceptron is sparse "
        "enough, sparse products take over. "
    )
    words = _words("What a step costs", study, lines, caption)
    with canvas(sheet) as (figure, axes):
        draw(axes, lines, dense=series.dense(lines), from_zero=True)
        axes.set_ylabel("training time of a step (ms)")
        legend(figure, axes)
        return save(figure, sheet, "seconds_vs_density", words, series.data(lines, "ms", study.bars))


def studies_against_density(studies: Sequence[Study], sheet: Sheet) -> Drawing | None:
    """Draw the tickets of several studies together, accuracy (%) at early stop against density; None without data."""
    bars = studies[0].bars
    lines = series.tickets(studies, _accuracy, bars)
    if not lines:
        return None
    words = Words(
        "Test accuracy at early stop, side by side",
        f"{common_title(studies)} · {trials_words(lines, bars)}",
        "Test accuracy at the early-stop step of each setting's own arm, without controls. " + bars_words(bars),
        list(dict.fromkeys(caution for study in studies for caution in study.cautions)),
    )
    with canvas(sheet) as (figure, axes):
        draw(axes, lines, dense=None, floor=floor(lines), most=100.0)
        percent_axis(axes, "test accuracy at early stop")
        legend(figure, axes)
        return save(figure, sheet, "studies_vs_density", words, series.data(lines, "%", bars))


def _has_untrained(study: Study) -> bool:
    """Whether anything is evaluated untrained: far below the others, and what one wants to see."""
    return any(row.steps == 0 for row in study.rows)


def _dense_alone(study: Study, lines: Sequence[Series]) -> bool:
    """Whether nothing is drawn, or the dense network alone of what was pruned too."""
    return not any(point.round for line in lines for point in line.points) and (
        not lines or any(row.round for row in study.rows)
    )


def _accuracy(row: RoundRow) -> float | None:
    fraction = early_stop_accuracy(row)
    return None if fraction is None else 100 * fraction


def _effective_density(row: RoundRow) -> float | None:
    """Of masks alone: a small dense network as control has none."""
    return row.effective_density if row.round == 0 or row.density < 1 else None


def _words(title: str, study: Study, lines: Sequence[Series], caption: str, *, band: bool = True) -> Words:
    subtitle = f"{study.heading} · {trials_words(lines, study.bars)}"
    points = [point for line in lines for point in line.points]
    if any(point.bar for point in points):
        dense = series.dense(lines)
        also = "; the grey band is that of the dense network" if band and dense and dense.bar else ""
        caption += f"Bars {_BARS[study.bars][1]}{also}."
    elif max(len(point.values) for point in points) < FEWEST_TRIALS:
        caption += f"Fewer than {FEWEST_TRIALS} trials: no bars; short dashes are single trials."
    return Words(title, subtitle, caption.rstrip(), study.cautions)


def bars_words(bars: Bars) -> str:
    """Return what the bars are, as captions of several settings print it."""
    return f"Bars {_BARS[bars][1]}, where there are {FEWEST_TRIALS} trials or more."


def trials_words(lines: Sequence[Series], bars: Bars) -> str:
    """Return how many trials are averaged and what the bars are, as subtitles print it."""
    numbers = sorted({len(point.values) for line in lines for point in line.points})
    most = f"{numbers[0]} to {numbers[-1]}" if len(numbers) > 1 else str(numbers[0])
    if any(point.bar for line in lines for point in line.points):
        return f"mean of n = {most} trials, {_BARS[bars][0]}"
    return "n = 1 trial" if most == "1" else f"mean of n = {most} trials (dashes: each trial)"

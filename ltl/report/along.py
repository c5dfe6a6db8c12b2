"""The figure against a key that a sweep varies: accuracy of each arm and of each dense network."""

from collections import defaultdict
from collections.abc import Sequence
from functools import partial

from ltl.report import series
from ltl.report.axes import key_axis, percent_axis
from ltl.report.canvas import Drawing, Sheet, Words, canvas, legend, save
from ltl.report.claims import Claim, Reach
from ltl.report.figures import bars_words, trials_words
from ltl.report.lines import draw
from ltl.report.quantities import AT_ROUND
from ltl.report.reach import along, most_accurate
from ltl.report.series import Point, Series
from ltl.report.statistics import density_at
from ltl.report.study import Bars, Study
from ltl.report.sweep import named, the_study
from ltl.report.words import arm_words, capital, in_order

_DENSE = "dense"


def accuracy_along(studies: Sequence[Study], claim: Claim, reach: Reach, sheet: Sheet) -> Drawing | None:
    """Draw accuracy (%) of every arm and dense network against a key, and the baseline's level; None without data."""
    settings = [(value, study) for value, study in along(studies, claim, reach) if isinstance(study, Study)]
    baseline = the_study(studies, claim, reach.baseline)
    bars = studies[0].bars
    lines = _lines(settings, reach.quantity, bars)
    if not lines or not isinstance(baseline, Study):
        return None
    quantity, dense = AT_ROUND[reach.quantity], f"dense network of {named(reach.baseline)}"
    title = capital(quantity.words)
    words = Words(
        title,
        f"{baseline.title}, against {reach.along} · {trials_words(lines, bars)}",
        f"{title}{' (selected on test)' * quantity.selected_on_test} for each {reach.along}: of the dense network of "
        "that setting, with all weights trained, and of each arm at the density whose validation accuracy after the "
        f"last step is highest. The dashed line and the grey band are the {dense}, which is to be matched. "
        + bars_words(bars),
        list(dict.fromkeys(caution for _, study in settings for caution in study.cautions)),
    )
    level = _point(0, baseline, "ticket", 0, reach.quantity, bars)
    with canvas(sheet) as (figure, axes):
        draw(axes, lines, dense=level, level=dense, most=100.0, axis=partial(key_axis, label=reach.along))
        percent_axis(axes, quantity.words)
        legend(figure, axes)
        points = [point for line in lines for point in line.points]
        data = [{reach.along: point.x, **row} for point, row in zip(points, series.data(lines, "%", bars), strict=True)]
        return save(figure, sheet, f"{reach.quantity}_vs_{reach.along}", words, data)


def _lines(settings: Sequence[tuple[float, Study]], quantity: str, bars: Bars) -> list[Series]:
    """Return a line for each arm, the ticket first, and one for the dense networks."""
    points: defaultdict[str, list[Point | None]] = defaultdict(list)
    arms = in_order(row.arm for _, study in settings for row in study.rows)
    for value, study in settings:
        for arm in arms:
            points[arm].append(_point(value, study, arm, most_accurate(study.rows, arm), quantity, bars))
        points[_DENSE].append(_point(value, study, "ticket", 0, quantity, bars))
    labels = {arm: arm_words(arm, settings[0][1].first) for arm in arms} | {_DENSE: "dense network (all weights)"}
    found = [
        Series(name, labels[name], place, [point for point in points[name] if point is not None])
        for place, name in enumerate(labels)
    ]
    return [line for line in found if line.points]


def _point(x: float, study: Study, arm: str, round: int | None, quantity: str, bars: Bars) -> Point | None:
    values = {} if round is None else AT_ROUND[quantity].values(study.rows, arm, round)
    if round is None or not values:
        return None
    percents = {unit: 100 * value for unit, value in values.items()}
    return series.point(x, round, density_at(study.rows, round, arm), percents, bars)

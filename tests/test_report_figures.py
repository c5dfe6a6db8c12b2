"""The figures: what is drawn is what the rows say and the CSV beside it holds, at each width and with either bar."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from report_rows import flat, make_run
from scipy.stats import t

from ltl.errors import LtlError
from ltl.report.__main__ import main
from ltl.report.canvas import Drawing, Sheet
from ltl.report.curves import learning_curves, mask_flips
from ltl.report.figures import (
    accuracy_against_density,
    early_stop_against_density,
    effective_against_density,
    seconds_against_density,
    studies_against_density,
)
from ltl.report.findings import findings
from ltl.report.layers import density_by_layer
from ltl.report.lines import draw_points
from ltl.report.load import load
from ltl.report.series import Point, Series
from ltl.report.study import Study, studies
from ltl.report.tables import rounds_table
from ltl.report.widths import WIDTHS
from ltl.results import read_table

ARMS = {"ticket": 0.002, "reinit": -0.004, "random_mask": -0.006, "random_ticket": -0.008, "small_dense": -0.003}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Five trials, all controls in two draws, a censored round of the ticket, and an uncanonical data set."""
    folder = make_run(
        tmp_path_factory.mktemp("whole"),
        gains={arm: flat(gain) for arm, gain in ARMS.items()},
        rounds=4,
        draws=2,
        censored=lambda arm, trial, round: arm == "ticket" and round == 4 and trial == 2,
        canonical=False,
        curves=True,
    )
    [study] = studies([load(folder)])
    return study


@pytest.fixture
def sheet(tmp_path: Path) -> Sheet:
    return Sheet(tmp_path, WIDTHS["page"], pdf=False)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Figure]]:
    """The figures that are saved during a test."""
    figures: list[Figure] = []
    savefig: Callable[..., None] = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: (figures.append(self), savefig(self, *a, **k))[1])
    yield figures
    figures.clear()


def with_bars(study: Study, bars: str | None) -> Study:
    """The same study, whose config says what bars are."""
    run = study.first
    config = run.config.copy()
    config.report = {"margin": 0.002} | ({} if bars is None else {"bars": bars})
    return replace(study, runs=[replace(run, config=config)])


def table(drawing: Drawing | None) -> list[dict[str, str]]:
    assert drawing is not None
    [path] = [path for path in drawing.paths if path.suffix == ".csv"]
    return read_table(path)


def words(drawing: Drawing) -> str:
    """The words of a figure, which matplotlib leaves as comments beside their outlines."""
    return " ".join(re.findall(r"<!-- (.*?) -->", drawing.svg))


def trials(study: Study, column: str, scale: float) -> dict[tuple[str, int], list[float]]:
    """By arm and round, the value of each trial, its draws averaged: straight from rounds.csv."""
    found: defaultdict[tuple[str, int], defaultdict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in read_table(study.first.folder / "rounds.csv"):
        found[row["arm"], int(row["round"])][row["trial"]].append(scale * float(row[column]))
    return {key: [float(np.mean(draws)) for draws in by_trial.values()] for key, by_trial in found.items()}


@pytest.mark.parametrize("bars", ["interval", "range"])
@pytest.mark.parametrize(
    ("draw", "column", "scale"),
    [
        (accuracy_against_density, "early_stop_test_accuracy", 100.0),
        (early_stop_against_density, "early_stop_step", 1.0),
        (seconds_against_density, "seconds", 1000 / 50_000),
    ],
)
def test_the_csv_of_a_figure_holds_what_the_rows_say(
    whole: Study, sheet: Sheet, draw: Callable[..., Drawing], column: str, scale: float, bars: str
) -> None:
    """Means and 95% t intervals by scipy, or least and greatest; every arm and round."""
    rows = table(draw(with_bars(whole, bars), sheet))
    expected = trials(whole, column, scale)
    assert {(row["series"], int(row["round"])) for row in rows} == set(expected)
    for row in rows:
        values = expected[row["series"], int(row["round"])]
        assert float(row["mean"]) == pytest.approx(np.mean(values))
        assert (float(row["density"]), int(row["n"])) == (pytest.approx(0.8 ** int(row["round"])), 5)
        if row["hollow"] == "1":
            assert (row["series"], row["round"], row["low"], row["bar"]) == ("ticket", "4", "", "")
            assert [float(value) for value in row["trials"].split()] == pytest.approx(values)
            continue
        error = np.std(values, ddof=1) / np.sqrt(5)
        ends = t.interval(0.95, 4, np.mean(values), error) if error else (values[0], values[0])
        ends = ends if bars == "interval" else (min(values), max(values))
        assert (float(row["low"]), float(row["high"])) == pytest.approx(ends)
        assert (row["bar"], row["trials"]) == (bars, "")
    assert any(row["hollow"] == "1" for row in rows) is (draw is early_stop_against_density)


@pytest.mark.parametrize("bars", ["interval", "range"])
def test_the_csv_holds_exactly_the_numbers_drawn(whole: Study, sheet: Sheet, drawn: list[Figure], bars: str) -> None:
    """Means on the lines and ends of the bars, to the last digit; arms stand beside one another by under 3%."""
    rows = table(accuracy_against_density(with_bars(whole, bars), sheet))
    lines = drawn[0].axes[0].lines
    means, ends = {}, set()
    for line in lines:
        y = [float(value) for value in line.get_ydata()]  # type: ignore[union-attr]
        if line.get_label() and not str(line.get_label()).startswith("_"):
            means[str(line.get_label())] = y
        elif len(y) == 2:
            ends.add((y[0], y[1]))
    own = [float(row["mean"]) for row in rows if row["series"] == "ticket"]
    assert means["ticket (IMP, rewound to θ₀)"] == own
    assert means["dense network (all weights)"] == [own[0], own[0]]
    assert means["same mask, fresh initialisation"] == [float(row["mean"]) for row in rows if row["series"] == "reinit"]
    assert ends == {(float(row["low"]), float(row["high"])) for row in rows}


def test_learning_curves_and_layers_have_their_csv(whole: Study, sheet: Sheet, drawn: list[Figure]) -> None:
    """Means over trials of metrics.csv and layers.csv, and the lines drawn."""
    folder = whole.first.folder
    for column, scale in (("val_accuracy", 100.0), ("val_loss", 1.0)):
        found: defaultdict[tuple[int, float], list[float]] = defaultdict(list)
        for row in read_table(folder / "metrics.csv"):
            found[int(row["round"]), float(row["step"])].append(scale * float(row[column]))
        rows = table(learning_curves(whole, sheet, column))  # type: ignore[arg-type]
        assert {(int(row["round"]), float(row["step"])) for row in rows} == set(found)
        assert all(
            float(row["mean"]) == pytest.approx(np.mean(found[int(row["round"]), float(row["step"])]))
            and int(row["n"]) == 5
            for row in rows
        )
        first = [float(row["mean"]) for row in rows if row["round"] == "0"]
        assert list(drawn[-1].axes[0].lines[0].get_ydata()) == first
    rows = table(density_by_layer(whole, sheet))
    assert len(rows) == 3 * 5
    for row in rows:
        assert float(row["density"]) == pytest.approx(0.8 ** int(row["round"]))
        own = float(row["density"]) ** (0.5 if row["layer"] == "output" else 1)
        assert float(row["layer_density"]) == pytest.approx(own)
        assert float(row["layer_effective_density"]) == pytest.approx(0.95 * own)


def test_changes_of_the_mask_are_drawn_where_scores_are_trained(
    whole: Study, sheet: Sheet, drawn: list[Figure]
) -> None:
    """Means over trials by step; not of the dense round, and no figure at all of a search without scores."""
    assert mask_flips(whole, sheet) is None
    flips = [
        replace(row, mask_flips=None if row.round == 0 else (50_000 - row.step) / 10**6 * (1 + row.trial))
        for row in whole.metrics
    ]
    drawing = mask_flips(replace(whole, metrics=flips), sheet)
    rows = table(drawing)
    assert {row["round"] for row in rows} == {"1", "2", "3", "4"}
    for row in rows:
        assert float(row["mean"]) == pytest.approx((50_000 - float(row["step"])) / 10**6 * 3)
        assert (row["unit"], row["n"]) == ("fraction", "5")
    assert list(drawn[0].axes[0].lines[0].get_ydata()) == [float(row["mean"]) for row in rows if row["round"] == "1"]
    assert drawn[0].axes[0].get_yscale() == "log"
    assert drawing is not None
    assert "4 points without any change lie below this axis" in words(drawing)
    assert "since the evaluation before, every 100it" in drawing.caption
    still = [replace(row, mask_flips=0.0) for row in whole.metrics]
    assert mask_flips(replace(whole, metrics=still), sheet) is None


def effective(study: Study, arm: str, value: Callable[[int, int], float]) -> Study:
    """The study with another effective density of `arm`: a function of round and trial."""
    rows = [
        replace(row, effective_density=value(row.round, row.trial)) if row.arm == arm else row for row in study.rows
    ]
    return replace(study, rows=rows)


def test_effective_density_compares_arms_with_masks_of_their_own(
    whole: Study, sheet: Sheet, drawn: list[Figure]
) -> None:
    """A reinitialised mask has the ticket's, a small dense network has none; the diagonal beside them."""
    study = effective(whole, "random_mask", lambda round, trial: 0.8**round * (0.9 - 0.01 * trial))
    rows = [replace(row, density=1.0, effective_density=1.0) if row.arm == "small_dense" else row for row in study.rows]
    drawing = effective_against_density(replace(study, rows=rows), sheet)
    found = table(drawing)
    assert {row["series"] for row in found} == {"ticket", "random_mask"}
    for row in found:
        density, random = float(row["density"]), row["series"] == "random_mask"
        assert float(row["mean"]) == pytest.approx(density * (0.88 if random else 0.98))
        half = t.ppf(0.975, 4) * density * np.std([0.9, 0.89, 0.88, 0.87, 0.86], ddof=1) / np.sqrt(5)
        assert float(row["high"]) - float(row["mean"]) == pytest.approx(half * random, abs=1e-12)
    diagonal = {line.get_label(): line for line in drawn[0].axes[0].lines}["all kept weights on a live path"]
    assert list(diagonal.get_xdata()) == list(diagonal.get_ydata())
    accuracy_against_density(whole, sheet)
    colours = [colour_of(figure, "random mask, same layer densities") for figure in (drawn[0], drawn[-1])]
    assert colours[0] == colours[1] != colour_of(drawn[-1], "same mask, fresh initialisation")
    assert drawing is not None and "of the ticket's at a density of 41.0%, 98.0% do" in drawing.caption


def colour_of(figure: Figure, label: str) -> object:
    [colour] = [line.get_color() for line in figure.axes[0].lines if line.get_label() == label]
    return colour


def test_masks_without_a_live_path_are_said_in_words(whole: Study, sheet: Sheet) -> None:
    """0 has no place on a log axis."""
    drawing = effective_against_density(effective(whole, "random_mask", lambda round, _: 0.5 * (round < 3)), sheet)
    assert drawing is not None
    assert "2 points of no live path at all: 0%" in words(drawing)


def test_without_an_effective_density_there_is_no_figure_of_it(whole: Study, sheet: Sheet) -> None:
    rows = [replace(row, effective_density=None) for row in whole.rows]
    assert effective_against_density(replace(whole, rows=rows), sheet) is None


@pytest.mark.parametrize(("name", "inches"), [("page", 5.2), ("one-column", 3.25), ("two-column", 6.75)])
def test_a_figure_has_the_width_of_its_column(
    whole: Study, tmp_path: Path, drawn: list[Figure], name: str, inches: float
) -> None:
    """In SVG and PDF, in points; no letter under 8 points, no words outside; a paper has the title in its caption."""
    drawing = accuracy_against_density(whole, Sheet(tmp_path, WIDTHS[name], pdf=True))
    assert drawing is not None
    points = re.search(r'<svg [^>]*width="([\d.]+)pt"', drawing.svg)
    box = re.search(rb"/MediaBox \[ 0 0 ([\d.]+) ", (tmp_path / "accuracy_vs_density.pdf").read_bytes())
    assert points is not None and box is not None
    assert float(points[1]) == pytest.approx(72 * inches) == float(box[1])
    sizes = {text.get_fontsize() for text in texts(drawn[0])}
    assert min(sizes) >= 8 and (name == "page" or max(sizes) <= 9)
    assert_inside(drawn[0])
    said = words(drawing)
    assert "not the canonical files" in said
    assert ("Test accuracy at early stop" in said) is (name == "page")
    start = "Test accuracy at early stop. LeNet-300-100 on MNIST, IMP · mean of n = 5 trials, 95% intervals. "
    assert drawing.caption.startswith(start) is (name != "page")


def texts(figure: Figure) -> list[Text]:
    """The words of a figure: those around it, at its axes, and in its legend."""
    axes = [
        (one.xaxis.label, one.yaxis.label, *one.texts, one._left_title, *one.get_xticklabels()) for one in figure.axes
    ]  # type: ignore[attr-defined]
    found = [*figure.texts, *(text for each in axes for text in each)]
    return [text for text in found + [t for legend in figure.legends for t in legend.get_texts()] if text.get_text()]


def assert_inside(figure: Figure) -> None:
    figure.draw_without_rendering()
    for text in texts(figure):
        box = text.get_window_extent()
        assert box.x0 > -1 and box.x1 < figure.bbox.x1 + 1, text
        assert box.y0 > -1 and box.y1 < figure.bbox.y1 + 1, text


def test_bars_say_what_they_are_and_change_no_verdict(whole: Study, sheet: Sheet) -> None:
    """On the figure and in its caption; sentences and tables stay as they are."""
    interval, ranges = with_bars(whole, "interval"), with_bars(whole, "range")
    for study, short, long in (
        (interval, "mean of n = 5 trials, 95% intervals", "Bars are 95% confidence intervals of the mean over trials"),
        (ranges, "mean of n = 5 trials, min–max", "Bars go from the least to the greatest of the trials (min–max)"),
    ):
        drawing = accuracy_against_density(study, sheet)
        assert drawing is not None
        assert short in words(drawing)
        assert f"{long}; the grey band is that of the dense network." in drawing.caption
    assert findings(interval) == findings(ranges)
    assert rounds_table(interval) == rounds_table(ranges)
    joint = studies_against_density([ranges, replace(interval, label="other")], sheet)
    assert joint is not None and "LeNet-300-100 on MNIST · mean of n = 5 trials, min–max" in words(joint)
    assert "least to the greatest" in joint.caption
    assert {row["bar"] for row in table(joint)} == {"range"}


def test_where_every_point_is_hollow_no_bars_are_spoken_of(tmp_path: Path, sheet: Sheet) -> None:
    """Three trials or more, but none of their means has a bar."""
    [study] = studies([load(make_run(tmp_path, rounds=2, censored=lambda arm, trial, round: True))])
    drawing = early_stop_against_density(study, sheet)
    assert drawing is not None and {row["bar"] for row in table(drawing)} == {""}
    assert "mean of n = 5 trials (dashes: each trial)" in words(drawing)
    assert drawing.caption.endswith("They have no bars: their short dashes are single trials.")
    assert "Fewer than" not in drawing.caption


def test_a_run_older_than_the_key_has_intervals(whole: Study) -> None:
    assert with_bars(whole, None).bars == "interval"
    with pytest.raises(LtlError, match=r"report\.bars is many in .*config\.yaml: give interval or range"):
        assert with_bars(whole, "many").bars


def test_runs_that_differ_in_their_bars_are_one_study(tmp_path: Path) -> None:
    runs = [
        load(make_run(tmp_path / bars, trials=1, rounds=1, config={"report": {"bars": bars}, "seed": seed}))
        for seed, bars in enumerate(("interval", "range"))
    ]
    [study] = studies(runs)
    assert (study.trials, study.bars) == (2, "interval")


def test_the_command_draws_at_the_width_that_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(tmp_path, rounds=0)
    (tmp_path / "layers.csv").unlink()
    assert main([str(tmp_path), "--out", str(tmp_path / "paper"), "--width", "two-column"]) == 0
    assert b"/MediaBox [ 0 0 486 " in (tmp_path / "paper/figures/accuracy_vs_density.pdf").read_bytes()
    assert "<figcaption>Test accuracy at early stop. LeNet" in (tmp_path / "paper/report.html").read_text()
    with pytest.raises(SystemExit) as stop:
        main([str(tmp_path), "--width", "wide"])
    assert stop.value.code == 2
    assert "choose from" in capsys.readouterr().err


def test_fourteen_lines_look_different() -> None:
    """By colour, marker and dashes: the legend tells which is which."""
    axes = Figure().subplots()
    points = [Point(density, 0, density, 90.0, None, {"": 90.0}, False) for density in (1.0, 0.5)]
    with mpl.rc_context({"xtick.labelsize": 8}):
        draw_points(axes, [Series(f"{place}", f"line {place}", place, points) for place in range(14)])
    named = [line for line in axes.lines if str(line.get_label()).startswith("line")]
    assert len({(line.get_color(), line.get_marker(), line.is_dashed()) for line in named}) == len(named) == 14


def test_a_long_label_is_wrapped_inside_the_legend(whole: Study, tmp_path: Path, drawn: list[Figure]) -> None:
    """A sweep over many keys names its settings by all of them."""
    label = ", ".join(f"optimizer.key_{number}=0.0012" for number in range(6))
    sheet = Sheet(tmp_path, WIDTHS["one-column"], pdf=False)
    assert studies_against_density([replace(whole, label=label), replace(whole, label="short")], sheet) is not None
    assert_inside(drawn[0])


def test_an_arm_just_below_the_others_stays_on_the_axis(tmp_path: Path) -> None:
    """Only one that collapses is left outside: the figure has no gap for its sake."""
    gains: dict[str, Any] = {"ticket": flat(0.0), "reinit": lambda round: -0.04 if round == 3 else 0.0}
    [study] = studies([load(make_run(tmp_path, rounds=3, gains=gains))])
    drawing = accuracy_against_density(study, Sheet(tmp_path, WIDTHS["page"], pdf=False))
    assert drawing is not None
    assert "below this axis" not in words(drawing)


def test_an_arm_that_is_not_trained_has_its_place_on_the_axis(tmp_path: Path) -> None:
    """All of it, for it is no arm that collapses on the way."""
    fall: dict[str, Any] = {"ticket": flat(0.0), "untrained": lambda round: -0.2 * round}
    run = load(make_run(tmp_path, rounds=3, gains=fall))
    [study] = studies([run])
    idle = [replace(row, steps=0.0) if row.arm == "untrained" else row for row in study.rows]
    for train, rows in ((True, study.rows), (False, idle)):
        drawing = accuracy_against_density(replace(study, rows=rows), Sheet(run.folder, WIDTHS["page"], pdf=False))
        assert drawing is not None
        assert ("below this axis" in words(drawing)) is train


def test_tickets_that_are_not_trained_have_no_figure_of_their_training(whole: Study, sheet: Sheet) -> None:
    """Heuristic supermasks: the dense network alone has a step of its early stop, and seconds."""
    idle = [replace(row, steps=0.0 if row.round else row.steps) for row in whole.rows]
    for draw in (early_stop_against_density, seconds_against_density):
        assert draw(whole, sheet) is not None
        assert draw(replace(whole, rows=idle), sheet) is None
        assert draw(replace(whole, rows=[row for row in whole.rows if not row.round]), sheet) is not None


def test_an_axis_of_accuracies_ends_at_100_percent(whole: Study, sheet: Sheet, drawn: list[Figure]) -> None:
    """Whatever an interval says of trials that differ widely."""
    rows = [
        replace(row, early_stop_test_accuracy=0.5 if (row.trial, row.round) == (4, 2) else 0.99) for row in whole.rows
    ]
    drawing = accuracy_against_density(replace(whole, rows=rows), sheet)
    assert max(float(row["high"]) for row in table(drawing) if row["high"]) > 100
    _, high = drawn[0].axes[0].get_ylim()
    assert 100 < high < 107
    assert drawing is not None and "some bars reach beyond this axis" in words(drawing)


@pytest.mark.parametrize(
    ("steps", "beyond"), [([2100, 2600, 4100, 5600, 6100], False), ([100, 100, 6000, 9000, 15000], True)]
)
def test_a_bar_is_said_to_reach_beyond_the_axis_where_it_does(
    whole: Study, sheet: Sheet, drawn: list[Figure], steps: list[int], beyond: bool
) -> None:
    """An axis of steps begins at 0."""
    rows = [
        replace(row, early_stop_step=steps[row.trial] if row.round == 2 else 4000.0 + 250 * row.round)
        for row in whole.rows
    ]
    drawing = early_stop_against_density(replace(whole, rows=rows), sheet)
    low, high = drawn[0].axes[0].get_ylim()
    ends = [float(row[end]) for row in table(drawing) for end in ("low", "high") if row[end]]
    assert bool(min(ends) < low or max(ends) > high) is beyond
    assert drawing is not None and ("some bars reach beyond this axis" in words(drawing)) is beyond
    assert low == 0
    late = [replace(row, early_stop_censored=True) for row in rows]  # no bars, a dash for each trial
    drawing = early_stop_against_density(replace(whole, rows=late), sheet)
    assert drawing is not None and ("some trials lie beyond this axis" in words(drawing)) is beyond


@pytest.mark.parametrize("name", ["page", "one-column"])
@pytest.mark.parametrize("rounds", [1, 2, 3, 6])
def test_shares_of_a_few_rounds_can_be_read_off(tmp_path: Path, drawn: list[Figure], rounds: int, name: str) -> None:
    """Labels on the log axes and on the colour bar: more than 100%, and none on another."""
    [study] = studies([load(make_run(tmp_path, rounds=rounds, curves=True))])
    sheet = Sheet(tmp_path, WIDTHS[name], pdf=False)
    for drawing in (density_by_layer, effective_against_density, lambda *a: learning_curves(*a, "val_loss")):
        drawing(study, sheet)
        figure = drawn[-1]
        figure.draw_without_rendering()
        axes = figure.axes[-1]  # the colour bar, where there is one
        low, high = axes.get_ylim()
        labels = [label for label in axes.get_yticklabels() if low <= label.get_position()[1] <= high]
        assert len(labels) >= 2 and "100" in {label.get_text() for label in labels}
        boxes = sorted((label.get_window_extent() for label in labels), key=lambda box: box.y0)
        assert all(above.y0 > below.y1 for below, above in pairwise(boxes))


def test_a_dense_network_has_no_figure_of_where_weights_are_left(tmp_path: Path, sheet: Sheet) -> None:
    [study] = studies([load(make_run(tmp_path, rounds=0))])
    assert density_by_layer(study, sheet) is None


def test_empty_cells_stay_empty(whole: Study, sheet: Sheet) -> None:
    """A layer without an effective density."""
    layers = [replace(row, effective_density=None) for row in whole.layers]
    rows = table(density_by_layer(replace(whole, layers=layers), sheet))
    assert {row["layer_effective_density"] for row in rows} == {""}

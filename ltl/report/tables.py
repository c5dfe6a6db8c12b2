"""The table of rounds: one line per round, search cost beside the accuracies; as text cells, Markdown and CSV."""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from ltl.report.comparison import Comparison
from ltl.report.load import RoundRow
from ltl.report.statistics import (
    FEWEST_TRIALS,
    Interval,
    Measure,
    by_trial,
    density_at,
    early_stop_accuracy,
    end_accuracy,
    paired,
    rounds_of,
    sampled_accuracy,
    two_sided,
)
from ltl.report.study import Study
from ltl.report.verdict import all_matching
from ltl.report.words import count, in_order, percent

_SHORT: Mapping[str, str] = {
    "reinit": "fresh init",
    "random_mask": "random mask",
    "shuffled_inputs": "shuffled, inputs' counts",
    "shuffled_units": "shuffled, units' counts",
    "shuffled_weights": "shuffled weights",
    "random_ticket": "random ticket",
    "small_dense": "small dense",
    "clean": "clean data",
    "reordered": "other orders",
    "dense_reordered": "dense, other orders",
    "untrained": "untrained",
    "trained": "weights trained",
}
_LATEX: Mapping[str, str] = {
    **{letter: f"\\{letter}" for letter in "%&_#${}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "−": "$-$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "≥": r"$\geq$",
    "<": "$<$",
    ">": "$>$",
    "θ": r"$\theta$",
    "₀": "$_0$",
    "\u202f": r"\,",
    "–": "--",
}
# Columns of supermasks that not all have: of masks drawn by learned probabilities, and of tickets kept in bits.
_SUPERMASKS = ("drawn masks: accuracy (%)", "drawn masks: sd (pp)", "mask and signs (bits)")
_UNIT_SIGNS: Mapping[str, str] = {"pp": " pp", "percent": "%", "times": "×"}


@dataclass(frozen=True)
class Table:
    """Cells as text, with a header that carries the units."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    def without(self, *names: str) -> "Table":
        """Return the table without the columns of these names."""
        kept = [index for index, name in enumerate(self.header) if name not in names]
        return Table([self.header[index] for index in kept], [[row[index] for index in kept] for row in self.rows])

    def markdown(self) -> str:
        """Return the table in Markdown."""
        lines = [self.header, ["---"] * len(self.header), *self.rows]
        return "".join("| " + " | ".join(line) + " |\n" for line in lines)

    def latex(self) -> str:
        """Return the table as a LaTeX tabular with the rules of the booktabs package."""
        head, *body = (" & ".join(map(_in_latex, line)) + " \\\\\n" for line in (self.header, *self.rows))
        columns = "l" + "r" * (len(self.header) - 1)
        rows = "".join(body)
        return f"\\begin{{tabular}}{{{columns}}}\n\\toprule\n{head}\\midrule\n{rows}\\bottomrule\n\\end{{tabular}}\n"


def _in_latex(cell: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in cell)


def rounds_table(study: Study) -> Table:
    """Return one line per round of the search, with its controls' accuracies beside its own.

    Where masks were drawn by learned probabilities it has their accuracy too, and where tickets are binary their size.
    """
    rows = study.rows
    controls = [arm for arm in in_order(row.arm for row in rows) if arm != "ticket"]
    verdicts = (
        {} if study.no_verdict else {each.round: each.words() for each in all_matching(rows, margin=study.margin)}
    )
    header = [
        "density (%)",
        "weights left",
        "test accuracy at early stop (%)",
        "− dense (pp)",
        "early-stop step",
        *(f"{_SHORT.get(arm, arm)}: accuracy (%)" for arm in controls),
        "test accuracy at the end (%)",
        *_SUPERMASKS,
        "search cost (steps)",
        "training (s)",
        "verdict",
    ]
    dense = by_trial(rows, "ticket", 0, early_stop_accuracy)
    body = []
    for round in sorted({round for arm in ("ticket", *controls) for round in rounds_of(rows, arm)}):
        own = by_trial(rows, "ticket", round, early_stop_accuracy)
        body.append(
            [
                percent(density_at(rows, round)),
                _mean(rows, round, lambda row: None if row.weights_left is None else float(row.weights_left), count),
                _percents(own),
                spread(two_sided(paired(own, dense)), 100, sign=True) if round else "",
                _step(rows, round),
                *(_percents(by_trial(rows, arm, round, early_stop_accuracy)) for arm in controls),
                _percents(by_trial(rows, "ticket", round, end_accuracy)),
                _percents(by_trial(rows, "ticket", round, sampled_accuracy)),
                _mean(rows, round, lambda row: row.sampled_test_accuracy_sd, lambda value: f"{100 * value:.2f}"),
                _mean(rows, round, lambda row: row.bits, count),
                _mean(rows, round, lambda row: row.total_steps, count),
                _mean(rows, round, lambda row: row.seconds, lambda value: f"{value:.1f}"),
                "dense" if round == 0 else verdicts.get(round, "no verdict"),
            ]
        )
    absent = [name for name in _SUPERMASKS if not any(line[header.index(name)] for line in body)]
    return Table(header, body).without(*absent)


def claims_table(comparisons: Sequence[Comparison], words: Mapping[str, str], rows: Sequence[RoundRow]) -> Table:
    """Return published and measured figures side by side; `words` names the quantities."""
    body = []
    for each in comparisons:
        published = each.published
        sign = _UNIT_SIGNS[published.unit]
        at = published.density
        body.append(
            [
                words[published.quantity] + (" (selected on test)" if each.selected_on_test else ""),
                f"{percent(at)}%" if at is not None else "",
                f"{published.value:g}{sign}",
                _measured(each.measured, sign) if each.measured is not None else "–",
                each.words(),
                f"{percent(each.density)}%" if each.density is not None else "",
                count(cost) if (cost := search_cost(rows, each.density)) is not None else "",
                published.source,
            ]
        )
    header = [
        "figure",
        "density",
        "published",
        "measured (95% interval)",
        "verdict",
        "measured at",
        "search cost (steps)",
        "source",
    ]
    return Table(header, body)


def summary_csv(studies: Sequence[Study]) -> str:
    """Return what the figures show as CSV: per study, arm and round the mean over trials and its 95% interval."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    measures: Mapping[str, Measure] = {
        "early_stop_test_accuracy": early_stop_accuracy,
        "early_stop_step": lambda row: row.early_stop_step,
        "test_accuracy": end_accuracy,
    }
    ends = [f"{name}_{end}" for name in measures for end in ("mean", "low", "high")]
    writer.writerow(["study", "arm", "round", "density", "n", "censored_trials", "total_steps", "seconds", *ends])
    for study in studies:
        for arm in in_order(row.arm for row in study.rows):
            for round in rounds_of(study.rows, arm):
                there = [row for row in study.rows if row.arm == arm and row.round == round]
                intervals = [two_sided(list(by_trial(there, arm, round, each).values())) for each in measures.values()]
                writer.writerow(
                    [
                        study.label or study.title,
                        arm,
                        round,
                        density_at(study.rows, round, arm),
                        len({row.unit for row in there}),
                        len({row.unit for row in there if row.early_stop_censored}),
                        *(_average([row.total_steps for row in there]), _average([row.seconds for row in there])),
                        *(cell for interval in intervals for cell in _csv_cells(interval)),
                    ]
                )
    return text.getvalue()


def spread(interval: Interval, factor: float, *, sign: bool = False) -> str:
    """Return "98.21 ± 0.09": the mean and half its 95% interval, without the latter for fewer than 3 trials."""
    if interval.n == 0:
        return ""
    mean = f"{factor * interval.mean:{'+' if sign else ''}.2f}".replace("-", "−")
    if interval.n < FEWEST_TRIALS:
        return mean
    return f"{mean} ± {factor * (interval.high - interval.low) / 2:.2f}"


def dense_accuracy(rows: Sequence[RoundRow]) -> str:
    """Return the test accuracy (%) of round 0 at early stop; "" where a given ticket was trained without it."""
    return _percents(by_trial(rows, "ticket", 0, early_stop_accuracy))


def search_cost(rows: Sequence[RoundRow], density: float | None) -> float | None:
    """Return the steps that the search had cost when it reached `density`, a mean over trials; None if unknown."""
    costs = [
        row.total_steps
        for row in rows
        if row.arm == "ticket" and row.total_steps is not None and density_at(rows, row.round) == density
    ]
    return fmean(costs) if costs else None


def _measured(interval: Interval, sign: str) -> str:
    mean = f"{interval.mean:.3g}{sign}".replace("-", "−")
    if interval.n < FEWEST_TRIALS or interval.low == interval.high:
        return mean
    return f"{mean} [{interval.low:.3g}, {interval.high:.3g}]".replace("-", "−")


def _percents(by_unit: Mapping[str, float]) -> str:
    return spread(two_sided(list(by_unit.values())), 100)


def _mean(rows: Sequence[RoundRow], round: int, measure: Measure, text: Callable[[float], str]) -> str:
    values = by_trial(rows, "ticket", round, measure).values()
    return text(fmean(values)) if values else ""


def _step(rows: Sequence[RoundRow], round: int) -> str:
    text = _mean(rows, round, lambda row: row.early_stop_step, count)
    cut = any(row.early_stop_censored for row in rows if row.arm == "ticket" and row.round == round)
    return f"≥ {text} (censored)" if cut else text


def _average(values: Sequence[float | None]) -> float | str:
    known = [value for value in values if value is not None]
    return fmean(known) if known else ""


def _csv_cells(interval: Interval) -> tuple[float | str, float | str, float | str]:
    if interval.n == 0:
        return "", "", ""
    return (interval.mean, interval.low, interval.high) if interval.n >= FEWEST_TRIALS else (interval.mean, "", "")

"""The quantities that papers publish, each a pure function from rows to one value per trial.

Accuracies are fractions, speeds natural logs of ratios of early-stop steps, densities natural logs.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Literal

from ltl.report.load import RoundRow
from ltl.report.statistics import (
    Measure,
    best_accuracy,
    by_trial,
    density_at,
    early_stop_accuracy,
    end_accuracy,
    log_step,
    rounds_of,
    sampled_accuracy,
)

AtRound = Callable[[Sequence[RoundRow], str, int], Mapping[str, float]]


@dataclass(frozen=True)
class Quantity:
    """What a quantity is called in words, what kind of number it is, and how it is computed per trial.

    kind "gain": a difference of accuracies, whose sign means something; "level": an accuracy; "speed": a log ratio.
    """

    words: str
    kind: Literal["gain", "level", "speed"]
    values: AtRound
    selected_on_test: bool = False


def _accuracy(measure: Measure) -> AtRound:
    def accuracy(rows: Sequence[RoundRow], arm: str, round: int) -> Mapping[str, float]:
        return by_trial(rows, arm, round, measure)

    return accuracy


def _over_dense(measure: Measure) -> AtRound:
    def gain(rows: Sequence[RoundRow], arm: str, round: int) -> Mapping[str, float]:
        return _minus(by_trial(rows, arm, round, measure), by_trial(rows, "ticket", 0, measure))

    return gain


def _over_reinit(measure: Measure) -> AtRound:
    def gain(rows: Sequence[RoundRow], arm: str, round: int) -> Mapping[str, float]:
        return _minus(by_trial(rows, arm, round, measure), by_trial(rows, "reinit", round, measure))

    return gain


def _minus_log_step(row: RoundRow) -> float | None:
    step = log_step(row)
    return None if step is None else -step


def _minus(minuends: Mapping[str, float], subtrahends: Mapping[str, float]) -> dict[str, float]:
    return {unit: value - subtrahends[unit] for unit, value in minuends.items() if unit in subtrahends}


def below_dense(rows: Sequence[RoundRow], arm: str) -> tuple[dict[str, float], int]:
    """Return per trial the log density from which on the arm stays below dense accuracy at the early stop.

    The second value counts the trials whose arm is not below dense in its last round: for them the log density of
    that round stands in, an upper bound of the true one.
    """
    dense = by_trial(rows, "ticket", 0, early_stop_accuracy)
    paths: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)
    for round in rounds_of(rows, arm):
        if round > 0:
            for unit, gain in _minus(by_trial(rows, arm, round, early_stop_accuracy), dense).items():
                paths[unit].append((math.log(density_at(rows, round, arm)), gain))
    onsets, bounded = {}, 0
    for unit, path in paths.items():
        below = list(takewhile(lambda point: point[1] < 0, reversed(path)))
        onsets[unit] = below[-1][0] if below else path[-1][0]
        bounded += not below
    return onsets, bounded


UNITS: Mapping[str, float] = {"pp": 0.01, "percent": 0.01, "times": 1.0}

_SPEED_OVER_DENSE = _over_dense(_minus_log_step)

AT_ROUND: Mapping[str, Quantity] = {
    "accuracy": Quantity("test accuracy at early stop", "level", _accuracy(early_stop_accuracy)),
    "end_accuracy": Quantity("test accuracy at the end of training", "level", _accuracy(end_accuracy)),
    "best_accuracy": Quantity("best test accuracy", "level", _accuracy(best_accuracy), selected_on_test=True),
    "sampled_accuracy": Quantity("mean test accuracy of drawn masks", "level", _accuracy(sampled_accuracy)),
    "accuracy_gain": Quantity("accuracy gain over dense at early stop", "gain", _over_dense(early_stop_accuracy)),
    "end_accuracy_gain": Quantity("accuracy gain over dense at the end", "gain", _over_dense(end_accuracy)),
    "accuracy_gain_over_reinit": Quantity(
        "accuracy gain over reinitialised masks at early stop", "gain", _over_reinit(early_stop_accuracy)
    ),
    "early_stop_earlier": Quantity("early stop earlier than dense", "speed", _SPEED_OVER_DENSE),
    "speedup": Quantity("speed-up of early stop over dense", "speed", _SPEED_OVER_DENSE),
    "speedup_over_reinit": Quantity(
        "speed-up of early stop over reinitialised masks", "speed", _over_reinit(_minus_log_step)
    ),
}

# Judged along the whole run of rounds rather than at one: see comparison.py.
SMALLEST: Mapping[str, str] = {
    "matching_density": "smallest matching density (accuracy at early stop, and speed)",
    "earlier_density": "smallest density with an earlier early stop than dense",
    "accuracy_density": "smallest density with dense accuracy at early stop",
    "end_accuracy_density": "smallest density with dense accuracy at the end of training",
}
ONSET: Mapping[str, tuple[str, str]] = {
    "ticket_below_dense_density": ("ticket", "density from which on the ticket stays below dense accuracy"),
    "reinit_below_dense_density": ("reinit", "density from which on reinitialised masks stay below dense accuracy"),
}
NAMES: Mapping[str, str] = (
    {name: quantity.words for name, quantity in AT_ROUND.items()}
    | dict(SMALLEST)
    | {name: words for name, (_, words) in ONSET.items()}
)

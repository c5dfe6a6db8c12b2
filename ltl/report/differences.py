"""Two studies set against each other: paired differences at each density that both measured."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ltl.errors import LtlError
from ltl.report.load import RoundRow
from ltl.report.statistics import (
    FEWEST_TRIALS,
    Interval,
    by_trial,
    density_at,
    early_stop_accuracy,
    end_accuracy,
    holm,
    log_step,
    p_value,
    paired,
    rounds_of,
    two_sided,
)
from ltl.report.study import Study
from ltl.report.tables import Table, spread
from ltl.report.words import p_words, percent

_SAME = 0.01  # relative difference of two densities that are compared: counts are rounded layer by layer


@dataclass(frozen=True)
class Differences:
    """The table of A − B, and what A and B are called."""

    names: tuple[str, str]
    table: Table


def differences(first: Study, second: Study, names: tuple[str, str]) -> Differences:
    """Return first − second of the tickets, paired by θ₀, with 95% intervals; p values are corrected by Holm (1979).

    Rounds whose trainings are the same on both sides, as dense ones often are, belong to no family of tests. Units are
    percentage points of test accuracy, and the ratio of early-stop steps (below 1: the first is faster), where none
    is censored. LtlError if the two have no density or no θ₀ in common.
    """
    rounds = common_rounds(first.rows, second.rows)
    if not rounds:
        raise LtlError(f"{names[0]} and {names[1]} have no density in common: there is nothing to compare.")
    pairs = [
        [
            paired(by_trial(first.rows, "ticket", mine, measure), by_trial(second.rows, "ticket", theirs, measure))
            for measure in (early_stop_accuracy, end_accuracy, log_step)
        ]
        for mine, theirs in rounds
    ]
    if not any(pair[0] or pair[1] for pair in pairs):
        raise LtlError(
            f"{names[0]} and {names[1]} share no θ₀, so their trials cannot be paired: give both the same seeds, model "
            "and initialiser."
        )
    judged = [number for number, (at_stop, _, _) in enumerate(pairs) if len(at_stop) >= FEWEST_TRIALS and any(at_stop)]
    adjusted = dict(zip(judged, holm([p_value(pairs[number][0]) for number in judged]), strict=True))
    body = [
        [
            percent(density_at(first.rows, mine)),
            str(len(at_stop)),
            spread(two_sided(at_stop), 100, sign=True),
            p_words(adjusted.get(number)),
            spread(two_sided(at_end), 100, sign=True),
            "censored" if _censored(first, second, mine, theirs) else _ratio(two_sided(log_steps)),
        ]
        for number, ((mine, theirs), (at_stop, at_end, log_steps)) in enumerate(zip(rounds, pairs, strict=True))
    ]
    header = [
        "density (%)",
        "pairs",
        "difference at early stop (pp)",
        "p (Holm)",
        "difference at the end (pp)",
        "ratio of early-stop steps",
    ]
    return Differences(names, Table(header, body))


def common_rounds(first: Sequence[RoundRow], second: Sequence[RoundRow]) -> list[tuple[int, int]]:
    """Return the rounds of two tickets that have the same density, to 1%, in the first one's order."""
    densities = {theirs: density_at(second, theirs) for theirs in rounds_of(second)}
    rounds = []
    for mine in rounds_of(first):
        own = density_at(first, mine)
        near = [theirs for theirs, density in densities.items() if abs(own / density - 1) <= _SAME]
        rounds += [(mine, near[0])] if near else []
    return rounds


def _censored(first: Study, second: Study, mine: int, theirs: int) -> bool:
    """Return whether any early stop of a pair is censored: the ratio of the others would be a choice (verdicts.md)."""
    ours, others = (
        by_trial(study.rows, "ticket", round, lambda row: float(row.early_stop_censored))
        for study, round in ((first, mine), (second, theirs))
    )
    return any(ours[unit] or others[unit] for unit in ours.keys() & others.keys())


def _ratio(interval: Interval) -> str:
    if interval.n == 0:
        return ""
    if interval.n < FEWEST_TRIALS:
        return f"{math.exp(interval.mean):.2f}"
    ratio = interval.map(math.exp)
    return f"{ratio.mean:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]"

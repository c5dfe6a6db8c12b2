"""From which value of a swept key on an arm matches the dense network of one setting: judged value by value."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from statistics import fmean
from typing import Literal

from ltl.report.claims import Claim, Reach
from ltl.report.load import RoundRow
from ltl.report.quantities import AT_ROUND
from ltl.report.statistics import Interval, by_trial, density_at, rounds_of, two_sided
from ltl.report.study import Study
from ltl.report.sweep import Difference, Hindrance, difference, forbidden, named, the_study, too_few
from ltl.report.tables import Table, spread
from ltl.report.words import capital, percent, with_reason

Word = Literal[
    "matching in accuracy",
    "not matching",
    "undecided",
    "not judged",
    "not measured",
    "not comparable",
    "no verdict",
]


@dataclass(frozen=True)
class Step:
    """One value of the key: the arm at its most accurate density, and its own dense network.

    `difference`: arm − dense network of the baseline, a fraction, with one-sided 95% bounds; `trials` in words.
    """

    value: float
    density: float | None
    accuracy: Interval
    dense: Interval
    difference: Interval
    trials: str
    word: Word
    reason: str

    def words(self) -> str:
        """Return the verdict with the reason that belongs to it."""
        return with_reason(self.word, self.reason)


@dataclass(frozen=True)
class Reached:
    """The answer in words, such as "matches from 4 on", and a step for each value, the smallest first."""

    reach: Reach
    steps: Sequence[Step]
    answer: str

    def sentence(self) -> str:
        """Return the claim's sentence with its answer."""
        return f"{capital(self.reach.sentence)}: {self.answer}."


def judge_reach(studies: Sequence[Study], claim: Claim, reach: Reach) -> Reached:
    """Judge an arm along a key by the studies of a sweep, each setting at the density of `most_accurate`."""
    baseline = the_study(studies, claim, reach.baseline)
    if not isinstance(baseline, Study):
        return Reached(reach, [], with_reason(*baseline))
    found = along(studies, claim, reach)
    steps = [_step(value, study, baseline, claim, reach) for value, study in found]
    return Reached(reach, steps, _answer(steps) if steps else f"not measured (no run has a number at {reach.along})")


def along(studies: Sequence[Study], claim: Claim, reach: Reach) -> list[tuple[float, Study | Hindrance]]:
    """Return the values of the key in ascending order, each with its study or why there is none to judge."""
    given = [study.first.setting(reach.along) for study in studies]
    values = {value for value in given if isinstance(value, int | float) and not isinstance(value, bool)}
    return [(value, the_study(studies, claim, {reach.along: value})) for value in sorted(values)]


def most_accurate(rows: Sequence[RoundRow], arm: str) -> int | None:
    """Return the pruned round with the highest mean validation accuracy after the last step: no test image chooses."""
    rounds = [round for round in rounds_of(rows, arm) if round > 0]
    values = {round: list(by_trial(rows, arm, round, lambda row: row.val_accuracy).values()) for round in rounds}
    means = {round: fmean(found) for round, found in values.items() if found}
    return max(means, key=means.__getitem__, default=None)


def _step(value: float, study: Study | Hindrance, baseline: Study, claim: Claim, reach: Reach) -> Step:
    if not isinstance(study, Study):
        return Step(value, None, two_sided([]), two_sided([]), two_sided([]), "", *study)
    values = AT_ROUND[reach.quantity].values
    round = most_accurate(study.rows, reach.arm)
    own = {} if round is None else values(study.rows, reach.arm, round)
    measured = difference(own, values(baseline.rows, "ticket", 0))
    hindrance = forbidden([(study, {reach.along: value}), (baseline, reach.baseline)], claim) or too_few(measured)
    word, reason = hindrance or (_word(measured, min(study.margin, baseline.margin)), "")
    return Step(
        value,
        None if round is None else density_at(study.rows, round, reach.arm),
        two_sided(list(own.values())),
        two_sided(list(values(study.rows, "ticket", 0).values())),
        measured.estimate.one_sided(),
        measured.trials,
        word,
        reason,
    )


def _word(measured: Difference, margin: float) -> Word:
    bounds = measured.estimate.one_sided()
    if bounds.low > -margin:
        return "matching in accuracy"
    return "not matching" if bounds.high < -margin else "undecided"


def _answer(steps: Sequence[Step]) -> str:
    """Say where the unbroken run of matching steps begins that ends at the largest value."""
    matching = [step.word == "matching in accuracy" for step in steps]
    run = sum(takewhile(bool, reversed(matching)))
    last = steps[-1]
    if run:
        answer, before = f"matches from {steps[-run].value:g} on", steps[-run - 1] if run < len(steps) else None
        if before is None:
            return with_reason(answer, "the smallest value of all")
        return answer if before.word == "not matching" else with_reason(answer, f"{before.word} at {before.value:g}")
    if last.word == "not matching":
        once = ", ".join(f"{step.value:g}" for step, match in zip(steps, matching, strict=True) if match)
        return with_reason(f"not reached by {last.value:g}", f"though matching in accuracy at {once}" if once else "")
    return with_reason(last.word, f"at {last.value:g}")


def reach_table(reached: Reached) -> Table:
    """Return one line for each value of the key."""
    reach, quantity = reached.reach, AT_ROUND[reached.reach.quantity]
    chosen = " (selected on test)" if quantity.selected_on_test else ""
    header = [
        "setting",
        "density (%)",
        f"{reach.arm}: {quantity.words}{chosen} (%)",
        "its dense network (%)",
        f"− dense network of {named(reach.baseline)} (pp)",
        "trials",
        "verdict",
    ]
    body = [
        [
            named({reach.along: step.value}),
            "" if step.density is None else percent(step.density),
            spread(step.accuracy, 100),
            spread(step.dense, 100),
            spread(step.difference, 100, sign=True),
            step.trials,
            step.words(),
        ]
        for step in reached.steps
    ]
    return Table(header, body)

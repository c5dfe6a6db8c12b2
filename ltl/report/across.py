"""Settings of a sweep against each other, by what its claim says of them: holds, contradicted, or why not judged."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from ltl.report.claims import Claim, Claimed, Says, claim_of
from ltl.report.comparison import SAME_DENSITY, nearest_round
from ltl.report.differences import common_rounds
from ltl.report.load import RoundRow
from ltl.report.quantities import Quantity
from ltl.report.reach import Reached, judge_reach
from ltl.report.statistics import (
    LEVEL,
    Interval,
    density_at,
    holm,
    rounds_of,
)
from ltl.report.study import Study
from ltl.report.sweep import Difference, Hindrance, difference, forbidden, named, the_study, too_few
from ltl.report.tables import Table, spread
from ltl.report.words import p_words, percent, with_reason

Word = Literal[
    "holds",
    "contradicted",
    "undecided",
    "above",
    "below",
    "no difference shown",
    "no verdict",
    "not comparable",
    "not measured",
    "not judged",
]


@dataclass(frozen=True)
class Judged:
    """One comparison of a claim beside what was measured.

    `difference`: first − second, a fraction, of the means over `densities`, each that of the first and of the second,
    with a two-sided 95% interval, or the 90% one that decides on equality within `margin`. `trials`: those behind it,
    in words. `p`: of a difference, corrected by Holm over the claim's comparisons; None if it is not one of these
    tests.
    """

    claimed: Claimed
    densities: Sequence[tuple[float, float]]
    difference: Interval
    trials: str
    margin: float
    p: float | None
    word: Word
    reason: str

    def words(self) -> str:
        """Return the verdict with the reason that belongs to it."""
        return with_reason(self.word, self.reason)


@dataclass(frozen=True)
class Across:
    """What a claim says of several settings: its comparisons and what is reached, judged."""

    claim: Claim
    judged: Sequence[Judged]
    reached: Sequence[Reached]

    @property
    def table(self) -> Table | None:
        """The table of the comparisons, if there are any."""
        return _table(self.judged) if self.judged else None


@dataclass(frozen=True)
class _Measured:
    densities: Sequence[tuple[float, float]]
    difference: Difference
    margin: float
    hindrance: Hindrance | None


def across(studies: Sequence[Study]) -> list[Across]:
    """Return what every claim that any of the studies carries says of several, judged by all of them."""
    carried = [claim for study in studies for run in study.runs if (claim := claim_of(run))]
    claims = {claim.sentence: claim for claim in carried if claim.comparisons or claim.reach}
    return [
        Across(
            claim,
            judge(studies, claim),
            [judge_reach(studies, claim, reach) for reach in claim.reach],
        )
        for claim in claims.values()
    ]


def judge(studies: Sequence[Study], claim: Claim) -> list[Judged]:
    """Judge every comparison of `claim` by the studies of a sweep; p values are corrected by Holm (1979)."""
    measured = [_measured(studies, claim, claimed) for claimed in claim.comparisons]
    tested = [
        number
        for number, (claimed, each) in enumerate(zip(claim.comparisons, measured, strict=True))
        if each.hindrance is None and claimed.says != "equal"
    ]
    adjusted = dict(zip(tested, holm([measured[number].difference.estimate.p() for number in tested]), strict=True))
    judged = []
    for number, (claimed, each) in enumerate(zip(claim.comparisons, measured, strict=True)):
        mean = each.difference.estimate
        interval = mean.one_sided() if claimed.says == "equal" else mean.two_sided()
        word: Word
        p, (word, reason) = adjusted.get(number), each.hindrance or ("undecided", "")
        if p is not None:
            word = _different(claimed.says, mean.mean, p)
        elif each.hindrance is None:
            word = _equal(interval, each.margin)
        trials = each.difference.trials
        judged.append(Judged(claimed, each.densities, interval, trials, each.margin, p, word, reason))
    return judged


def _different(says: Says, mean: float, p: float) -> Word:
    if says == "open":
        return "no difference shown" if p >= 1 - LEVEL else "above" if mean > 0 else "below"
    return "undecided" if p >= 1 - LEVEL else "holds" if mean > 0 else "contradicted"


def _equal(difference: Interval, margin: float) -> Word:
    """Two one-sided tests (Schuirmann 1987): equal if the 90% interval lies within ±margin, not if it lies outside."""
    if -margin < difference.low and difference.high < margin:
        return "holds"
    return "contradicted" if difference.low > margin or difference.high < -margin else "undecided"


def _measured(studies: Sequence[Study], claim: Claim, claimed: Claimed) -> _Measured:
    first, second = (the_study(studies, claim, settings) for settings in (claimed.first, claimed.second))
    for side in (first, second):
        if not isinstance(side, Study):
            return _Measured([], difference({}, {}), math.nan, side)
    assert isinstance(first, Study)
    assert isinstance(second, Study)
    rounds = _rounds(first.rows, second.rows, claimed)
    measured = difference(
        _by_trial(first.rows, [mine for mine, _ in rounds], claimed.quantity, claimed.arms[0]),
        _by_trial(second.rows, [theirs for _, theirs in rounds], claimed.quantity, claimed.arms[1]),
    )
    hindrance = forbidden([(first, claimed.first), (second, claimed.second)], claim)
    if hindrance is None and not rounds:
        hindrance = "not measured", "not at these densities on both sides"
    densities = [(density_at(first.rows, mine), density_at(second.rows, theirs)) for mine, theirs in rounds]
    return _Measured(densities, measured, min(first.margin, second.margin), hindrance or too_few(measured))


def _rounds(first: Sequence[RoundRow], second: Sequence[RoundRow], claimed: Claimed) -> list[tuple[int, int]]:
    """Return the pairs of rounds to compare; none at all if a density asked for is missing on either side."""
    ours, theirs = (set(rounds_of(rows, arm)) - {0} for rows, arm in zip((first, second), claimed.arms, strict=True))
    if claimed.densities is None:
        return [(one, other) for one, other in common_rounds(first, second) if one in ours and other in theirs]
    if claimed.densities == "last":
        return [(max(ours), max(theirs))] if ours and theirs else []
    nearest = [
        (nearest_round(first, "ticket", one), nearest_round(second, "ticket", other))
        for one, other in claimed.densities
    ]
    pairs = [(one, other) for one, other in nearest if one in ours and other in theirs]
    return pairs if len(pairs) == len(nearest) else []


def _by_trial(rows: Sequence[RoundRow], rounds: Sequence[int], quantity: Quantity, arm: str) -> dict[str, float]:
    """Return the mean over `rounds` for each θ₀ that has a value in all of them."""
    values = [quantity.values(rows, arm, round) for round in rounds]
    return {
        unit: fmean(each[unit] for each in values)
        for unit in (values[0] if values else {})
        if all(unit in each for each in values)
    }


def _difference(claimed: Claimed) -> str:
    """Return the two sides in words: their names, or all that is given of them, and arms unless both are the ticket."""
    arms = claimed.arms if set(claimed.arms) != {"ticket"} else ("", "")
    given = (claimed.first, claimed.second)
    names = [{key: value for key, value in side.items() if key.endswith(".name")} for side in given]
    sides = names if all(names) and (names[0] != names[1] or given[0] == given[1]) else given
    one, other = (
        ", ".join(part for part in (named(settings), arm) if part) for settings, arm in zip(sides, arms, strict=True)
    )
    return f"{one} − {other}"


def _table(judged: Sequence[Judged]) -> Table:
    body = [
        [
            each.claimed.sentence,
            each.claimed.quantity.words + (" (selected on test)" if each.claimed.quantity.selected_on_test else ""),
            _difference(each.claimed),
            _published(each),
            _densities(each.densities),
            each.trials,
            spread(each.difference, 100, sign=True),
            p_words(each.p),
            each.words(),
        ]
        for each in judged
    ]
    header = [
        "comparison",
        "quantity",
        "difference",
        "published",
        "densities (%)",
        "trials",
        "measured (pp)",
        "p (Holm)",
        "verdict",
    ]
    return Table(header, body)


def _published(judged: Judged) -> str:
    if judged.claimed.says == "equal":
        return "equal" if math.isnan(judged.margin) else f"within ±{100 * judged.margin:.2g} (90% interval)"
    return "above 0" if judged.claimed.says == "better" else "not stated"


def _densities(densities: Sequence[tuple[float, float]]) -> str:
    shown = [
        percent(one) if max(one, other) <= SAME_DENSITY * min(one, other) else f"{percent(one)} − {percent(other)}"
        for one, other in densities
    ]
    return ", ".join(shown) if len(shown) <= 4 else f"{len(shown)} from {shown[0]} to {shown[-1]}"

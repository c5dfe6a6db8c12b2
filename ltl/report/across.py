"""Settings of a sweep against each other, by what its claim says of them: holds, contradicted, or why not judged."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Literal

from ltl.report.claims import Claim, Claimed, Says, claim_of, has, not_comparable
from ltl.report.comparison import nearest_round
from ltl.report.differences import common_rounds
from ltl.report.load import RoundRow
from ltl.report.quantities import Quantity
from ltl.report.statistics import (
    FEWEST_TRIALS,
    LEVEL,
    Interval,
    density_at,
    holm,
    one_sided,
    p_value,
    paired,
    rounds_of,
    two_sided,
)
from ltl.report.study import Study
from ltl.report.tables import Table, spread
from ltl.report.words import p_words, percent

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

    `difference`: first − second, a fraction, of the means over `densities`, with a two-sided 95% interval, or the 90%
    one that decides on equality within `margin`. `p`: of a difference, corrected by Holm over the claim's comparisons;
    None if it is not one of these tests.
    """

    claimed: Claimed
    densities: Sequence[float]
    difference: Interval
    margin: float
    p: float | None
    word: Word
    reason: str

    def words(self) -> str:
        """Return the verdict with the reason that belongs to it."""
        return f"{self.word} ({self.reason})" if self.reason else self.word


@dataclass(frozen=True)
class Across:
    """A claim, and the table of its comparisons."""

    claim: Claim
    table: Table


@dataclass(frozen=True)
class _Measured:
    densities: Sequence[float]
    values: Sequence[float]
    margin: float
    hindrance: tuple[Word, str] | None


def across(studies: Sequence[Study]) -> list[Across]:
    """Return the comparisons of every claim that any of the studies carries, judged by all of them."""
    runs = [run for study in studies for run in study.runs]
    claims = {claim.sentence: claim for run in runs if (claim := claim_of(run)) and claim.comparisons}
    return [Across(claim, _table(judge(studies, claim))) for claim in claims.values()]


def judge(studies: Sequence[Study], claim: Claim) -> list[Judged]:
    """Judge every comparison of `claim` by the studies of a sweep; p values are corrected by Holm (1979)."""
    measured = [_measured(studies, claim, claimed) for claimed in claim.comparisons]
    tested = [
        number
        for number, (claimed, each) in enumerate(zip(claim.comparisons, measured, strict=True))
        if each.hindrance is None and claimed.says != "equal"
    ]
    adjusted = dict(zip(tested, holm([p_value(measured[number].values) for number in tested]), strict=True))
    judged = []
    for number, (claimed, each) in enumerate(zip(claim.comparisons, measured, strict=True)):
        difference = (one_sided if claimed.says == "equal" else two_sided)(each.values)
        p, (word, reason) = adjusted.get(number), each.hindrance or ("undecided", "")
        if p is not None:
            word = _different(claimed.says, difference.mean, p)
        elif each.hindrance is None:
            word = _equal(difference, each.margin)
        judged.append(Judged(claimed, each.densities, difference, each.margin, p, word, reason))
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
    sides = []
    for settings in (claimed.first, claimed.second):
        found = _having(studies, claim, settings)
        if not found:
            return _Measured([], [], math.nan, ("not measured", f"no run of {_named(settings)}"))
        if len(found) > 1:
            return _Measured([], [], math.nan, ("not judged", f"{len(found)} settings of {_named(settings)}"))
        sides += found
    first, second = sides
    rounds = _rounds(first.rows, second.rows, claimed)
    values = paired(
        _by_trial(first.rows, [mine for mine, _ in rounds], claimed.quantity, claimed.arms[0]),
        _by_trial(second.rows, [theirs for _, theirs in rounds], claimed.quantity, claimed.arms[1]),
    )
    densities = [density_at(first.rows, mine) for mine, _ in rounds]
    margin = min(study.margin for study in sides)
    return _Measured(densities, values, margin, _hindrance(sides, claim, claimed, len(rounds), len(values)))


def _having(studies: Sequence[Study], claim: Claim, settings: Mapping[str, Any]) -> list[Study]:
    """Return the studies of these settings: those that are tests of the claim, or all if there is none."""
    found = [study for study in studies if has(study.first, settings)]
    return [study for study in found if not any(not_comparable(run, claim, settings) for run in study.runs)] or found


def _rounds(first: Sequence[RoundRow], second: Sequence[RoundRow], claimed: Claimed) -> list[tuple[int, int]]:
    """Return the pairs of rounds to compare; none at all if a density asked for is missing on either side."""
    ours, theirs = (set(rounds_of(rows, arm)) - {0} for rows, arm in zip((first, second), claimed.arms, strict=True))
    if claimed.densities is None:
        return [(one, other) for one, other in common_rounds(first, second) if one in ours and other in theirs]
    nearest = [tuple(nearest_round(rows, "ticket", each) for rows in (first, second)) for each in claimed.densities]
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


def _hindrance(
    sides: Sequence[Study], claim: Claim, claimed: Claimed, rounds: int, trials: int
) -> tuple[Word, str] | None:
    small = next((study.no_verdict for study in sides if study.no_verdict), None)
    if small:
        return "no verdict", small.removeprefix("no verdict: ")
    for study, settings in zip(sides, (claimed.first, claimed.second), strict=True):
        for run in study.runs:
            if reason := not_comparable(run, claim, settings):
                return "not comparable", reason
    if not rounds:
        return "not measured", "not at these densities on both sides"
    if not trials:
        return "not measured", "no θ₀ in common"
    return ("not judged", f"n = {trials}") if trials < FEWEST_TRIALS else None


def _named(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{key.removesuffix('.name')}={value}" for key, value in settings.items())


def _difference(claimed: Claimed) -> str:
    """Return the two sides in words: what is given of each, and its arm unless both are of the ticket."""
    arms = claimed.arms if set(claimed.arms) != {"ticket"} else ("", "")
    sides = zip((claimed.first, claimed.second), arms, strict=True)
    one, other = (", ".join(part for part in (_named(settings), arm) if part) for settings, arm in sides)
    return f"{one} − {other}"


def _table(judged: Sequence[Judged]) -> Table:
    body = [
        [
            each.claimed.sentence,
            each.claimed.quantity.words + (" (selected on test)" if each.claimed.quantity.selected_on_test else ""),
            _difference(each.claimed),
            _published(each),
            _densities(each.densities),
            str(each.difference.n),
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
        "pairs",
        "measured (pp)",
        "p (Holm)",
        "verdict",
    ]
    return Table(header, body)


def _published(judged: Judged) -> str:
    if judged.claimed.says == "equal":
        return "equal" if math.isnan(judged.margin) else f"within ±{100 * judged.margin:.2g} (90% interval)"
    return "above 0" if judged.claimed.says == "better" else "not stated"


def _densities(densities: Sequence[float]) -> str:
    shown = [percent(density) for density in densities]
    return ", ".join(shown) if len(shown) <= 4 else f"{len(shown)} from {shown[0]} to {shown[-1]}"

"""The settings of a sweep that a claim names: which study has them, how two differ, and what forbids a verdict."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ltl.report.claims import Claim, has, not_comparable
from ltl.report.statistics import FEWEST_TRIALS, Estimate, estimate, paired, unpaired
from ltl.report.study import Study

Settings = Mapping[str, Any]
Hindrance = tuple[Literal["no verdict", "not comparable", "not measured", "not judged"], str]


@dataclass(frozen=True)
class Difference:
    """A difference of means, a fraction of accuracy, and the trials behind it in words: pairs, or two samples."""

    estimate: Estimate
    trials: str


def difference(minuends: Mapping[str, float], subtrahends: Mapping[str, float]) -> Difference:
    """Return the difference of values by θ₀: paired where the two share any, else by the test of Welch (1947)."""
    pairs = paired(minuends, subtrahends)
    if pairs:
        return Difference(estimate(pairs), f"{len(pairs)} pair{'s'[: len(pairs) - 1]}")
    apart = unpaired(list(minuends.values()), list(subtrahends.values()))
    return Difference(apart, f"{len(minuends)} and {len(subtrahends)} (Welch)" if apart.n else "0")


def the_study(studies: Sequence[Study], claim: Claim, settings: Settings) -> Study | Hindrance:
    """Return the one study of these settings, among those that are tests of the claim if there are any."""
    having = [study for study in studies if has(study.first, settings)]
    found = [study for study in having if not any(not_comparable(run, claim, settings) for run in study.runs)] or having
    if not found:
        return "not measured", f"no run of {named(settings)}"
    return found[0] if len(found) == 1 else ("not judged", f"{len(found)} settings of {named(settings)}")


def forbidden(sides: Sequence[tuple[Study, Settings]], claim: Claim) -> Hindrance | None:
    """Return why studies of these settings give no verdict on `claim`, whatever they measured."""
    for study, _ in sides:
        if study.no_verdict:
            return "no verdict", study.no_verdict.removeprefix("no verdict: ")
    for study, settings in sides:
        for run in study.runs:
            if reason := not_comparable(run, claim, settings):
                return "not comparable", reason
    return None


def too_few(measured: Difference) -> Hindrance | None:
    """Return why a difference cannot be judged by the trials that there are."""
    n = measured.estimate.n
    if n == 0:
        return "not measured", "a side without any value"
    return ("not judged", f"n = {n}") if n < FEWEST_TRIALS else None


def named(settings: Settings) -> str:
    """Return settings as tables print them."""
    return ", ".join(f"{key.removesuffix('.name')}={value}" for key, value in settings.items())

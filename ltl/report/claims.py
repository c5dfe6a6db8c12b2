"""The claim of an experiment, read from the run's config, and whether the run is a test of it at all."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from ltl.errors import LtlError
from ltl.report.comparison import Comparison, Published, compare_figure
from ltl.report.load import RoundRow, Run
from ltl.report.quantities import AT_ROUND, NAMES, UNITS, Quantity
from ltl.report.verdict import too_small

Says = Literal["better", "equal", "open"]


@dataclass(frozen=True)
class Claimed:
    """Two settings of a sweep, each by its keys, and what the claim says of them.

    `says`: the first is `better`, both are `equal` within the margin, or the question is `open`. `arms` are those of
    the two that are compared. `densities` are fractions, of the first and of the second; None is every density below 1
    that both measured, "last" that of either's last round, whatever it is.
    """

    sentence: str
    quantity: Quantity
    first: Mapping[str, Any]
    second: Mapping[str, Any]
    says: Says
    arms: tuple[str, str]
    densities: Sequence[tuple[float, float]] | Literal["last"] | None


@dataclass(frozen=True)
class Reach:
    """From which value of the key `along` on does an arm match the dense network of the setting `baseline`?"""

    sentence: str
    quantity: str
    arm: str
    along: str
    baseline: Mapping[str, Any]


@dataclass(frozen=True)
class Claim:
    """What a paper says, what would speak against it, and the settings without which a run is no test of it."""

    sentence: str
    source: str
    against: str
    setting: Mapping[str, Any]
    published: Sequence[Published]
    comparisons: Sequence[Claimed]
    reach: Sequence[Reach]


def claim_of(run: Run) -> Claim | None:
    """Return the claim that the run's config carries, or None; LtlError names what is wrong with it.

    A published figure with `where`, settings by key, is one of the runs that have them.
    """
    content = run.setting("claim")
    if not content:
        return None
    try:
        figures = [
            _published(entry, f"claim.published[{i}]")
            for i, entry in enumerate(content["published"])
            if has(run, entry.get("where", {}))
        ]
        comparisons = [_claimed(entry) for entry in content.get("comparisons", [])]
        reach = [Reach(**{"arm": "ticket", **entry}) for entry in content.get("reach", [])]
        return Claim(
            content["sentence"],
            content["source"],
            content["against"],
            dict(content["setting"]),
            figures,
            comparisons,
            reach,
        )
    except (KeyError, TypeError) as error:
        raise LtlError(f"claim: {error} is missing or not of its kind; see docs/verdicts.md for its keys.") from None


def _published(entry: Mapping[str, Any], key: str) -> Published:
    quantity, unit = entry["quantity"], entry["unit"]
    if quantity not in NAMES:
        raise LtlError(f"{key}.quantity={quantity} is unknown: choose one of {', '.join(NAMES)}.")
    if unit not in UNITS:
        raise LtlError(f"{key}.unit={unit} is unknown: choose one of {', '.join(UNITS)}.")
    return Published(
        quantity,
        entry.get("arm", "ticket"),
        entry.get("density"),
        float(entry["value"]),
        unit,
        entry.get("tolerance"),
        entry.get("margin"),
        entry.get("start"),
        entry["source"],
    )


def _claimed(entry: Mapping[str, Any]) -> Claimed:
    says: Says
    match entry:
        case {"equal": [first, second]}:
            says = "equal"
        case {"between": [first, second]}:
            says = "open"
        case _:
            first, second, says = entry["better"], entry["worse"], "better"
    quantity = AT_ROUND[entry["quantity"]]
    one, other = entry.get("arms", ("ticket", "ticket"))
    given = entry.get("densities")
    densities: Sequence[tuple[float, float]] | Literal["last"] | None = given
    if given is not None and given != "last":
        densities = [(each[0], each[1]) if isinstance(each, list) else (each, each) for each in given]
    return Claimed(entry["sentence"], quantity, first, second, says, (one, other), densities)


def has(run: Run, settings: Mapping[str, Any]) -> bool:
    """Return whether the run's config has all of `settings`, values by dotted key."""
    return all(_same(run.setting(key), value) for key, value in settings.items())


def not_comparable(run: Run, claim: Claim, named: Collection[str] = ()) -> str | None:
    """Return in what the run differs from the published setting, or None: then its figures can be compared.

    A corrupted training set is such a difference, unless its key is among those `named`.
    """
    differences = []
    if run.status.get("dataset", {}).get("canonical") is not True:
        differences.append("data: not the canonical files")
    corruption = run.setting("corruption.name")
    if "corruption.name" not in named and corruption not in (None, "none"):
        differences.append(f"corruption: {corruption}")
    for key, published in claim.setting.items():
        given = run.setting(key)
        if not _same(given, published):
            differences.append(f"{key}: {_shown(given)}, published with {_shown(published)}")
    return "; ".join(differences) or None


def _same(given: Any, published: Any) -> bool:
    if isinstance(given, list) and isinstance(published, list):
        return len(given) == len(published) and all(map(_same, given, published))
    numbers = [value for value in (given, published) if isinstance(value, int | float) and not isinstance(value, bool)]
    return math.isclose(*numbers, rel_tol=1e-9) if len(numbers) == 2 else bool(given == published)


def _shown(value: Any) -> str:
    return "not set" if value is None else str(value)


def compare(runs: Sequence[Run], rows: Sequence[RoundRow], claim: Claim, *, margin: float) -> list[Comparison]:
    """Judge every published figure of `claim` by the rows of `runs`, which are one study."""
    sizes = [run.status.get("dataset", {}).get("test") for run in runs]
    small = next((reason for size in sizes if (reason := too_small(size))), None)
    hindrance = next((reason for run in runs if (reason := not_comparable(run, claim))), None)
    compared = [compare_figure(rows, published, margin=margin) for published in claim.published]
    if small:
        return [replace(each, word="no verdict", reason=small.removeprefix("no verdict: ")) for each in compared]
    if hindrance:
        return [replace(each, word="not comparable", reason=hindrance) for each in compared]
    return compared

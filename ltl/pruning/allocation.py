"""Allocations: (scores, masks, target) -> masks, who pays for a pruning; counts are exact and ties go by index."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch

import torch
from torch import Tensor

from ltl.errors import LtlError
from ltl.masks import Masks, Tensors, kept, total

_LEAST_SHARE = 1e-9  # of a layer that has none: it takes what the others cannot hold


@dataclass(frozen=True)
class Target:
    """How much to prune: a rate of what remains, or a density of the whole (exactly one of the two)."""

    rate: float | None = None
    density: float | None = None

    def __post_init__(self) -> None:
        given = [value for value in (self.rate, self.density) if value is not None]
        if len(given) != 1 or not 0 <= given[0] <= 1:
            raise LtlError(f"pruner.schedule: {self} is not possible: give a rate or a density, between 0 and 1.")


def per_layer(
    scores: Tensors,
    masks: Masks,
    target: Target,
    *,
    conv: float,
    linear: float,
    output: float,
    layers: Mapping[str, float],
    exclude: Sequence[str],
    allow_empty: bool,
) -> Masks:
    """Prune each layer by itself, by the target's rate times the multiple of its kind (Frankle & Carbin 2019, Fig. 2).

    `output` is the last prunable layer; `layers` gives single layers their own multiple. A target density is met by
    taking the same fraction of what remains from every layer that is not excluded, whatever its multiple.
    """
    names = included(masks, exclude, "pruner.allocation.exclude")
    unknown = sorted(set(layers) - set(masks))
    if unknown:
        raise LtlError(f"pruner.allocation.layers names {', '.join(unknown)}; this model has {', '.join(masks)}.")
    if target.rate is not None:
        kinds = {name: linear if mask.dim() == 2 else conv for name, mask in masks.items()}
        kinds[list(masks)[-1]] = output
        multiples = {**kinds, **layers}
        negative = [name for name in names if multiples[name] < 0]
        if negative:
            raise LtlError(
                f"pruner.allocation: the multiple of {negative[0]} is {multiples[negative[0]]}, but it must be ≥ 0; "
                "0 leaves the layer as it is."
            )
        removals = {name: floor(target.rate * multiples[name], int(torch.count_nonzero(masks[name]))) for name in names}
    else:
        remaining = {name: int(torch.count_nonzero(masks[name])) for name in names}
        removal, whole = removed(target, masks, names), sum(remaining.values())
        if removal > whole:
            raise LtlError(
                f"pruner.rate: {removal} weights are to go, but only {whole} are not excluded: lower pruner.rounds or "
                "pruner.rate, or shorten pruner.allocation.exclude."
            )
        removals = rounded({name: removal * count / whole for name, count in remaining.items()}, removal)
    return {
        name: _without_lowest(scores[name], mask, removals[name], name, allow_empty) if name in removals else mask
        for name, mask in masks.items()
    }


def global_pool(scores: Tensors, masks: Masks, target: Target, *, exclude: Sequence[str], allow_empty: bool) -> Masks:
    """Prune by one threshold over all layers that are not excluded (Frankle & Carbin 2019, §4)."""
    names = included(masks, exclude, "pruner.allocation.exclude")
    pool = torch.cat([masks[name].flatten() for name in names])
    score = torch.cat([scores[name].flatten() for name in names])
    removal = removed(target, masks, names)
    eligible = pool if allow_empty else pool & ~_last_ones(scores, masks, names)
    most = int(torch.count_nonzero(eligible))
    if removal > most:
        raise LtlError(
            f"pruner.rate: {removal} weights are to go, but only {most} can without emptying a layer: "
            "lower pruner.rounds or pruner.rate, or set pruner.allocation.allow_empty=true."
        )
    pool = pool & ~lowest(score, eligible, removal)
    parts = torch.split(pool, [masks[name].numel() for name in names])
    new = {name: part.view_as(masks[name]) for name, part in zip(names, parts, strict=True)}
    return {name: new.get(name, mask) for name, mask in masks.items()}


def positive(scores: Tensors, masks: Masks, target: Target, *, exclude: Sequence[str], allow_empty: bool) -> Masks:
    """Keep the weights that score above 0, however many they are: the target is not looked at.

    For criteria that are a test and no order, such as the signs of Zhou et al. 2019 (§5).
    """
    names = included(masks, exclude, "pruner.allocation.exclude")
    new = {name: masks[name] & (scores[name] > 0) for name in names}
    emptied = [name for name, mask in new.items() if bool(masks[name].any()) and not bool(mask.any())]
    if emptied and not allow_empty:
        raise LtlError(
            f"pruner.criterion: none of the weights left in {emptied[0]} scores above 0, which empties the layer: "
            "exclude it by pruner.allocation.exclude, or set pruner.allocation.allow_empty=true."
        )
    return {**masks, **new}


def lowest(score: Tensor, eligible: Tensor, count: int) -> Tensor:
    """Return a bool tensor marking exactly `count` eligible entries of lowest score; ties: the earlier index first.

    Indices are row-major, whatever the memory format.
    """
    if count == 0:
        return torch.zeros_like(eligible)
    flat, candidates = score.flatten(), eligible.flatten()
    threshold = flat[candidates].kthvalue(count).values
    marked = candidates & (flat < threshold)
    ties = (candidates & (flat == threshold)).nonzero().flatten()
    marked[ties[: count - int(torch.count_nonzero(marked))]] = True
    return marked.view(eligible.shape)


def floor(rate: float, count: int) -> int:
    """Return ⌊rate · count⌋, undisturbed by binary fractions (0.29 · 100 is 29)."""
    product = rate * count
    whole = round(product)
    return whole if math.isclose(product, whole, rel_tol=1e-15, abs_tol=1e-9) else math.floor(product)


def removed(target: Target, masks: Masks, names: Sequence[str]) -> int:
    """Return how many weights go from the layers `names`: ⌊rate · n⌋ of their n, or what a density leaves too many."""
    if target.rate is not None:
        return floor(target.rate, kept({name: masks[name] for name in names}))
    return max(0, kept(masks) - round((target.density or 0.0) * total(masks)))


def rounded(shares: Mapping[str, float], whole: int) -> dict[str, int]:
    """Return whole numbers near `shares` that sum to `whole` as these do: largest remainders first, then in order."""
    counts = {name: math.floor(share) for name, share in shares.items()}
    order = sorted(shares, key=lambda name: counts[name] - shares[name])
    for name in order[: whole - sum(counts.values())]:
        counts[name] += 1
    return counts


def in_proportion(shares: Mapping[str, float], room: Mapping[str, int], whole: int) -> dict[str, int]:
    """Return counts that sum to `whole`, in proportion to `shares` where there is room, and more elsewhere."""
    wanted = {name: max(share, _LEAST_SHARE) for name, share in shares.items()}
    full: dict[str, int] = {}
    while True:
        rest = {name: share for name, share in wanted.items() if name not in full}
        scale = (whole - sum(full.values())) / sum(rest.values()) if rest else 0.0
        over = {name: room[name] for name, share in rest.items() if scale * share > room[name]}
        if not over:
            return rounded({**full, **{name: scale * share for name, share in rest.items()}}, whole)
        full |= over


def included(masks: Masks, exclude: Sequence[str], key: str) -> list[str]:
    """Return the names that match no pattern of `exclude`; LtlError if a pattern matches nothing or none is left."""
    for pattern in exclude:
        if not any(fnmatch(name, pattern) for name in masks):
            raise LtlError(f"{key}: {pattern} matches no prunable layer; this model has {', '.join(masks)}.")
    names = [name for name in masks if not any(fnmatch(name, pattern) for pattern in exclude)]
    if not names:
        raise LtlError(f"{key}={list(exclude)} excludes every prunable layer: leave at least one.")
    return names


def _without_lowest(score: Tensor, mask: Tensor, count: int, name: str, allow_empty: bool) -> Tensor:
    remaining = int(torch.count_nonzero(mask))
    if count >= remaining and count > 0 and not allow_empty:
        raise LtlError(
            f"pruner.rate: {count} of the {remaining} weights left in {name} are to go, which empties the layer: "
            "lower pruner.rounds or pruner.rate, or set pruner.allocation.allow_empty=true."
        )
    return mask & ~lowest(score, mask, min(count, remaining))


def _last_ones(scores: Tensors, masks: Masks, names: Sequence[str]) -> Tensor:
    """Mark in each layer the one survivor that would go last, which no global threshold may take."""
    marks = []
    for name in names:
        mark = torch.zeros_like(masks[name]).flatten()
        if masks[name].any():
            score = scores[name].masked_fill(~masks[name], -torch.inf).flatten()
            mark[(score == score.max()).nonzero()[-1]] = True
        marks.append(mark)
    return torch.cat(marks)

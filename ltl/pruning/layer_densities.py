"""Allocations that give every layer a density of its own: by its shape, by its depth, or as a ticket has them.

Counts are exact: ⌊rate · n⌋ of n weights go, or what a target density leaves too many. Within a layer the lowest scores
go first. A layer whose share exceeds what it has left keeps that, and the others keep more for it.
"""

from collections.abc import Iterable, Mapping, Sequence

import torch

from ltl.errors import LtlError
from ltl.masks import Masks, Tensors
from ltl.pruning.allocation import Target, floor, in_proportion, included, lowest, removed, rounded


def uniform(
    scores: Tensors,
    masks: Masks,
    target: Target,
    *,
    dense_first: bool,
    dense_last: bool,
    exclude: Sequence[str],
    allow_empty: bool,
) -> Masks:
    """Give all layers the same density, but those that stay dense (Evci et al. 2020, §3: the first one).

    The target is that of all layers together, so the others are sparser than it where some stay dense.
    """
    dense = [*list(masks)[: int(dense_first)], *list(masks)[len(masks) - int(dense_last) :]]
    names = [name for name in included(masks, exclude, _EXCLUDE) if name not in dense]
    if not names:
        raise LtlError("pruner.allocation: every layer stays dense; set dense_first or dense_last to false.")
    return _by_share(scores, masks, target, {name: masks[name].numel() for name in names}, allow_empty)


def erdos_renyi(
    scores: Tensors, masks: Masks, target: Target, *, kernel: bool, exclude: Sequence[str], allow_empty: bool
) -> Masks:
    """Give each layer a density in proportion to (n_in + n_out)/(n_in · n_out) (Mocanu et al. 2018).

    kernel: sum and product take in the sides of a convolution's kernel (ERK: Evci et al. 2020, §3). A layer that would
    exceed 1 is dense, and the others are denser for it.
    """
    shares = {}
    for name in included(masks, exclude, _EXCLUDE):
        sides = masks[name].shape if kernel else masks[name].shape[:2]
        shares[name] = sum(sides) / sides.numel() * masks[name].numel()
    return _by_share(scores, masks, target, shares, allow_empty)


def matched(
    scores: Tensors,
    masks: Masks,
    target: Target,
    *,
    like: Mapping[str, int],
    exclude: Sequence[str],
    allow_empty: bool,
) -> Masks:
    """Keep weights of each layer in proportion to those of a ticket, `like`; at its density, exactly as many."""
    if set(like) != set(masks):
        raise LtlError(
            f"pruner.allocation.like: the ticket has masks of {', '.join(like)}; this model has {', '.join(masks)}."
        )
    names = included(masks, exclude, _EXCLUDE)
    return _by_share(scores, masks, target, {name: like[name] for name in names}, allow_empty)


def smart_ratio(
    scores: Tensors,
    masks: Masks,
    target: Target,
    *,
    output_density: float,
    depth_power: float,
    exclude: Sequence[str],
    allow_empty: bool,
) -> Masks:
    """Give layer l of L a density in proportion to (k² + k)/l^depth_power, k = L − l + 1 (Su et al. 2020).

    The last layer has `output_density`, as the paper's only linear layer does. What a layer cannot hold is handed on to
    the next ones, then from the first on, then to the output. The official code stops handing on at the first layer
    that has nothing over, wherever that is. LtlError if the last layer's weights alone are too many.
    """
    room, left = _budget(masks, target, included(masks, exclude, _EXCLUDE))
    last = list(masks)[-1]
    counts = {last: min(floor(output_density, masks[last].numel()), room[last])} if last in room else {}
    rest = left - sum(counts.values())
    if rest < 0:
        raise LtlError(
            f"pruner.allocation.output_density={output_density} keeps {counts[last]} weights of {last}, more than the "
            f"{left} that are to stay in all: lower it, or pruner.rounds or pruner.rate."
        )
    ratios = {}
    for depth, (name, mask) in enumerate(masks.items(), 1):
        if name in room and name != last:
            height = len(masks) - depth + 1
            ratios[name] = (height**2 + height) / depth**depth_power * mask.numel()
    whole = sum(ratios.values())
    wanted = rounded({name: rest * ratio / whole for name, ratio in ratios.items()}, rest)
    over = rest - sum(wanted.values())
    for name, want in wanted.items():
        counts[name] = min(want + over, room[name])
        over += want - counts[name]
    for name in [*wanted, *counts]:
        more = min(over, room[name] - counts[name])
        counts[name] += more
        over -= more
    return _to_counts(scores, masks, counts, allow_empty)


_EXCLUDE = "pruner.allocation.exclude"


def _by_share(scores: Tensors, masks: Masks, target: Target, shares: Mapping[str, float], allow_empty: bool) -> Masks:
    """Keep weights of the layers of `shares` in proportion to these, and more of the rest where one is full."""
    room, left = _budget(masks, target, list(shares))
    return _to_counts(scores, masks, in_proportion(shares, room, left), allow_empty)


def _budget(masks: Masks, target: Target, names: Sequence[str]) -> tuple[dict[str, int], int]:
    """Return how many weights each of the layers `names` has, and how many of them stay in all."""
    room, removal = _remaining(masks, names), removed(target, masks, names)
    if removal > sum(room.values()):
        raise LtlError(
            f"pruner.rate: {removal} weights are to go, but the layers that are pruned have {sum(room.values())}: "
            "lower pruner.rounds or pruner.rate, or prune more layers."
        )
    return room, sum(room.values()) - removal


def _to_counts(scores: Tensors, masks: Masks, counts: Mapping[str, int], allow_empty: bool) -> Masks:
    """Keep `counts` weights of each layer named; unless `allow_empty`, an empty one takes one from the largest."""
    counts = dict(counts)
    room = _remaining(masks, counts)
    for name in [name for name, count in counts.items() if count == 0 < room[name] and not allow_empty]:
        largest = max(counts, key=lambda other: counts[other])
        if counts[largest] < 2:
            raise LtlError(
                f"pruner.rate: the {sum(counts.values())} weights that are to stay are fewer than the layers: lower "
                "pruner.rounds or pruner.rate, or set pruner.allocation.allow_empty=true."
            )
        counts[largest], counts[name] = counts[largest] - 1, 1
    pruned = {name: masks[name] & ~lowest(scores[name], masks[name], room[name] - counts[name]) for name in counts}
    return {name: pruned.get(name, mask) for name, mask in masks.items()}


def _remaining(masks: Masks, names: Iterable[str]) -> dict[str, int]:
    return {name: int(torch.count_nonzero(masks[name])) for name in names}

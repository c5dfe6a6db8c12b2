"""One pruning method: criterion × allocation × survivors × filler, and what happens to momentum and lr."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ltl.errors import LtlError
from ltl.masks import Masks, Tensors, dense
from ltl.pruning.allocation import Target, floor, in_proportion, lowest
from ltl.pruning.evidence import Evidence
from ltl.pruning.schedules import Event

Criterion = Callable[[Evidence], Tensors]


@dataclass(frozen=True)
class Replacement:
    """How dynamic sparse training replaces weights: the lowest scores of `drop` go, the highest of `grow` come.

    redistribute: layers grow in proportion to the mean score of `grow` over the weights that they have, instead of as
    many as they drop (Dettmers & Zettlemoyer 2019, §3).
    """

    drop: Criterion
    grow: Criterion
    redistribute: bool


@dataclass(frozen=True)
class Pruner:
    """A pruning method, without its schedule.

    momentum: optimiser state after a rewind: `zero` = fresh, `saved` = as at the rewind point, `kept` = as it is now.
    lr: `rewound` = the learning-rate schedule goes back to the rewind step, `last` = it stays at its last value.
    """

    criterion: Criterion
    allocation: Callable[[Tensors, Masks, Target], Masks]
    survivors: Callable[[Evidence, Masks], Tensors]
    filler: Callable[[Evidence, Masks], Tensors]
    momentum: Literal["zero", "saved", "kept"]
    lr: Literal["rewound", "last"]
    replacement: Replacement | None = None  # in dynamic sparse training

    def check(self, events: Sequence[Event]) -> None:
        """LtlError for events that the method cannot follow."""
        if self.replacement is None and any(event.replaces for event in events):
            raise LtlError(
                "pruner.replacement=null is not possible: pruner.schedule replaces weights; name drop and grow, as "
                "pruner=rigl does."
            )
        if self.momentum == "kept" and any(event.of_dense for event in events):
            raise LtlError(
                "pruner.momentum=kept is not possible: pruner.schedule prunes the dense network in every round, while "
                "the optimiser's state is that of the round before; choose zero or saved."
            )

    def prune(self, evidence: Evidence, target: Target) -> Masks:
        """Return the masks after one pruning; LtlError for scores of other shapes, or of survivors not finite."""
        scores = self.criterion(evidence)
        _check(scores, evidence.masks, "pruner.criterion")
        return self.allocation(scores, evidence.masks, target)

    def replace(self, evidence: Evidence, rate: float) -> Masks:
        """Return the masks after each layer has replaced ⌊rate·n⌋ of its n weights (Evci et al. 2020, Alg. 1).

        A layer drops no more than it has places free, so a dense one stays as it is. What was just dropped may grow
        again. LtlError for scores that are not finite, or without `replacement`.
        """
        if self.replacement is None:
            raise LtlError("pruner.replacement=null is not possible with a schedule that replaces weights: name both.")
        dropped, grown = self.replacement.drop(evidence), self.replacement.grow(evidence)
        _check(dropped, evidence.masks, "pruner.replacement.drop")
        _check(grown, dense(evidence.masks), "pruner.replacement.grow")
        left = {name: _dropped(mask, dropped[name], rate) for name, mask in evidence.masks.items()}
        counts = {name: int(torch.count_nonzero(mask & ~left[name])) for name, mask in evidence.masks.items()}
        if self.replacement.redistribute:
            counts = _redistributed(counts, evidence.masks, grown)
        return {name: mask | lowest(-grown[name], ~mask, counts[name]) for name, mask in left.items()}


def _dropped(mask: Tensor, drop: Tensor, rate: float) -> Tensor:
    count = min(floor(rate, int(torch.count_nonzero(mask))), int(torch.count_nonzero(~mask)))
    return mask & ~lowest(drop, mask, count)


def _redistributed(counts: dict[str, int], masks: Masks, grow: Tensors) -> dict[str, int]:
    """Return `counts` shared out anew, by the layers' mean scores of kept weights, as far as each has places."""
    means = {name: float(grow[name][mask].mean()) if bool(mask.any()) else 0.0 for name, mask in masks.items()}
    whole = sum(means.values()) or 1.0
    room = {name: int(torch.count_nonzero(~mask)) + counts[name] for name, mask in masks.items()}
    return in_proportion({name: mean / whole for name, mean in means.items()}, room, sum(counts.values()))


def _check(scores: Tensors, judged: Masks, key: str) -> None:
    shapes, wanted = ({name: tuple(one.shape) for name, one in given.items()} for given in (scores, judged))
    if odd := [name for name in (*wanted, *shapes) if wanted.get(name) != shapes.get(name)]:
        raise LtlError(
            f"{key}: scores of {odd[0]} are {shapes.get(odd[0], 'absent')}, and its mask is "
            f"{wanted.get(odd[0], 'absent')}: return one tensor for each of evidence.masks, of its shape."
        )
    for name, score in scores.items():
        if not (torch.isfinite(score) | ~judged[name]).all():
            raise LtlError(
                f"{key} gives scores of {name} that are no finite numbers: lower optimizer.lr, or set clip=1.0, if its "
                "weights are not finite either."
            )

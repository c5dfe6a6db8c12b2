"""One pruning method: criterion × allocation × survivors × filler, and what happens to momentum and lr."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ltl.errors import LtlError
from ltl.masks import Masks, Tensors, dense
from ltl.pruning.allocation import Target, floor, lowest
from ltl.pruning.evidence import Evidence

Criterion = Callable[[Evidence], Tensors]


@dataclass(frozen=True)
class Replacement:
    """How dynamic sparse training replaces weights: the lowest scores of `drop` go, the highest of `grow` come."""

    drop: Criterion
    grow: Criterion


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

    def prune(self, evidence: Evidence, target: Target) -> Masks:
        """Return the masks after one pruning; LtlError for scores of survivors that are not finite."""
        scores = self.criterion(evidence)
        _check(scores, evidence.masks, "pruner.criterion")
        return self.allocation(scores, evidence.masks, target)

    def replace(self, evidence: Evidence, rate: float) -> Masks:
        """Return the masks after each layer has replaced ⌊rate·n⌋ of its n weights (Evci et al. 2020, Alg. 1).

        What was just dropped may grow again. LtlError for scores that are not finite, or without `replacement`.
        """
        if self.replacement is None:
            raise LtlError("pruner.replacement=null is not possible with a schedule that replaces weights: name both.")
        dropped, grown = self.replacement.drop(evidence), self.replacement.grow(evidence)
        _check(dropped, evidence.masks, "pruner.replacement.drop")
        _check(grown, dense(evidence.masks), "pruner.replacement.grow")
        return {name: _replaced(mask, dropped[name], grown[name], rate) for name, mask in evidence.masks.items()}


def _replaced(mask: Tensor, drop: Tensor, grow: Tensor, rate: float) -> Tensor:
    count = min(floor(rate, int(torch.count_nonzero(mask))), int(torch.count_nonzero(~mask)))
    left = mask & ~lowest(drop, mask, count)
    return left | lowest(-grow, ~left, count)


def _check(scores: Tensors, judged: Masks, key: str) -> None:
    for name, score in scores.items():
        if not (torch.isfinite(score) | ~judged[name]).all():
            raise LtlError(
                f"{key} gives scores of {name} that are no finite numbers: lower optimizer.lr, or set clip=1.0, if its "
                "weights are not finite either."
            )

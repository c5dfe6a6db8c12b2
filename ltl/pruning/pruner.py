"""One pruning method: criterion × allocation × survivors × filler, and what happens to momentum and lr."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch

from ltl.errors import LtlError
from ltl.masks import Masks, Tensors
from ltl.pruning.allocation import Target
from ltl.pruning.evidence import Evidence


@dataclass(frozen=True)
class Pruner:
    """A pruning method, without its schedule.

    momentum: optimiser state after a rewind: `zero` = fresh, `saved` = as at the rewind point, `kept` = as it is now.
    lr: `rewound` = the learning-rate schedule goes back to the rewind step, `last` = it stays at its last value.
    """

    criterion: Callable[[Evidence], Tensors]
    allocation: Callable[[Tensors, Masks, Target], Masks]
    survivors: Callable[[Evidence, Masks], Tensors]
    filler: Callable[[Evidence, Masks], Tensors]
    momentum: Literal["zero", "saved", "kept"]
    lr: Literal["rewound", "last"]

    def prune(self, evidence: Evidence, target: Target) -> Masks:
        """Return the masks after one pruning; LtlError for scores of survivors that are not finite."""
        scores = self.criterion(evidence)
        for name, score in scores.items():
            if not (torch.isfinite(score) | ~evidence.masks[name]).all():
                raise LtlError(
                    f"pruner.criterion gives scores of {name} that are no finite numbers: lower optimizer.lr, or set "
                    "clip=1.0, if its weights are not finite either."
                )
        return self.allocation(scores, evidence.masks, target)

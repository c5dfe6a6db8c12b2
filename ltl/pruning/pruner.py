"""One pruning method: criterion × allocation × survivors × filler, and what happens to momentum and lr."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch

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
        """Return the masks after one pruning; scores that are not numbers are refused."""
        scores = self.criterion(evidence)
        for name, score in scores.items():
            if not torch.isfinite(score[evidence.masks[name]]).all():
                raise FloatingPointError(f"the scores of {name} are not finite")
        return self.allocation(scores, evidence.masks, target)

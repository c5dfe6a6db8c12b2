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

    def try_out(self, evidence: Evidence) -> None:
        """LtlError for a function that would not return what it is to, before any training; no values are judged."""
        for key, criterion in self._criteria().items():
            _scores(key, criterion, evidence)
        self.survive(evidence, evidence.masks)
        self.fill(evidence, evidence.masks)

    def prune(self, evidence: Evidence, target: Target) -> Masks:
        """Return the masks after one pruning; LtlError for scores of other shapes, or of survivors not finite."""
        scores = _scores("pruner.criterion", self.criterion, evidence)
        _check_finite(scores, evidence.masks, "pruner.criterion")
        return self.allocate(scores, evidence.masks, target)

    def allocate(self, scores: Tensors, masks: Masks, target: Target) -> Masks:
        """Return the masks that the allocation makes of `scores`; LtlError if they are none, or bring weights back."""
        new = self.allocation(scores, masks, target)
        _check_form(new, masks, "pruner.allocation", "one tensor of bools for each of masks, of its shape")
        if grown := [name for name, mask in masks.items() if bool((new[name] & ~mask).any())]:
            raise LtlError(
                f"pruner.allocation brings back weights of {grown[0]} that are pruned, but masks only shrink: return "
                "masks[name] & …"
            )
        return new

    def survive(self, evidence: Evidence, masks: Masks) -> Tensors:
        """Return what weights are set to; LtlError unless it is all parameters and buffers."""
        words = "one tensor for each of evidence.theta_0, of its shape and type"
        return _made("pruner.survivors", self.survivors, evidence, masks, like=evidence.theta_0, words=words)

    def fill(self, evidence: Evidence, masks: Masks) -> Tensors:
        """Return what pruned weights are set to; LtlError unless it is a tensor for each mask."""
        like = {name: evidence.theta_0[name] for name in masks}
        words = "one tensor for each of masks, of the shape and type of its weights"
        return _made("pruner.filler", self.filler, evidence, masks, like=like, words=words)

    def _criteria(self) -> dict[str, Criterion]:
        if self.replacement is None:
            return {"pruner.criterion": self.criterion}
        own = {"pruner.replacement.drop": self.replacement.drop, "pruner.replacement.grow": self.replacement.grow}
        return {"pruner.criterion": self.criterion, **own}

    def replace(self, evidence: Evidence, rate: float) -> Masks:
        """Return the masks after each layer has replaced ⌊rate·n⌋ of its n weights (Evci et al. 2020, Alg. 1).

        A layer drops no more than it has places free, so a dense one stays as it is. What was just dropped may grow
        again. LtlError for scores that are not finite, or without `replacement`.
        """
        if self.replacement is None:
            raise LtlError("pruner.replacement=null is not possible with a schedule that replaces weights: name both.")
        dropped = _scores("pruner.replacement.drop", self.replacement.drop, evidence)
        grown = _scores("pruner.replacement.grow", self.replacement.grow, evidence)
        _check_finite(dropped, evidence.masks, "pruner.replacement.drop")
        _check_finite(grown, dense(evidence.masks), "pruner.replacement.grow")
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


def _scores(key: str, criterion: Criterion, evidence: Evidence) -> Tensors:
    words = "one tensor of real numbers for each of evidence.masks, of its shape"
    return _made(key, criterion, evidence, like=evidence.masks, words=words, real=True)


def _made(
    key: str,
    function: Callable[..., Tensors],
    evidence: Evidence,
    *more: Masks,
    like: Tensors,
    words: str,
    real: bool = False,
) -> Tensors:
    """Return what a function of the method makes of `evidence`; LtlError if it is not of the form of `like`.

    Neither may it change a tensor that it is shown, which others are computed from, nor draw from anything but the
    evidence's generator.
    """
    shown = [*evidence.weights.values(), *evidence.theta_0.values(), *evidence.theta_k.values()]
    before, drawn = [tensor._version for tensor in shown], torch.get_rng_state()
    made = function(evidence, *more)
    if before != [tensor._version for tensor in shown]:
        raise LtlError(
            f"{key} changes a tensor of its evidence in place: work on a copy, as abs() and not abs_() does."
        )
    if not torch.equal(drawn, torch.get_rng_state()):
        raise LtlError(f"{key} draws from PyTorch's global generator, which no seed fixes: pass evidence.generator.")
    _check_form(made, like, key, words, real=real)
    return made


def _check_form(given: object, like: Tensors, key: str, words: str, *, real: bool = False) -> None:
    """LtlError unless `given` holds a tensor for each of `like`, of its shape, and of its type or any `real` one."""
    if not isinstance(given, dict):
        raise LtlError(f"{key} returns {type(given).__name__}: return a dict with {words}.")
    for name in (*like, *given):
        one, other = given.get(name), like.get(name)
        if not isinstance(one, Tensor) or other is None or one.shape != other.shape:
            fits = False
        else:
            fits = one.dtype != torch.bool and not one.is_complex() if real else one.dtype == other.dtype
        if not fits:
            raise LtlError(
                f"{key}: {name} is {_told(one, 'absent')}, and is to fit {_told(other, 'no tensor')}: return a dict "
                f"with {words}."
            )


def _told(tensor: object, absent: str) -> str:
    if isinstance(tensor, Tensor):
        return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"
    return absent if tensor is None else f"a {type(tensor).__name__}"


def _check_finite(scores: Tensors, judged: Masks, key: str) -> None:
    for name, score in scores.items():
        if not (torch.isfinite(score) | ~judged[name]).all():
            raise LtlError(
                f"{key} gives scores of {name} that are no finite numbers: lower optimizer.lr, or set clip=1.0, if its "
                "weights are not finite either."
            )

"""How two tickets compare: overlap of their masks against chance, signs of their weights, agreement of predictions."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from ltl.errors import LtlError
from ltl.masks import Masks, Tensors


@dataclass(frozen=True)
class Overlap:
    """Counts of two masks A and B over the same weights, and what chance gives at their layer densities.

    By chance means that B's survivors are drawn at random within each layer, at the number that B keeps there: the
    number kept by both is then hypergeometric, with `chance` its mean and `variance` its variance. A value that does
    not exist (nothing kept, no common survivor, no room for chance) is NaN.
    """

    layer: str
    weights: int
    kept_a: int
    kept_b: int
    common: int
    same_sign: int
    chance: float
    variance: float

    @property
    def jaccard(self) -> float:
        """|A ∩ B| / |A ∪ B|."""
        return _fraction(self.common, self.kept_a + self.kept_b - self.common)

    @property
    def overlap(self) -> float:
        """|A ∩ B| / min(|A|, |B|)."""
        return _fraction(self.common, min(self.kept_a, self.kept_b))

    @property
    def jaccard_by_chance(self) -> float:
        """The Jaccard index at the mean number of common survivors (for the total, the sum of the layers' means)."""
        return _fraction(self.chance, self.kept_a + self.kept_b - self.chance)

    @property
    def overlap_by_chance(self) -> float:
        """The mean of the overlap by chance."""
        return _fraction(self.chance, min(self.kept_a, self.kept_b))

    @property
    def z(self) -> float:
        """Standard deviations of chance by which the common survivors exceed their mean."""
        return _fraction(self.common - self.chance, math.sqrt(self.variance))

    @property
    def sign_agreement(self) -> float:
        """Fraction of the common survivors whose weights have the same sign (a weight of 0 agrees with 0 only)."""
        return _fraction(self.same_sign, self.common)


def compare(masks_a: Masks, masks_b: Masks, weights_a: Tensors, weights_b: Tensors) -> list[Overlap]:
    """Return the overlap of each layer, in A's order; LtlError if the masks are not of the same layers and shapes."""
    _check_same_layers(masks_a, masks_b)
    layers = []
    for name, a in masks_a.items():
        b = masks_b[name]
        both = a & b
        same = weights_a[name].sign() == weights_b[name].sign()
        total, kept_a, kept_b = a.numel(), int(a.sum()), int(b.sum())
        chance = kept_a * kept_b / total
        spread = (total - kept_a) * (total - kept_b) / (total * max(total - 1, 1))
        layers.append(
            Overlap(
                layer=name,
                weights=total,
                kept_a=kept_a,
                kept_b=kept_b,
                common=int(both.sum()),
                same_sign=int((both & same).sum()),
                chance=chance,
                variance=chance * spread,
            )
        )
    return layers


def in_all(layers: Iterable[Overlap]) -> Overlap:
    """Return the overlap of all `layers` together; by chance the layers keep their own densities, independently."""
    parts = list(layers)
    return Overlap(
        layer="all",
        weights=sum(part.weights for part in parts),
        kept_a=sum(part.kept_a for part in parts),
        kept_b=sum(part.kept_b for part in parts),
        common=sum(part.common for part in parts),
        same_sign=sum(part.same_sign for part in parts),
        chance=math.fsum(part.chance for part in parts),
        variance=math.fsum(part.variance for part in parts),
    )


@dataclass(frozen=True)
class Agreement:
    """Predicted classes of two networks on the same examples; all three values are fractions of the examples."""

    examples: int
    same: float
    accuracy_a: float
    accuracy_b: float


def agreement(outputs_a: Tensor, outputs_b: Tensor, targets: Tensor) -> Agreement:
    """Compare the largest logits of `outputs_a` and `outputs_b`, (n, classes) each, with each other and `targets` (n,).

    LtlError if an output is not finite, because such a network predicts nothing.
    """
    if not (torch.isfinite(outputs_a).all() and torch.isfinite(outputs_b).all()):
        raise LtlError("a ticket's outputs are not finite, so it predicts no class.")
    a, b = outputs_a.argmax(1), outputs_b.argmax(1)
    return Agreement(len(targets), _mean(a == b), _mean(a == targets), _mean(b == targets))


def _check_same_layers(masks_a: Masks, masks_b: Masks) -> None:
    for name in sorted(masks_a.keys() | masks_b.keys()):
        if name not in masks_a or name not in masks_b:
            owner = "first" if name in masks_a else "second"
            raise LtlError(f"these tickets mask different layers: only the {owner} has {name!r}; compare equal models.")
        if masks_a[name].shape != masks_b[name].shape:
            a, b = tuple(masks_a[name].shape), tuple(masks_b[name].shape)
            raise LtlError(f"these tickets differ in shape: {name!r} is {a} in the first, {b} in the second.")


def _fraction(part: float, whole: float) -> float:
    return part / whole if whole else math.nan


def _mean(flags: Tensor) -> float:
    return int(flags.sum()) / len(flags) if len(flags) else math.nan

"""Scores in training: what they are trained by, and how weights of a stack take their masks from them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ltl.errors import LtlError
from ltl.masks import Masks, kept, total
from ltl.models.stack import Stack
from ltl.pruning import survivors
from ltl.pruning.allocation import global_pool, included
from ltl.pruning.layer_densities import uniform
from ltl.pruning.pruner import Pruner
from ltl.pruning.schedules import Event
from ltl.supermasks import Estimator, Found, shares


@dataclass(frozen=True)
class Scoring:
    """How scores are trained; lengths are in optimiser steps.

    samples: masks drawn at the end, whose accuracies are averaged (0: none). batch_norm: whether scale and shift of
    BatchNorm are trained with the scores, or stay as they were initialised.
    """

    estimator: Estimator
    optimizer: Callable[..., Optimizer]
    lr_schedule: Callable[[int], float]
    length: int
    samples: int
    batch_norm: bool


@dataclass(frozen=True)
class Pool:
    """Layers that share one threshold on |s|: what each keeps is decided by the scores at every step."""

    names: Sequence[str]
    allow_empty: bool


def pool_of(pruner: Pruner, masks: Masks) -> Pool | None:
    """Return the layers of `masks` that the allocation judges together; None where each has a density of its own."""
    together = _together(pruner)
    if together is None:
        return None
    return Pool(included(masks, together["exclude"], "pruner.allocation.exclude"), together["allow_empty"])


def even(pruner: Pruner) -> Pruner:
    """Return `pruner` with the density of the network in every layer of its pool, until there are scores."""
    together = _together(pruner)
    if together is None:
        return pruner
    return replace(pruner, allocation=partial(uniform, **together, dense_first=False, dense_last=False))


def _together(pruner: Pruner) -> Mapping[str, Any] | None:
    """Return the settings of an allocation by one threshold, None for any other."""
    allocation = pruner.allocation
    return allocation.keywords if isinstance(allocation, partial) and allocation.func is global_pool else None


def check_scoring(pruner: Pruner, estimator: Estimator, events: Sequence[Event], masks: Masks) -> None:
    """Raise LtlError where scores cannot follow `pruner` from the `masks` of the dense network on."""
    _check_parts(pruner)
    if any(event.target.density is None or event.settled or event.replaces for event in events):
        raise LtlError(
            "pruner.schedule is not possible with pruner.scores: it must name densities, as at_init and gradual do."
        )
    if pool_of(pruner, masks) and estimator.draws:
        raise LtlError(
            "pruner.allocation=global is not possible with masks that are drawn: their scores alone say how many "
            "weights a layer keeps; choose allocation=uniform, by which they begin."
        )
    for event in events[:1] if _together(pruner) is None else ():
        one, other = (
            {
                name: torch.full(mask.shape, float(score))
                for score, (name, mask) in zip(order, masks.items(), strict=True)
            }
            for order in (range(1, len(masks) + 1), range(len(masks), 0, -1))
        )
        sizes, others = (_sizes(pruner.allocation(scores, masks, event.target)) for scores in (one, other))
        if sizes != others or sum(sizes) != round((event.target.density or 0.0) * total(masks)):
            raise LtlError(
                "pruner.allocation is not possible with pruner.scores: it must keep the density of the schedule, and "
                "how much of a layer must not depend on the criterion, as with allocation=uniform or global."
            )
    if events:
        fewest = min((event.target for event in events), key=lambda target: target.density or 0.0)
        even(pruner).allocation({name: mask.float() for name, mask in masks.items()}, masks, fewest)


def _check_parts(pruner: Pruner) -> None:
    """Raise LtlError for what supermasks do not read, and would not follow."""
    given = {"filler": _functions(pruner.filler)[0].__name__, "momentum": pruner.momentum, "lr": pruner.lr}
    for name, only in (("filler", "zero"), ("momentum", "zero"), ("lr", "rewound")):
        if given[name] != only:
            raise LtlError(
                f"pruner.{name} is not possible with pruner.scores, other than {only}: weights stay as they are set "
                f"before scores are trained; got {given[name]}."
            )
    if read := [one for one in _functions(pruner.survivors) if one in (survivors.trained, survivors.zeroed)]:
        raise LtlError(
            f"pruner.survivors={read[0].__name__} is not possible with pruner.scores, as no weight is trained: choose "
            "rewound, or another that needs no training."
        )


def _functions(part: Callable[..., Any]) -> list[Callable[..., Any]]:
    """Return the function of survivors or a filler, and those that it is given in turn."""
    if not isinstance(part, partial):
        return [part]
    inner = part.keywords.get("survivors")
    return [part.func, *(_functions(inner) if inner else [])]


def _sizes(masks: Masks) -> list[int]:
    return [kept({name: mask}) for name, mask in masks.items()]


class ScoredWeight(nn.Module):
    """The parametrisation of one weight of R networks, θ (R, *stored) -> effective weights (R, *stored).

    In evaluation these are of the mask that is kept, unless `sampled`.
    """

    def __init__(self, estimator: Estimator, scores: Tensor, counts: Sequence[int], *, turned: bool) -> None:
        super().__init__()
        self.scores = nn.Parameter(scores)
        self.estimator, self.counts, self.turned = estimator, list(counts), turned
        self.draws: Tensor | None = torch.zeros_like(scores, dtype=torch.int16) if estimator.draws else None
        self.sampled = False

    def forward(self, theta: Tensor) -> Tensor:
        if not (self.training or self.sampled):
            weights = self.found(theta).weights()
        else:
            # Where they are drawn is where the weights are; but a look comes before the first draw.
            draws = None if self.draws is None else self._natural(self.draws.to(theta.device))
            weights = self.estimator.weights(self._natural(theta), self._natural(self.scores), self.counts, draws)
        return self._natural(weights)

    def found(self, theta: Tensor) -> Found:
        """Return what the scores say of θ, in the natural order of the weight."""
        return self.estimator.found(self._natural(theta), self._natural(self.scores.detach()), self.counts)

    def _natural(self, stored: Tensor) -> Tensor:
        return stored.mT if self.turned else stored


class Scores:
    """The scores of all weights of a stack, each network's begun with its own; everything else is frozen.

    `fresh` are the scores of every network by name, `counts` the weights that it is to keep. Those of the layers of
    `pool`, if there is one, are a sum, which `share` divides.
    """

    def __init__(
        self,
        stack: Stack,
        scoring: Scoring,
        fresh: Sequence[dict[str, Tensor]],
        counts: Sequence[dict[str, int]],
        pool: Pool | None,
    ) -> None:
        trained = stack.batch_norm() if scoring.batch_norm else []
        for parameter in stack.parameters():
            parameter.requires_grad_(any(parameter is one for one in trained))
        self._stack, self._pool = stack, pool
        self._layers: dict[str, ScoredWeight] = {}
        for name in fresh[0]:
            weight = stack.stacked(name)
            scores = torch.empty_like(weight).copy_(stack.laid_out(name, [one[name] for one in fresh]))
            turned = stack.turned(name)
            layer = ScoredWeight(scoring.estimator, scores, [one[name] for one in counts], turned=turned)
            self._layers[name] = layer
            stack.parametrise(name, layer)
        self.draws = scoring.estimator.draws
        self._generators: list[torch.Generator] = []
        self._bits = torch.empty(0)
        self.share()

    def keep(self, counts: Sequence[dict[str, int]]) -> None:
        """Set the weights that each network is to keep from now on."""
        for name, layer in self._layers.items():
            layer.counts = [one[name] for one in counts]
        self.share()

    def share(self) -> None:
        """Divide what each network keeps in the layers of the pool by their scores as they are now."""
        if self._pool is None:
            return
        layers = [self._layers[name] for name in self._pool.names]
        for number in range(self._stack.size):
            scores, count = [layer.scores[number] for layer in layers], sum(layer.counts[number] for layer in layers)
            for layer, own in zip(layers, shares(scores, count, allow_empty=self._pool.allow_empty), strict=True):
                layer.counts[number] = own

    def sample(self, sampled: bool) -> None:
        """Have evaluations draw masks as training does, or go back to those that are kept."""
        for layer in self._layers.values():
            layer.sampled = sampled

    def found(self) -> list[dict[str, Found]]:
        """Return what the scores of each network say, by name."""
        found = {name: layer.found(self._stack.original(name)) for name, layer in self._layers.items()}
        return [{name: one.of(number) for name, one in found.items()} for number in range(self._stack.size)]

    def draw(self, seeds: Sequence[int]) -> None:
        """Draw 16 bits for every weight of each network from a generator of its seed."""
        if not self._generators:
            self._allocate(len(seeds))
        for bits, source, seed in zip(self._bits, self._generators, seeds, strict=True):
            bits.random_(-(2**63), None, generator=source.manual_seed(seed))

    def _allocate(self, size: int) -> None:
        layers = list(self._layers.values())
        counts = [layer.scores[0].numel() for layer in layers]
        device = layers[0].scores.device
        self._generators = [torch.Generator(device=device) for _ in range(size)]
        self._bits = torch.empty(size, -(-sum(counts) // 4), dtype=torch.int64, device=device)
        parts = torch.split(self._bits.view(torch.int16)[:, : sum(counts)], counts, dim=1)
        for layer, part in zip(layers, parts, strict=True):
            layer.draws = part.view_as(layer.scores)

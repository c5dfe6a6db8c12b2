"""Scores in training: what they are trained by, and how weights of a stack take their masks from them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ltl.errors import LtlError
from ltl.masks import kept
from ltl.models.stack import Stack
from ltl.pruning.pruner import Pruner
from ltl.pruning.schedules import Event
from ltl.supermasks import Estimator, Found


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


def check_scoring(pruner: Pruner, events: Sequence[Event], shapes: Mapping[str, torch.Size]) -> None:
    """Raise LtlError where scores cannot follow the schedule or the allocation of `pruner`."""
    if any(event.target.density is None or event.settled or event.replaces for event in events):
        raise LtlError(
            "pruner.schedule is not possible with pruner.scores: it must name densities, as at_init and gradual do."
        )
    masks = {name: torch.ones(shape, dtype=torch.bool) for name, shape in shapes.items()}
    scores = {name: torch.full(shape, float(place)) for place, (name, shape) in enumerate(shapes.items())}
    for event in events[:1]:
        one, other = (
            pruner.allocation({name: sign * score for name, score in scores.items()}, masks, event.target)
            for sign in (1, -1)
        )
        if any(kept({name: one[name]}) != kept({name: other[name]}) for name in masks):
            raise LtlError(
                "pruner.allocation is not possible with pruner.scores: layers are told apart, and this one judges them "
                "together; choose allocation=uniform or another that gives each layer its density."
            )


class Scored(nn.Module):
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
            draws = None if self.draws is None else self._natural(self.draws)
            weights = self.estimator.weights(self._natural(theta), self._natural(self.scores), self.counts, draws)
        return self._natural(weights)

    def found(self, theta: Tensor) -> Found:
        """Return what the scores say of θ, in the natural order of the weight."""
        return self.estimator.found(self._natural(theta), self._natural(self.scores.detach()), self.counts)

    def _natural(self, stored: Tensor) -> Tensor:
        return stored.mT if self.turned else stored


class Scores:
    """The scores of all weights of a stack, each network's begun with its own; everything else is frozen.

    `fresh` are the scores of every network by name, `counts` the weights that it is to keep.
    """

    def __init__(
        self, stack: Stack, scoring: Scoring, fresh: Sequence[dict[str, Tensor]], counts: Sequence[dict[str, int]]
    ) -> None:
        trained = stack.batch_norm() if scoring.batch_norm else []
        for parameter in stack.parameters():
            parameter.requires_grad_(any(parameter is one for one in trained))
        self._stack = stack
        self._layers: dict[str, Scored] = {}
        for name in fresh[0]:
            weight = stack.stacked(name)
            scores = torch.empty_like(weight).copy_(stack.laid_out(name, [one[name] for one in fresh]))
            turned = stack.turned(name)
            layer = Scored(scoring.estimator, scores, [one[name] for one in counts], turned=turned)
            self._layers[name] = layer
            stack.parametrise(name, layer)
        self.draws = scoring.estimator.draws
        self._generators: list[torch.Generator] = []
        self._bits = torch.empty(0)

    def keep(self, counts: Sequence[dict[str, int]]) -> None:
        """Set the weights that each network is to keep from now on."""
        for name, layer in self._layers.items():
            layer.counts = [one[name] for one in counts]

    def sample(self, sampled: bool) -> None:
        """Have evaluations draw masks as training does, or go back to those that are kept."""
        for layer in self._layers.values():
            layer.sampled = sampled

    def found(self, number: int) -> dict[str, Found]:
        """Return what the scores of one network say, by name."""
        return {name: layer.found(self._stack.original(name)).of(number) for name, layer in self._layers.items()}

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

"""Which training examples make up the batch of a given optimiser step."""

from typing import Literal

import torch
from torch import Tensor

from ltl.rng import generator


class DataOrder:
    """An endless sequence of random permutations of the examples, cut into full batches.

    Batch t holds positions t·batch … (t+1)·batch − 1 of the permutations laid end to end, so every example is seen
    once an epoch and every batch is full. The permutation is keyed by the data epoch within the round, hence any step's
    batch can be had without those before it. `by_round="fresh"` draws other permutations in every round, and in
    every draw of a control but the first, which shares its ticket's.
    """

    def __init__(
        self, *, examples: int, batch: int, seed: int, by_round: Literal["same", "fresh"], device: torch.device
    ) -> None:
        self.examples, self.batch, self.seed, self.by_round, self.device = examples, batch, seed, by_round, device
        self._epochs: dict[tuple[int, ...], Tensor] = {}

    def key(self, training: tuple[int, int]) -> tuple[int, ...]:
        """Return what tells the order of a training, by round and draw of its control, from those of others."""
        return (0,) if self.by_round == "same" else training if training[1] else training[:1]

    def indices(self, training: tuple[int, int], step: int) -> Tensor:
        """Return the indices (batch,) of optimiser step `step` of a training: a round, and a draw of its control."""
        return self.span(training, step, step + 1)[0]

    def span(self, training: tuple[int, int], start: int, stop: int) -> Tensor:
        """Return the indices (stop − start, batch) of optimiser steps start … stop − 1 of a training."""
        key = self.key(training)
        epoch, begin = divmod(start * self.batch, self.examples)
        end, parts = begin + (stop - start) * self.batch, []
        while end > 0:
            parts.append(self._permutation(key, epoch)[max(0, begin) : end])
            begin, end, epoch = begin - self.examples, end - self.examples, epoch + 1
        return torch.cat(parts).view(stop - start, self.batch)

    def _permutation(self, key: tuple[int, ...], epoch: int) -> Tensor:
        name = (*key, epoch)
        if name not in self._epochs:
            while len(self._epochs) > 1:
                del self._epochs[next(iter(self._epochs))]
            source = generator("order", self.seed, *name)
            self._epochs[name] = torch.randperm(self.examples, generator=source).to(self.device)
        return self._epochs[name]

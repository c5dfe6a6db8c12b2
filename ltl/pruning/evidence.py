"""What a pruning function may look at."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ltl.errors import LtlError
from ltl.masks import Masks, Tensors


@dataclass(frozen=True)
class Task:
    """What one network is trained for, as functions of its parameters and buffers; none of them changes anything.

    outputs(weights, inputs, training) -> (b, *): the network with `weights`; `training` says which statistics BatchNorm
    uses, and dropout never draws. loss(outputs, targets) -> scalar. examples(per_class, generator) -> (inputs, targets)
    draws that many training examples of each class, or all that it has, without augmentation, in random order.
    batches(count) yields (inputs, targets), augmented: the batch of the optimiser step which is due and those of up to
    count − 1 steps of this round before it, newest first.
    """

    outputs: Callable[[Tensors, Tensor, bool], Tensor]
    loss: Callable[[Tensor, Tensor], Tensor]
    examples: Callable[[int, torch.Generator], tuple[Tensor, Tensor]]
    batches: Callable[[int], Iterator[tuple[Tensor, Tensor]]]
    input_shape: tuple[int, ...]


@dataclass(frozen=True)
class Evidence:
    """All that is known of one network when it is pruned; tensors are keyed by parameter (or buffer) name."""

    weights: Tensors  # parameters and buffers now, or as the event says those of the trained dense network
    theta_0: Tensors  # at initialisation
    theta_k: Tensors  # at the rewind point
    masks: Masks  # m before this pruning
    generator: torch.Generator  # of the mask stream, keyed by round
    initialise: Callable[[torch.Generator], Tensors]  # draws a fresh initialisation
    data: Task | None = None

    @property
    def task(self) -> Task:
        """What the network is trained for; LtlError where that is not known."""
        if self.data is None:
            raise LtlError(
                "pruner.criterion looks at data, which PruneRewind on a module that is not ltl's does not have: choose "
                "a criterion of weights alone, or train by ltl's own MaskedTraining."
            )
        return self.data

    @property
    def masked(self) -> Tensors:
        """m ⊙ θ with all other parameters and buffers, detached: the network as it stands."""
        weights = {name: tensor.detach() for name, tensor in self.weights.items()}
        return weights | {name: weights[name] * mask for name, mask in self.masks.items()}

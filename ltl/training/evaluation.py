"""Loss and accuracy of networks on a whole split."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ltl.datasets.dataset import COLUMNS, Dataset, Split, turned

# How networks take their inputs: (b, *), the same without zeros, or a list of (features, up to COLUMNS).
Form = Literal["rows", "filled", "columns"]

_FILLED = 1000  # examples without zeros at a time, if not more: of fewer each takes longer


def evaluate(
    networks: Callable[[Any], Tensor], dataset: Dataset, split: Split, batch: int, *, form: Form
) -> list[tuple[float, float]]:
    """Return each network's (mean loss, accuracy) on `split`; all are in evaluation mode.

    `networks` is the function of R networks from inputs in `form` to outputs (R, b, *). It is given `batch` examples at
    a time, in columns and without zeros at least as many as are worth a call.
    """
    return awaited(evaluating(networks, dataset, split, batch, form=form))


@torch.no_grad()
def evaluating(networks: Callable[[Any], Tensor], dataset: Dataset, split: Split, batch: int, *, form: Form) -> Tensor:
    """Do as `evaluate` does without waiting for the device: return mean losses and accuracies, (2, R)."""
    device = split.inputs.device
    losses, correct = torch.zeros(2, 1, dtype=torch.float64, device=device)
    parts: Sequence[Any]
    if form == "columns":
        few = max(1, batch // COLUMNS)
        # The training set is looked at once a round: not worth a second copy.
        columns = turned(split.inputs) if split is dataset.train else split.columns
        batch, parts = few * COLUMNS, [columns[first : first + few] for first in range(0, len(columns), few)]
    elif form == "filled":
        batch = max(batch, _FILLED)
        parts = list(split.sparse.split(batch))
    else:
        parts = torch.split(split.inputs, batch)
    for inputs, targets in zip(parts, torch.split(split.targets, batch), strict=True):
        outputs = networks(inputs)
        outputs = outputs.to(torch.promote_types(outputs.dtype, torch.float32))
        shared = targets.expand(len(outputs), *targets.shape)
        each = dataset.loss(outputs.flatten(0, 1), shared.flatten(0, 1), reduction="none")
        losses = losses + each.view(len(outputs), -1).sum(1, dtype=torch.float64)
        correct = correct + dataset.correct(outputs, shared)
    return torch.stack([losses, correct]) / len(split.targets)


def awaited(found: Tensor) -> list[tuple[float, float]]:
    """Wait for what was begun, and return what `evaluate` returns."""
    losses, accuracies = found.tolist()
    shortest = (str(np.float32(accuracy)) for accuracy in accuracies)  # the float32 0.94, not 0.9399999976158142
    return [(loss, float(accuracy)) for loss, accuracy in zip(losses, shortest, strict=True)]

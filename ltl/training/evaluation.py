"""Loss and accuracy of networks on a whole split."""

from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor

from ltl.datasets.dataset import Dataset, Split
from ltl.sparse_inputs import SparseBatch


@torch.no_grad()
def evaluate(
    networks: Callable[[Tensor | SparseBatch], Tensor], dataset: Dataset, split: Split, batch: int, *, sparse: bool
) -> list[tuple[float, float]]:
    """Return each network's (mean loss, accuracy) on `split`, `batch` examples at a time; all are in evaluation mode.

    `networks` is the function of R networks from inputs (b, *) to outputs (R, b, *); `sparse` hands it the inputs
    without their zeros.
    """
    device = split.inputs.device
    losses, correct = torch.zeros(2, 1, dtype=torch.float64, device=device)
    parts: Iterable[Tensor | SparseBatch] = split.sparse.split(batch) if sparse else torch.split(split.inputs, batch)
    for inputs, targets in zip(parts, torch.split(split.targets, batch), strict=True):
        outputs = networks(inputs)
        outputs = outputs.to(torch.promote_types(outputs.dtype, torch.float32))
        shared = targets.expand(len(outputs), *targets.shape)
        each = dataset.loss(outputs.flatten(0, 1), shared.flatten(0, 1), reduction="none")
        losses = losses + each.view(len(outputs), -1).sum(1, dtype=torch.float64)
        correct = correct + dataset.correct(outputs, shared)
    found = (torch.stack([losses, correct]) / len(split.targets)).tolist()  # the one wait for the device
    shortest = (str(np.float32(accuracy)) for accuracy in found[1])  # the float32 0.94, not 0.9399999976158142
    return [(loss, float(accuracy)) for loss, accuracy in zip(found[0], shortest, strict=True)]

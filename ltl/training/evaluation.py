"""Loss and accuracy of a network on a whole split."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from ltl.datasets.dataset import Dataset, Split
from ltl.sparse_inputs import SparseBatch


@torch.no_grad()
def evaluate(
    network: Callable[[Tensor | SparseBatch], Tensor], dataset: Dataset, split: Split, batch: int, *, sparse: bool
) -> tuple[float, float]:
    """Return (mean loss, metric) of `network`, which is in evaluation mode, on `split`, `batch` examples at a time.

    `sparse` hands it the inputs without their zeros.
    """
    metric = dataset.metric().to(split.inputs.device)
    loss = torch.zeros((), dtype=torch.float64, device=split.inputs.device)
    parts: Iterable[Tensor | SparseBatch] = split.sparse.split(batch) if sparse else torch.split(split.inputs, batch)
    for inputs, targets in zip(parts, torch.split(split.targets, batch), strict=True):
        outputs = network(inputs).float()
        loss += dataset.loss(outputs, targets, reduction="sum")
        metric.update(outputs, targets)
    shortest = str(metric.compute().cpu().numpy())  # the float32 0.94, not 0.9399999976158142
    return float(loss / len(split.targets)), float(shortest)

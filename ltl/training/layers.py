"""What is known of each layer at the end of a round: the rows of `layers.csv`."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ltl.masks import Masks, Tensors
from ltl.models.paths import dead_units
from ltl.results import Row
from ltl.training.start import Start

_QUANTILES = (25, 50, 75)


def layer_rows(now: Tensors, start: Start, theta_0: Tensors, live: Masks, before: Tensors) -> list[Row]:
    """Return a row a prunable layer; `before` holds the trained weights that `start.masks` was pruned by, if any.

    Quantiles of |w|: of the kept weights now, and of the pruned ones at the last time that they were trained.
    """
    dead = dead_units(live)
    rows: list[Row] = []
    for name, mask in start.masks.items():
        weight, theta = now[name].detach(), theta_0[name]
        moved = (weight - theta) * mask
        flips = (torch.sign(weight) * torch.sign(theta) < 0) & mask
        gone = before[name].abs()[~mask & (before[name] != 0)] if name in before else weight.new_empty(0)
        rows.append(
            {
                "layer": name,
                "weights": mask.numel(),
                "kept": int(torch.count_nonzero(mask)),
                "density": float(torch.count_nonzero(mask)) / mask.numel(),
                "effective_density": float(torch.count_nonzero(live[name])) / mask.numel(),
                "dead_inputs": dead[name][0],
                "dead_units": dead[name][1],
                "sign_flips": int(torch.count_nonzero(flips)),
                "distance_from_init": float(torch.linalg.vector_norm(moved)),
                **_quantiles("kept", weight.abs()[mask]),
                **_quantiles("pruned", gone),
            }
        )
    return rows


def _quantiles(prefix: str, values: Tensor) -> dict[str, float | None]:
    """Return the lower quartile, median and upper quartile (the nearest lower rank), by selection instead of a sort."""
    if values.numel() == 0:
        return {f"{prefix}_q{q}": None for q in _QUANTILES}
    ranks: Sequence[int] = [(values.numel() - 1) * q // 100 for q in _QUANTILES]
    parted = np.partition(values.cpu().numpy(), ranks)
    return {f"{prefix}_q{q}": float(parted[rank]) for q, rank in zip(_QUANTILES, ranks, strict=True)}

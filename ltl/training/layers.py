"""What is known of each layer at the end of a round: the rows of `layers.csv`."""

import numpy as np
import torch
from torch import Tensor

from ltl.masks import Masks, Tensors
from ltl.models.paths import dead_units
from ltl.results import Row
from ltl.training.start import Quartiles, Start


def layer_rows(now: Tensors, start: Start, theta_0: Tensors, live: Masks) -> list[Row]:
    """Return a row a prunable layer, of the weights `now` at the end of the training that began at `start`."""
    dead = dead_units(live)
    rows: list[Row] = []
    for name, mask in start.masks.items():
        weight, theta = now[name].detach(), theta_0[name]
        moved = (weight - theta) * mask
        flips = (torch.sign(weight) * torch.sign(theta) < 0) & mask
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
                **_columns("kept", quartiles(weight, mask)),
                **_columns("pruned", start.gone.get(name)),
            }
        )
    return rows


def quartiles(weight: Tensor, where: Tensor) -> Quartiles | None:
    """Return the lower quartile, median and upper quartile (the nearest lower rank) of |weight| where the mask is set.

    None if it is set nowhere.
    """
    values = np.sort(weight.detach().abs().cpu().numpy()[where.cpu().numpy()])
    if not len(values):
        return None
    low, middle, high = (float(values[(len(values) - 1) * percent // 100]) for percent in (25, 50, 75))
    return low, middle, high


def _columns(prefix: str, values: Quartiles | None) -> Row:
    return dict(zip((f"{prefix}_q{percent}" for percent in (25, 50, 75)), values or (None,) * 3, strict=True))

"""The rows of layers.csv against numpy and a case worked out by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from ltl.masks import Masks, Tensors, dense
from ltl.models.paths import live
from ltl.results import LAYER_COLUMNS
from ltl.training.layers import layer_rows, quartiles
from ltl.training.start import Start


def start_of(masks: Masks) -> Start:
    return Start("ticket", 0, 1, masks, {}, {}, 0, 0)


def rows_of(now: Tensors, masks: Masks, theta_0: Tensors, start: Start | None = None) -> dict[str, dict[str, object]]:
    """The rows of layers with one output and these weights."""
    now, masks, theta_0 = (
        {name: values.view(1, -1) for name, values in tensors.items()} for tensors in (now, masks, theta_0)
    )
    rows = layer_rows(now, start or start_of(masks), theta_0, masks)
    assert all(list(row) == LAYER_COLUMNS[4:] for row in rows)
    return {row["layer"]: row for row in rows}


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 6, 7, 8, 97, 1000])
def test_quartiles_are_those_of_numpy(size: int) -> None:
    """The nearest lower rank, of the magnitudes where the mask is set."""
    source = torch.Generator().manual_seed(size)
    now = torch.randn(2 * size, generator=source)
    mask = torch.arange(2 * size) % 2 == 0
    expected = [float(np.quantile(now[mask].abs().numpy(), q / 100, method="lower")) for q in (25, 50, 75)]
    assert quartiles(now, mask) == tuple(expected)
    row = rows_of({"w": now * mask}, {"w": mask}, {"w": torch.zeros(2 * size)})["w"]
    assert [row[f"kept_q{q}"] for q in (25, 50, 75)] == expected


def test_no_weights_have_no_quartiles() -> None:
    """Nothing kept, or nothing pruned: empty cells."""
    weight = torch.tensor([1.0, -2.0])
    assert quartiles(weight, torch.tensor([False, False])) is None
    row = rows_of({"w": weight * 0}, {"w": torch.tensor([False, False])}, {"w": weight})["w"]
    assert [row[f"{what}_q{q}"] for what in ("kept", "pruned") for q in (25, 50, 75)] == [None] * 6


def test_pruned_quartiles_are_those_the_start_brings() -> None:
    """What the pruning before the training took."""
    weight, mask = torch.tensor([1.0, -2.0]), torch.tensor([True, False])
    start = replace(start_of({"w": mask.view(1, -1)}), gone={"w": (0.25, 0.5, 0.75)})
    row = rows_of({"w": weight * mask}, {"w": mask}, {"w": weight}, start)["w"]
    assert [row[f"pruned_q{q}"] for q in (25, 50, 75)] == [0.25, 0.5, 0.75]


def test_flips_and_distance_are_of_kept_weights() -> None:
    """A weight that reaches 0, or starts there, has not changed its sign."""
    theta = torch.tensor([1.0, -1.0, 2.0, -2.0, 0.0, 3.0, 5.0])
    now = torch.tensor([-1.0, 2.0, 2.5, -2.0, 1.0, 0.0, -5.0])
    mask = torch.tensor([True, True, True, True, True, True, False])
    row = rows_of({"w": now}, {"w": mask}, {"w": theta})["w"]
    assert row["sign_flips"] == 2
    assert row["distance_from_init"] == pytest.approx(np.sqrt(2**2 + 3**2 + 0.5**2 + 0 + 1 + 3**2))
    assert (row["weights"], row["kept"], row["density"]) == (7, 6, 6 / 7)


def test_dead_units_of_a_case_worked_out_by_hand() -> None:
    """Three inputs, three hidden units, two outputs.

    Unit 0 has no kept inputs, unit 1 no kept outputs, unit 2 connects input 2 to both outputs. Live are thus the weight
    from input 2 to unit 2 and both of unit 2's outputs; kept and dead are unit 1's inputs and unit 0's output.
    """
    network = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 2))
    masks = {
        "0.weight": torch.tensor([[0, 0, 0], [1, 1, 0], [0, 0, 1]]).bool(),
        "2.weight": torch.tensor([[1, 0, 1], [0, 0, 1]]).bool(),
    }
    now = {name: torch.ones(mask.shape) * mask for name, mask in masks.items()}
    on_path = live(network, (3,), masks)
    rows = layer_rows(now, start_of(masks), now, on_path)
    by_hand = {
        "0.weight": {"kept": 3, "density": 3 / 9, "effective_density": 1 / 9, "dead_inputs": 2, "dead_units": 2},
        "2.weight": {"kept": 3, "density": 3 / 6, "effective_density": 2 / 6, "dead_inputs": 2, "dead_units": 0},
    }
    for row in rows:
        expected = by_hand[row["layer"]]
        assert {name: row[name] for name in expected} == expected


def test_convolutions_count_channels() -> None:
    """A channel is dead when no weight of its kernels is live."""
    network = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(12, 2))
    masks = dense({"0.weight": torch.empty(3, 2, 3, 3), "2.weight": torch.empty(2, 12)})
    masks["0.weight"][:, 1] = False
    masks["0.weight"][0, 0] = False
    masks["2.weight"][:, 8:] = False  # the four positions of channel 2
    on_path = live(network, (2, 4, 4), masks)
    now = {name: mask.float() for name, mask in masks.items()}
    rows = {row["layer"]: row for row in layer_rows(now, start_of(masks), now, on_path)}
    assert (rows["0.weight"]["dead_inputs"], rows["0.weight"]["dead_units"]) == (1, 2)
    assert rows["0.weight"]["effective_density"] == 9 / 54
    assert (rows["2.weight"]["dead_inputs"], rows["2.weight"]["dead_units"]) == (8, 0)
    assert rows["2.weight"]["effective_density"] == 8 / 24

"""Products that leave out the inputs that are 0, against dense ones in float64."""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import get_args

import pytest
import torch
from torch import Tensor

from ltl.datasets import dataset as datasets
from ltl.datasets.dataset import Dataset, Split
from ltl.models.stack import Stack
from ltl.results import read_table
from ltl.sparse_inputs import SparseInputs
from ltl.tickets import load
from ltl.training import evaluation
from ltl.training.evaluation import Form, evaluate
from ltl.training.sparse import SparseChain

EXAMPLES, OUT = 12, 5


@pytest.fixture
def inputs() -> Tensor:
    """Twelve images of 3 × 4, a fifth of them filled; one is all 0, and so is one pixel."""
    source = torch.Generator().manual_seed(0)
    images = torch.randn(EXAMPLES, 1, 3, 4, generator=source, dtype=torch.float64)
    images *= torch.rand(images.shape, generator=source) < 0.2
    images[3], images[:, :, 1, 1] = 0, 0
    return images


@pytest.mark.parametrize("networks", [1, 3])
def test_products_and_gradients_are_those_of_dense_inputs(inputs: Tensor, networks: int) -> None:
    """Each network at its own indices, one example twice in a batch."""
    source = torch.Generator().manual_seed(1)
    indices = torch.randint(0, EXAMPLES, (networks, 7), generator=source)
    indices[0, :2] = 3
    weight = torch.randn(networks, 12, OUT, generator=source, dtype=torch.float64)
    towards = torch.randn(networks, 7, OUT, generator=source, dtype=torch.float64)
    ours, theirs = (weight.clone().requires_grad_() for _ in range(2))
    batches = SparseInputs(inputs).batches(indices)
    expected = torch.stack([inputs[one] for one in indices]).flatten(2) @ theirs
    product = batches.product(ours)
    assert product.shape == (networks, 7, OUT)
    assert torch.allclose(product, expected, rtol=0, atol=1e-14)
    (product * towards).sum().backward()
    (expected * towards).sum().backward()
    assert ours.grad is not None and theirs.grad is not None
    assert torch.allclose(ours.grad, theirs.grad, rtol=0, atol=1e-14)
    assert (ours.grad[:, 5] == 0).all()  # of the pixel that is always 0
    assert torch.autograd.gradcheck(batches.product, weight.clone().requires_grad_())


def test_a_split_is_read_in_its_order(inputs: Tensor) -> None:
    """The last part may be shorter."""
    weight = torch.eye(12, dtype=torch.float64).unsqueeze(0)
    parts = [part.product(weight)[0] for part in SparseInputs(inputs).split(5)]
    assert [len(part) for part in parts] == [5, 5, 2]
    assert torch.equal(torch.cat(parts), inputs.flatten(1))


def test_reading_a_batch_leaves_the_examples_as_they_are(inputs: Tensor) -> None:
    """Shifting the indices of the second network is done on a copy."""
    rows = SparseInputs(inputs)
    weight = torch.eye(12, dtype=torch.float64).expand(2, 12, 12)
    for _ in range(2):
        product = rows.batches(torch.arange(6).repeat(2, 1)).product(weight)
        assert torch.equal(product[0], product[1])
        assert torch.equal(product[0], inputs[:6].flatten(1))


@pytest.mark.parametrize("batch", [2, 5, 11])
def test_every_form_of_the_inputs_is_evaluated_alike(
    monkeypatch: pytest.MonkeyPatch, inputs: Tensor, batch: int
) -> None:
    """Rows, rows without their zeros, and columns: of pruned networks with BatchNorm, in a stack and by themselves."""
    for module in (datasets, evaluation):
        monkeypatch.setattr(module, "COLUMNS", 5)
    monkeypatch.setattr(evaluation, "_FILLED", 3)
    source = torch.Generator().manual_seed(2)
    train, test = (Split(inputs, torch.randint(0, OUT, (EXAMPLES,), generator=source)) for _ in range(2))
    dataset = Dataset("noise", True, train, test, test, (1, 3, 4), OUT, None)
    networks, masks = [], []
    for _ in range(2):
        first, last = torch.nn.Linear(12, 6, bias=False), torch.nn.Linear(6, OUT)
        norm = torch.nn.BatchNorm1d(6)
        network = torch.nn.Sequential(torch.nn.Flatten(), first, norm, torch.nn.ReLU(), last).double()
        norm.running_mean, norm.running_var = torch.rand(2, 6, generator=source, dtype=torch.float64) + 0.5
        masks.append(
            {
                f"{name}.weight": torch.rand(layer.weight.shape, generator=source) < 0.4
                for name, layer in (("1", first), ("4", last))
            }
        )
        for name, parameter in network.named_parameters():
            with torch.no_grad():
                parameter.copy_(torch.randn(parameter.shape, generator=source, dtype=torch.float64))
                parameter.mul_(masks[-1].get(name, 1))
        networks.append(network)
    plain = [Stack([deepcopy(one)], stacked=False, compiled=False, merge=False).eval() for one in networks]
    stack = Stack(networks, stacked=True, compiled=False, merge=False).eval()
    assert all(one.takes_sparse for one in (stack, *plain))
    sparse = [SparseChain(stack, masks), *(SparseChain(one, [mask]) for one, mask in zip(plain, masks, strict=True))]

    def judged(number: int, split: Split, form: Form, *, alone: bool) -> tuple[float, float]:
        which, place = (1 + number, 0) if alone else (0, number)
        network = sparse[which].alone(place) if form == "columns" else (stack, *plain)[which].apart()[place]
        return evaluate(lambda inputs: network(inputs).unsqueeze(0), dataset, split, batch, form=form)[0]

    seen = set()
    for split in (train, test):
        for number in (0, 1):
            expected = judged(number, split, "rows", alone=True)
            seen.add(expected)
            for form in get_args(Form):
                for alone in (False, True):
                    assert judged(number, split, form, alone=alone) == pytest.approx(expected, rel=1e-12)
    assert len(seen) == 4


def test_one_network_by_itself_trains_with_the_zeros_and_is_judged_without_them(
    launch: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which is faster; so leaving them out changes no weight."""
    judged: list[int] = []
    split = SparseInputs.split
    monkeypatch.setattr(SparseInputs, "split", lambda self, size: judged.append(size) or split(self, size))
    monkeypatch.setattr(SparseInputs, "batches", lambda self, indices: pytest.fail("trained without zeros"))
    runs = []
    for below in (0, 1):
        assert not judged
        fixed = (f"hardware.sparse_inputs_below={below}", "control=none", "ends=true")
        runs.append(launch(*fixed, folder=f"below-{below}"))
    assert judged
    for one, two in zip(*(read_table(folder / "rounds.csv") for folder in runs), strict=True):
        assert one["mask_sha256"] == two["mask_sha256"]
        assert float(one["test_loss"]) == pytest.approx(float(two["test_loss"]), rel=1e-5)
    ends = [[load(path).state for path in sorted(folder.glob("ends/*/*"))] for folder in runs]
    assert ends[0]
    for before, after in zip(*ends, strict=True):
        assert all(torch.equal(before[name], after[name]) for name in before)


def test_only_chains_that_begin_with_a_linear_layer_take_sparse_inputs() -> None:
    """A layer before it would have to see the zeros."""
    linear = torch.nn.Linear(12, 6)
    for layers, takes in (
        ([torch.nn.Flatten(), linear], True),
        ([torch.nn.Flatten(), torch.nn.Tanh(), linear], False),
        ([torch.nn.Conv2d(1, 2, 3), torch.nn.Flatten(), linear], False),
    ):
        assert (
            Stack([torch.nn.Sequential(*layers)] * 2, stacked=True, compiled=False, merge=False).takes_sparse is takes
        )


def test_a_split_knows_how_much_of_it_is_filled(inputs: Tensor) -> None:
    expected = float((inputs != 0).double().mean())
    assert Split(inputs, torch.zeros(EXAMPLES)).filled == pytest.approx(expected)

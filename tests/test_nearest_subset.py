"""Subset sums: brute force over all subsets, HiGHS as oracle, the law of error against n, and the rule for ties."""

from itertools import product

import numpy as np
import pytest
import torch
from scipy import optimize, stats
from torch import Tensor

from ltl.errors import LtlError
from ltl.nearest_subset import MOST, nearest_items, nearest_subsets


def drawn(b: int, n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Coefficients from U[-1, 1] and targets from U[-1/2, 1/2]."""
    draws = torch.Generator().manual_seed(seed)
    coefficients = torch.rand(b, n, generator=draws, dtype=torch.float64) * 2 - 1
    return coefficients, torch.rand(b, generator=draws, dtype=torch.float64) - 0.5


def errors(coefficients: Tensor, targets: Tensor, masks: Tensor) -> Tensor:
    return (targets - (coefficients * masks).sum(1)).abs()


def lowest_of_all(coefficients: Tensor, targets: Tensor) -> Tensor:
    """Every subset tried in order of its number, the first item the lowest bit; the first of the best."""
    n = coefficients.shape[1]
    subsets = torch.tensor([bits[::-1] for bits in product((0, 1), repeat=n)], dtype=torch.float64).reshape(2**n, n)
    return subsets[(targets[:, None] - coefficients @ subsets.T).abs().argmin(1)].bool()


@pytest.mark.parametrize("n", [0, 1, 2, 3, 8, 11])
def test_no_subset_is_nearer(n: int) -> None:
    coefficients, targets = drawn(300, n)
    found = nearest_subsets(coefficients, targets)
    assert found.shape == (300, n) and found.dtype == torch.bool
    assert torch.equal(found, lowest_of_all(coefficients, targets))


@pytest.mark.parametrize("n", [5, 6])
def test_of_equally_near_subsets_the_lowest_number_is_taken(n: int) -> None:
    """Small whole numbers add exactly, and most targets have several best subsets."""
    draws = torch.Generator().manual_seed(1)
    coefficients = torch.randint(-3, 4, (2000, n), generator=draws).double()
    targets = torch.randint(-10, 11, (2000,), generator=draws).double() / 2
    assert torch.equal(nearest_subsets(coefficients, targets), lowest_of_all(coefficients, targets))


def test_a_mixed_integer_program_finds_nothing_better() -> None:
    """min z with |w − Σ aₖxₖ| ≤ z, as Pensia et al. (2020) solve it, by HiGHS to optimality."""
    coefficients, targets = drawn(8, 12)
    ours = errors(coefficients, targets, nearest_subsets(coefficients, targets))
    for a, w, error in zip(coefficients.numpy(), targets.numpy(), ours.numpy(), strict=True):
        n = len(a)
        rows = np.array([[*a, 1.0], [*-a, 1.0]])
        found = optimize.milp(
            np.eye(n + 1)[n],
            constraints=optimize.LinearConstraint(rows, lb=[w, -w]),
            integrality=[1] * n + [0],
            bounds=optimize.Bounds(0, [1] * n + [np.inf]),
            options={"mip_rel_gap": 0},
        )
        assert found.success
        assert error == pytest.approx(found.fun, abs=1e-5)  # HiGHS calls 1e-6 feasible


def test_the_numbers_are_not_bound_to_a_chunk_or_a_type() -> None:
    """A target by itself, or among so many that they are several chunks; float32 finds what it can tell apart."""
    coefficients, targets = drawn(700, 18)
    together = nearest_subsets(coefficients, targets)
    assert torch.equal(together[517:518], nearest_subsets(coefficients[517:518], targets[517:518]))
    single = nearest_subsets(coefficients.float(), targets.float())
    exact = errors(coefficients, targets, together)
    assert torch.all(errors(coefficients, targets, single) <= exact + 1e-6)
    assert nearest_subsets(coefficients[:0], targets[:0]).shape == (0, 18)


def test_error_halves_with_each_number_and_of_a_single_one_falls_as_one_over_n() -> None:
    """log₂ of the median error has slope −1 for subsets (Lueker 1998: n ~ log(1/ε)); log-log −1 for single items."""
    sizes = [4, 8, 12, 16, 20]
    subset, single = [], []
    for n in sizes:
        coefficients, targets = drawn(300, n, seed=n)
        subset.append(float(errors(coefficients, targets, nearest_subsets(coefficients, targets)).median()))
        single.append(float(errors(coefficients, targets, nearest_items(coefficients, targets)).median()))
    assert stats.linregress(sizes, np.log2(subset)).slope == pytest.approx(-0.93, abs=0.08)  # 2⁻ⁿ√n on these
    assert stats.linregress(np.log2(sizes), np.log2(single)).slope == pytest.approx(-1, abs=0.2)


def test_the_single_item_is_the_nearest_and_the_first_of_equals() -> None:
    masks = nearest_items(torch.tensor([[0.5, -0.5, 0.25], [0.5, -0.5, 0.5]]), torch.tensor([0.3, 0.6]))
    assert masks.tolist() == [[False, False, True], [True, False, False]]


def test_too_many_numbers_are_refused() -> None:
    with pytest.raises(LtlError, match=r"^n=25 numbers for a subset sum are too many: at most 24"):
        nearest_subsets(torch.zeros(1, MOST + 1), torch.zeros(1))

"""The subset of random numbers whose sum is nearest to a target, exactly, and the nearest single number."""

import torch
from torch import Tensor

from ltl.errors import LtlError

MOST = 24  # numbers of a set: 2¹² sums of each half for every target
_SUMS = 2**18  # of one half, over the targets of a chunk: what a processor's cache holds


def nearest_subsets(coefficients: Tensor, targets: Tensor) -> Tensor:
    """Return masks (b, n) of the subsets of `coefficients` (b, n) with the least |target − sum|, `targets` (b,).

    Exact by meeting in the middle: the sums of the first ⌊n/2⌋ are sorted, and for every sum of the others the two that
    enclose what is missing are compared (Horowitz & Sahni 1974), so 2^⌈n/2⌉ searches instead of 2ⁿ sums. Of subsets
    equally near, the one of the lowest number Σ 2ᵏ mₖ, items counted from k = 0. The empty subset has the sum 0.
    LtlError for more than 24 numbers.
    """
    n = coefficients.shape[1]
    if n > MOST:
        raise LtlError(
            f"n={n} numbers for a subset sum are too many: at most {MOST}, as work and memory grow as 2^(n/2)."
        )
    chunk = max(1, _SUMS >> (n + 1) // 2)
    parts = zip(torch.split(coefficients, chunk), torch.split(targets, chunk), strict=True)
    found = [_subset_numbers(one, target) for one, target in parts]
    numbers = torch.cat(found) if found else targets.new_empty(0, dtype=torch.int64)
    return (numbers[:, None] >> torch.arange(n, device=numbers.device)) % 2 == 1


def nearest_items(coefficients: Tensor, targets: Tensor) -> Tensor:
    """Return masks (b, n) of the one of `coefficients` (b, n) nearest to each of `targets` (b,), the first if equal.

    This is what Malach et al. (2020) approximate a weight by.
    """
    mask = torch.zeros_like(coefficients, dtype=torch.bool)
    return mask.scatter_(1, (coefficients - targets[:, None]).abs().argmin(1, keepdim=True), True)


def _subset_numbers(coefficients: Tensor, targets: Tensor) -> Tensor:
    half = coefficients.shape[1] // 2
    low, order = _sums(coefficients[:, :half]).sort(dim=1, stable=True)
    missing = targets[:, None] - _sums(coefficients[:, half:])
    last = low.shape[1] - 1
    above = torch.searchsorted(low, missing).clamp_(max=last)
    below = (above - 1).clamp_(min=0)
    errors = torch.minimum((missing - low.gather(1, above)).abs_(), (missing - low.gather(1, below)).abs_())
    # Of equal minima argmin takes the first, here that of the lowest number; so does a search among equal sums.
    high = errors.argmin(1, keepdim=True)
    best, missed = errors.gather(1, high), missing.gather(1, high)
    numbers = []
    for place in (above.gather(1, high), below.gather(1, high)):
        value = low.gather(1, place)
        number = order.gather(1, torch.searchsorted(low, value))
        numbers.append(torch.where((missed - value).abs() == best, number, last + 1))
    return (torch.minimum(*numbers) + (high << half)).squeeze(1)


def _sums(items: Tensor) -> Tensor:
    """Return the sums (b, 2ᵏ) of all subsets of `items` (b, k): bit i of a column's number says that item i is in."""
    sums = items.new_zeros(len(items), 1)
    for item in torch.split(items, 1, dim=1):
        sums = torch.cat([sums, sums + item], dim=1)
    return sums

"""Examples most of whose entries are 0, as MNIST's pixels are: the first layer's products over the others alone."""

from collections.abc import Iterator
from typing import Any

import torch
from scipy.sparse import csr_array
from torch import Tensor
from torch.nn import functional as F


class SparseBatch:
    """Batches of R networks (R, b, features), as the CSR form of a block-diagonal matrix (R·b, R·features)."""

    def __init__(self, rows: csr_array, networks: int) -> None:
        self.networks, self.features = networks, rows.shape[1]
        size = rows.shape[0] // networks
        for number in range(1, networks):
            first, last = rows.indptr[number * size], rows.indptr[(number + 1) * size]
            rows.indices[first:last] += number * self.features
        shape = (rows.shape[0], networks * self.features)
        self.matrix = csr_array((rows.data, rows.indices, rows.indptr), shape=shape)

    def product(self, weight: Tensor) -> Tensor:
        """Return inputs · weight, (R, b, out), for `weight` (R, features, out) of the inputs' type."""
        outputs: Tensor = _Product.apply(weight, self)  # type: ignore[no-untyped-call]
        return outputs


class SparseInputs:
    """Examples (n, *), flattened to (n, features), without the entries that are 0; in a processor's memory."""

    def __init__(self, inputs: Tensor) -> None:
        self._rows = csr_array(inputs.flatten(1).numpy())

    def batches(self, indices: Tensor) -> SparseBatch:
        """Return the examples at each network's own row of `indices` (R, b)."""
        return SparseBatch(self._rows[indices.flatten().numpy()], len(indices))

    def split(self, size: int) -> Iterator[SparseBatch]:
        """Yield all examples in their order, `size` at a time, for one network."""
        for first in range(0, self._rows.shape[0], size):
            yield SparseBatch(self._rows[first : first + size], 1)


class _Product(torch.autograd.Function):
    """The product of sparse inputs and dense weights; both ways are weighted sums of rows."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, inputs: SparseBatch) -> Tensor:
        ctx.inputs = inputs
        return _summed(inputs.matrix, weight.flatten(0, 1)).view(inputs.networks, -1, weight.shape[2])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        inputs: SparseBatch = ctx.inputs
        turned = inputs.matrix.tocsc()  # the CSR form of the transposed matrix
        gradient = gradients[0].flatten(0, 1).contiguous()
        return _summed(turned, gradient).view(inputs.networks, inputs.features, -1), None


def _summed(matrix: Any, rows: Tensor) -> Tensor:
    indices, pointers, values = (torch.from_numpy(one) for one in (matrix.indices, matrix.indptr, matrix.data))
    return F.embedding_bag(indices, rows, pointers, mode="sum", per_sample_weights=values, include_last_offset=True)

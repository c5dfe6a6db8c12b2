"""A data set held whole as tensors: its splits, its batches by index, its loss and what counts as correct."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from ltl.errors import LtlError
from ltl.sparse_inputs import SparseBatch, SparseInputs

Augment = Callable[[Tensor, torch.Generator], Tensor]
COLUMNS = 500  # examples side by side in a sparse product: more fall out of a core's cache


@dataclass(frozen=True, eq=False)
class Split:
    """Examples: inputs (n, *input_shape), float32 and normalised (still bytes while being read); targets (n,) int64."""

    inputs: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.targets)

    @cached_property
    def filled(self) -> float:
        """The fraction of entries of the inputs that are not 0."""
        return float(torch.count_nonzero(self.inputs)) / max(1, self.inputs.numel())

    @cached_property
    def sparse(self) -> SparseInputs:
        """The inputs without their zeros, made when first asked for."""
        return SparseInputs(self.inputs)

    @cached_property
    def columns(self) -> list[Tensor]:
        """The inputs with an example in each column, made when first asked for."""
        return [part.contiguous() for part in turned(self.inputs)]

    def select(self, indices: Tensor) -> "Split":
        """Return the examples at `indices` (k,) int64, in that order."""
        return Split(self.inputs.index_select(0, indices), self.targets.index_select(0, indices))

    def first(self, count: int | None) -> "Split":
        """Return the first `count` examples, or all of them for None."""
        return Split(self.inputs[:count], self.targets[:count])

    def to(self, device: torch.device | str) -> "Split":
        """Return the examples on `device`."""
        return Split(self.inputs.to(device), self.targets.to(device))


@dataclass(frozen=True, eq=False)
class Dataset:
    """Three splits of a classification task; `canonical` says that the files' checksums are the published ones."""

    name: str
    canonical: bool
    train: Split
    validation: Split
    test: Split
    input_shape: tuple[int, ...]
    outputs: int
    augment: Augment | None

    def to(self, device: torch.device | str) -> "Dataset":
        """Return the data set with all its splits on `device`."""
        return replace(
            self, train=self.train.to(device), validation=self.validation.to(device), test=self.test.to(device)
        )

    def double(self) -> "Dataset":
        """Return the data set with inputs in float64."""
        train, validation, test = (
            Split(split.inputs.double(), split.targets) for split in (self.train, self.validation, self.test)
        )
        return replace(self, train=train, validation=validation, test=test)

    def batch(self, indices: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """Return the training examples at `indices`, augmented with draws of `generator` if the data set augments.

        Indices (b,) int64 and the generator live on the splits' device; the generator may be None without augmentation.
        """
        inputs, targets = self.train.inputs.index_select(0, indices), self.train.targets.index_select(0, indices)
        if self.augment is None:
            return inputs, targets
        if generator is None:
            raise LtlError("dataset.augment=true needs a generator for each batch, got None: pass a torch.Generator.")
        return self.augment(inputs, generator), targets

    def sparse_batches(self, indices: Tensor) -> tuple[SparseBatch, Tensor]:
        """Return what `batches` does of a data set that does not augment, the inputs without their zeros."""
        targets = self.train.targets.index_select(0, indices.flatten())
        return self.train.sparse.batches(indices), targets.view(*indices.shape, *targets.shape[1:])

    def batches(self, indices: Tensor, generators: Sequence[torch.Generator]) -> tuple[Tensor, Tensor]:
        """Return the batches (R, b, *) of several networks, each at its own row of `indices` (R, b), with own draws."""
        if self.augment is None:
            inputs, targets = self.batch(indices.flatten(), None)
            return inputs.view(*indices.shape, *inputs.shape[1:]), targets.view(*indices.shape, *targets.shape[1:])
        parts = [self.batch(*one) for one in zip(indices, generators, strict=True)]
        inputs, targets = (torch.stack(part) for part in zip(*parts, strict=True))
        return inputs, targets

    def examples(self, per_class: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw `per_class` training examples of each class, or all that it has, shuffled and without augmentation."""
        order = torch.randperm(len(self.train), generator=generator).to(self.train.targets.device)
        targets = self.train.targets[order]
        drawn = torch.cat([order[targets == label][:per_class] for label in range(self.outputs)])
        indices = drawn[torch.randperm(len(drawn), generator=generator).to(drawn.device)]
        return self.train.inputs.index_select(0, indices), self.train.targets.index_select(0, indices)

    def loss(self, outputs: Tensor, targets: Tensor, reduction: Literal["mean", "sum", "none"] = "mean") -> Tensor:
        """Return the cross entropy in nats of logits `outputs` (b, classes) against `targets` (b,)."""
        return F.cross_entropy(outputs, targets, reduction=reduction)

    def correct(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return how many of b examples each of R networks gets right, (R,): those whose largest logit is the target's.

        Logits `outputs` (R, b, classes), `targets` (R, b).
        """
        from torchmetrics.functional.classification import multiclass_stat_scores

        # Targets were checked when they were read; checking them again would wait for the device at every call.
        scores = multiclass_stat_scores(
            outputs.transpose(1, 2),
            targets,
            num_classes=self.outputs,
            average="micro",
            multidim_average="samplewise" if len(outputs) > 1 else "global",  # the first goes by slower one-hot counts
            validate_args=False,
        )
        return scores.view(len(outputs), -1)[:, 0]


def checked(dataset: object) -> Dataset:
    """Return `dataset`; LtlError names what of a data set of one's own is not of its form."""
    if not isinstance(dataset, Dataset):
        raise LtlError(
            f"dataset: its function returns {type(dataset).__name__}, and must return an ltl.datasets.dataset.Dataset."
        )
    if isinstance(dataset.input_shape, int):
        raise LtlError(f"dataset: input_shape is {dataset.input_shape}, and must be ({dataset.input_shape},).")
    for name in ("train", "validation", "test"):
        split = getattr(dataset, name)
        _check_tensor(split.inputs, f"{name}.inputs", torch.float32, (len(split), *dataset.input_shape))
        # Of a sum alone: isfinite of all inputs would need memory.
        if len(split) == 0 or not bool(split.inputs.sum().isfinite()):
            raise LtlError(f"dataset: {name}.inputs has no examples, or holds numbers that are not finite.")
        if type(dataset) is Dataset:  # a subclass may have another loss, of other targets
            _check_tensor(split.targets, f"{name}.targets", torch.int64, (len(split),))
            least, most = int(split.targets.min()), int(split.targets.max())
            if least < 0 or most >= dataset.outputs:
                raise LtlError(
                    f"dataset: {name}.targets are {least} to {most}, and must be classes from 0 to outputs − 1, which "
                    f"is {dataset.outputs - 1}."
                )
    drawn, _ = dataset.batch(torch.zeros(2, dtype=torch.int64), torch.Generator().manual_seed(0))
    _check_tensor(drawn, "what augment makes of two inputs", torch.float32, (2, *dataset.input_shape))
    return dataset


def _check_tensor(tensor: object, what: str, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    found = (tensor.dtype, tuple(tensor.shape)) if isinstance(tensor, Tensor) else (type(tensor).__name__, ())
    if found != (dtype, shape):
        raise LtlError(f"dataset: {what} are {found[0]} {found[1]}, and must be {dtype} {shape}.")


def turned(inputs: Tensor) -> list[Tensor]:
    """Return `inputs` (n, *) as views (features, COLUMNS), an example in each column; the last has fewer."""
    return [part.flatten(1).t() for part in torch.split(inputs, COLUMNS)]


def carve(
    pool: Split, test: Split, *, validation: int, limit: int | None, generator: torch.Generator
) -> tuple[Split, Split, Split]:
    """Return (train, validation, test): `validation` random examples leave the pool, the rest trains in its old order.

    The same generator state gives the same validation examples whatever the limit; `limit` then keeps the first
    examples of each split. LtlError if either count cannot be met.
    """
    if not 1 <= validation < len(pool):
        raise LtlError(
            f"dataset.validation={validation} is not possible: it must be at least 1 and leave something of the "
            f"{len(pool)} training examples, so set it to 1 … {len(pool) - 1}."
        )
    if limit is not None and limit < 1:
        raise LtlError(f"dataset.limit={limit} leaves no examples: use at least 1, or null for all of them.")
    order = torch.randperm(len(pool), generator=generator)
    held_out, kept = order[:validation].sort().values, order[validation:].sort().values
    return pool.select(kept[:limit]), pool.select(held_out[:limit]), test.first(limit)

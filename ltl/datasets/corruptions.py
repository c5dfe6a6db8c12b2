"""Training examples that say less than they should: what a search may see while its tickets are trained on all."""

from dataclasses import replace

import torch

from ltl.datasets.dataset import Dataset, Split

_AT_ONCE = 1000  # images


def none(dataset: Dataset, *, generator: torch.Generator) -> Dataset:
    """Return the data set as it is."""
    return dataset


def random_labels(dataset: Dataset, *, fraction: float, generator: torch.Generator) -> Dataset:
    """Draw the labels of a `fraction` of the training examples anew, uniformly over all classes (Zhang et al. 2017)."""
    count = len(dataset.train)
    chosen = torch.randperm(count, generator=generator)[: round(fraction * count)]
    targets = dataset.train.targets.clone()
    targets[chosen] = torch.randint(dataset.outputs, (len(chosen),), generator=generator)
    return replace(dataset, train=Split(dataset.train.inputs, targets))


def random_pixels(dataset: Dataset, *, labels: bool, generator: torch.Generator) -> Dataset:
    """Permute the values of every training input, each by a permutation of its own; with `labels` random ones too.

    Colours are permuted with the pixels (Zhang et al. 2017).
    """
    inputs = dataset.train.inputs.clone()
    for first in range(0, len(inputs), _AT_ONCE):
        values = inputs[first : first + _AT_ONCE].flatten(1)  # a view
        values.copy_(values.gather(1, torch.rand(values.shape, generator=generator).argsort(1)))
    permuted = replace(dataset, train=Split(inputs, dataset.train.targets))
    return random_labels(permuted, fraction=1.0, generator=generator) if labels else permuted


def subset(dataset: Dataset, *, fraction: float, generator: torch.Generator) -> Dataset:
    """Keep a random `fraction` of the training examples, at least one, in their order."""
    count = len(dataset.train)
    kept = torch.randperm(count, generator=generator)[: max(1, round(fraction * count))]
    return replace(dataset, train=dataset.train.select(kept.sort().values))

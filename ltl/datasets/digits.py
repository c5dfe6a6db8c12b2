"""The 1,797 real 8×8 handwritten digits that scikit-learn carries: nothing to download."""

from collections.abc import Sequence

import numpy as np
import torch

from ltl.datasets.dataset import Dataset, Split
from ltl.datasets.images import image_dataset
from ltl.errors import LtlError


def load_digits(
    *,
    name: str,
    test: int,
    validation: int,
    limit: int | None,
    mean: Sequence[float],
    std: Sequence[float],
    augment: bool,
    padding: int,
    flip: bool,
    split_generator: torch.Generator,
) -> Dataset:
    """Return the digits, (1, 8, 8) in 10 classes, split at random into `test`, `validation` and the training rest.

    The set has no official split: `split_generator` draws the test examples first, so that they depend on nothing else.
    """
    from sklearn.datasets import load_digits as embedded

    images, labels = embedded(return_X_y=True)
    if not 1 <= test < len(labels):
        raise LtlError(f"dataset.test={test} is not possible: use 1 … {len(labels) - 1} of the {len(labels)} digits.")
    whole = Split(
        torch.from_numpy(images.astype(np.uint8)).view(-1, 1, 8, 8), torch.from_numpy(labels.astype(np.int64))
    )
    order = torch.randperm(len(whole), generator=split_generator)
    return image_dataset(
        name=name,
        canonical=True,
        pool=whole.select(order[test:]),
        test=whole.select(order[:test]),
        outputs=10,
        white=16,
        mean=mean,
        std=std,
        validation=validation,
        limit=limit,
        augment=augment,
        padding=padding,
        flip=flip,
        split_generator=split_generator,
    )

"""Laws of a data set: splits that partition, limits that keep them, batches, loss, metric, and the embedded digits."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import composed
from data_files import CONF, load, write_cifar10, write_idx
from torch.nn import functional as F

from ltl.datasets.dataset import Dataset, Split, carve
from ltl.errors import LtlError


def numbered(count: int) -> Split:
    """Examples that are their own number."""
    return Split(torch.arange(count).view(count, 1, 1, 1), torch.arange(count))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_validation_partitions_the_pool_and_leaves_the_order() -> None:
    train, validation, test = carve(numbered(100), numbered(7), validation=30, limit=None, generator=generator())
    assert (len(train), len(validation), len(test)) == (70, 30, 7)
    assert sorted(train.targets.tolist() + validation.targets.tolist()) == list(range(100))
    assert torch.equal(train.targets, train.targets.sort().values)
    assert torch.equal(train.inputs.flatten(), train.targets)
    assert validation.targets.tolist() != list(range(30)), "the first examples are no random draw"


def test_validation_depends_on_the_generator_alone() -> None:
    def validation(seed: int, limit: int | None = None) -> list[int]:
        split = carve(numbered(100), numbered(7), validation=30, limit=limit, generator=generator(seed))[1]
        return split.targets.tolist()

    assert validation(1) == validation(1) != validation(2)
    assert validation(1, limit=10) == validation(1)[:10]


def test_limit_keeps_the_first_of_each_split() -> None:
    whole = carve(numbered(100), numbered(50), validation=30, limit=None, generator=generator())
    limited = carve(numbered(100), numbered(50), validation=30, limit=40, generator=generator())
    assert [len(split) for split in limited] == [40, 30, 40]
    for split, part in zip(whole, limited, strict=True):
        assert torch.equal(split.targets[:40], part.targets)


@pytest.mark.parametrize("validation", [0, -1, 100, 5000])
def test_validation_must_leave_training_examples(validation: int) -> None:
    with pytest.raises(LtlError, match=rf"^dataset\.validation={validation} .* 1 … 99\.$"):
        carve(numbered(100), numbered(7), validation=validation, limit=None, generator=generator())


@pytest.mark.parametrize("limit", [0, -3])
def test_limit_must_leave_examples(limit: int) -> None:
    with pytest.raises(LtlError, match=rf"^dataset\.limit={limit} .*null for all"):
        carve(numbered(100), numbered(7), validation=3, limit=limit, generator=generator())


def test_digits_are_the_embedded_ones() -> None:
    from sklearn.datasets import load_digits  # type: ignore[import-untyped]

    images, labels = load_digits(return_X_y=True)
    digits = load("digits")
    splits = (digits.train, digits.validation, digits.test)
    assert [len(split) for split in splits] == [1287, 150, 360]
    assert (digits.name, digits.canonical, digits.input_shape, digits.outputs) == ("digits", True, (1, 8, 8), 10)
    inputs = torch.cat([split.inputs for split in splits]).flatten(1).numpy()
    targets = torch.cat([split.targets for split in splits]).numpy()
    assert inputs.dtype == np.float32
    found = sorted((*image, label) for image, label in zip((inputs * 16).tolist(), targets.tolist(), strict=True))
    assert found == sorted((*image, label) for image, label in zip(images.tolist(), labels.tolist(), strict=True))
    assert all(len(split.targets.unique()) == 10 for split in splits)


def test_digits_split_is_fixed_and_the_test_set_depends_on_nothing_else() -> None:
    first, again, other = load("digits"), load("digits", validation=700), load("digits", split_seed=1)
    assert torch.equal(first.test.inputs, again.test.inputs)
    assert len(again.validation) == 700
    assert torch.equal(first.train.inputs, load("digits").train.inputs)
    assert not torch.equal(first.test.inputs, other.test.inputs)


@pytest.mark.parametrize("test", [0, 1797])
def test_digits_need_a_test_set_and_a_rest(test: int) -> None:
    with pytest.raises(LtlError, match=rf"^dataset\.test={test} .* 1 … 1796 of the 1797"):
        load("digits", test=test)


def test_batch_is_the_training_examples_at_the_indices() -> None:
    digits = load("digits")
    indices = torch.tensor([5, 0, 5, 1286])
    inputs, targets = digits.batch(indices, None)
    assert torch.equal(inputs, digits.train.inputs[indices]) and torch.equal(targets, digits.train.targets[indices])
    inputs.zero_()
    assert digits.train.inputs[5].any(), "a batch must be a copy"


def test_augmented_batch_follows_its_generator() -> None:
    digits = load("digits", augment=True)
    indices = torch.arange(64)
    inputs, targets = digits.batch(indices, generator(3))
    assert torch.equal(inputs, digits.batch(indices, generator(3))[0])
    assert not torch.equal(inputs, digits.batch(indices, generator(4))[0])
    assert inputs.shape == (64, 1, 8, 8) and torch.equal(targets, digits.train.targets[:64])
    with pytest.raises(LtlError, match=r"^dataset\.augment=true needs a generator"):
        digits.batch(indices, None)


@pytest.mark.parametrize("per_class", [1, 4, 13])
def test_examples_are_as_many_of_each_class_as_asked_or_as_there_are(per_class: int) -> None:
    """For scores: of the training split alone, each once, whole and as it is; a class that has fewer gives all."""
    sizes = [2, 13, 40, 0]  # the last class has no example
    targets = torch.tensor([label for label, size in enumerate(sizes) for _ in range(size)])
    order = torch.randperm(55, generator=generator(9))
    train = Split(torch.arange(55.0).view(55, 1, 1, 1)[order], targets[order])
    other = Split(train.inputs + 100, train.targets)
    dataset = Dataset("n", True, train, other, other, (1, 1, 1), 4, augment=lambda inputs, source: inputs * torch.nan)
    inputs, labels = dataset.examples(per_class, generator(1))
    numbers = inputs.flatten().long().tolist()
    assert labels.bincount(minlength=4).tolist() == [min(per_class, size) for size in sizes]
    assert len(set(numbers)) == len(numbers)
    assert labels.tolist() == targets[numbers].tolist()  # number n is the n-th in order of class
    assert inputs.shape[1:] == (1, 1, 1)
    again, other_draw = (dataset.examples(per_class, generator(seed))[0].flatten().tolist() for seed in (1, 2))
    assert again == numbers
    assert other_draw != numbers
    assert dataset.examples(100, generator(1))[0].flatten().sort().values.tolist() == list(range(55))


def test_examples_are_drawn_anywhere_and_come_in_any_order() -> None:
    """Each of 20 examples of a class is drawn as often, in 600 draws of 5, and either class may come first."""
    targets = torch.arange(40) % 2
    train = Split(torch.arange(40.0).view(40, 1), targets)
    dataset = Dataset("n", True, train, train, train, (1,), 2, augment=None)
    source, counts, first = generator(3), torch.zeros(40), 0
    for _ in range(600):
        inputs, labels = dataset.examples(5, source)
        counts[inputs.flatten().long()] += 1
        first += int(labels[0])
    assert float(((counts - 150) ** 2 / 150).sum()) / 0.75 < 70  # 38 degrees of freedom
    assert 240 < first < 360


def test_loss_is_cross_entropy_and_correct_is_the_largest_logit() -> None:
    digits = load("digits")
    outputs = torch.randn(150, 10, generator=generator())
    targets = digits.validation.targets
    log_probabilities = outputs.double() - outputs.double().exp().sum(1, keepdim=True).log()
    expected = -log_probabilities[torch.arange(150), targets]
    assert torch.allclose(digits.loss(outputs, targets).double(), expected.mean(), atol=1e-6)
    assert torch.allclose(digits.loss(outputs, targets, reduction="sum").double(), expected.sum(), atol=1e-4)
    assert torch.allclose(digits.loss(outputs, targets, reduction="none").double(), expected, atol=1e-6)
    both = torch.stack([outputs, -outputs])  # of two networks
    found = digits.correct(both, targets.expand(2, -1)).tolist()
    assert found == [int((one.argmax(1) == targets).sum()) for one in both]


def test_loss_has_the_gradient_of_cross_entropy() -> None:
    digits = load("digits")
    outputs = torch.randn(32, 10, generator=generator()).requires_grad_()
    digits.loss(outputs, digits.train.targets[:32]).backward()
    expected = (F.softmax(outputs.detach(), 1) - F.one_hot(digits.train.targets[:32], 10)) / 32
    assert outputs.grad is not None and torch.allclose(outputs.grad, expected, atol=1e-7)


def test_to_moves_every_split() -> None:
    moved = load("digits").to("meta")
    splits = (moved.train, moved.validation, moved.test)
    assert all(split.inputs.is_meta and split.targets.is_meta for split in splits)
    assert moved.name == "digits" and moved.input_shape == (1, 8, 8)


def checked(dataset: Dataset) -> None:
    for split in (dataset.train, dataset.validation, dataset.test):
        assert split.inputs.dtype == torch.float32 and split.inputs.is_contiguous()
        assert split.inputs.shape == (len(split), *dataset.input_shape)
        assert split.targets.dtype == torch.int64 and split.targets.shape == (len(split),)


def test_all_data_sets_have_the_same_form(tmp_path: Path) -> None:
    write_idx(tmp_path)
    write_cifar10(tmp_path)
    checked(load("digits"))
    checked(load("mnist", root=str(tmp_path), verify=False, validation=50))
    checked(load("cifar10", root=str(tmp_path), verify=False, validation=50))


def test_limit_below_validation_still_loads(tmp_path: Path) -> None:
    write_idx(tmp_path)
    small = load("mnist", root=str(tmp_path), verify=False, validation=200, limit=20)
    assert [len(split) for split in (small.train, small.validation, small.test)] == [20, 20, 20]


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("mean", [0.1], r"^dataset\.mean=\[0\.1\] must be one number for each of the 3 channels\.$"),
        ("std", [1.0, 1.0, float("nan")], r"^dataset\.std=\[1\.0, 1\.0, nan\] must be one number"),
        ("std", [1.0, 0.0, 1.0], r"^dataset\.std=\[1\.0, 0\.0, 1\.0\] must be positive"),
    ],
)
def test_mean_and_std_must_fit(tmp_path: Path, key: str, value: list[float], message: str) -> None:
    write_cifar10(tmp_path)
    overrides: dict[str, Any] = {key: value}
    with pytest.raises(LtlError, match=message):
        load("cifar10", root=str(tmp_path), verify=False, validation=50, **overrides)


@pytest.mark.parametrize("path", sorted(CONF.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_config_augments_only_when_told(path: Path) -> None:
    """The model's recipe tells: `augment` is `${recipe.augment}`, which LeNet sets to false and ResNets to true."""
    for model, told in (("lenet_300_100", False), ("resnet20", True)):
        settings = composed(f"dataset={path.stem}", f"model={model}").dataset
        assert settings.augment is told
    assert settings.name == path.stem
    assert settings.limit is None
    assert settings.flip is (path.stem in ("fashion_mnist", "cifar10", "cifar100")), "mirrored digits are no digits"


def test_reading_needs_neither_lightning_nor_torchmetrics() -> None:
    code = (
        "import sys, ltl.datasets.digits, ltl.datasets.idx, ltl.datasets.cifar\n"
        "print(sorted({'pytorch_lightning', 'lightning', 'torchmetrics', 'sklearn', 'rich'} & set(sys.modules)))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1]
    )
    assert run.stdout.strip() == "[]"

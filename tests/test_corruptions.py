"""What a search may see of the training examples, and tickets trained on all of them."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from data_files import load
from test_cycle import rows

from ltl.datasets.corruptions import none, random_labels, random_pixels, subset
from ltl.datasets.dataset import Dataset
from ltl.errors import LtlError

Launch = Callable[..., Path]


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load("digits")


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def untouched(changed: Dataset, dataset: Dataset) -> bool:
    """Whether validation and test sets are the very same."""
    return changed.validation is dataset.validation and changed.test is dataset.test


def test_random_labels_are_uniform_and_of_the_fraction_asked_for(digits: Dataset) -> None:
    before = digits.train.targets.clone()
    changed = random_labels(digits, fraction=1.0, generator=source())
    assert torch.equal(digits.train.targets, before) and untouched(changed, digits)
    assert changed.train.inputs is digits.train.inputs
    agree = float((changed.train.targets == before).double().mean())
    assert abs(agree - 0.1) < 4 * (0.1 * 0.9 / len(before)) ** 0.5
    counts = torch.bincount(changed.train.targets, minlength=10).double()
    assert float(((counts - len(before) / 10) ** 2 / (len(before) / 10)).sum()) < 27.9  # chi square of 9, 0.1%
    few = random_labels(digits, fraction=0.25, generator=source())
    differ = int((few.train.targets != before).sum())
    assert 0.9 * 0.8 < differ / round(0.25 * len(before)) <= 1
    assert torch.equal(random_labels(digits, fraction=0.0, generator=source()).train.targets, before)
    assert torch.equal(random_labels(digits, fraction=1.0, generator=source()).train.targets, changed.train.targets)


@pytest.mark.parametrize("labels", [False, True])
def test_random_pixels_permute_every_image_by_itself(digits: Dataset, labels: bool) -> None:
    changed = random_pixels(digits, labels=labels, generator=source())
    assert untouched(changed, digits)
    images, before = changed.train.inputs.flatten(1), digits.train.inputs.flatten(1)
    assert changed.train.inputs.shape == digits.train.inputs.shape
    assert torch.equal(images.sort(1).values, before.sort(1).values)
    assert float((images == before).all(1).double().mean()) < 0.01
    assert torch.equal(changed.train.targets, digits.train.targets) is not labels
    # One pixel of one image and its twin go different ways.
    twin = Dataset(
        digits.name, True, digits.train.select(torch.zeros(2000, dtype=torch.int64)), digits.validation, digits.test,
        digits.input_shape, 10, None,
    )  # fmt: skip
    twins = random_pixels(twin, labels=False, generator=source()).train.inputs.flatten(1)
    assert len(twins.unique(dim=0)) > 1990


def test_a_subset_keeps_examples_once_and_in_order(digits: Dataset) -> None:
    changed = subset(digits, fraction=0.5, generator=source())
    assert untouched(changed, digits)
    whole = {tuple(image.tolist()): place for place, image in enumerate(digits.train.inputs.flatten(1))}
    places = [whole[tuple(image.tolist())] for image in changed.train.inputs.flatten(1)]
    assert len(places) == round(len(digits.train) / 2) and places == sorted(set(places))
    assert torch.equal(changed.train.targets, digits.train.targets[torch.tensor(places)])
    assert len(subset(digits, fraction=0.0, generator=source()).train) == 1


def test_nothing_is_done_by_none(digits: Dataset) -> None:
    assert none(digits, generator=source()) is digits


def test_a_clean_control_is_the_ticket_trained_on_clean_data(launch: Launch) -> None:
    """As a branch of the same tickets on the data as they are, bit for bit; the search itself saw random labels."""
    searched = launch("corruption=random_labels", "control=[clean]", "dataset.limit=null", folder="searched")
    table = rows(searched)
    branched = rows(launch(f"ticket={searched}/tickets/*/*", "control=none", "dataset.limit=null", folder="branched"))
    names = ("test_loss", "train_loss", "val_loss", "mask_sha256", "steps")
    clean = {row["round"]: [row[name] for name in names] for row in table if row["arm"] == "clean"}
    assert clean == {row["round"]: [row[name] for name in names] for row in branched if row["round"] != "0"}
    ticket = {row["round"]: row for row in table if row["arm"] == "ticket"}
    assert all(float(ticket[turn]["train_loss"]) > float(values[1]) for turn, values in clean.items())


def test_without_corruption_a_clean_control_would_repeat_its_ticket(launch: Launch) -> None:
    """Where draws differ in their data order it is taken: others of a sweep over corruptions are compared with it."""
    with pytest.raises(LtlError, match=r"^control=clean trains .* on the same data \(corruption=none\), in the same "):
        launch("control=[clean]", folder="same")
    table = rows(launch("control=[clean]", "seeds.order_by_round=fresh", "draws=2"))
    losses = {(row["arm"], row["draw"], row["round"]): float(row["test_loss"]) for row in table}
    for turn in "12":
        assert losses["clean", "0", turn] == pytest.approx(losses["ticket", "0", turn], rel=1e-6)
        assert losses["clean", "1", turn] != losses["clean", "0", turn]


def test_a_subset_smaller_than_the_batch_is_one_line(launch: Launch) -> None:
    says = r"^batch=20 is larger than the 2 training examples that corruption leaves of the 200 of digits\.$"
    with pytest.raises(LtlError, match=says):
        launch("corruption=subset", "corruption.fraction=0.01")

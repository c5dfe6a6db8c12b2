"""Small dense networks of a ticket's size: the widest of the family that fits."""

from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
from conftest import composed, train_in
from torch import nn

from ltl import build, rebuild
from ltl.errors import LtlError
from ltl.models.conv import ConvNet
from ltl.models.lenet import LeNet
from ltl.models.resnet import ResNet
from ltl.models.scaling import count, scaled, smaller
from ltl.models.vgg import VGG
from ltl.tickets import load

FAMILY: dict[str, tuple["partial[nn.Module]", dict[str, object]]] = {
    "lenet": (partial(LeNet, widths=[300, 100], dropout=0.0, activation="relu", bias=True),
              {"input_shape": (1, 28, 28), "outputs": 10}),
    "conv": (partial(ConvNet, blocks=[64, 128], widths=[256, 256], dropout=0.0, activation="relu", batch_norm=False),
             {"input_shape": (3, 32, 32), "outputs": 10}),
    "resnet": (partial(ResNet, blocks=[3, 3, 3], width=16, activation="relu"),
               {"input_shape": (3, 32, 32), "outputs": 10}),
    "vgg": (partial(VGG, blocks=[[16], [32], [64, 64], [64, 64], [64, 64]], activation="relu"),
            {"input_shape": (3, 32, 32), "outputs": 100}),
}  # fmt: skip


def numbers(widths: object) -> list[int]:
    return [widths] if isinstance(widths, int) else [one for part in widths for one in numbers(part)]  # type: ignore[attr-defined]


def widths_of(model: "partial[nn.Module]") -> list[int]:
    return [one for name in model.func.WIDTHS for one in numbers(model.keywords[name])]  # type: ignore[attr-defined]


@pytest.mark.parametrize("family", list(FAMILY))
def test_the_widest_network_that_fits(family: str) -> None:
    """At most the weights asked for; and at the next scale that changes any width there are more."""
    model, shape = FAMILY[family]
    dense = count(model, shape)
    grid = sorted({(half + 0.5) / width for width in set(widths_of(model)) for half in range(width)} | {1.0})
    versions = [scaled(model, (low + high) / 2) for low, high in pairwise([0.0, *grid])]
    counts = [count(version, shape) for version in versions]
    assert counts == sorted(counts)
    for density in (0.9, 0.512, 0.21, 0.135, 0.036, 0.0115):
        weights = int(density * dense)
        found = smaller(model, weights, shape)
        fitting = [version for version, size in zip(versions, counts, strict=True) if size <= weights]
        assert count(found, shape) <= weights
        assert widths_of(found) == widths_of(fitting[-1])


@pytest.mark.parametrize("family", list(FAMILY))
def test_all_weights_are_the_network_itself_and_none_the_narrowest(family: str) -> None:
    """Widths never fall below 1, even where that is more than asked for; depth and the rest stay."""
    model, shape = FAMILY[family]
    assert widths_of(smaller(model, count(model, shape), shape)) == widths_of(model)
    narrow = smaller(model, 1, shape)
    assert set(widths_of(narrow)) == {1}
    assert len(widths_of(narrow)) == len(widths_of(model))
    assert list(narrow.keywords) == list(model.keywords)
    assert len(list(narrow(**shape).modules())) == len(list(model(**shape).modules()))


def test_counts_are_of_prunable_weights() -> None:
    """Linear and convolution weights, without biases and BatchNorm."""
    assert count(*FAMILY["lenet"]) == 266_200
    assert count(*FAMILY["resnet"]) == 270_896


def test_a_factor_widens_what_is_built(tmp_path: Path) -> None:
    """`model.width_factor=2` is the network of twice the widths, in runs and when a ticket of it is rebuilt."""
    sizes = []
    for overrides in (["model.width_factor=2", "model.widths=[12,8]"], ["model.widths=[24,16]"]):
        built = build.experiment(composed(*overrides), tmp_path, hardware_number=0)
        sizes.append(built.counts())
    assert sizes[0] == sizes[1]
    folder = train_in(tmp_path, "control=none", "model.width_factor=1.5")
    ticket = load(folder / "tickets" / "trial-0" / "round-01.safetensors")
    assert ticket.masks["fc2.weight"].shape == (12, 18)
    assert rebuild.network(ticket, built.dataset).get_parameter("fc1.weight").shape == (18, 64)


def test_a_model_must_name_its_widths() -> None:
    """One line that says what is missing."""
    with pytest.raises(
        LtlError, match=r"^model: .* WIDTHS, which control=small_dense and model\.width_factor scale\.$"
    ):
        scaled(partial(nn.Linear, in_features=3, out_features=2), 0.5)


@pytest.mark.parametrize(
    ("widths", "says"),
    [
        ((), r"^model: .* does not list the keywords of its widths"),
        (("widths", "depth"), r"^model\.depth is missing: "),
    ],
)
def test_a_small_control_needs_the_widths_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, widths: tuple[str, ...], says: str
) -> None:
    """Not after the whole search; without the control the model is trained as ever."""
    monkeypatch.setattr(LeNet, "WIDTHS", widths)
    build.experiment(composed("control=none"), tmp_path, hardware_number=0)
    with pytest.raises(LtlError, match=says):
        build.experiment(composed("control=[small_dense]"), tmp_path, hardware_number=0)

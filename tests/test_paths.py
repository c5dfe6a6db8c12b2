"""Live weights against a search over every path of the unrolled network, and dead units against counting by hand."""

import itertools
import math
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from conftest import composed
from torch import Tensor, nn

from ltl import build
from ltl.errors import LtlError
from ltl.masks import Masks, dense, kept, prunable
from ltl.models.activations import Sign
from ltl.models.conv import ConvNet
from ltl.models.dropout import Dropout
from ltl.models.initialisers import glorot_normal, initialise
from ltl.models.lenet import LeNet
from ltl.models.paths import dead_units, live
from ltl.models.resnet import ResNet
from ltl.models.vgg import VGG

Unit = tuple[object, ...]
Weight = tuple[str, tuple[int, ...]]
Edge = tuple[Unit, Unit, Weight | None]


class Unrolled:
    """The network as a graph of single units (layer, channel, row, column); an edge may carry a weight."""

    def __init__(self, network: nn.Module, input_shape: tuple[int, ...]) -> None:
        self.edges: list[Edge] = []
        self.inputs = [("input", *index) for index in itertools.product(*map(range, input_shape))]
        units = dict(zip(itertools.product(*map(range, input_shape)), self.inputs, strict=True))
        self.outputs = list(self._add(network, "", input_shape, units)[1].values())

    def live(self, masks: Masks) -> dict[str, Tensor]:
        kept_edges = [edge for edge in self.edges if edge[2] is None or masks[edge[2][0]][edge[2][1]]]
        forward, backward = defaultdict(list), defaultdict(list)
        for source, target, _ in kept_edges:
            forward[source].append(target)
            backward[target].append(source)
        from_inputs, from_outputs = _reached(self.inputs, forward), _reached(self.outputs, backward)
        out = {name: torch.zeros_like(mask) for name, mask in masks.items()}
        for source, target, weight in kept_edges:
            if weight is not None and source in from_inputs and target in from_outputs:
                out[weight[0]][weight[1]] = True
        return out

    def _add(
        self, module: nn.Module, path: str, shape: tuple[int, ...], units: dict[tuple[int, ...], Unit]
    ) -> tuple[tuple[int, ...], dict[tuple[int, ...], Unit]]:
        """Add the edges of `module` whose inputs, by index, are `units`; return its outputs' shape and units."""
        if type(module).__name__ == "_Residual":
            branch_shape, branch = shape, units
            for part in ("first", "second"):
                branch_shape, branch = self._add(module.get_submodule(part), f"{path}.{part}", branch_shape, branch)
            _, shortcut = self._add(module.get_submodule("shortcut"), f"{path}.shortcut", shape, units)
            total: dict[tuple[int, ...], Unit] = {index: (path, *index) for index in branch}
            for index, unit in total.items():
                self.edges += [(branch[index], unit, None), (shortcut[index], unit, None)]
            return branch_shape, total
        if isinstance(module, nn.Sequential):
            for name, child in module.named_children():
                shape, units = self._add(child, f"{path}.{name}".lstrip("."), shape, units)
            return shape, units
        if isinstance(module, nn.Flatten):
            flat: dict[tuple[int, ...], Unit] = {
                (position,): units[index] for position, index in enumerate(itertools.product(*map(range, shape)))
            }
            return (math.prod(shape),), flat
        if isinstance(module, nn.Linear | nn.Conv2d | nn.MaxPool2d | nn.AdaptiveAvgPool2d):
            return self._add_connections(module, path, shape, units)
        assert isinstance(module, nn.ReLU | Sign | nn.BatchNorm2d | nn.Identity | Dropout)
        return shape, units

    def _add_connections(
        self, module: nn.Module, path: str, shape: tuple[int, ...], units: dict[tuple[int, ...], Unit]
    ) -> tuple[tuple[int, ...], dict[tuple[int, ...], Unit]]:
        made: dict[tuple[int, ...], Unit] = {}
        for target, source, weight in _connections(module, shape):
            made.setdefault(target, (path, *target))
            if source in units:
                named = None if weight is None else (f"{path}.weight".lstrip("."), weight)
                self.edges.append((units[source], made[target], named))
        return tuple(size + 1 for size in max(made)), made


def _connections(
    module: nn.Module, shape: tuple[int, ...]
) -> Iterator[tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...] | None]]:
    """Yield (output index, input index, weight index) for each connection; inputs in the padding do not exist."""
    if isinstance(module, nn.Linear):
        for o, i in itertools.product(range(module.out_features), range(module.in_features)):
            yield (o,), (i,), (o, i)
        return
    channels, height, width = shape
    if isinstance(module, nn.Conv2d):
        size, stride, padding = module.kernel_size[0], module.stride[0], int(module.padding[0])
        rows, columns = ((side + 2 * padding - size) // stride + 1 for side in (height, width))
        for o, y, x in itertools.product(range(module.out_channels), range(rows), range(columns)):
            for i, ky, kx in itertools.product(range(channels), range(size), range(size)):
                yield (o, y, x), (i, y * stride + ky - padding, x * stride + kx - padding), (o, i, ky, kx)
    elif isinstance(module, nn.MaxPool2d):
        for c, y, x in itertools.product(range(channels), range(height // 2), range(width // 2)):
            for ky, kx in itertools.product(range(2), range(2)):
                yield (c, y, x), (c, 2 * y + ky, 2 * x + kx), None
    else:
        for c, y, x in itertools.product(range(channels), range(height), range(width)):
            yield (c, 0, 0), (c, y, x), None


def _reached(start: list[Unit], edges: dict[Unit, list[Unit]]) -> set[Unit]:
    seen, waiting = set(start), list(start)
    while waiting:
        fresh = set(edges[waiting.pop()]) - seen
        seen |= fresh
        waiting += fresh
    return seen


def random_masks(network: nn.Module, density: float, seed: int) -> Masks:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.rand(network.get_parameter(name).shape, generator=generator) < density for name in prunable(network)
    }


def same(left: Masks, right: Masks) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


SMALL: dict[str, tuple[nn.Module, tuple[int, ...], tuple[float, ...]]] = {
    "lenet": (
        LeNet(input_shape=(2, 3), outputs=3, widths=[5, 4], dropout=0.5, activation="relu", bias=True),
        (2, 3),
        (0.1, 0.2, 0.4, 1.0),
    ),
    "conv": (
        ConvNet(
            input_shape=(2, 5, 4),
            outputs=2,
            blocks=[2, 3],
            widths=[4],
            dropout=0.0,
            activation="relu",
            batch_norm=False,
        ),
        (2, 5, 4),
        (0.1, 0.2, 0.4, 1.0),
    ),
    "resnet": (
        ResNet(input_shape=(2, 4, 4), outputs=3, blocks=[1, 2], width=2, activation="relu"),
        (2, 4, 4),
        (0.05, 0.1, 0.2, 1.0),
    ),
    "vgg": (
        VGG(input_shape=(1, 4, 4), outputs=2, blocks=[[2], [2], [3, 2]], activation="relu"),
        (1, 4, 4),
        (0.1, 0.2, 0.4, 1.0),
    ),
}


@pytest.mark.parametrize("name", SMALL)
def test_live_weights_are_those_on_a_path(name: str) -> None:
    network, input_shape, densities = SMALL[name]
    graph = Unrolled(network, input_shape)
    sometimes_dead = False
    for density, seed in itertools.product(densities, range(6)):
        masks = random_masks(network, density, seed)
        found = live(network, input_shape, masks)
        assert same(found, graph.live(masks)), (density, seed)
        sometimes_dead |= 0 < kept(found) < kept(masks)
    assert sometimes_dead


def test_every_path_of_a_perceptron_one_by_one() -> None:
    network = LeNet(input_shape=(4,), outputs=2, widths=[3, 3], dropout=0.0, activation="relu", bias=True)
    for seed in range(20):
        masks = random_masks(network, 0.35, seed)
        expected = {name: torch.zeros_like(mask) for name, mask in masks.items()}
        for units in itertools.product(range(4), range(3), range(3), range(2)):
            steps = [(name, (units[i + 1], units[i])) for i, name in enumerate(masks)]
            if all(masks[name][index] for name, index in steps):
                for name, index in steps:
                    expected[name][index] = True
        assert same(live(network, (4,), masks), expected)


def test_a_residual_branch_that_is_cut_leaves_the_shortcut_alive() -> None:
    network = ResNet(input_shape=(1, 4, 4), outputs=2, blocks=[2], width=2, activation="relu")
    masks = dense({name: network.get_parameter(name) for name in prunable(network)})
    masks["stage1.0.second.conv.weight"][:] = False
    found = live(network, (1, 4, 4), masks)
    assert [name for name in found if not found[name].any()] == [
        "stage1.0.first.conv.weight",
        "stage1.0.second.conv.weight",
    ]
    assert all(found[name].all() for name in found if not name.startswith("stage1.0"))


def test_a_kernel_that_meets_only_padding_is_dead() -> None:
    """A 3x3 kernel on a single pixel uses its centre alone."""
    network = VGG(input_shape=(1, 2, 2), outputs=1, blocks=[[1], [1]], activation="relu")
    masks = dense({name: network.get_parameter(name) for name in prunable(network)})
    found = live(network, (1, 2, 2), masks)
    assert found["conv2.weight"].flatten().nonzero().tolist() == [[4]]
    assert found["conv1.weight"].all()


@pytest.mark.parametrize("cut", [None, "stage2.17.first.conv.weight", "stem.conv.weight", "output.weight"])
def test_depth_neither_overflows_nor_vanishes(cut: str | None) -> None:
    network = ResNet(input_shape=(3, 8, 8), outputs=10, blocks=[18, 18, 18], width=4, activation="relu")
    masks = dense({name: network.get_parameter(name) for name in prunable(network)})
    if cut is not None:
        masks[cut][:] = False
    found = live(network, (3, 8, 8), masks)
    whole = [name for name in found if found[name].all()]
    if cut is None:
        assert whole == list(masks)
    elif cut.startswith("stage2"):
        assert set(masks) - set(whole) == {cut, cut.replace("first", "second")}
    else:
        assert kept(found) == 0


@pytest.fixture(scope="module")
def chain() -> LeNet:
    """300 layers: without bounds, 25^300 paths to each unit are beyond what float64 can hold."""
    return LeNet(input_shape=(50,), outputs=50, widths=[50] * 300, dropout=0.0, activation="relu", bias=True)


def test_a_chain_of_any_depth_overflows_nowhere(chain: LeNet) -> None:
    masks = random_masks(chain, 0.5, 0)
    assert same(live(chain, (50,), masks), masks)


def test_a_bottleneck_of_one_weight(chain: LeNet) -> None:
    masks = dense({name: chain.get_parameter(name) for name in prunable(chain)})
    masks["fc290.weight"][:] = False
    masks["fc290.weight"][3, 4] = True
    found = live(chain, (50,), masks)
    assert kept(found) == kept(masks) - 2 * 49 * 50
    assert dead_units(found)["fc290.weight"] == (49, 49)
    assert dead_units(found)["fc289.weight"] == (0, 49)
    assert dead_units(found)["fc291.weight"] == (49, 0)


def test_the_network_and_the_masks_stay_as_they_are() -> None:
    network = ConvNet(
        input_shape=(1, 8, 8), outputs=3, blocks=[2], widths=[4], dropout=0.5, activation="relu", batch_norm=False
    )
    initialise(network, weight_init=glorot_normal, generator=torch.Generator().manual_seed(0))
    masks = random_masks(network, 0.1, 0)
    weights = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    before = {name: mask.clone() for name, mask in masks.items()}
    with torch.inference_mode():
        first = live(network.train(), (1, 8, 8), masks)
    assert same(first, live(network.eval(), (1, 8, 8), masks))
    assert all(mask.dtype == torch.bool for mask in first.values())
    assert same(masks, before)
    assert all(torch.equal(network.state_dict()[name], tensor) for name, tensor in weights.items())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_the_weights_play_no_part() -> None:
    network = LeNet(input_shape=(6,), outputs=3, widths=[5], dropout=0.0, activation="relu", bias=True)
    masks = random_masks(network, 0.3, 1)
    expected = live(network, (6,), masks)
    for parameter in network.parameters():
        parameter.data.fill_(torch.nan)
    assert same(live(network, (6,), masks), expected)


def test_a_layer_without_a_mask_counts_as_kept() -> None:
    network = LeNet(input_shape=(6,), outputs=3, widths=[5], dropout=0.0, activation="relu", bias=True)
    masks = random_masks(network, 0.3, 2)
    whole = live(network, (6,), {**masks, "fc1.weight": torch.ones(5, 6, dtype=torch.bool)})
    assert same(
        live(network, (6,), {"output.weight": masks["output.weight"]}), {"output.weight": whole["output.weight"]}
    )


def test_kinds_of_module_without_paths_are_refused_in_one_line() -> None:
    network = nn.Sequential(nn.Linear(4, 4), nn.Softmax(dim=1), nn.Linear(4, 2))
    with pytest.raises(LtlError, match=r"^model: .* not defined for 1, a Softmax: .*$"):
        live(network, (4,), dense({name: network.get_parameter(name) for name in prunable(network)}))


class Normed(nn.Sequential):
    """A model with a module that paths are not known through."""

    def __init__(self, *, input_shape: tuple[int, ...], outputs: int) -> None:
        super().__init__(nn.Flatten(), nn.Softmax(dim=1), nn.Linear(math.prod(input_shape), outputs))


class Scaled(nn.Sequential):
    """A model with a tensor of its own that is no parameter."""

    def __init__(self, *, input_shape: tuple[int, ...], outputs: int) -> None:
        super().__init__(nn.Flatten(), nn.Linear(math.prod(input_shape), outputs))
        self.scale = torch.tensor([2.0])

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = super().forward(inputs * self.scale)
        return outputs


def test_a_model_without_paths_is_refused_before_training(tmp_path: Path) -> None:
    own = ["~model.widths", "~model.dropout", "~model.activation", "~model.bias", "pruner.rounds=1"]
    with pytest.raises(LtlError, match=r"^model: the effective density is not defined for 1, a Softmax: .*$"):
        build.experiment(composed("model._target_=test_paths.Normed", *own), tmp_path, hardware_number=0)
    build.experiment(composed("model._target_=test_paths.Scaled", *own), tmp_path, hardware_number=0)


def test_dead_units_are_counted_by_channel() -> None:
    mask = torch.zeros(4, 3, 2, 2, dtype=torch.bool)
    mask[1, 2, 0, 1] = mask[3, 2, 1, 1] = True
    assert dead_units({"conv.weight": mask, "fc.weight": mask[:, :, 0, 1]}) == {
        "conv.weight": (2, 2),
        "fc.weight": (2, 3),
    }

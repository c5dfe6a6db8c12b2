"""Laws of initialisation: the distributions, and θ₀ as a function of model, initialiser and generator alone."""

import math
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from ltl.errors import LtlError
from ltl.masks import Tensors, prunable, tensors_sha256
from ltl.models.initialisers import (
    WeightInit,
    glorot_normal,
    initialise,
    kaiming_normal,
    kaiming_uniform,
    orthogonal,
    signed_constant,
)
from ltl.models.lenet import LeNet
from ltl.models.resnet import ResNet

ALL: list[WeightInit] = [
    glorot_normal,
    kaiming_normal,
    kaiming_uniform,
    signed_constant,
    partial(orthogonal, gain=math.sqrt(2)),
]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def resnet() -> ResNet:
    return ResNet(input_shape=(3, 8, 8), outputs=10, blocks=[1, 1], width=8, activation="relu")


def drawn(weight_init: WeightInit, shape: tuple[int, ...], seed: int = 0) -> Tensor:
    weight = torch.empty(shape)
    weight_init(weight, generator=seeded(seed))
    return weight


def state(network: nn.Module) -> Tensors:
    return dict(network.state_dict())


@pytest.mark.parametrize("shape", [(400, 300), (64, 32, 3, 3)])
def test_spread_is_that_of_the_papers(shape: tuple[int, ...]) -> None:
    kernel = math.prod(shape[2:])
    fan_in, fan_out = shape[1] * kernel, shape[0] * kernel
    he, glorot = math.sqrt(2 / fan_in), math.sqrt(2 / (fan_in + fan_out))
    for weight_init, deviation in ((glorot_normal, glorot), (kaiming_normal, he), (kaiming_uniform, he)):
        weight = drawn(weight_init, shape)
        assert weight.std().item() == pytest.approx(deviation, rel=0.02)
        assert abs(weight.mean().item()) < 0.02 * deviation
    assert drawn(kaiming_uniform, shape).abs().max().item() <= math.sqrt(3) * he
    # A normal distribution keeps its tails: TensorFlow's truncated version would stop at two deviations.
    beyond = (drawn(glorot_normal, shape).abs() > 2 * glorot).float().mean().item()
    assert beyond == pytest.approx(0.0455, abs=0.005)


def test_signed_constant_has_one_size_and_the_signs_of_kaiming_normal() -> None:
    weight = drawn(signed_constant, (20, 50))
    assert torch.equal(weight.abs(), torch.full((20, 50), math.sqrt(2 / 50)))
    assert torch.equal(weight.sign(), drawn(kaiming_normal, (20, 50)).sign())


@pytest.mark.parametrize("shape", [(10, 30), (30, 10), (6, 4, 3, 3)])
def test_orthogonal_rows_or_columns(shape: tuple[int, ...]) -> None:
    matrix = drawn(partial(orthogonal, gain=1.5), shape).flatten(1)
    short = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    torch.testing.assert_close(short @ short.T, 1.5**2 * torch.eye(len(short)), atol=1e-5, rtol=0)


@pytest.mark.parametrize("weight_init", ALL)
def test_initialisation_depends_on_the_generator_alone(weight_init: WeightInit) -> None:
    torch.manual_seed(1)
    first = resnet()
    initialise(first, weight_init=weight_init, generator=seeded(7))
    torch.manual_seed(2)
    with torch.device("meta"):
        second = resnet()
    second = second.to_empty(device="cpu").to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    for tensor in second.state_dict().values():
        tensor.fill_(99)
    before = torch.get_rng_state()
    initialise(second, weight_init=weight_init, generator=seeded(7))
    assert torch.equal(torch.get_rng_state(), before)
    assert tensors_sha256(state(first)) == tensors_sha256(state(second))
    initialise(second, weight_init=weight_init, generator=seeded(8))
    assert tensors_sha256(state(first)) != tensors_sha256(state(second))


def test_only_weights_are_drawn_in_order_of_definition() -> None:
    network = resnet()
    for tensor in network.state_dict().values():
        tensor.fill_(99)
    initialise(network, weight_init=kaiming_normal, generator=seeded(3))
    generator = seeded(3)
    weights = prunable(network)
    for name, tensor in network.state_dict().items():
        if name in weights:
            expected = torch.empty(tensor.shape)
            kaiming_normal(expected, generator=generator)
        else:
            one = name.endswith(("norm.weight", "running_var"))
            expected = torch.full_like(tensor, 1 if one else 0)
        assert torch.equal(tensor, expected), name


def test_initialised_networks_train_on_like_any_other() -> None:
    network = LeNet(input_shape=(1, 8, 8), outputs=10, widths=[20], dropout=0.0, activation="relu", bias=True)
    initialise(network, weight_init=glorot_normal, generator=seeded(0))
    network(torch.ones(2, 1, 8, 8)).sum().backward()
    assert all(parameter.requires_grad and parameter.grad is not None for parameter in network.parameters())


@pytest.mark.parametrize("stranger", [nn.LayerNorm(4), nn.Embedding(3, 4), nn.Bilinear(2, 2, 4)])
def test_unknown_parameters_are_refused_by_name(stranger: nn.Module) -> None:
    network = nn.Sequential(nn.Linear(4, 4), stranger)
    with pytest.raises(LtlError, match=rf"1\.weight of {type(stranger).__name__}"):
        initialise(network, weight_init=glorot_normal, generator=seeded(0))


@pytest.mark.parametrize("stranger", [nn.Dropout(0.5), nn.Dropout2d(0.5), nn.AlphaDropout(0.5), nn.RReLU()])
def test_modules_that_draw_from_the_global_generator_are_refused_by_name(stranger: nn.Module) -> None:
    """Their draws no seed of the run fixes: the same command would give other masks."""
    network = nn.Sequential(nn.Linear(3, 2), stranger)
    with pytest.raises(LtlError, match=rf"^model: 1 is a torch\.nn\.{type(stranger).__name__}, .* use ltl\.models"):
        initialise(network, weight_init=glorot_normal, generator=seeded(0))

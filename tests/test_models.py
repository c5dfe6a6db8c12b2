"""Models: published parameter counts, shapes on every image size, one-line errors, and configs that fit the classes."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import hydra.utils
import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from ltl import rebuild
from ltl.errors import LtlError
from ltl.lengths import parse
from ltl.masks import Tensors, dense, prunable
from ltl.models.activations import Sign, activation
from ltl.models.dropout import Dropout
from ltl.models.initialisers import BATCH_NORM, initialise, kaiming_normal
from ltl.models.lenet import LeNet
from ltl.pruning.allocation import included
from ltl.tickets import load

CONF = Path(__file__).parents[1] / "conf"
DIGITS, MNIST, CIFAR = (1, 8, 8), (1, 28, 28), (3, 32, 32)
MODELS = sorted(path.stem for path in (CONF / "model").glob("*.yaml"))

# Parameters and prunable weights with 10 outputs: LeNet on MNIST, the others on CIFAR-10. From Frankle & Carbin (2019,
# Fig. 2) for Conv-2/4/6 in full (Conv-6 as recomputed), open_lth for ResNet-20 and VGG-16, He et al. (2016, Table 6)
# rounded for the other ResNets, kuangliu/pytorch-cifar for ResNet-18; VGG-small and Wide ResNet-50-2 by hand.
COUNTS = {
    "lenet_300_100": (266_610, 266_200),
    "conv2": (4_301_642, 4_300_992),
    "conv4": (2_425_930, 2_425_024),
    "conv6": (2_262_602, 2_261_184),
    "resnet18": (11_173_962, 11_164_352),
    "resnet20": (272_474, 270_896),
    "vgg16": (14_728_266, 14_715_584),
    "vgg_small": (4_661_898, 4_656_512),
    "wide_resnet50": (66_854_730, 66_786_496),
}
ROUNDED = {"resnet32": 0.46e6, "resnet44": 0.66e6, "resnet56": 0.85e6, "resnet110": 1.7e6, "vgg19": 20.0e6}


def config(name: str) -> DictConfig:
    loaded = OmegaConf.load(CONF / "model" / f"{name}.yaml")
    assert isinstance(loaded, DictConfig)
    return loaded


def build(name: str, input_shape: tuple[int, ...], outputs: int = 10, **overrides: Any) -> nn.Module:
    settings = {key: value for key, value in config(name).model.items() if key not in ("name", "width_factor")}
    network = hydra.utils.instantiate(settings | overrides)(input_shape=input_shape, outputs=outputs)
    assert isinstance(network, nn.Module)
    return network


def counts(network: nn.Module) -> tuple[int, int]:
    weights = [network.get_parameter(name) for name in prunable(network)]
    return sum(p.numel() for p in network.parameters()), sum(w.numel() for w in weights)


@pytest.mark.parametrize("name", COUNTS)
def test_published_parameter_counts(name: str) -> None:
    with torch.device("meta"):
        assert counts(build(name, MNIST if name.startswith("lenet") else CIFAR)) == COUNTS[name]


@pytest.mark.parametrize("name", MODELS)
def test_counts_in_the_comment_are_the_networks(name: str) -> None:
    with torch.device("meta"):
        found = counts(build(name, MNIST if name.startswith("lenet") else CIFAR))
    comment = (CONF / "model" / f"{name}.yaml").read_text().split("defaults:")[0]
    assert all(f" {count:,}" in comment for count in found)


def test_wide_resnet50_is_torchvisions() -> None:
    """The published number of parameters with 1000 classes, and the sizes of images on the way."""
    with torch.device("meta"):
        network = build("wide_resnet50", (3, 224, 224), outputs=1000)
        assert counts(network)[0] == 68_883_240
        hidden, sides = torch.empty(1, 3, 224, 224), []
        for name, child in network.named_children():
            hidden = child(hidden)
            if name in ("stem", "stem_pool") or name.startswith("stage"):
                sides.append(tuple(hidden.shape[1:3]))
    assert sides == [(64, 112), (64, 56), (256, 56), (512, 28), (1024, 14), (2048, 7)]


def test_wide_resnet50_takes_a_step() -> None:
    """In full, on 64x64 pixels: every weight has a gradient, and the loss falls."""
    network = build("wide_resnet50", (3, 64, 64), outputs=5)
    source = torch.Generator().manual_seed(0)
    initialise(network, weight_init=kaiming_normal, generator=source)
    inputs, targets = torch.randn(4, 3, 64, 64, generator=source), torch.tensor([0, 1, 2, 3])
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)
    losses = []
    for _ in range(2):
        loss = nn.functional.cross_entropy(network(inputs), targets)
        optimizer.zero_grad()
        loss.backward()
        assert all(weight.grad is not None and weight.grad.any() for weight in network.parameters())
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[1] < losses[0]


@pytest.mark.parametrize("name", ROUNDED)
def test_published_rounded_parameter_counts(name: str) -> None:
    with torch.device("meta"):
        assert counts(build(name, CIFAR))[0] == pytest.approx(ROUNDED[name], rel=0.02)


def test_published_counts_of_convolution_weights() -> None:
    for name, convolutions in {"conv2": 38_592, "conv4": 259_776, "conv6": 1_144_512}.items():
        with torch.device("meta"):
            network = build(name, CIFAR)
        weights = [module.weight.numel() for module in network.modules() if isinstance(module, nn.Conv2d)]
        assert sum(weights) == convolutions


def test_shortcuts_of_resnet20_are_the_papers_2560_weights() -> None:
    network = build("resnet20", CIFAR)
    shortcuts = [network.get_parameter(name).numel() for name in prunable(network) if ".shortcut." in name]
    assert sorted(shortcuts) == [512, 2048]


@pytest.mark.parametrize("shape", [DIGITS, MNIST, CIFAR, (3, 17, 24)])
@pytest.mark.parametrize("name", MODELS)
def test_models_fit_the_dataset_or_say_so_in_one_line(name: str, shape: tuple[int, ...]) -> None:
    too_small = shape == DIGITS and (name == "conv8" or name.startswith("vgg1"))
    if too_small:
        label = name.replace("vgg", "VGG-").replace("conv", "Conv-")
        with pytest.raises(LtlError, match=rf"model: {label} .* 16x16 pixels or more, .* 8x8: .*") as error:
            build(name, shape)
        assert "\n" not in str(error.value)
        return
    with torch.device("meta"):
        network = build(name, shape, outputs=7)
        assert network(torch.empty(2, *shape)).shape == (2, 7)


@pytest.mark.parametrize("name", ["conv2", "resnet20", "vgg11"])
def test_networks_for_images_refuse_other_inputs(name: str) -> None:
    with pytest.raises(LtlError, match=r"needs images .* \(40,\)"):
        build(name, (40,))


def test_widths_and_inputs_of_lenet_are_free() -> None:
    network = LeNet(input_shape=(40,), outputs=3, widths=[7], dropout=0.0, activation="relu", bias=True)
    assert {name: tuple(p.shape) for name, p in network.named_parameters() if p.dim() == 2} == {
        "fc1.weight": (7, 40),
        "output.weight": (3, 7),
    }
    assert prunable(LeNet(input_shape=(40,), outputs=3, widths=[], dropout=0.0, activation="relu", bias=True)) == [
        "output.weight"
    ]


@pytest.mark.parametrize(
    ("name", "order"),
    [
        (
            "conv2",
            "conv1 norm1 sign1 conv2 pool1 norm2 sign2 flatten fc1 fc_norm1 fc_sign1 fc2 fc_norm2 fc_sign2 output",
        ),
        ("lenet_300_100", "flatten fc1 norm1 sign1 fc2 norm2 sign2 output"),
    ],
)
def test_binary_activations_follow_pooling_and_batch_norm(name: str, order: str) -> None:
    """As published (Diffenderfer & Kailkhura 2021); without signs there is BatchNorm only where it is asked for."""
    network = build(name, CIFAR, activation="sign")
    assert [child for child, _ in network.named_children()] == order.split()
    norms = [module for module in build(name, CIFAR).modules() if isinstance(module, BATCH_NORM)]
    assert not norms
    if name == "conv2":
        with_norms = [child for child, _ in build(name, CIFAR, batch_norm=True).named_children()]
        assert with_norms == order.replace("sign", "relu").split()


@pytest.mark.parametrize("name", MODELS)
def test_a_sign_takes_the_place_of_every_relu(name: str) -> None:
    with torch.device("meta"):
        signed, other = (build(name, CIFAR, activation=kind) for kind in ("sign", "relu"))
    signs = [module for module in signed.modules() if isinstance(module, Sign)]
    assert len(signs) == sum(isinstance(module, nn.ReLU) for module in other.modules()) > 0
    assert not any(isinstance(module, nn.ReLU) for module in signed.modules())


@pytest.mark.parametrize("kind", ["relu", "sign"])
def test_a_residual_network_by_its_equations(kind: str) -> None:
    """Outputs and gradients of one that is written out: after every BatchNorm but a branch's last, and every sum.

    A sign is a quadratic spline plus what makes it ±1, which is held constant (Liu et al. 2018).
    """
    network = build("resnet20", (2, 6, 5), outputs=3, blocks=[1, 2], width=4, activation=kind).double()
    source = torch.Generator().manual_seed(0)
    for name, value in [*network.named_parameters(), *network.named_buffers()]:
        if value.is_floating_point():
            value.data.normal_(generator=source).mul_(0.5).add_(0.8 if "norm" in name else 0)
        if name.endswith("running_var"):
            value.abs_().add_(0.1)
    inputs = torch.randn(5, 2, 6, 5, generator=source, dtype=torch.float64)
    at = {name: value.detach().clone() for name, value in network.state_dict().items()}
    for name in dict(network.named_parameters()):
        at[name].requires_grad_()

    def unit(x: torch.Tensor) -> torch.Tensor:
        if kind == "relu":
            return torch.where(x > 0, x, 0)
        smooth = torch.where(x.abs() < 1, 2 * x - x * x.abs(), x.detach().sign())
        return smooth + (torch.where(x < 0, -1.0, 1.0) - smooth).detach()

    def layer(x: torch.Tensor, path: str, stride: int = 1) -> torch.Tensor:
        kernel = at[f"{path}.conv.weight"]
        x = nn.functional.conv2d(x, kernel, stride=stride, padding=kernel.shape[-1] // 2)
        mean, variance, scale, shift = (
            at[f"{path}.norm.{name}"].view(-1, 1, 1) for name in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (variance + 1e-5).sqrt() * scale + shift

    hidden = unit(layer(inputs, "stem"))
    for path, stride in (("stage1.0", 1), ("stage2.0", 2), ("stage2.1", 1)):
        residual = layer(unit(layer(hidden, f"{path}.first", stride)), f"{path}.second")
        shortcut = layer(hidden, f"{path}.shortcut", stride) if stride == 2 else hidden
        hidden = unit(residual + shortcut)
        assert kind == "relu" or hidden.abs().eq(1).all()
    expected = hidden.mean((2, 3)) @ at["output.weight"].t() + at["output.bias"]
    outputs = network.eval()(inputs)
    assert torch.allclose(outputs, expected, rtol=1e-12, atol=1e-12)
    slopes = torch.randn(5, 3, generator=source, dtype=torch.float64)
    parameters = dict(network.named_parameters())
    ours = torch.autograd.grad(outputs, list(parameters.values()), slopes)
    theirs = torch.autograd.grad(expected, [at[name] for name in parameters], slopes)
    for one, other in zip(ours, theirs, strict=True):
        assert one.any()
        assert torch.allclose(one, other, rtol=1e-9, atol=1e-12)


def test_a_ticket_from_before_activations_could_be_chosen_is_the_same_network(launch: Callable[..., Path]) -> None:
    """Of a ResNet, whose metadata then named none."""
    small = ("model.width=4", "model.blocks=[1,1]", "recipe.rewind_to=3it", "control=none", "batch=20", "length=4it")
    folder = launch("model=resnet20", *small, "dataset.limit=60", "trials=1", "pruner.rounds=1", tiny=False)
    ticket = load(folder / "tickets" / "trial-0" / "round-01.safetensors")
    model = json.loads(ticket.metadata["model"])
    assert model.pop("activation") == "relu"
    older = replace(ticket, metadata={**ticket.metadata, "model": json.dumps(model)})
    dataset = rebuild.dataset_of(ticket)
    ours, theirs = (rebuild.network(one, dataset) for one in (ticket, older))
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert torch.equal(ours(dataset.test.inputs), theirs(dataset.test.inputs))


def test_binary_activations_pass_on_the_slope_of_a_smooth_step() -> None:
    """±1 going forward, 1 for 0; going back 2(1 − |x|)₊, the finite differences of 2x − sign(x) x² between ±1."""
    inputs = torch.linspace(-2, 2, 401, dtype=torch.float64).requires_grad_()
    outputs = activation("sign")(inputs)
    assert torch.equal(outputs, torch.where(inputs >= 0, 1.0, -1.0).double())
    slopes = torch.rand(401, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    (gradient,) = torch.autograd.grad(outputs, inputs, slopes)

    def step(x: torch.Tensor) -> torch.Tensor:
        return torch.where(x.abs() <= 1, 2 * x - x.sign() * x**2, x.sign())

    x, h = inputs.detach(), 1e-6
    assert torch.allclose(gradient, slopes * (step(x + h) - step(x - h)) / (2 * h), atol=3e-6)
    assert activation("sign")(torch.ones(3, dtype=torch.bfloat16)).dtype == torch.bfloat16
    with pytest.raises(LtlError, match=r"^model\.activation=tanh is not possible: it must be relu or sign\.$"):
        activation("tanh")


def test_lenet_without_biases_has_its_weights_alone() -> None:
    """784-500-10 of Pensia et al. (2020): 397,000."""
    network = build("lenet_300_100", MNIST, widths=[500], bias=False)
    assert counts(network) == (397_000, 397_000)
    assert list(network.state_dict()) == ["fc1.weight", "output.weight"]


def test_width_of_resnets_is_free() -> None:
    network = build("resnet14", CIFAR, width=4)
    assert network.get_parameter("output.weight").shape == (10, 16)


def test_residual_is_the_sum_of_branch_and_shortcut() -> None:
    network = build("resnet14", CIFAR, width=4).eval()
    for stage, first in (("stage1", 0), ("stage2", 0)):
        block = network.get_submodule(f"{stage}.{first}")
        inputs = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
        for weight in block.get_submodule("second").parameters():
            weight.data.zero_()
        expected = block.get_submodule("shortcut")(inputs).relu()
        assert expected.shape[1:] == ((4, 8, 8) if stage == "stage1" else (8, 4, 4))
        assert torch.equal(block(inputs), expected)


@pytest.mark.parametrize("name", MODELS)
def test_output_is_the_last_layer(name: str) -> None:
    with torch.device("meta"):
        network = build(name, CIFAR)
    assert prunable(network)[-1] == "output.weight"
    assert list(network.named_modules())[-1][0] == "output"


@pytest.mark.parametrize("name", MODELS)
def test_recipes_are_whole_and_fit_their_model(name: str) -> None:
    recipe = config(name)
    assert recipe.model.name == name
    for key in ("length", "eval_every"):
        assert parse(recipe[key], key).value > 0
    assert recipe.recipe.rates.keys() == {"conv", "linear", "output"}
    assert parse(recipe.recipe.rewind_to, "recipe.rewind_to").value > 0
    milestones = [parse(text, "recipe.milestones").value for text in recipe.recipe.milestones]
    assert milestones == sorted(milestones)
    deep = name.startswith(("resnet", "vgg", "wide"))
    assert deep == (recipe.rewinding_note is not None)
    if deep:
        assert "pruner=imp_late" in recipe.rewinding_note
        with torch.device("meta"):
            network = build(name, CIFAR)
        weights: Tensors = {weight: network.get_parameter(weight) for weight in prunable(network)}
        excluded = set(weights) - set(included(dense(weights), recipe.pruner.allocation.exclude, "exclude"))
        assert excluded == {weight for weight in weights if weight == "output.weight" or ".shortcut." in weight}


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_optimizers_build_and_step(name: str) -> None:
    parameter = nn.Parameter(torch.ones(3))
    optimizer = hydra.utils.instantiate(OmegaConf.load(CONF / "optimizer" / f"{name}.yaml"))([parameter])
    parameter.grad = torch.ones(3)
    optimizer.step()
    assert (parameter < 1).all()


@pytest.mark.parametrize("path", sorted((CONF / "initialiser").glob("*.yaml")), ids=lambda path: path.stem)
def test_initialisers_build_and_draw(path: Path) -> None:
    weight = torch.zeros(4, 3)
    hydra.utils.instantiate(OmegaConf.load(path))(weight, generator=torch.Generator().manual_seed(0))
    assert (weight != 0).all()


@pytest.mark.parametrize("name", ["constant", "milestones", "cosine"])
def test_lr_schedules_build(name: str) -> None:
    settings = OmegaConf.load(CONF / "lr_schedule" / f"{name}.yaml")
    whole = OmegaConf.create({"recipe": config("resnet20").recipe, "lr_schedule": settings})
    schedule = hydra.utils.instantiate(whole.lr_schedule)(
        length=30_000, steps=lambda text: parse(text, "lr_schedule").steps(examples=45_000, batch=128)
    )
    assert schedule(0) == 1
    assert schedule(26_000) == pytest.approx({"constant": 1, "milestones": 0.01, "cosine": 0.0432}[name], abs=1e-3)


def test_dropout_drops_the_given_fraction_from_its_own_stream() -> None:
    layer = Dropout(0.25)
    inputs = torch.ones(100, 200)
    before = torch.get_rng_state()
    layer.generator = torch.Generator().manual_seed(1)
    first = layer(inputs)
    layer.generator = torch.Generator().manual_seed(1)
    assert torch.equal(first, layer(inputs))
    assert not torch.equal(first, layer(inputs))
    assert torch.equal(torch.get_rng_state(), before)
    assert (first == 0).float().mean().item() == pytest.approx(0.25, abs=0.01)
    assert first[first > 0].unique(sorted=True).tolist() == pytest.approx([4 / 3])
    assert torch.equal(layer.eval()(inputs), inputs)


def test_dropout_without_a_stream_trains_nothing() -> None:
    with pytest.raises(LtlError, match="set the Dropout module's `generator`"):
        Dropout(0.5)(torch.ones(3))
    with pytest.raises(LtlError, match=r"model\.dropout .* got 1"):
        Dropout(1.0)


@pytest.mark.parametrize("name", ["lenet_300_100", "conv2"])
def test_dropout_follows_every_hidden_linear_layer(name: str) -> None:
    network = build(name, CIFAR, dropout=0.5)
    kinds = [type(module) for module in network.children()]
    assert kinds[-7:] == [nn.Linear, nn.ReLU, Dropout, nn.Linear, nn.ReLU, Dropout, nn.Linear]
    assert not any(isinstance(module, Dropout) for module in build(name, CIFAR).modules())

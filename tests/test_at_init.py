"""Whole runs of methods that look at data, or prune before training, against the equations of their papers.

The network is written again in plain PyTorch, with convolutions, pooling and BatchNorm; scores are derivatives that are
taken in another way than ltl takes them, of the weights that the ticket says it begins with.
"""

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import composed
from rich.console import Console
from torch import Tensor, nn
from torch.func import functional_call, grad, vjp, vmap

from ltl import build, fit
from ltl.callbacks.progress import RunProgress
from ltl.datasets.dataset import Dataset
from ltl.tickets import Ticket, load

SMALL = (
    "model=conv2", "model.blocks=[3]", "model.widths=[8]", "model.batch_norm=true", "dataset.limit=200", "batch=200",
    "optimizer=sgd", "optimizer.lr=0.2", "optimizer.weight_decay=0.0", "length=6it", "eval_every=6it", "trials=1",
    "control=none", "logger=none", "pruner.rounds=2", "pruner.rate=0.6", "hardware.precision=64-true",
)  # fmt: skip
WEIGHTS = ["conv1.weight", "conv2.weight", "fc1.weight", "output.weight"]
Examples = tuple[Tensor, Tensor]
State = dict[str, Tensor]
Search = tuple[build.Experiment, list[Ticket]]
Equation = Callable[[State, State, Examples], State]


def network(state: State) -> nn.Sequential:
    """The architecture of SMALL with these parameters and buffers."""
    layers = nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(1, 3, 3, padding=1), norm1=nn.BatchNorm2d(3), relu1=nn.ReLU(),
            conv2=nn.Conv2d(3, 3, 3, padding=1), pool1=nn.MaxPool2d(2), norm2=nn.BatchNorm2d(3), relu2=nn.ReLU(),
            flatten=nn.Flatten(), fc1=nn.Linear(48, 8), fc_norm1=nn.BatchNorm1d(8), fc_relu1=nn.ReLU(),
            output=nn.Linear(8, 10),
        )
    ).double()  # fmt: skip
    layers.load_state_dict(state)
    return layers


def loss(model: nn.Module, weights: State, examples: Examples) -> Tensor:
    inputs, targets = examples
    outputs = functional_call(model, weights, (inputs,))
    return -outputs.log_softmax(1)[torch.arange(len(targets)), targets].mean()


def masked(state: State, masks: State) -> State:
    return {name: state[name] * masks[name] for name in WEIGHTS}


def snip(state: State, masks: State, examples: Examples) -> State:
    """Lee et al. 2019, eq. 4: |∂L(c ⊙ w)/∂c_j| at c = m, in training mode."""
    model = network(state).train()
    switches = {name: masks[name].double().requires_grad_() for name in WEIGHTS}
    value = loss(model, {name: state[name] * switches[name] for name in WEIGHTS}, examples)
    slopes = torch.autograd.grad(value, list(switches.values()))
    return {name: slope.abs() for name, slope in zip(WEIGHTS, slopes, strict=True)}


def grasp(state: State, masks: State, examples: Examples) -> State:
    """Wang et al. 2020, eq. 8: S = −θ ⊙ Hg of logits/200, of which the highest go; Hg is the slope of ½‖g‖²."""
    model = network(state)
    for layer in model:
        if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)):
            layer.track_running_stats, layer.running_mean, layer.running_var = False, None, None  # of the batch alone

    def value(weights: State) -> Tensor:
        cooled = {**weights, "output.weight": weights["output.weight"] / 200, "output.bias": state["output.bias"] / 200}
        return loss(model, cooled, examples)

    def half(weights: State) -> Tensor:
        return sum((slope**2).sum() for slope in grad(value)(weights).values()) / 2  # type: ignore[return-value]

    theta = masked(state, masks)
    return {name: theta[name] * slope for name, slope in grad(half)(theta).items()}  # −S: the lowest go


def synflow(state: State, masks: State, examples: Examples) -> State:
    """Tanaka et al. 2020, Alg. 1: all of the state absolute, ones through the network in evaluation, |θ ∂R/∂θ|."""
    model = network({name: value.abs() for name, value in state.items()}).eval()
    with torch.no_grad():
        for name in WEIGHTS:
            model.get_parameter(name).mul_(masks[name])
    model(torch.ones(1, 1, 8, 8, dtype=torch.float64)).sum().backward()
    weights = {name: model.get_parameter(name) for name in WEIGHTS}
    return {name: (weight * weight.grad).abs() for name, weight in weights.items()}  # type: ignore[operator]


def optimal_brain_damage(state: State, masks: State, examples: Examples) -> State:
    """LeCun et al. 1990, eq. 5: ½ h_jj θ_j², of the whole Hessian in evaluation mode."""
    model, theta = network(state).eval(), masked(state, masks)
    shapes = [theta[name].shape for name in WEIGHTS]

    def value(flat: Tensor) -> Tensor:
        parts = torch.split(flat, [shape.numel() for shape in shapes])
        return loss(model, {n: part.view(s) for n, s, part in zip(WEIGHTS, shapes, parts, strict=True)}, examples)

    flat = torch.cat([theta[name].flatten() for name in WEIGHTS])
    _, pull = vjp(grad(value), flat)
    curvature = vmap(pull, chunk_size=64)(torch.eye(len(flat), dtype=flat.dtype))[0].diagonal()
    scores = torch.split(curvature * flat**2 / 2, [shape.numel() for shape in shapes])
    return {name: score.view(shape) for name, shape, score in zip(WEIGHTS, shapes, scores, strict=True)}


def without_lowest(scores: State, masks: State, count: int) -> State:
    """Remove the `count` lowest scores of the weights left, by one stable sort over all layers; ties go by place."""
    flat = np.concatenate([scores[name].detach().numpy().ravel() for name in WEIGHTS])
    left = np.concatenate([masks[name].numpy().ravel() for name in WEIGHTS])
    places = np.flatnonzero(left)
    left[places[np.argsort(flat[places], kind="stable")[:count]]] = False
    parts = np.split(left, np.cumsum([masks[name].numel() for name in WEIGHTS])[:-1])
    return {name: torch.from_numpy(part).view(masks[name].shape) for name, part in zip(WEIGHTS, parts, strict=True)}


def to_density(scores: State, masks: State, density: float) -> State:
    whole, left = sum(mask.numel() for mask in masks.values()), sum(int(mask.sum()) for mask in masks.values())
    return without_lowest(scores, masks, left - round(density * whole))


EQUATIONS: dict[str, Equation] = {"snip": snip, "grasp": grasp, "synflow": synflow}


def at_init(state: State, pruner: str, drawn: list[Examples], turn: int, prunings: int) -> State:
    """From the dense network to 0.4^turn, in steps of equal ratios, with scores taken anew at every step."""
    masks = {name: torch.ones(state[name].shape, dtype=torch.bool) for name in WEIGHTS}
    for number in range(1, prunings + 1):
        examples = (torch.empty(0), torch.empty(0)) if pruner == "synflow" else drawn.pop(0)
        masks = to_density(EQUATIONS[pruner](state, masks, examples), masks, 0.4 ** (turn * number / prunings))
    return masks


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Examples]:
    """The examples that a run draws for its scores, in turn."""
    seen: list[Examples] = []
    draw = Dataset.examples

    def watched(self: Dataset, per_class: int, generator: torch.Generator) -> Examples:
        seen.append(draw(self, per_class, generator))
        return seen[-1]

    monkeypatch.setattr(Dataset, "examples", watched)
    return seen


@pytest.fixture
def search(tmp_path: Path) -> Callable[..., Search]:
    """Run a search and return it with its tickets by round."""

    def run(*overrides: str) -> Search:
        built = build.experiment(composed(*SMALL, *overrides), tmp_path, hardware_number=0)
        fit.run(built, lambda steps: RunProgress(total_steps=steps, console=Console(quiet=True)))
        return built, [load(built.ticket_path(0, turn)) for turn in range(3)]

    return run


def assert_masks(found: State, expected: State) -> None:
    assert {name: int((found[name] != expected[name]).sum()) for name in found} == dict.fromkeys(WEIGHTS, 0)


def assert_trained(built: build.Experiment, before: State, after: State, steps: int) -> None:
    """Every parameter and buffer is that of `steps` steps of SGD on all examples by PyTorch; of none, to the bit."""
    whole = (built.dataset.train.inputs, built.dataset.train.targets)
    model = network(before).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9)
    for _ in range(steps):
        optimizer.zero_grad()
        loss(model, {}, whole).backward()
        optimizer.step()
    for name, value in model.state_dict().items():
        near = torch.allclose(after[name], value, rtol=1e-9, atol=1e-11)
        assert near if steps else torch.equal(after[name], value), name


@pytest.mark.parametrize(
    ("pruner", "prunings", "step"),
    [("snip", 1, 0), ("snip", 3, 3), ("grasp", 1, 0), ("synflow", 100, 3)],
)
def test_a_mask_before_training_is_that_of_the_equation(
    search: Callable[..., Search], drawn: list[Examples], pruner: str, prunings: int, step: int
) -> None:
    """At θ₀, which stays as it was drawn, or at θ_k: of the state that the ticket holds, in every round anew."""
    built, tickets = search(f"pruner={pruner}", f"pruner.rewind_to={step}it", f"pruner.schedule.prunings={prunings}")
    del drawn[:1]  # tried out before training
    assert all(targets.bincount().tolist() == [10] * 10 for _, targets in drawn)
    for turn in (1, 2):
        ticket = tickets[turn]
        assert ticket.metadata["rewind_step"] == ticket.metadata["search_steps"] == str(step)
        assert_trained(built, tickets[0].state, ticket.state, step)
        assert_masks(ticket.masks, at_init(ticket.state, pruner, drawn, turn, prunings))
    assert not drawn


def test_optimal_brain_damage_is_its_equation(search: Callable[..., Search], drawn: list[Examples]) -> None:
    """At the trained weights, with the statistics of BatchNorm that training has gathered; 60% go, over all layers."""
    _, tickets = search("pruner=optimal_brain_damage", "pruner.criterion.examples=2")
    del drawn[:1]  # tried out before training
    masks = tickets[0].masks
    for turn in (1, 2):
        scores = optimal_brain_damage(tickets[turn].state, masks, drawn.pop(0))
        left = sum(int(mask.sum()) for mask in masks.values())
        masks = without_lowest(scores, masks, left * 6 // 10)
        assert_masks(tickets[turn].masks, masks)
    assert not drawn

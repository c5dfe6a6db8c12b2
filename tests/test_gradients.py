"""Criteria that look at data, against their equations: finite differences, full Hessians and matrix products."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ltl.errors import LtlError
from ltl.masks import Tensors, dense
from ltl.models.stack import Stack
from ltl.pruning import criteria, fillers, gradients, survivors
from ltl.pruning.allocation import Target, global_pool
from ltl.pruning.evidence import Evidence, Task
from ltl.pruning.pruner import Pruner

NAMES = ["0.weight", "2.weight"]


@pytest.fixture
def known() -> Evidence:
    """A small ReLU network in float64 with biases, a mask, and twelve examples of three classes."""
    source = torch.Generator().manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=source, dtype=torch.float64))
    inputs = torch.randn(12, 4, generator=source, dtype=torch.float64)
    targets = torch.arange(12) % 3
    masks = {name: torch.rand(network.get_parameter(name).shape, generator=source) < 0.8 for name in NAMES}
    weights = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    task = Task(
        outputs=Stack([network], stacked=False, compiled=False, merge=False).outputs_of,
        loss=F.cross_entropy,
        examples=lambda per_class, generator: (inputs, targets),
        batches=lambda count: iter([(inputs, targets), (inputs[:5], targets[:5])][:count]),
        input_shape=(4,),
    )
    return Evidence(weights, weights, weights, masks, source, lambda _: {}, task)


def network(weights: Tensors, inputs: Tensor) -> Tensor:
    """The same function, written again."""
    hidden = (inputs @ weights["0.weight"].T + weights["0.bias"]).clamp(min=0)
    return hidden @ weights["2.weight"].T + weights["2.bias"]


def loss(known: Evidence, weights: Tensors, temperature: float = 1.0) -> Tensor:
    inputs, targets = next(known.task.batches(1))
    logits = network(weights, inputs) / temperature
    return (logits.logsumexp(1) - logits[torch.arange(12), targets]).mean()


def masked(known: Evidence) -> Tensors:
    return {name: tensor * known.masks[name] if name in NAMES else tensor for name, tensor in known.weights.items()}


def hessian(known: Evidence, temperature: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    """The weights m ⊙ θ in a row, the gradient there, and the whole Hessian."""
    start = masked(known)
    flat = torch.cat([start[name].flatten() for name in NAMES])

    def of(row: Tensor) -> Tensor:
        return loss(known, {**start, "0.weight": row[:20].view(5, 4), "2.weight": row[20:].view(3, 5)}, temperature)

    return flat, torch.autograd.functional.jacobian(of, flat), torch.autograd.functional.hessian(of, flat)


def assert_scores(scores: Tensors, expected: Tensor) -> None:
    assert list(scores) == NAMES
    flat = torch.cat([score.flatten() for score in scores.values()])
    assert torch.allclose(flat, expected, rtol=1e-7, atol=1e-12)


def test_snip_is_the_derivative_by_the_mask(known: Evidence) -> None:
    """|∂L(c ⊙ θ)/∂c_j| at c = m by central differences (Lee et al. 2019, eq. 4)."""
    scores = gradients.snip(known, examples=1)
    for name in NAMES:
        for index in range(known.weights[name].numel()):
            ends = []
            for step in (1e-6, -1e-6):
                moved = masked(known)
                change = torch.zeros_like(moved[name]).view(-1)
                change[index] = step * moved[name].view(-1)[index]
                moved[name] = moved[name] + change.view_as(moved[name])
                ends.append(float(loss(known, moved)))
            slope = abs(ends[0] - ends[1]) / 2e-6
            assert float(scores[name].view(-1)[index]) == pytest.approx(slope, abs=1e-8)


def test_grasp_is_the_hessian_times_the_gradient(known: Evidence) -> None:
    """θ ⊙ Hg of logits / T, high where a weight carries gradient flow; its magnitude is a criterion of its own."""
    for temperature in (1.0, 200.0):
        flat, gradient, whole = hessian(known, temperature)
        expected = flat * (whole @ gradient)
        assert_scores(gradients.grasp(known, examples=1, temperature=temperature), expected)
        assert_scores(gradients.grasp_magnitude(known, examples=1, temperature=temperature), expected.abs())
    flat, gradient, whole = hessian(known)
    step = 1e-7
    later = masked(known)
    later["0.weight"] = later["0.weight"] * (1 - step * (torch.arange(20).view(5, 4) == 3).double())
    name, index = "0.weight", 3
    moved = torch.cat([later[one].flatten() for one in NAMES])
    norm_change = float(((gradient + whole @ (moved - flat)) ** 2).sum() - (gradient**2).sum())
    score = float(gradients.grasp(known, examples=1, temperature=1.0)[name].view(-1)[index])
    assert norm_change / step == pytest.approx(-2 * score, rel=1e-3, abs=1e-9)  # what goes takes 2 · score of ‖g‖²


def test_synflow_is_the_product_of_absolute_matrices(known: Evidence) -> None:
    """|w| times the flow in and the flow out; biases flow too, and without them all layers have the same sum."""
    free = Evidence(
        {name: tensor if "weight" in name else torch.zeros_like(tensor) for name, tensor in known.weights.items()},
        known.theta_0, known.theta_k, known.masks, known.generator, known.initialise, known.data,
    )  # fmt: skip
    for one in (known, free):
        weights = {name: tensor.abs() for name, tensor in masked(one).items()}
        hidden = weights["0.weight"] @ torch.ones(4, dtype=torch.float64) + weights["0.bias"]
        out = weights["2.weight"].sum(0)
        first = weights["0.weight"] * out.unsqueeze(1)
        second = weights["2.weight"] * hidden
        assert_scores(gradients.synflow(one), torch.cat([first.flatten(), second.flatten()]))
    scores = gradients.synflow(free)
    assert float(scores["0.weight"].sum()) == pytest.approx(float(scores["2.weight"].sum()))  # Theorem 2


def test_synflow_survives_what_overflows_single_precision(known: Evidence) -> None:
    """Products of 1e30 and of 1e-30 are finite, in order, and not 0."""
    for scale in (1e30, 1e-30):
        weights = {name: (tensor * scale).float() for name, tensor in known.weights.items()}
        scores = gradients.synflow(
            Evidence(weights, {}, {}, known.masks, known.generator, known.initialise, known.data)
        )
        flat = torch.cat([scores[name][known.masks[name]] for name in NAMES])
        assert torch.isfinite(flat).all()
        assert (flat > 0).any()


def test_optimal_brain_damage_is_half_the_diagonal_of_the_hessian_times_the_square(known: Evidence) -> None:
    """Exact for ReLU networks, whatever is differentiated together (LeCun et al. 1990, eq. 5)."""
    flat, _, whole = hessian(known)
    for at_once in (1, 5, 12):
        scores = gradients.optimal_brain_damage(known, examples=1, at_once=at_once)
        assert_scores(scores, whole.diagonal() * flat**2 / 2)


@pytest.fixture
def normed() -> tuple[Evidence, nn.Sequential]:
    """A convolution, BatchNorm whose parameters and statistics are of either sign, pooling and a layer; with masks."""
    source = torch.Generator().manual_seed(1)
    layers = nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(12, 3)
    ).double()  # fmt: skip
    for name, tensor in (*layers.named_parameters(), *layers.named_buffers()):
        if tensor.is_floating_point():
            tensor.data.copy_(torch.randn(tensor.shape, generator=source, dtype=torch.float64))
        if name.endswith("running_var"):
            tensor.data.abs_()
    inputs = torch.randn(9, 2, 4, 4, generator=source, dtype=torch.float64)
    state = {name: tensor.detach().clone() for name, tensor in layers.state_dict().items()}
    masks = {name: torch.rand(state[name].shape, generator=source) < 0.8 for name in ("0.weight", "5.weight")}
    task = Task(
        outputs=Stack([layers], stacked=False, compiled=False, merge=False).outputs_of,
        loss=F.cross_entropy,
        examples=lambda per_class, generator: (inputs, torch.arange(9) % 3),
        batches=lambda count: iter([]),
        input_shape=(2, 4, 4),
    )
    return Evidence(state, state, state, masks, source, lambda _: {}, task), layers


def by_hand(state: Tensors, inputs: Tensor) -> Tensor:
    """The network of `normed` in evaluation, from its equations."""
    patches = F.unfold(inputs, 3, padding=1)  # (b, channels · 9, places): a convolution is a product with these
    hidden = (state["0.weight"].flatten(1) @ patches).view(-1, 3, 4, 4) + state["0.bias"].view(3, 1, 1)
    mean, variance, scale, shift = (
        state[f"1.{name}"].view(3, 1, 1) for name in ("running_mean", "running_var", "weight", "bias")
    )
    hidden = ((hidden - mean) / (variance + 1e-5).sqrt() * scale + shift).clamp(min=0)
    pooled = hidden.view(-1, 3, 2, 2, 2, 2).amax((3, 5)).flatten(1)
    return pooled @ state["5.weight"].T + state["5.bias"]


def unchanged(known: Evidence, layers: nn.Sequential, before: Tensors) -> bool:
    """Whether weights, statistics and modes are as they were, and nothing is left behind on the network."""
    return (
        all(torch.equal(tensor, before[name]) for name, tensor in layers.state_dict().items())
        and all(torch.equal(tensor, before[name]) for name, tensor in known.weights.items())
        and all(module.training for module in layers.modules())
        and all(parameter.grad is None and parameter.requires_grad for parameter in layers.parameters())
    )


def test_optimal_brain_damage_of_shared_weights_under_batch_norm(normed: tuple[Evidence, nn.Sequential]) -> None:
    """Of a convolution too the diagonal is exact: h_kk sums over all places, pairs of them included."""
    known, layers = normed
    before, state = {name: tensor.clone() for name, tensor in known.weights.items()}, dict(known.weights)
    inputs, targets = known.task.examples(1, known.generator)
    theta = {name: state[name] * mask for name, mask in known.masks.items()}
    scores = gradients.optimal_brain_damage(known, examples=1, at_once=4)
    for name, weight in theta.items():

        def loss_at(flat: Tensor, name: str = name, weight: Tensor = weight) -> Tensor:
            logits = by_hand(state | theta | {name: flat.view_as(weight)}, inputs)
            return (logits.logsumexp(1) - logits[torch.arange(9), targets]).mean()

        whole = torch.autograd.functional.hessian(loss_at, weight.flatten())
        assert torch.allclose(scores[name].flatten(), whole.diagonal() * weight.flatten() ** 2 / 2, rtol=1e-8)
    assert unchanged(known, layers, before)


def test_synflow_takes_batch_norm_absolute_and_in_evaluation(normed: tuple[Evidence, nn.Sequential]) -> None:
    """|γ|, |β|, |mean| and the running variance, as in the paper's code; the network is as it was."""
    known, layers = normed
    before = {name: tensor.clone() for name, tensor in known.weights.items()}
    absolute = {name: tensor.abs() for name, tensor in before.items()}
    leaves = {name: (absolute[name] * mask).requires_grad_() for name, mask in known.masks.items()}
    by_hand(absolute | leaves, torch.ones(1, 2, 4, 4, dtype=torch.float64)).sum().backward()
    scores = gradients.synflow(known)
    for name, leaf in leaves.items():
        assert leaf.grad is not None and leaf.grad.any()
        assert torch.allclose(scores[name], (leaf.detach() * leaf.grad).abs(), rtol=1e-10)
        assert not scores[name][~known.masks[name]].any()  # the mask acts in the forward pass
    assert unchanged(known, layers, before)


def test_gradients_are_dense(known: Evidence) -> None:
    """At pruned entries as well, from m ⊙ θ: what RigL grows by."""
    _, gradient, _ = hessian(known)
    assert_scores(gradients.batch_gradient(known), gradient.abs())
    assert_scores(gradients.sensitivity(known, examples=1), gradient.abs())
    assert all((gradients.batch_gradient(known)[name][~known.masks[name]] > 0).any() for name in NAMES)


def test_smoothed_gradients_are_their_sum_with_signs(known: Evidence) -> None:
    """|g_0 + β g_1|, each of its own batch, dense; one batch is RigL's gradient."""
    _, newest, _ = hessian(known)
    start = masked(known)
    flat = torch.cat([start[name].flatten() for name in NAMES])
    inputs, targets = list(known.task.batches(2))[1]

    def before(row: Tensor) -> Tensor:
        logits = network({**start, "0.weight": row[:20].view(5, 4), "2.weight": row[20:].view(3, 5)}, inputs)
        return (logits.logsumexp(1) - logits[torch.arange(5), targets]).mean()

    expected = newest + 0.5 * torch.autograd.functional.jacobian(before, flat)
    assert_scores(gradients.smoothed_gradient(known, momentum=0.5, batches=2), expected.abs())
    assert_scores(gradients.smoothed_gradient(known, momentum=0.5, batches=1), newest.abs())


@pytest.mark.parametrize(
    "criterion",
    [
        lambda one: gradients.snip(one, examples=1),
        lambda one: gradients.grasp(one, examples=1, temperature=200),
        gradients.synflow,
        lambda one: gradients.optimal_brain_damage(one, examples=1, at_once=4),
    ],
)
def test_inverted_negates(known: Evidence, criterion: Callable[[Evidence], Tensors]) -> None:
    plain, inverted = criterion(known), criteria.inverted(known, criterion=criterion)
    assert all(torch.equal(plain[name], -inverted[name]) for name in NAMES)


def test_what_scores_0_goes_last_where_scores_are_inverted() -> None:
    """And is finite: other code takes 1/score, which is infinite at 0 (and every dead weight has 0)."""
    scores = {"w": torch.tensor([[0.0, 3.0, 0.0], [1.0, 0.0, 2.0]])}
    pruner = Pruner(
        criterion=lambda known: criteria.inverted(known, criterion=lambda _: scores), survivors=survivors.rewound,
        allocation=partial(global_pool, exclude=[], allow_empty=False), filler=fillers.zero, momentum="zero",
        lr="rewound",
    )  # fmt: skip
    known = Evidence(scores, scores, scores, dense(scores), torch.Generator(), lambda _: {})
    left = [pruner.prune(known, Target(density=density))["w"].flatten().tolist() for density in (5 / 6, 3 / 6, 2 / 6)]
    assert left == [[1, 0, 1, 1, 1, 1], [1, 0, 1, 0, 1, 0], [0, 0, 1, 0, 1, 0]]  # equal ones by place


def test_nothing_that_is_looked_at_changes(known: Evidence) -> None:
    """Weights, BatchNorm's statistics and modes stay; training mode uses the batch's own statistics, dropout is off."""
    from ltl.models.dropout import Dropout

    network = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), Dropout(0.5), nn.Linear(5, 3)).double().train()
    stack = Stack([network], stacked=False, compiled=False, merge=False)
    state = stack.members()[0]
    before = {name: tensor.clone() for name, tensor in state.items()}
    inputs, _ = next(known.task.batches(1))
    trained, evaluated = (stack.outputs_of(state, inputs, training) for training in (True, False))
    hidden = inputs @ state["0.weight"].T + state["0.bias"]
    normed = (hidden - hidden.mean(0)) / (hidden.var(0, unbiased=False) + 1e-5).sqrt()
    assert torch.allclose(trained, normed @ state["3.weight"].T + state["3.bias"])
    normed = hidden / (1 + 1e-5) ** 0.5
    assert torch.allclose(evaluated, normed @ state["3.weight"].T + state["3.bias"])
    assert all(torch.equal(tensor, before[name]) for name, tensor in stack.members()[0].items())
    assert all(module.training for module in network.modules())


def test_data_that_nobody_has_are_one_line(known: Evidence) -> None:
    blind = Evidence(known.weights, {}, {}, known.masks, known.generator, known.initialise)
    with pytest.raises(LtlError, match=r"pruner\.criterion looks at data"):
        gradients.snip(blind, examples=1)

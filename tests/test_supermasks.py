"""Supermasks as functions of scores: exact masks, and gradients by their equations and by finite differences."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from ltl.masks import Tensors
from ltl.pruning.allocation import Target, global_pool, lowest
from ltl.rng import generator
from ltl.supermasks import Bernoulli, Binary, EdgePopup, Estimator, Ternary, largest, marked, shares

SHAPES = [(7, 5), (4, 3, 3, 2)]
ESTIMATORS: dict[str, Estimator] = {
    "bernoulli": Bernoulli(rescale=False),
    "rescaled": Bernoulli(rescale=True),
    "edge_popup": EdgePopup(),
    "binary": Binary(),
    "ternary": Ternary(),
}


def problem(shape: Sequence[int], seed: int = 0, networks: int = 3) -> Tensors:
    """θ, scores, draws and the gradient of the loss with respect to the effective weights, in float64."""
    source = torch.Generator().manual_seed(seed)
    theta, scores, slope = torch.randn(3, networks, *shape, generator=source, dtype=torch.float64)
    draws = torch.randint(-(2**15), 2**15, (networks, *shape), generator=source, dtype=torch.int16)
    return {"theta": theta, "scores": scores, "slope": slope, "draws": draws}


def uniform(draws: Tensor) -> Tensor:
    """The number between 0 and 1 that a draw stands for: the middle of one of 65,536 equal parts."""
    return (draws.double() + 2**15 + 0.5) / 2**16


def counts(shape: Sequence[int]) -> list[int]:
    """Another number of weights for each of three networks."""
    whole = int(np.prod(shape))
    return [1, whole // 3, whole]


def trained(estimator: Estimator, given: Tensors, wanted: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The effective weights of a training step, and the gradient of the scores."""
    scores = given["scores"].clone().requires_grad_()
    weights = estimator.weights(given["theta"], scores, wanted, given["draws"])
    (weights * given["slope"]).sum().backward()
    assert scores.grad is not None
    return weights.detach(), scores.grad


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", list(ESTIMATORS))
def test_a_step_is_what_the_equations_say(name: str, shape: Sequence[int]) -> None:
    """Values and gradients of each network, by numpy and the chain rule written out."""
    given, wanted = problem(shape), counts(shape)
    weights, gradient = trained(ESTIMATORS[name], given, wanted)
    for number, count in enumerate(wanted):
        theta, scores, slope, uniforms = (
            tensor[number].numpy().ravel()
            for tensor in (given["theta"], given["scores"], given["slope"], uniform(given["draws"]))
        )
        probability = 1 / (1 + np.exp(-scores))
        if name in ("bernoulli", "rescaled"):
            mask = (uniforms < probability).astype(float)
            scale, shared = 1.0, 0.0
            if name == "rescaled":
                scale = len(mask) / mask.sum()
                shared = (slope * theta * mask).sum() * len(mask) / mask.sum() ** 2
            expected = theta * mask * scale
            expected_gradient = (slope * theta * scale - shared) * probability * (1 - probability)
        else:
            mask = np.zeros(len(scores))
            mask[np.argsort(-np.abs(scores))[:count]] = 1
            expected = theta * mask
            if name in ("binary", "ternary"):
                signed = theta if name == "binary" else scores
                expected = np.abs(signed * mask).sum() / count * mask * np.sign(signed)
            expected_gradient = slope if name == "ternary" else slope * theta * np.sign(scores)
        assert np.allclose(weights[number].numpy().ravel(), expected, rtol=1e-12, atol=0)
        assert np.allclose(gradient[number].numpy().ravel(), expected_gradient, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", list(ESTIMATORS))
def test_gradients_are_those_of_the_soft_function(name: str, shape: Sequence[int]) -> None:
    """By central differences of what is smooth: the hard part and what the equations hold constant stay as they are."""
    given, wanted = problem(shape, seed=1), counts(shape)
    weights, gradient = trained(ESTIMATORS[name], given, wanted)
    theta, here = given["theta"], given["scores"]

    def soft(scores: Tensor) -> Tensor:
        if name in ("edge_popup", "binary"):
            return weights + theta * (scores.abs() - here.abs())
        if name == "ternary":
            return weights + scores - here
        mask = (uniform(given["draws"]) < torch.sigmoid(here)).double() + torch.sigmoid(scores) - torch.sigmoid(here)
        scale = mask[0].numel() / mask.flatten(1).sum(1) if name == "rescaled" else torch.ones(len(mask))
        return theta * mask * scale.view(-1, *(1,) * (mask.dim() - 1))

    for place in torch.ones_like(here).nonzero().tolist():
        nudge = torch.zeros_like(here)
        nudge[tuple(place)] = 1e-6
        slopes = (soft(here + nudge) - soft(here - nudge)) * given["slope"] / 2e-6
        assert float(slopes.sum()) == pytest.approx(float(gradient[tuple(place)]), rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("name", list(ESTIMATORS))
def test_networks_side_by_side_are_as_alone(name: str) -> None:
    """Up to the rounding of σ and of sums, in any memory layout."""
    given, wanted = problem((6, 5)), counts((6, 5))
    together = trained(ESTIMATORS[name], given, wanted)
    turned = {key: tensor.mT.contiguous().mT for key, tensor in given.items()}
    assert not turned["theta"].is_contiguous()
    for one, other in zip(together, trained(ESTIMATORS[name], turned, wanted), strict=True):
        assert torch.allclose(one, other, rtol=1e-13, atol=0)
    for number, count in enumerate(wanted):
        alone = trained(ESTIMATORS[name], {key: tensor[number : number + 1] for key, tensor in given.items()}, [count])
        for one, other in zip(together, alone, strict=True):
            assert torch.allclose(one[number], other[0], rtol=1e-13, atol=0)


@pytest.mark.parametrize("flushed", [False, True])
@pytest.mark.parametrize("layout", ["rows", "columns", "channels_last"])
def test_counts_are_exact_and_ties_go_by_index(layout: str, flushed: bool) -> None:
    """As `allocation.lowest` prunes, whatever the memory layout; many scores are equal, and many are 0."""
    torch.set_flush_denormal(flushed)
    shape = (4, 3, 5, 2) if layout == "channels_last" else (11, 6)
    for seed in range(40):
        source = torch.Generator().manual_seed(seed)
        sizes = torch.randint(0, 4, (3, *shape), generator=source).float()
        if layout == "columns":
            sizes = sizes.mT.contiguous().mT
        elif layout == "channels_last":
            sizes = sizes.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
        whole = sizes[0].numel()
        wanted = [0, int(torch.randint(1, whole, (), generator=source)), whole]
        scores = sizes * torch.randint(0, 2, sizes.shape, generator=source).mul(2).sub(1)
        masks = largest(torch.ones_like(sizes), scores, wanted)
        for number, (size, mask, count) in enumerate(zip(sizes, masks, wanted, strict=True)):
            assert int(mask.sum()) == count
            assert torch.equal(marked(scores, count)[number], mask == 1)  # as on a GPU
            assert torch.equal(mask == 0, lowest(size, torch.ones_like(size, dtype=torch.bool), whole - count))


@pytest.mark.parametrize("allow_empty", [True, False])
@pytest.mark.parametrize("values", ["few", "many"])
def test_one_threshold_over_all_layers_gives_each_its_share(values: str, allow_empty: bool) -> None:
    """By a stable sort of all |s|, an own largest one set apart first; and as `global_pool` prunes. Few values tie."""
    shapes = [(6, 5), (4, 3, 3, 2), (1, 2), (3, 3)]
    emptied = 0
    for seed in range(60):
        source = torch.Generator().manual_seed(seed)
        scores = [torch.randn(shape, generator=source) * 4 ** (seed % 3 * place) for place, shape in enumerate(shapes)]
        if values == "few":
            scores = [score.clamp(-2, 2).round() for score in scores]
        scores[0] = scores[0].t().contiguous().t()
        scores[1] = scores[1].permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
        sizes = [score.numel() for score in scores]
        count = int(torch.randint(len(shapes), sum(sizes) + 1, (), generator=source))
        flat = np.abs(np.concatenate([score.flatten().numpy() for score in scores]))
        layer = np.repeat(np.arange(len(shapes)), sizes)
        ranks = np.empty(len(flat))
        ranks[np.argsort(flat, kind="stable")] = np.arange(len(flat))
        if not allow_empty:
            for place in range(len(shapes)):
                ranks[np.flatnonzero(layer == place)[ranks[layer == place].argmax()]] += len(flat)
        expected = np.bincount(layer[np.argsort(ranks)[len(flat) - count :]], minlength=len(shapes)).tolist()
        assert shares(scores, count, allow_empty=allow_empty) == expected
        assert sum(expected) == count
        emptied += 0 in expected
        named = {str(place): score.abs() for place, score in enumerate(scores)}
        masks = {name: torch.ones_like(score, dtype=torch.bool) for name, score in named.items()}
        target = Target(density=count / len(flat))
        pruned = global_pool(named, masks, target, exclude=[], allow_empty=allow_empty)
        assert [int(mask.sum()) for mask in pruned.values()] == expected
        assert shares(scores, 0, allow_empty=allow_empty) == [0] * len(shapes)
    assert (emptied > 0) == allow_empty


@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.9])
def test_the_largest_of_many_are_that_of_a_stable_sort(share: float) -> None:
    sizes = torch.rand(2, 300, 784, generator=generator("mask", 0)).abs()
    count = round(share * sizes[0].numel())
    for size, mask in zip(sizes, largest(sizes + 1, sizes, [count, count]), strict=True):
        order = size.flatten().sort(descending=True, stable=True).indices[:count]
        assert torch.equal(mask.flatten().nonzero().flatten(), order.sort().values)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", list(ESTIMATORS))
def test_a_step_is_the_detach_form(name: str, shape: Sequence[int]) -> None:
    """hard + soft − sg soft, differentiated by PyTorch."""
    given, wanted = problem(shape, seed=2), counts(shape)
    theta, scores = given["theta"], given["scores"].clone().requires_grad_()
    dims, one = tuple(range(1, theta.dim())), theta[:1] * 0 + 1
    if name in ("bernoulli", "rescaled"):
        soft = torch.sigmoid(scores)
        mask = (uniform(given["draws"]) < soft).double() + (soft - soft.detach())
        weights = theta * mask * (one.sum() / mask.sum(dims, keepdim=True) if name == "rescaled" else 1)
    else:
        mask = largest(torch.ones_like(theta), scores, wanted)
        soft = scores if name == "ternary" else theta * scores.abs()
        signed = scores.detach() if name == "ternary" else theta
        gain = (signed * mask).abs().sum(dims, keepdim=True) / mask.sum(dims, keepdim=True)
        hard = theta * mask if name == "edge_popup" else gain * mask * torch.sign(signed)
        weights = hard + (soft - soft.detach())
    (weights * given["slope"]).sum().backward()
    for ours, theirs in zip(trained(ESTIMATORS[name], given, wanted), (weights, scores.grad), strict=True):
        assert theirs is not None
        assert torch.allclose(ours, theirs, rtol=1e-12, atol=1e-15)


def test_probabilities_are_drawn_as_they_are() -> None:
    """Frequencies of 400 draws, within 4.5 standard deviations."""
    estimator, source = Bernoulli(rescale=False), generator("mask", 2)
    scores = torch.linspace(-4, 4, 60).view(1, 6, 10)
    theta, kept = torch.ones_like(scores), torch.zeros_like(scores)
    for _ in range(400):
        draws = torch.randint(-(2**15), 2**15, scores.shape, generator=source, dtype=torch.int16)
        kept += estimator.weights(theta, scores, [0], draws)
    probability = torch.sigmoid(scores)
    deviations = (kept / 400 - probability) / (probability * (1 - probability) / 400).sqrt()
    assert float(deviations.abs().max()) < 4.5


@pytest.mark.parametrize("name", list(ESTIMATORS))
def test_what_is_found(name: str) -> None:
    """Mask, weights, gain and probability: the most probable mask, or the largest scores."""
    given, wanted = problem((7, 5), seed=4), counts((7, 5))
    found = ESTIMATORS[name].found(given["theta"], given["scores"], wanted)
    sizes = [int(mask.sum()) for mask in found.mask]
    if name in ("bernoulli", "rescaled"):
        assert torch.equal(found.mask, torch.sigmoid(given["scores"]) > 0.5)
        assert found.probability is not None
        assert torch.allclose(found.probability, torch.sigmoid(given["scores"]))
        even = ESTIMATORS[name].found(given["theta"], torch.zeros_like(given["scores"]), wanted)
        assert not even.mask.any()  # as likely dropped as kept
    else:
        assert sizes == wanted
        assert found.probability is None
    assert (found.gain is None) == (name in ("bernoulli", "edge_popup"))
    if name == "rescaled":
        assert found.gain is not None
        assert found.gain.flatten().tolist() == pytest.approx([35 / size for size in sizes])
    if name in ("binary", "ternary"):
        signed = given["theta" if name == "binary" else "scores"]
        assert torch.equal(found.theta, torch.sign(signed))
        assert found.gain is not None
        means = [float(theta[mask].abs().mean()) for theta, mask in zip(signed, found.mask, strict=True)]
        assert found.gain.flatten().tolist() == pytest.approx(means)
    else:
        assert torch.equal(found.theta, given["theta"])
    trains = ESTIMATORS[name].weights
    if name in ("edge_popup", "binary", "ternary"):  # nothing is drawn: training sees what is found
        assert torch.equal(trains(given["theta"], given["scores"], wanted, None), found.weights())


@pytest.mark.parametrize("name", list(ESTIMATORS))
def test_an_empty_mask_is_finite(name: str) -> None:
    """No weight drawn, or none to keep: effective weights and gradients stay numbers."""
    given = problem((3, 4), seed=5)
    given["scores"] = -40 - given["scores"].abs()
    weights, gradient = trained(ESTIMATORS[name], given, [0, 0, 0])
    assert not weights.any()
    assert gradient.isfinite().all()
    assert ESTIMATORS[name].found(given["theta"], given["scores"], [0, 0, 0]).weights().isfinite().all()


def test_scores_begin_as_published() -> None:
    """At the logit of the density, which is 0 at a half; as the weights of PyTorch's layers; and at θ₀."""
    theta = torch.randn(3, 4)
    assert torch.equal(Ternary().fresh(theta, 0.5, generator("mask", 0)), theta)
    assert torch.equal(Bernoulli(rescale=True).fresh(torch.empty(3, 4), 0.5, generator("mask", 0)), torch.zeros(3, 4))
    low = Bernoulli(rescale=True).fresh(torch.empty(3, 4), 0.1, generator("mask", 0))
    assert torch.allclose(torch.sigmoid(low), torch.full((3, 4), 0.1))
    assert Bernoulli(rescale=True).fresh(torch.empty(3, 4), 1.0, generator("mask", 0)).isfinite().all()
    estimators: list[Callable[..., Tensor]] = [EdgePopup().fresh, Binary().fresh]
    for fresh in estimators:
        for layer in (torch.nn.Linear(30, 40), torch.nn.Conv2d(5, 40, 3)):
            scores = fresh(layer.weight, 0.5, generator("mask", 0))
            bound = layer.weight[0].numel() ** -0.5
            assert 0.98 * bound < float(scores.abs().max()) <= bound
            assert abs(float(scores.mean())) < 0.1 * bound
            assert torch.equal(scores, fresh(layer.weight, 0.5, generator("mask", 0)))


def test_the_sign_of_zero_is_one() -> None:
    theta = torch.tensor([[[-0.5, 0.0, 0.25]]])
    found = Binary().found(theta, torch.ones_like(theta), [3])
    assert found.theta.flatten().tolist() == [-1, 1, 1]
    assert found.weights().flatten().tolist() == [-0.25, 0.25, 0.25]

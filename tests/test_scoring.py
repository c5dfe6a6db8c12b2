"""Scores of several networks in training: one threshold over all layers of each, step by step, by the equation."""

from functools import partial
from itertools import combinations
from pathlib import Path
from statistics import stdev

import numpy as np
import pytest
import torch
from conftest import composed
from test_pruning import SHAPES, draws
from torch import Tensor, nn
from torch.func import functional_call

from ltl import build
from ltl.callbacks import supermask
from ltl.errors import LtlError
from ltl.masks import Tensors, prunable
from ltl.models.stack import Stack
from ltl.pruning import schedules
from ltl.supermasks import Bernoulli, Binary, EdgePopup, Estimator
from ltl.training.scoring import Pool, ScoredWeight, Scores, Scoring

LR = 0.3


def perceptron() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(18, 7), nn.ReLU(), nn.Linear(7, 5), nn.ReLU(), nn.Linear(5, 3))


def convolutions() -> nn.Module:
    first, second = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 3, 3)
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), nn.Flatten(), nn.Linear(3, 3))


def scoring(estimator: Estimator) -> Scoring:
    optimizer = partial(torch.optim.SGD, lr=LR)
    return Scoring(estimator, optimizer, lambda step: 1.0, length=1, samples=0, batch_norm=False)


def selected(scores: Tensors, names: list[str], count: int) -> dict[str, np.ndarray]:
    """The `count` entries of largest |s| of all layers of `names`, by a stable sort; every other layer whole."""
    flat = np.concatenate([np.abs(scores[name].numpy()).ravel() for name in names])
    mask = np.zeros(len(flat))
    mask[np.argsort(flat, kind="stable")[len(flat) - count :]] = 1
    parts = np.split(mask, np.cumsum([scores[name].numel() for name in names])[:-1])
    own = {name: part.reshape(scores[name].shape) for name, part in zip(names, parts, strict=True)}
    return {name: own.get(name, np.ones(score.shape)) for name, score in scores.items()}


def test_what_is_drawn_is_where_the_scores_are() -> None:
    """Before anything was drawn too: networks are looked at before their first step, on the device they moved to."""
    scored = ScoredWeight(Bernoulli(rescale=True), torch.zeros(2, 3, 4), [6, 6], turned=False).to("meta")
    assert scored(torch.ones(2, 3, 4, device="meta")).device == scored.scores.device == torch.device("meta")


@pytest.mark.parametrize("estimator", [EdgePopup(), Binary()])
@pytest.mark.parametrize("make", [perceptron, convolutions])
def test_one_threshold_is_found_again_at_every_step(make: "partial[nn.Module]", estimator: Estimator) -> None:
    """Six steps of SGD on the scores of two networks, each with a total of its own that falls, and a layer left out."""
    source = torch.Generator().manual_seed(0)
    networks = [make().double() for _ in range(2)]
    for weight in (weight for network in networks for weight in network.parameters()):
        nn.init.normal_(weight, generator=source)
    names = prunable(networks[0])
    pooled, apart = names[:-1], names[-1]
    thetas = [{name: value.detach().clone() for name, value in one.state_dict().items()} for one in networks]
    fresh = [
        {name: torch.rand(theta[name].shape, generator=source, dtype=torch.float64) - 0.5 for name in names}
        for theta in thetas
    ]
    totals = [11, 60]

    def counts() -> list[dict[str, int]]:
        """How the total is divided when a schedule sets it plays no part."""
        whole = {apart: thetas[0][apart].numel()}
        return [{names[0]: total - 1, **dict.fromkeys(pooled[1:], 0), pooled[-1]: 1, **whole} for total in totals]

    stack = Stack([make().double() for _ in networks], stacked=True, compiled=False, merge=False)
    for own, theta in zip(stack.members(), thetas, strict=True):
        for name, value in own.items():
            value.copy_(theta[name])
    scores = Scores(stack, scoring(estimator), fresh, counts(), Pool(pooled, allow_empty=True))
    optimizer = torch.optim.SGD([one for one in stack.parameters() if one.requires_grad], lr=LR)
    optimizer.register_step_post_hook(lambda *_: scores.share())
    seen = set()
    for step in range(6):
        if step == 3:
            totals = [8, 31]
            scores.keep(counts())
        inputs = torch.randn(2, 9, 2, 3, 3, generator=source, dtype=torch.float64)
        targets = torch.randint(0, 3, (2, 9), generator=source)
        stack.train()
        outputs = stack(inputs)
        sum(nn.functional.cross_entropy(out, target) for out, target in zip(outputs, targets, strict=True)).backward()  # type: ignore[union-attr]
        for number, (theta, own, total) in enumerate(zip(thetas, fresh, totals, strict=True)):
            masks = {name: torch.from_numpy(mask) for name, mask in selected(own, pooled, total).items()}
            assert sum(int(masks[name].sum()) for name in pooled) == total
            seen.add(tuple(int(mask.sum()) for mask in masks.values()))
            found = scores.found()[number]
            assert all(torch.equal(found[name].mask, masks[name] > 0) for name in names)
            weights = {name: effective(theta[name], masks[name], estimator).requires_grad_() for name in names}
            alone = functional_call(networks[number], {**theta, **weights}, (inputs[number],))
            assert torch.allclose(outputs[number], alone, rtol=1e-10, atol=1e-12)
            nn.functional.cross_entropy(alone, targets[number]).backward()
            for name in names:
                slope = weights[name].grad
                assert slope is not None
                own[name] = own[name] - LR * slope * theta[name] * torch.sign(own[name])
        optimizer.step()
        optimizer.zero_grad()
    assert len(seen) > len(networks)  # layers pay one another


def effective(theta: Tensor, mask: Tensor, estimator: Estimator) -> Tensor:
    """θ ⊙ M, or α · M ⊙ sign θ with the mean |θ| of what is kept."""
    if isinstance(estimator, EdgePopup):
        return theta * mask
    return (theta * mask).abs().sum() / mask.sum().clamp(min=1) * mask * torch.sign(theta)


def test_scores_are_drawn_anew_in_every_trial_and_round() -> None:
    """No score of one is that of another, whatever the density."""
    pruner = build._pruner(composed("pruner=edge_popup").pruner)
    events = schedules.at_init(rounds=2, rate=0.5, length=1, rewind_step=0, prunings=1)
    fresh = []
    for seed, turn in ((0, 1), (0, 2), (1, 1)):
        member = supermask.Supermask(
            pruner=pruner, scoring=scoring(EdgePopup()), events=events, turn=turn, seed=seed, initialise=lambda _: {}
        )
        member.begin(draws(0), list(SHAPES))
        fresh.append(torch.cat([scores.flatten() for scores in member.fresh.values()]))
    assert not any(bool((one == other).any()) for one, other in combinations(fresh, 2))


def test_accuracies_of_drawn_masks_have_their_mean_and_the_deviation_of_a_sample() -> None:
    assert supermask._mean_and_deviation([0.25, 0.5]) == {
        "sampled_test_accuracy": 0.375,
        "sampled_test_accuracy_sd": pytest.approx(stdev([0.25, 0.5])),
    }


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["pruner=zhou_supermask", "allocation=global"], "pruner.allocation=global is not possible with masks that"),
        (["pruner=edge_popup", "allocation=positive"], "pruner.allocation is not possible with pruner.scores: it must"),
        (["pruner=edge_popup_global", "pruner.allocation.exclude=[fc9]"], "pruner.allocation.exclude: fc9 matches no"),
        (["pruner=multi_prize_global", "pruner.rate=0.99999"], "pruner.rate: 50199 weights are to go, but only 50197"),
    ],
)
def test_what_has_no_threshold_is_one_line(tmp_path: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(LtlError) as error:
        build.experiment(composed(*overrides), tmp_path, hardware_number=0)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)

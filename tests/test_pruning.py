"""The pruning product: exact counts, ties by index, the densities of the papers, and every part's equation."""

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from conftest import composed
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor

from ltl.errors import LtlError
from ltl.masks import Masks, Tensors, dense, density, kept, prunable, total
from ltl.pruning import criteria, fillers, schedules, survivors
from ltl.pruning.allocation import Target, floor, global_pool, included, lowest, per_layer, positive
from ltl.pruning.evidence import Evidence
from ltl.pruning.pruner import Pruner
from ltl.pruning.schedules import Event
from ltl.rng import generator

SHAPES = {"conv.weight": (3, 2, 3, 3), "fc.weight": (8, 6), "output.weight": (4, 8)}
LAYERS = partial(per_layer, conv=0.5, linear=1.0, output=0.5, layers={}, exclude=[], allow_empty=False)
POOL = partial(global_pool, exclude=[], allow_empty=False)


def draws(seed: int, *, values: int | None = None) -> Tensors:
    """Scores: normal, or whole numbers below `values`, which makes many ties."""
    source = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(shape, generator=source)
        if values is None
        else torch.randint(0, values, shape, generator=source).float()
        for name, shape in SHAPES.items()
    }


def by_sorting(score: Tensor, eligible: Tensor, count: int) -> Tensor:
    """The reference: a stable argsort of the eligible entries."""
    positions = np.flatnonzero(eligible.flatten().numpy())
    order = np.argsort(score.flatten().numpy()[positions], kind="stable")
    marked = np.zeros(eligible.numel(), dtype=bool)
    marked[positions[order[:count]]] = True
    return torch.from_numpy(marked).view(eligible.shape)


# counts


def test_floor_is_exact() -> None:
    """⌊rate · n⌋ of the decimal rate, not of its binary neighbour; checked against whole-number arithmetic."""
    assert floor(0.29, 100) == 29
    assert math.floor(0.29 * 100) == 28  # what the binary fraction gives
    assert floor(0.29, 100 * 2**22) == 29 * 2**22
    for hundredths in range(1, 100):
        for count in [*range(200), 235_200, 266_200, 20_024_000, 10**9 + 1]:
            assert floor(hundredths / 100, count) == hundredths * count // 100
            assert floor(hundredths / 100 * 0.5, count) == hundredths * count // 200


def test_lowest_equals_a_stable_sort() -> None:
    """Exactly the `count` lowest eligible entries, ties by index, in 300 draws of few values."""
    for seed in range(300):
        source = torch.Generator().manual_seed(seed)
        score = torch.randint(0, 2 + seed % 5, (5, 7), generator=source).float()
        eligible = torch.rand(5, 7, generator=source) < 0.7
        for count in (0, 1, seed % int(eligible.sum()), int(eligible.sum())):
            assert torch.equal(lowest(score, eligible, count), by_sorting(score, eligible, count))


def test_lowest_counts_positions_row_by_row_in_any_memory_format() -> None:
    """Channels-last weights have the same masks as contiguous ones."""
    score = torch.randint(0, 4, (6, 4, 3, 3), generator=torch.Generator().manual_seed(0)).float()
    eligible = score != 2
    last = torch.channels_last
    marked = lowest(score.to(memory_format=last), eligible.to(memory_format=last), 50)
    assert torch.equal(marked, by_sorting(score, eligible, 50))


def test_per_layer_removes_the_floor_of_its_rate_from_every_layer() -> None:
    """The multiple of a layer is that of its kind, of the output layer, or its own."""
    masks = dense(draws(0))
    for seed in range(40):
        own = {"fc.weight": 1.5, "output.weight": 0.75} if seed % 2 else {}
        new = LAYERS(draws(seed, values=4), masks, Target(rate=0.3), layers=own)
        multiples = {"conv.weight": 0.5, "fc.weight": 1.0, "output.weight": 0.5} | own
        for name, mask in masks.items():
            n = int(mask.sum())
            assert n - int(new[name].sum()) == int(300 * multiples[name] * n) // 1000
        masks = new if seed % 8 else dense(draws(0))


def test_a_pool_removes_the_floor_of_its_rate_from_all_layers_together() -> None:
    """The excluded layer is neither in the pool nor changed."""
    masks = dense(draws(0))
    for seed in range(20):
        new = global_pool(
            draws(seed), masks, Target(rate=0.29), exclude=["output*"] if seed % 2 else [], allow_empty=False
        )
        pool = [name for name in masks if not (seed % 2 and name == "output.weight")]
        n = sum(int(masks[name].sum()) for name in pool)
        assert kept(masks) - kept(new) == 29 * n // 100
        assert torch.equal(new["output.weight"], masks["output.weight"]) or "output.weight" in pool
        masks = new if kept(new) > 20 else dense(draws(0))


@pytest.mark.parametrize("allocate", [LAYERS, POOL, partial(POOL, exclude=["fc.weight"])])
def test_density_targets_are_met_exactly(allocate: Callable[..., Masks]) -> None:
    """round(density · total) weights are left, from dense masks and from pruned ones; nothing comes back."""
    for seed in range(50):
        before = allocate(draws(seed), dense(draws(seed)), Target(density=0.9 - seed / 500))
        for wanted in (0.85 - seed / 300, 0.7 - seed / 200):
            after = allocate(draws(seed + 1), before, Target(density=wanted))
            assert kept(after) == min(kept(before), round(wanted * total(after)))
            assert not any(bool((after[name] & ~before[name]).any()) for name in after)
            before = after
        assert allocate(draws(seed), before, Target(density=1.0)) is not before
        assert kept(allocate(draws(seed), before, Target(density=1.0))) == kept(before)


def test_a_density_is_taken_in_equal_parts_from_the_layers() -> None:
    """Per layer: the same fraction of what remains, to the weight."""
    masks = dense(draws(0))
    new = LAYERS(draws(0), masks, Target(density=0.37))
    for mask in new.values():
        assert abs(int(mask.sum()) - 0.37 * mask.numel()) <= 1


# which weights


def in_turn(scores: Tensors, masks: Masks, count: int, pool: list[str], *, allow_empty: bool) -> Masks:
    """The reference of a pool: from the lowest up, earlier layers and indices first, skipping a layer's last weight."""
    new = {name: mask.clone() for name, mask in masks.items()}
    entries = [
        (float(scores[name].flatten()[index]), name, int(index))
        for name in pool
        for index in masks[name].flatten().nonzero()
    ]
    for _, name, index in sorted(entries, key=lambda entry: entry[0]):
        if count and (allow_empty or int(new[name].sum()) > 1):
            new[name].view(-1)[index] = False
            count -= 1
    assert count == 0
    return new


@pytest.mark.parametrize("exclude", [[], ["conv*"]])
@pytest.mark.parametrize("allow_empty", [False, True])
def test_a_pool_equals_pruning_one_weight_after_the_other(allow_empty: bool, exclude: list[str]) -> None:
    """With many ties, over several rounds, down to layers with one weight."""
    pool = [name for name in SHAPES if not (exclude and name.startswith("conv"))]
    emptied = 0
    for seed in range(25):
        masks = dense(draws(seed))
        for turn in range(5):
            scores = draws(10 * seed + turn, values=1 + seed % 4)
            scores["fc.weight"] = scores["fc.weight"] - turn  # let one layer go first
            new = global_pool(scores, masks, Target(rate=0.5), exclude=exclude, allow_empty=allow_empty)
            count = sum(int(masks[name].sum()) for name in pool) // 2
            expected = in_turn(scores, masks, count, pool, allow_empty=allow_empty)
            assert all(torch.equal(new[name], expected[name]) for name in SHAPES)
            masks = new
        emptied += sum(not bool(mask.any()) for mask in masks.values())
    assert (emptied > 0) == allow_empty


def test_layers_equal_a_stable_sort() -> None:
    """Each layer by itself, over four rounds of few values."""
    for seed in range(25):
        masks = dense(draws(seed))
        for turn in range(4):
            scores = draws(100 * seed + turn, values=3)
            new = LAYERS(scores, masks, Target(rate=0.4))
            for name, mask in masks.items():
                count = int(0.4 * (1.0 if name == "fc.weight" else 0.5) * int(mask.sum()) + 1e-9)
                assert torch.equal(mask & ~by_sorting(scores[name], mask, count), new[name])
            masks = new


@pytest.mark.parametrize("allocate", [LAYERS, POOL])
def test_equal_scores_go_by_index(allocate: Callable[..., Masks]) -> None:
    """The earlier weight goes first, in a layer and from layer to layer."""
    scores = {name: torch.zeros(shape) for name, shape in SHAPES.items()}
    new = allocate(scores, dense(scores), Target(rate=0.3))
    for mask in new.values():
        flat = mask.flatten().int()
        assert bool((flat[1:] >= flat[:-1]).all())
    if allocate is POOL:
        assert torch.cat([mask.flatten() for mask in new.values()]).tolist() == [False] * 40 + [True] * 94


def test_no_layer_is_emptied_unless_allowed() -> None:
    """Both allocations say which key to change; with allow_empty the layer goes."""
    scores, few = draws(0), dense(draws(0))
    few["fc.weight"] = torch.zeros_like(few["fc.weight"])
    few["fc.weight"][2, 3] = True
    whole = partial(per_layer, conv=0.5, linear=1.0, output=0.5, exclude=[])
    with pytest.raises(LtlError, match=r"1 of the 1 weights left in fc.weight.*allow_empty"):
        whole(scores, few, Target(rate=0.9), layers={"fc.weight": 1.2}, allow_empty=False)
    emptied = whole(scores, few, Target(rate=0.9), layers={"fc.weight": 5.0}, allow_empty=True)
    assert kept({"fc.weight": emptied["fc.weight"]}) == 0

    one_each = {name: torch.zeros(shape, dtype=torch.bool) for name, shape in SHAPES.items()}
    for mask in one_each.values():
        mask.view(-1)[-1] = True
    with pytest.raises(LtlError, match=r"1 weights are to go, but only 0.*allow_empty"):
        POOL(scores, one_each, Target(rate=0.5))
    assert all(int(mask.sum()) == 1 for mask in POOL(scores, dense(scores), Target(density=3 / 134)).values())
    assert kept(global_pool(scores, one_each, Target(rate=0.5), exclude=[], allow_empty=True)) == 2


def test_what_scores_above_0_stays_and_a_layer_without_any_is_refused() -> None:
    """By hand; an excluded layer stays as it is, and one that was empty before is not emptied."""
    scores = {"a": torch.tensor([-1.0, 0.0, 0.5, 2.0]), "b": torch.tensor([-1.0, -2.0])}
    masks = {"a": torch.tensor([True, True, True, False]), "b": torch.tensor([True, True])}
    keep = partial(positive, target=Target(rate=0.9))
    free = keep(scores, masks, exclude=[], allow_empty=True)
    assert (free["a"].tolist(), free["b"].tolist()) == ([False, False, True, False], [False, False])
    assert keep(scores, masks, exclude=["b"], allow_empty=False)["b"].tolist() == [True, True]
    with pytest.raises(LtlError, match=r"^pruner\.criterion: none of .* b scores above 0.*allow_empty=true\.$"):
        keep(scores, masks, exclude=[], allow_empty=False)
    assert kept(keep(scores, free, exclude=[], allow_empty=False)) == 1


def test_excluded_layers_are_untouched() -> None:
    """By pattern, in both allocations; a pattern that matches nothing is a mistake, and so is excluding all.

    The output's multiple does not pass to the layer before it.
    """
    masks = dense(draws(0))
    for new in (
        per_layer(draws(0), masks, Target(rate=0.5), conv=1, linear=1, output=1, layers={}, exclude=["*c.weight"],
                  allow_empty=False),
        global_pool(draws(0), masks, Target(density=0.6), exclude=["*c.weight"], allow_empty=False),
    ):  # fmt: skip
        assert bool(new["fc.weight"].all())
        assert not bool(new["conv.weight"].all())
    assert kept(LAYERS(draws(0), masks, Target(rate=0.5), exclude=["output*"])) == 134 - 54 // 4 - 48 // 2
    with pytest.raises(LtlError, match=r"exclude: \*shortcut\* matches no prunable layer.*conv.weight, fc.weight"):
        included(masks, ["*shortcut*"], "pruner.allocation.exclude")
    with pytest.raises(LtlError, match=r"excludes every prunable layer"):
        included(masks, ["*"], "pruner.allocation.exclude")


def test_multiples_are_checked() -> None:
    """Of layers that the model has, and not below 0."""
    for layers, match in (({"fc9.weight": 0.5}, r"names fc9.weight; this model has conv"), ({"fc.weight": -1}, "≥ 0")):
        with pytest.raises(LtlError, match=match):
            per_layer(draws(0), dense(draws(0)), Target(rate=0.2), conv=1, linear=1, output=1, layers=layers,
                      exclude=[], allow_empty=False)  # fmt: skip


def test_a_density_below_what_is_excluded_is_refused() -> None:
    """The excluded layers alone hold more than the target; one that they hold exactly empties all others."""
    few = partial(LAYERS, exclude=["fc*"], allow_empty=True)
    with pytest.raises(LtlError, match=r"only 86 are not excluded"):
        few(draws(0), dense(draws(0)), Target(density=0.2))
    new = few(draws(0), dense(draws(0)), Target(density=48 / 134))
    assert [int(mask.sum()) for mask in new.values()] == [0, 48, 0]


def test_masks_are_made_anew() -> None:
    """Allocations change neither scores nor masks in place."""
    scores, masks = draws(0), dense(draws(0))
    for allocate in (LAYERS, POOL):
        allocate(scores, masks, Target(rate=0.5))
        assert kept(masks) == total(masks)
        assert all(torch.equal(scores[name], draws(0)[name]) for name in scores)


# the densities of the papers

PUBLISHED = {  # per cent after n prunings (Frankle & Carbin 2019), computed without rounding weights down
    "lenet_300_100": {
        0: 100, 1: 80.04, 3: 51.28, 4: 41.05, 6: 26.32, 7: 21.07, 9: 13.52, 10: 10.83, 11: 8.68, 12: 6.95, 14: 4.47,
        15: 3.58, 16: 2.87,
    },
    "conv2": {1: 80.10, 3: 51.41, 4: 41.20, 6: 26.47, 7: 21.23, 9: 13.66, 11: 8.81, 12: 7.08, 14: 4.57, 16: 2.97},
    "conv4": {1: 81.08, 3: 53.55, 4: 43.63, 6: 29.13, 7: 23.88, 9: 16.16, 11: 11.06, 12: 9.18, 14: 6.40, 16: 4.51},
    "conv6": {1: 82.54, 3: 56.39, 4: 46.68, 6: 32.07, 7: 26.61, 9: 18.38, 10: 15.29, 12: 10.62, 14: 7.39, 16: 5.17},
    "resnet20": {4: 41.66, 6: 27.09, 7: 21.90, 10: 11.79},
}  # fmt: skip
NAMED = {  # as the paper prints them
    "lenet_300_100": {3: 51.3, 7: 21.1, 9: 13.5, 15: 3.6, 16: 2.9},
    "conv2": {11: 8.8, 14: 4.6},
    "conv4": {11: 11.1, 12: 9.2},
    "conv6": {},  # 26.4, 15.1 and 10.5: see below
    "resnet20": {4: 41.7, 6: 27.1, 7: 21.9, 10: 11.8},
}


@pytest.mark.parametrize("model", list(PUBLISHED))
def test_densities_are_the_published_ones(model: str) -> None:
    """With the model's own multiples and exclusions; excluded layers count as kept."""
    cfg = composed(f"model={model}", "dataset=mnist" if model == "lenet_300_100" else "dataset=cifar10")
    apart = ("name", "width_factor")
    values = {key: value for key, value in OmegaConf.to_container(cfg.model, resolve=True).items() if key not in apart}  # type: ignore[union-attr]
    with torch.device("meta"):
        network = instantiate(values)(input_shape=(1, 28, 28) if model == "lenet_300_100" else (3, 32, 32), outputs=10)
    allocate = instantiate(cfg.pruner.allocation, _convert_="all")
    source = torch.Generator().manual_seed(0)
    scores = {name: torch.rand(network.get_parameter(name).shape, generator=source) for name in prunable(network)}
    masks = dense(scores)
    for turn in range(max(PUBLISHED[model]) + 1):
        if turn in PUBLISHED[model]:
            assert 100 * density(masks) == pytest.approx(PUBLISHED[model][turn], abs=0.011), turn
        if turn in NAMED[model]:
            assert round(100 * density(masks), 1) == NAMED[model][turn], turn
        if model == "resnet20":  # from whole-number arithmetic: the pool loses a fifth, rounded down, every round
            pool = 270_896 - 3_200
            for _ in range(turn):
                pool -= pool // 5
            assert kept(masks) == pool + 3_200
        masks = allocate(scores, masks, Target(rate=0.2))


def test_the_published_densities_of_conv_6_fit_its_real_size() -> None:
    """The paper names 26.4, 15.1 and 10.5%: those of 2.26M weights, not of the 1.7M that it prints."""
    for turn, named in {7: 26.4, 10: 15.1, 12: 10.5}.items():
        assert abs(PUBLISHED["conv6"][turn] - named) < 0.25


# criteria, survivors, fillers


def evidence(*, weights: Tensors | None = None, masks: Masks | None = None, seed: int = 0) -> Evidence:
    """Three different states of the same network, with a buffer."""
    states = [{**draws(number), "norm.running_mean": torch.full((3,), float(number))} for number in range(3)]
    return Evidence(
        weights=weights or states[0],
        theta_0=states[1],
        theta_k=states[2],
        masks=masks or dense(draws(0)),
        generator=generator("mask", seed),
        initialise=lambda source: {name: torch.rand(shape, generator=source) for name, shape in SHAPES.items()},
    )


@pytest.mark.parametrize(
    ("criterion", "of"),
    [
        (criteria.final_magnitude, "weights"),
        (criteria.initial_magnitude, "theta_0"),
    ],
)
def test_magnitudes_are_of_the_state_they_name(criterion: Callable[[Evidence], Tensors], of: str) -> None:
    """|θ|, of prunable weights alone."""
    known = evidence()
    scores = criterion(known)
    assert list(scores) == list(SHAPES)
    for name, score in scores.items():
        assert torch.equal(score, torch.sqrt(getattr(known, of)[name] ** 2))


def test_random_scores_come_from_the_evidence_s_generator_alone() -> None:
    """The same generator gives the same scores; the global one is neither used nor moved."""
    torch.manual_seed(0)
    one = criteria.random(evidence())
    after = torch.rand(1)
    torch.manual_seed(0)
    assert torch.equal(after, torch.rand(1))
    two, other = criteria.random(evidence()), criteria.random(evidence(seed=1))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not any(torch.equal(one[name], other[name]) for name in one)


def test_random_pruning_is_uniform_over_the_survivors() -> None:
    """Chi-square of how often each of 30 survivors of 48 goes, in 2,000 prunings with fixed seeds."""
    masks = dense(draws(0))
    masks["fc.weight"].view(-1)[::8] = False
    masks["fc.weight"].view(-1)[1::4] = False
    survivors_ = masks["fc.weight"].flatten()
    gone = torch.zeros(48)
    for seed in range(2000):
        new = LAYERS(criteria.random(evidence(masks=masks, seed=seed)), masks, Target(rate=0.3))
        gone += masks["fc.weight"].flatten() & ~new["fc.weight"].flatten()
    assert int(survivors_.sum()) == 30
    assert int(gone[~survivors_].sum()) == 0
    expected = 2000 * 9 / 30
    # draws without replacement are less spread than a multinomial by (30 − 9)/30 · 30/29
    statistic = float(((gone[survivors_] - expected) ** 2 / expected).sum()) / (21 / 29)
    assert 6 < statistic < 70  # 29 degrees of freedom: outside with a probability of 3e-5, at other seeds


def test_survivors_are_what_they_say() -> None:
    """All parameters and buffers of θ_k, of the trained network, or of a fresh draw."""
    known, masks = evidence(), dense(draws(0))
    assert survivors.rewound(known, masks) is known.theta_k
    assert survivors.trained(known, masks) is known.weights
    one = survivors.reinitialised(known, masks)
    two = survivors.reinitialised(known, masks)  # the generator has moved on
    assert not any(torch.equal(one[name], two[name]) for name in SHAPES)
    again = survivors.reinitialised(evidence(), masks)
    assert all(torch.equal(one[name], again[name]) for name in SHAPES)


def test_fillers_are_what_they_say() -> None:
    """0, or θ₀, for every masked weight and nothing else."""
    known, masks = evidence(), dense(draws(0))
    for fill, expected in (
        (fillers.zero, {name: torch.zeros(shape) for name, shape in SHAPES.items()}),
        (fillers.initial, {name: known.theta_0[name] for name in SHAPES}),
    ):
        filled = fill(known, masks)
        assert list(filled) == list(SHAPES)
        assert all(torch.equal(filled[name], expected[name]) for name in SHAPES)


def test_scores_that_are_no_numbers_are_refused() -> None:
    """Of survivors; what a pruned weight scores does not matter."""
    pruner = Pruner(
        criterion=criteria.final_magnitude, allocation=POOL, survivors=survivors.rewound, filler=fillers.zero,
        momentum="zero", lr="rewound",
    )  # fmt: skip
    masks = dense(draws(0))
    masks["fc.weight"][1, 1] = False
    for value in (math.nan, math.inf):
        weights = draws(0)
        weights["fc.weight"][1, 1] = value
        assert kept(pruner.prune(evidence(weights=weights, masks=masks), Target(rate=0.5))) == kept(masks) - 66
        weights["fc.weight"][0, 0] = value
        with pytest.raises(LtlError, match=r"scores of fc.weight"):
            pruner.prune(evidence(weights=weights, masks=masks), Target(rate=0.5))


# schedules


def test_schedules_are_their_events() -> None:
    """Round, step and rate; search_steps are the optimiser steps that the mask rests on."""
    settings = {"rounds": 3, "rate": 0.2, "length": 10, "rewind_step": 4}
    rate = Target(rate=0.2)
    assert schedules.after_training(**settings) == [
        Event(0, 10, rate, 10), Event(1, 10, rate, 16), Event(2, 10, rate, 22),
    ]  # fmt: skip
    assert schedules.after_dense(**settings) == [Event(turn, 10, rate, 10, of_dense=True) for turn in range(3)]
    assert schedules.before_training(**settings) == [Event(turn, 4, rate, 4) for turn in (1, 2, 3)]
    for schedule in (schedules.after_training, schedules.after_dense, schedules.before_training):
        assert schedule(**{**settings, "rounds": 0}) == []

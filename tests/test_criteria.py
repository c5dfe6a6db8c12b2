"""Every criterion of conf/pruner against its paper's equation, equal scores in random order, and its traps."""

from collections import Counter
from collections.abc import Callable
from functools import cache, partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from conftest import composed
from hydra.utils import instantiate
from test_pruning import SHAPES, draws, evidence

from ltl.errors import LtlError
from ltl.masks import Masks, Tensors, dense
from ltl.pruning import criteria, fillers, survivors
from ltl.pruning.allocation import Target, global_pool
from ltl.pruning.evidence import Evidence
from ltl.pruning.pruner import Criterion, Pruner

Equation = Callable[[float, float], float]
# Of w_i and w_f: what is large is kept (Zhou et al. 2019, §2 and §5). The wrong sign is worse than anything.
EQUATIONS: dict[str, Equation] = {
    "imp": lambda i, f: abs(f),
    "small_final": lambda i, f: -abs(f),
    "large_init": lambda i, f: abs(i),
    "small_init": lambda i, f: -abs(i),
    "magnitude_increase": lambda i, f: abs(f) - abs(i),
    "movement": lambda i, f: abs(f - i),
    "large_final_same_sign": lambda i, f: max(0, i * f / abs(i)),
    "large_final_diff_sign": lambda i, f: max(0, -i * f / abs(i)),
    "magnitude_increase_same_sign": lambda i, f: abs(f) - abs(i) if i * f > 0 else -1e9,
    "magnitude_increase_diff_sign": lambda i, f: abs(f) - abs(i) if i * f < 0 else -1e9,
}
RANDOM_TIES = [name for name in EQUATIONS if name not in ("imp", "small_final", "large_init", "small_init")]
LARGE, SMALL = "large_init_large_final", "small_init_small_final"


@cache
def criterion_of(name: str) -> Callable[[Evidence], Tensors]:
    """The criterion that a file of conf/pruner names."""
    made: Callable[[Evidence], Tensors] = instantiate(composed(f"pruner={name}").pruner.criterion, _convert_="all")
    return made


def trained(seed: int, *, still: bool = False) -> Evidence:
    """Initial and final weights, some with another sign; with `still`, every third weight has not moved."""
    known = evidence(seed=seed)
    first, last = draws(seed), draws(seed + 1000)
    weights = {name: first[name] + 0.8 * last[name] for name in SHAPES}
    if still:
        for name, weight in weights.items():
            weight.view(-1)[::3] = first[name].view(-1)[::3]
    return Evidence(weights, first, first, some(seed), known.generator, known.initialise)


def some(seed: int) -> Masks:
    """Masks that keep about two thirds."""
    source = torch.Generator().manual_seed(seed)
    return {name: torch.rand(shape, generator=source) < 0.67 for name, shape in SHAPES.items()}


@pytest.mark.parametrize("name", list(EQUATIONS))
def test_a_criterion_orders_weights_as_its_equation_does(name: str) -> None:
    """Over all layers together, weight by weight; where equal scores go at random, no two are equal."""
    criterion = criterion_of(name)
    for seed in range(5):
        known = trained(seed, still=seed % 2 == 1)
        scores = criterion(known)
        assert list(scores) == list(SHAPES)
        pairs = []
        for layer, score in scores.items():
            assert score.shape == SHAPES[layer]
            for first, last, mine in zip(
                known.theta_0[layer].double().flatten().tolist(),
                known.weights[layer].double().flatten().tolist(),
                score.flatten().tolist(),
                strict=True,
            ):
                pairs.append((mine, EQUATIONS[name](first, last)))
        expected = [equation for _, equation in sorted(pairs)]
        assert all(after >= before - 1e-6 for before, after in pairwise(expected))
        if name in RANDOM_TIES:
            assert sorted(mine for mine, _ in pairs) == list(range(len(pairs)))


@pytest.mark.parametrize(("name", "sign"), [(LARGE, 1), (SMALL, -1)])
def test_one_common_percentile_of_two_magnitudes(name: str, sign: int) -> None:
    """Whatever the percentile: the weights above it in both orders are those of highest score, in every layer.

    Percentiles are of the survivors: what pruned weights are does not matter. They are fractions of a layer's, so that
    small layers go no sooner than large ones where all are judged together.
    """
    criterion = criterion_of(name)
    for seed in range(4):
        known = trained(seed)
        for layer, mask in known.masks.items():
            known.theta_0[layer][~mask], known.weights[layer][~mask] = 100.0, 0.0
        scores = criterion(known)
        sizes, pairs = set(), []
        for layer, mask in known.masks.items():
            first, last = (sign * state[layer][mask].abs().numpy() for state in (known.theta_0, known.weights))
            mine = np.argsort(-scores[layer][mask].numpy())
            for rank in range(len(first)):  # the percentile rank / n
                both = np.flatnonzero((first >= np.sort(first)[rank]) & (last >= np.sort(last)[rank]))
                assert set(mine[: len(both)]) == set(both)
                sizes.add(len(both))
            fractions = np.minimum(*((state[:, None] >= state).mean(1) for state in (first, last)))
            pairs += zip(scores[layer][mask].tolist(), fractions.tolist(), strict=True)
        assert len(sizes) > 5
        assert all(after >= before for (_, before), (_, after) in pairwise(sorted(pairs)))


def test_where_all_initial_magnitudes_are_equal_the_final_ones_decide() -> None:
    """Signed constants: every weight is as large as every other at initialisation."""
    known = trained(0)
    for weight in known.theta_0.values():
        weight.sign_()
    scores, masks = criteria.large_init_large_final(known), known.masks
    for layer, mask in masks.items():
        by_score = scores[layer][mask].argsort()
        assert torch.equal(by_score, known.weights[layer][mask].abs().argsort())


def small(first: list[float], last: list[float], seed: int = 0) -> Evidence:
    """A network of one layer of a few weights."""
    begun, now = ({"fc.weight": torch.tensor([values])} for values in (first, last))
    return Evidence(now, begun, begun, dense(begun), torch.Generator().manual_seed(seed), lambda source: {})


def test_the_wrong_sign_is_worse_than_a_shrunk_weight_of_the_right_one() -> None:
    """By hand: increases −0.5, 2, 2, 0.1; the third has changed its sign.

    The official code sets its score to 0, above the −0.5 of a weight that the criterion is meant to prefer.
    """
    known = small([1.0, -1.0, 2.0, 0.5], [0.5, -3.0, -4.0, 0.6])
    same = criteria.with_sign(known, criterion=criteria.magnitude_increase, sign="same")
    assert same["fc.weight"].flatten().tolist() == [1, 3, 0, 2]
    theirs = torch.tensor([-0.5, 2.0, 0.0, 0.1])
    assert theirs[0] < theirs[2]
    different = criteria.with_sign(known, criterion=criteria.magnitude_increase, sign="different")
    assert different["fc.weight"].argmax() == 2


@pytest.mark.parametrize(("name", "wanted"), [("same_sign", 1), ("diff_sign", -1)])
def test_the_sign_alone_keeps_all_that_pass_its_test(name: str, wanted: int) -> None:
    """Of the survivors, in every layer, whatever the target: w_i · w_f > 0, or < 0; a weight of 0 has neither sign."""
    part = instantiate(composed(f"pruner={name}").pruner, _convert_="all")
    for seed in range(4):
        known = trained(seed)
        known.weights["fc.weight"].view(-1)[:5] = 0.0
        masks = part["allocation"](part["criterion"](known), known.masks, Target(rate=0.1 + 0.2 * seed))
        for layer, mask in masks.items():
            product = known.theta_0[layer].double() * known.weights[layer].double() * wanted
            assert torch.equal(mask, known.masks[layer] & (product > 0))


def test_a_weight_of_0_has_neither_sign() -> None:
    """At either end: it goes before all that pass the test."""
    for sign, passes in (("same", [0]), ("different", [1])):
        known = small([1.0, -1.0, 0.0, 2.0], [0.1, 0.1, 5.0, 0.0])
        ranks = criteria.with_sign(known, criterion=criteria.final_magnitude, sign=sign)["fc.weight"].flatten()  # type: ignore[arg-type]
        assert ranks.argsort(descending=True)[:1].tolist() == passes


@pytest.mark.parametrize("name", ["movement", "large_final_same_sign", "magnitude_increase_diff_sign"])
def test_scores_that_say_nothing_go_in_random_order(name: str) -> None:
    """Five weights of seven that tie: each goes first as often as the others, in 250 draws with fixed seeds.

    For a uniform choice the statistic exceeds 18.5 with probability 0.001.
    """
    moved = {"movement": [2.0, -3.0], "large_final_same_sign": [2.0, 3.0], "magnitude_increase_diff_sign": [-2.0, -3.0]}
    tied = [-1.0] * 5 if name == "large_final_same_sign" else [1.0] * 5
    criterion = criterion_of(name)
    firsts: Counter[int] = Counter()
    for seed in range(250):
        ranks = criterion(small([1.0] * 7, tied + moved[name], seed))["fc.weight"].flatten()
        assert ranks.argsort()[5:].tolist() == [5, 6]
        firsts[int(ranks.argmin())] += 1
    assert set(firsts) == set(range(5))
    assert sum((count - 50) ** 2 / 50 for count in firsts.values()) < 18.5


def test_inverted_turns_any_criterion_around() -> None:
    """Also one with keywords of its own."""
    known = trained(3)
    plain = criteria.final_magnitude(known)
    assert all(
        torch.equal(score, -plain[name])
        for name, score in criteria.inverted(known, criterion=criteria.final_magnitude).items()
    )
    signs = partial(criteria.with_sign, criterion=criteria.movement, sign="same")
    forth, back = signs(trained(3)), criteria.inverted(trained(3), criterion=signs)
    assert all(torch.equal(forth[name], -back[name]) for name in forth)


@pytest.mark.parametrize("name", [*RANDOM_TIES, "imp", "small_final", LARGE, SMALL])
def test_weights_that_are_no_numbers_are_refused(name: str) -> None:
    """Ranks do not hide them; what a pruned weight is does not matter."""
    pruner = Pruner(
        criterion=criterion_of(name),
        allocation=partial(global_pool, exclude=[], allow_empty=False),
        survivors=survivors.rewound,
        filler=fillers.zero,
        momentum="zero",
        lr="rewound",
    )
    for value in (torch.nan, torch.inf, -torch.inf):
        known = trained(0)
        layer, mask = known.weights["fc.weight"], known.masks["fc.weight"]
        layer[~mask] = value
        pruner.prune(known, Target(rate=0.2))
        layer[mask] = value
        with pytest.raises(LtlError, match=r"scores of fc.weight"):
            pruner.prune(known, Target(rate=0.2))


@pytest.mark.parametrize(
    ("own", "says"),
    [
        (lambda evidence: {}, r"^pruner\.criterion: \S+ is absent, and is to fit bool \(\d"),
        (
            lambda evidence: {name: mask.float().flatten() for name, mask in evidence.masks.items()},
            r"^pruner\.criterion: \S+ is float32 \(\d+,\), and is to fit bool \(\d+, ",
        ),
        (
            lambda evidence: {**evidence.weights, "other": torch.zeros(2)},
            r"^pruner\.criterion: \S+ is float32 \(\d.*\), and is to fit no tensor",
        ),
    ],
)
def test_scores_of_an_own_criterion_that_do_not_fit_the_masks_are_one_line(own: Criterion, says: str) -> None:
    pruner = Pruner(
        criterion=own,
        allocation=partial(global_pool, exclude=[], allow_empty=False),
        survivors=survivors.rewound,
        filler=fillers.zero,
        momentum="zero",
        lr="rewound",
    )
    with pytest.raises(LtlError, match=says):
        pruner.prune(trained(0), Target(rate=0.2))


@pytest.mark.parametrize("name", [*RANDOM_TIES, LARGE])
def test_draws_come_from_the_evidence_s_generator_alone(name: str) -> None:
    criterion = criterion_of(name)
    torch.manual_seed(0)
    one = criterion(trained(1, still=True))
    after = torch.rand(1)
    torch.manual_seed(0)
    assert torch.equal(after, torch.rand(1))
    assert all(torch.equal(one[layer], score) for layer, score in criterion(trained(1, still=True)).items())

"""Allocations by layer: exact counts, the papers' densities, and the traps of the official code."""

import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import partial
from pathlib import Path

import pytest
import torch
from conftest import composed
from hydra.utils import instantiate
from test_pruning import SHAPES, by_sorting, draws

from ltl import build
from ltl.errors import LtlError
from ltl.masks import Masks, Tensors, dense, density, kept, total
from ltl.pruning.allocation import Target, rounded
from ltl.pruning.layer_densities import erdos_renyi, matched, smart_ratio, uniform
from ltl.results import read_table
from ltl.tickets import load

Allocate = Callable[[Tensors, Masks, Target], Masks]
FREE: dict[str, object] = {"exclude": [], "allow_empty": False}
COUNTS = {"conv.weight": 30, "fc.weight": 10, "output.weight": 2}
UNIFORM = partial(uniform, dense_first=False, dense_last=False, **FREE)
ERK, ER = (partial(erdos_renyi, kernel=kernel, **FREE) for kernel in (True, False))
SMART = partial(smart_ratio, output_density=0.3, depth_power=0, **FREE)
MATCHED = partial(matched, like=COUNTS, **FREE)
ALL: dict[str, Allocate] = {
    "uniform": UNIFORM,
    "first": partial(UNIFORM, dense_first=True),
    "er": ER,
    "erk": ERK,
    "smart": SMART,
    "steep": partial(SMART, depth_power=2),
    "matched": MATCHED,
    "excluding": partial(ERK, exclude=["fc*"]),
}
NETWORKS: dict[str, dict[str, tuple[int, ...]]] = {
    "lenet": {"fc1": (300, 784), "fc2": (100, 300), "output": (10, 100)},
    "conv2": {"c1": (64, 3, 3, 3), "c2": (64, 64, 3, 3), "f1": (256, 16384), "f2": (256, 256), "output": (10, 256)},
    "deep": {f"c{n}": (2**n, 2 ** max(n - 1, 0), 3, 3) for n in range(8)} | {"output": (10, 128)},
}


def of(shapes: Mapping[str, tuple[int, ...]], allocate: Allocate, target: Target, masks: Masks | None = None) -> Masks:
    """Masks of random scores."""
    source = torch.Generator().manual_seed(0)
    scores = {name: torch.rand(shape, generator=source) for name, shape in shapes.items()}
    return allocate(scores, masks or dense(scores), target)


def counts(masks: Masks) -> dict[str, int]:
    return {name: int(mask.sum()) for name, mask in masks.items()}


@pytest.mark.parametrize("name", list(ALL))
def test_counts_are_exact_and_masks_only_shrink(name: str) -> None:
    """Of densities, and of rates round after round; in each layer the lowest scores go, ties by index."""
    allocate = ALL[name]
    pooled = [layer for layer in SHAPES if (name, layer) not in (("first", "conv.weight"), ("excluding", "fc.weight"))]
    for seed in range(6):
        masks = dense(draws(0))
        for turn in range(6):
            scores = draws(10 * seed + turn, values=5)
            if seed % 2:
                target, expected = Target(density=0.9 - 0.07 * turn), round((0.9 - 0.07 * turn) * total(masks))
            else:
                n = sum(counts(masks)[layer] for layer in pooled)
                target, expected = Target(rate=0.19), kept(masks) - 19 * n // 100
            new = allocate(scores, masks, target)
            assert sum(counts(new).values()) == expected
            for layer, mask in masks.items():
                gone = counts(masks)[layer] - counts(new)[layer]
                assert gone == 0 or layer in pooled
                assert torch.equal(mask & ~by_sorting(scores[layer], mask, gone), new[layer])
            masks = new


@pytest.mark.parametrize("name", list(ALL))
def test_no_layer_is_emptied_unless_allowed(name: str) -> None:
    """Down to one weight in each layer; one less is refused in one line. One that is empty already stays so."""
    strict, free = ALL[name], partial(ALL[name], allow_empty=True)  # type: ignore[call-arg]
    if "output_density" in strict.keywords:  # type: ignore[attr-defined]
        strict, free = (partial(one, output_density=0) for one in (strict, free))  # type: ignore[call-arg]
    outside = 54 * (name == "first") + 48 * (name == "excluding")
    layers = 3 - (outside > 0)
    few = strict(draws(0), dense(draws(0)), Target(density=(outside + layers) / 134))
    assert sorted(counts(few).values())[:layers] == [1] * layers
    with pytest.raises(
        LtlError, match=r"^pruner\.rate: the \d weights that are to stay are fewer .*allow_empty=true\.$"
    ):
        strict(draws(0), dense(draws(0)), Target(density=(outside + layers - 1) / 134))
    assert kept(free(draws(0), dense(draws(0)), Target(density=outside / 134))) == outside
    without = {**dense(draws(0)), "fc.weight": torch.zeros(SHAPES["fc.weight"], dtype=torch.bool)}
    left = strict(draws(0), without, Target(density=0.5))
    assert (counts(left)["fc.weight"], kept(left)) == (0, 67)


@pytest.mark.parametrize(("dense_first", "dense_last"), [(False, False), (True, False), (False, True), (True, True)])
def test_uniform_densities_are_equal(dense_first: bool, dense_last: bool) -> None:
    """To the weight, in all layers but those that stay dense; together they have the target."""
    for network in ("conv2", "deep"):
        shapes = NETWORKS[network]
        new = of(shapes, partial(UNIFORM, dense_first=dense_first, dense_last=dense_last), Target(density=0.3))
        whole = [name for name, keeps in ((next(iter(shapes)), dense_first), ("output", dense_last)) if keeps]
        rest = [name for name in shapes if name not in whole]
        sizes = {name: math.prod(shape) for name, shape in shapes.items()}
        target = round(0.3 * sum(sizes.values())) - sum(sizes[name] for name in whole)
        assert all(bool(new[name].all()) for name in whole)
        for name in rest:
            assert abs(counts(new)[name] - target * sizes[name] / sum(sizes[other] for other in rest)) < 1
    with pytest.raises(LtlError, match=r"^pruner\.allocation: every layer stays dense"):
        of(NETWORKS["lenet"], partial(UNIFORM, dense_first=True, dense_last=True, exclude=["fc2"]), Target(rate=0.1))


PUBLISHED = {  # recomputed from the rule of the official code
    ("lenet", 0.2): [0.1622, 0.4694, 1.0],
    ("lenet", 0.1): [0.0796, 0.2302, 1.0],
    ("lenet", 0.05): [0.0385, 0.1113, 0.9185],
    ("lenet", 0.02): [0.0154, 0.0445, 0.3674],
    ("conv2", 0.1): [1.0, 0.0895, 0.0977, 0.1924, 1.0],
}


@pytest.mark.parametrize(("network", "target"), list(PUBLISHED))
def test_erdos_renyi_kernel_densities_are_those_of_the_official_rule(network: str, target: float) -> None:
    """To four digits, or to the weight where that is coarser."""
    new = of(NETWORKS[network], ERK, Target(density=target))
    for mask, expected in zip(new.values(), PUBLISHED[network, target], strict=True):
        assert density({"": mask}) == pytest.approx(expected, abs=max(6e-5, 1 / mask.numel()))


def one_at_a_time(shapes: Mapping[str, tuple[int, ...]], target: float, *, kernel: bool) -> dict[str, float]:
    """The official loop: solve for ε, make the layer that exceeds 1 most dense, and solve again."""
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    raw = {}
    for name, shape in shapes.items():
        sides = shape if kernel else shape[:2]
        raw[name] = sum(sides) / math.prod(sides)
    whole: set[str] = set()
    while True:
        others = [name for name in shapes if name not in whole]
        budget = target * sum(sizes.values()) - sum(sizes[name] for name in whole)
        epsilon = budget / sum(raw[name] * sizes[name] for name in others)
        worst = max(others, key=lambda name: raw[name])
        if epsilon * raw[worst] <= 1:
            return {name: 1.0 if name in whole else epsilon * raw[name] for name in shapes}
        whole.add(worst)


@pytest.mark.parametrize("kernel", [True, False])
@pytest.mark.parametrize("network", ["lenet", "deep"])
def test_erdos_renyi_makes_layers_dense_as_the_official_loop_does(network: str, kernel: bool) -> None:
    """At many densities, with none to several dense layers; without the loop the whole would exceed its density."""
    shapes, seen = NETWORKS[network], set()
    for target in (0.003, 0.02, 0.1, 0.3, 0.6, 0.9):
        expected = one_at_a_time(shapes, target, kernel=kernel)
        new = of(shapes, ERK if kernel else ER, Target(density=target))
        for name, mask in new.items():
            assert abs(counts(new)[name] - expected[name] * mask.numel()) < 1 + 1e-6
        seen.add(sum(bool(mask.all()) for mask in new.values()))
    assert len(seen) > 1


def handed_on(sizes: list[int], rooms: list[int], keep: int, output: Fraction, power: int) -> list[Fraction]:
    """Su et al. 2020 in exact fractions: quadratic ratios, one fixed layer, surplus to the next layers in turn."""
    depth = len(sizes)
    fixed = min(Fraction(math.floor(output * sizes[-1])), Fraction(rooms[-1]))
    ratio = [Fraction((depth - at) ** 2 + depth - at, (at + 1) ** power) * sizes[at] for at in range(depth - 1)]
    out = [(keep - fixed) * share / sum(ratio) for share in ratio] + [fixed]
    over = Fraction(0)
    for index in [*range(depth - 1), *range(depth)]:
        has = out[index] + over
        out[index] = min(has, Fraction(rooms[index]))
        over = has - out[index]
    assert over == 0
    return out


@pytest.mark.parametrize("power", [0, 2])
@pytest.mark.parametrize("network", ["lenet", "deep"])
def test_smart_ratios_are_those_of_the_paper(network: str, power: int) -> None:
    """At many densities; layers that would exceed 1 hand on what they cannot hold; the output keeps three tenths."""
    shapes, full = NETWORKS[network], 0
    sizes = [math.prod(shape) for shape in shapes.values()]
    for target in (0.02, 0.1, 0.4, 0.8, 0.98):
        new = of(shapes, partial(SMART, depth_power=power), Target(density=target))
        expected = handed_on(sizes, sizes, round(target * sum(sizes)), Fraction(3, 10), power)
        assert all(abs(mine - theirs) < 1 for mine, theirs in zip(counts(new).values(), expected, strict=True))
        assert counts(new)["output"] == 3 * sizes[-1] // 10 or all(bool(mask.all()) for mask in list(new.values())[:-1])
        full += bool(next(iter(new.values())).all())
    assert full > 0


def test_surplus_is_handed_on_wherever_it_arises() -> None:
    """The second layer is the first that cannot hold its share, being pruned already: the third takes the rest.

    The official loop has ended by then, because the first layer had nothing over, and keeps too few weights.
    """
    shapes = {"a": (10, 20), "b": (10, 20), "c": (10, 20), "output": (10, 10)}
    masks = dense({name: torch.zeros(shape) for name, shape in shapes.items()})
    masks["b"].view(-1)[12:] = False
    new = of(shapes, SMART, Target(density=220 / 700), masks)
    expected = handed_on([200, 200, 200, 100], [200, 12, 200, 100], 220, Fraction(3, 10), 0)
    assert [round(float(count)) for count in expected] == [100, 12, 78, 30]
    assert list(counts(new).values()) == [100, 12, 78, 30]
    masks["output"].view(-1)[20:] = False
    assert list(counts(of(shapes, SMART, Target(density=216 / 700), masks)).values()) == [103, 12, 81, 20]


def test_smart_ratios_count_excluded_layers_as_depth() -> None:
    """(4² + 4) : (2² + 2) for the first and the third of four, also where the second stays as it is."""
    shapes = {"a": (10, 20), "b": (10, 20), "c": (10, 20), "output": (10, 10)}
    new = of(shapes, partial(SMART, exclude=["b"]), Target(density=360 / 700))
    assert list(counts(new).values()) == [100, 200, 30, 30]


def test_an_output_that_is_too_dense_is_refused() -> None:
    with pytest.raises(
        LtlError, match=r"output_density=0.3 keeps 300 weights of output, more than the 266 that are to"
    ):
        of(NETWORKS["lenet"], SMART, Target(density=0.001))
    with pytest.raises(
        LtlError, match=r"^pruner\.rate: 39930 weights are to go, but the layers that are pruned have 3"
    ):
        of(NETWORKS["lenet"], partial(SMART, exclude=["fc1"]), Target(density=0.85))


def test_matched_layers_keep_what_the_ticket_keeps() -> None:
    """At its density to the weight, whatever the scores; at others in proportion, until a layer is full."""
    whole = sum(COUNTS.values())
    for seed in range(5):
        new = MATCHED(draws(seed), dense(draws(0)), Target(density=whole / 134))
        assert counts(new) == COUNTS
    half = MATCHED(draws(0), dense(draws(0)), Target(density=whole / 268))
    assert counts(half) == {name: count // 2 for name, count in COUNTS.items()}
    twice = MATCHED(draws(0), dense(draws(0)), Target(density=2 * whole / 134))
    assert counts(twice) == {"conv.weight": 54, "fc.weight": 25, "output.weight": 5}  # 30 left for 10 : 2
    empty = partial(matched, like={**COUNTS, "fc.weight": 0}, **FREE)
    assert counts(partial(empty, allow_empty=True)(draws(0), dense(draws(0)), Target(density=0.1)))["fc.weight"] == 0
    assert counts(empty(draws(0), dense(draws(0)), Target(density=0.1)))["fc.weight"] == 1
    assert kept(empty(draws(0), dense(draws(0)), Target(density=0.9))) == round(0.9 * 134)  # the others are full
    with pytest.raises(LtlError, match=r"the ticket has masks of fc\.weight; this model has conv\.weight, fc"):
        partial(MATCHED, like={"fc.weight": 3})(draws(0), dense(draws(0)), Target(rate=0.1))


def test_a_run_has_the_layers_of_another_s_ticket(launch: Callable[..., Path], tmp_path: Path) -> None:
    """By the command line: global pruning's layer counts, with random masks, at the very same density."""
    found = launch(
        "allocation=global", "control=none", "pruner.rounds=1", "pruner.rate=0.6", "trials=2", folder="found"
    )
    ticket = f"pruner.allocation.like.ticket={found}/tickets/trial-1/round-01.safetensors"
    same = ("allocation=matched", "pruner=random", "control=none", "pruner.rounds=1", "pruner.rate=0.6")
    run = launch(*same, ticket, folder="matched")
    theirs, ours = (
        load(folder / f"tickets/trial-{trial}/round-01.safetensors") for folder, trial in ((found, 1), (run, 0))
    )
    assert counts(ours.masks) == counts(theirs.masks)
    assert any(not torch.equal(mask, theirs.masks[name]) for name, mask in ours.masks.items())
    assert len({counts(theirs.masks)[name] / mask.numel() for name, mask in theirs.masks.items()}) == 3
    assert [row["weights_left"] for row in read_table(run / "rounds.csv")][1] == str(kept(theirs.masks))

    def refused(*overrides: str) -> str:
        with pytest.raises(LtlError) as error:
            build.experiment(composed(*same, *overrides), tmp_path / "refused", hardware_number=0)
        return str(error.value)

    assert refused().startswith("pruner.allocation.like.ticket=null is not possible: name the ticket to match")
    assert "no such file or run folder" in refused("pruner.allocation.like.ticket=absent")
    assert "these 2 tickets keep different numbers" in refused(f"pruner.allocation.like.ticket={found}@1")
    assert "the ticket has masks of" in refused(ticket, "model=conv2")


@pytest.mark.parametrize("option", ["uniform", "erdos_renyi", "erdos_renyi_kernel", "smart_ratio"])
def test_every_file_is_the_allocation_of_its_name(option: str) -> None:
    expected = {"uniform": UNIFORM, "erdos_renyi": ER, "erdos_renyi_kernel": ERK, "smart_ratio": SMART}[option]
    allocate = instantiate(composed(f"allocation={option}").pruner.allocation, _convert_="all")
    for target in (Target(density=0.3), Target(rate=0.2)):
        new = of(NETWORKS["deep"], allocate, target)
        assert all(torch.equal(mask, of(NETWORKS["deep"], expected, target)[name]) for name, mask in new.items())


def test_largest_remainders_first() -> None:
    """By hand; a whole is always met, and the earlier of equal remainders gains."""
    assert rounded({"a": 1.2, "b": 2.7, "c": 0.1}, 4) == {"a": 1, "b": 3, "c": 0}
    assert rounded({"a": 0.5, "b": 0.5, "c": 1.0}, 2) == {"a": 1, "b": 0, "c": 1}
    for n in range(1, 60):
        shares = {str(k): n * k / 45 for k in range(10)}
        assert sum(rounded(shares, n).values()) == n
        assert all(abs(count - shares[name]) < 1 for name, count in rounded(shares, n).items())

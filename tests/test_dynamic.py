"""Masks that change while a round trains: dynamic sparse training against a loop written from the paper; gradual."""

import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from conftest import composed
from rich.console import Console
from torch import Tensor
from torch.nn import functional as F

from ltl import build, fit
from ltl.callbacks.progress import RunProgress
from ltl.errors import LtlError
from ltl.masks import dense, kept, total
from ltl.pruning import criteria, fillers, schedules, survivors
from ltl.pruning.allocation import Target
from ltl.pruning.evidence import Evidence
from ltl.pruning.pruner import Pruner, Replacement
from ltl.results import read_table
from ltl.rng import generator
from ltl.tickets import Ticket, load
from ltl.training.order import DataOrder
from ltl.training.search import Search

SMALL = (
    "model.widths=[12]", "length=60it", "eval_every=25it", "batch=20", "dataset.limit=200", "trials=1", "control=none",
    "pruner.rounds=1", "pruner.rate=0.6", "logger=none", "hardware.precision=64-true", "ends=true",
)  # fmt: skip
WEIGHTS = ["fc1.weight", "output.weight"]


@pytest.fixture
def ticket(tmp_path: Path) -> Callable[..., tuple[Ticket, build.Experiment]]:
    """Run one search and return the ticket of its last round, with the experiment."""

    def run(*overrides: str, folder: str = "run") -> tuple[Ticket, build.Experiment]:
        built = build.experiment(composed(*SMALL, *overrides), tmp_path / folder, hardware_number=0)
        fit.run(built, lambda steps: RunProgress(total_steps=steps, console=Console(quiet=True)))
        return load(built.ticket_path(0, 1)), built

    return run


Weights = dict[str, Tensor]


Gradients = Callable[[int], Weights]
Change = Callable[[int, Weights, Weights, Gradients], bool]


def trained_by_hand(
    built: build.Experiment, start: Ticket, change: Change, trial: int = 0, *, adam: bool = False
) -> Weights:
    """The final masks of SGD with momentum 0.9, or of Adam, on θ₀ with the ticket's mask; the run must end as it does.

    Data order and θ₀ are the run's own. `change(step, masks, weights, gradients)` may change the masks before a step,
    of which gradients(step) are the dense ones at the present weights; it returns whether that takes the step's place,
    as in the official code of RigL. What is pruned or has just grown is 0, and so are its slots.
    """
    theta = {name: tensor.clone().requires_grad_() for name, tensor in start.state.items()}
    masks = {name: start.masks[name].clone() for name in WEIGHTS}
    velocity, squares = ({name: torch.zeros_like(tensor) for name, tensor in theta.items()} for _ in range(2))
    order = DataOrder(examples=200, batch=20, seed=trial, by_round="same", device=torch.device("cpu"))
    taken = 0

    def gradients(step: int) -> Weights:
        rows = order.indices((1, 0), step)
        inputs, targets = built.dataset.train.inputs[rows].flatten(1), built.dataset.train.targets[rows]
        hidden = F.relu(F.linear(inputs, theta["fc1.weight"], theta["fc1.bias"]))
        loss = F.cross_entropy(F.linear(hidden, theta["output.weight"], theta["output.bias"]), targets)
        return dict(zip(theta, torch.autograd.grad(loss, list(theta.values())), strict=True))

    for step in range(60):
        idle = step > 0 and change(step, masks, {name: theta[name].detach() for name in WEIGHTS}, gradients)
        for name in WEIGHTS:
            theta[name].data *= masks[name]
            velocity[name] *= masks[name]
            squares[name] *= masks[name]
        if idle:
            continue
        taken += 1
        for name, gradient in gradients(step).items():
            slope = gradient * masks[name] if name in WEIGHTS else gradient
            if adam:
                velocity[name] = 0.9 * velocity[name] + 0.1 * slope
                squares[name] = 0.999 * squares[name] + 0.001 * slope**2
                root = (squares[name] / (1 - 0.999**taken)).sqrt() + 1e-8
                theta[name].data -= 0.01 * velocity[name] / (1 - 0.9**taken) / root
            else:
                velocity[name] = 0.9 * velocity[name] + slope
                theta[name].data -= 0.1 * velocity[name]
    for name, tensor in load(built.end_path(trial, "ticket", 0, 1)).state.items():
        assert torch.allclose(tensor, theta[name].detach(), rtol=1e-7, atol=1e-10), name
    return masks


def replaced(
    step: int,
    masks: Weights,
    weights: Weights,
    gradients: Gradients,
    *,
    fraction: float,
    last: float,
    momentum: float,
) -> bool:
    """RigL (momentum 0) or sparse momentum, as their Algorithms 1 have it.

    Dettmers & Zettlemoyer 2019: a layer's contribution is the mean magnitude of its kept weights' smoothed gradients,
    over that of all layers; it grows that part of what all drop.
    """
    if step % 10 or step >= last:
        return False
    share = fraction / 2 * (1 + math.cos(math.pi * step / last))
    smoothed = {name: gradients(step)[name].clone() for name in WEIGHTS}
    for back in range(1, min(step + 1, 15) if momentum else 1):
        for name in WEIGHTS:
            smoothed[name] += momentum**back * gradients(step - back)[name]
    sizes = {name: (int(masks[name].sum()), int((~masks[name]).sum())) for name in WEIGHTS}
    counts = {name: min(int(share * size + 1e-9), free) for name, (size, free) in sizes.items()}
    means = {name: float(smoothed[name][masks[name]].abs().mean()) for name in WEIGHTS}
    for name in WEIGHTS:
        active = masks[name].flatten().nonzero().flatten().tolist()
        magnitude = weights[name].flatten().abs()
        active.sort(key=lambda index, m=magnitude: float(m[index]))  # type: ignore[misc]
        masks[name].view(-1)[active[: counts[name]]] = False
    if momentum:
        whole, room = sum(counts.values()), int((~masks["output.weight"]).sum())
        second = min(room, round(whole * means["output.weight"] / sum(means.values())))
        counts = {"fc1.weight": whole - second, "output.weight": second}
    for name in WEIGHTS:
        free = (~masks[name]).flatten().nonzero().flatten().tolist()
        size_of = smoothed[name].flatten().abs()
        free.sort(key=lambda index, g=size_of: -float(g[index]))  # type: ignore[misc]
        masks[name].view(-1)[free[: counts[name]]] = True
    return True


def looked_at(
    step: int, masks: Weights, weights: Weights, gradients: object, *, looks: list[Tensor], drawn: list[int]
) -> bool:
    """You et al. 2020, Alg. 1: prune by magnitude to 40% when three looks, 4 steps apart, differ in less than 5%."""
    if not drawn and step % 4 == 0:
        flat = torch.cat([weights[name].flatten().abs() for name in WEIGHTS])
        looks.append(torch.zeros(len(flat), dtype=torch.bool))
        looks[-1][flat.argsort(descending=True)[: round(0.4 * len(flat))]] = True
        differ = [float((looks[-1] != one).double().mean()) for one in looks[-3:-1]]
        if step == 48 or (len(differ) == 2 and max(differ) < 0.05):
            drawn.append(step)
            for name, part in zip(WEIGHTS, looks[-1].split([768, 120]), strict=True):
                masks[name].copy_(part.view_as(masks[name]))
    return False


SGD = (
    "pruner.schedule.every=10",
    "optimizer=sgd",
    "optimizer.lr=0.1",
    "optimizer.weight_decay=0.0",
    "pruner.schedule.until=0.75",
)


@pytest.mark.parametrize("way", ["in_turn", "together"])
def test_rigl_is_its_algorithm(ticket: Callable[..., tuple[Ticket, build.Experiment]], way: str) -> None:
    """Same masks after four replacements; chunks of any length, and replacements at the end of an interval too."""
    begun, _ = ticket("pruner=rigl", *SGD, "pruner.schedule.until=0.0", f"hardware.stack={way}", folder="begun")
    for chunk, every in ((1, 25), (7, 10), (50, 60)):
        found, built = ticket(
            "pruner=rigl", *SGD, f"hardware.stack={way}", f"hardware.chunk={chunk}", f"eval_every={every}it",
            folder=f"{chunk}-{every}",
        )  # fmt: skip
        expected = trained_by_hand(built, begun, partial(replaced, fraction=0.3, last=45, momentum=0.0))
        changed = sum(int((begun.masks[name] & ~found.masks[name]).sum()) for name in WEIGHTS)
        assert changed > 20
        assert all(torch.equal(found.masks[name], expected[name]) for name in WEIGHTS)
        dense_row, row = read_table(built.folder / "rounds.csv")
        assert (row["steps"], row["total_steps"]) == ("60", "60")
        assert (dense_row["mask_step"], row["mask_step"]) == ("", "40")  # no replacement, and the last one


@pytest.mark.parametrize("pruner", ["rigl", "set"])
def test_what_grows_begins_from_nothing_in_adam_too(
    ticket: Callable[..., tuple[Ticket, build.Experiment]], monkeypatch: pytest.MonkeyPatch, pruner: str
) -> None:
    """RigL, and SET (Mocanu et al. 2018) with the random numbers that it drew: masks, and weights at the end.

    Every layer keeps its count, and the ticket begins at θ₀.
    """
    drawn: list[Weights] = []
    draw = criteria.random

    def watched(evidence: Evidence) -> Weights:
        drawn.append(draw(evidence))
        return drawn[-1]

    monkeypatch.setattr(criteria, "random", watched)
    fixed = (f"pruner={pruner}", SGD[0], SGD[4], "optimizer=adam", "optimizer.lr=0.01")
    begun, _ = ticket(*fixed, "pruner.schedule.until=0.0", folder="begun")
    drawn.clear()
    found, built = ticket(*fixed, "hardware.chunk=7")
    del drawn[: 1 if pruner == "rigl" else 2]  # tried out before training
    rule = partial(replaced, fraction=0.3, last=45, momentum=0.0)

    def change(step: int, masks: Weights, weights: Weights, gradients: Gradients) -> bool:
        return rule(step, masks, weights, gradients if pruner == "rigl" else lambda step: drawn[step // 10])

    expected = trained_by_hand(built, begun, change, adam=True)
    assert all(torch.equal(found.masks[name], expected[name]) for name in WEIGHTS)
    for name in WEIGHTS:
        assert int(found.masks[name].sum()) == int(begun.masks[name].sum())
        assert not torch.equal(found.masks[name], begun.masks[name])
    assert kept(found.masks) == round(0.4 * sum(mask.numel() for mask in found.masks.values()))
    assert all(torch.equal(found.state[name], begun.state[name]) for name in found.state)
    assert len(drawn) == (1 if pruner == "rigl" else 5)  # of the mask that it begins with, and at every replacement


@pytest.mark.parametrize("way", ["in_turn", "together"])
def test_sparse_momentum_is_its_algorithm(ticket: Callable[..., tuple[Ticket, build.Experiment]], way: str) -> None:
    """Same masks after five replacements, the first with fewer batches behind it than it may smooth over."""
    fixed = ("pruner=snfs", *SGD, "pruner.schedule.until=1.0", "pruner.replacement.grow.batches=15")
    fixed += ("pruner.schedule.fraction=0.1",)
    begun, _ = ticket(*fixed, "pruner.schedule.until=0.0", f"hardware.stack={way}", folder="begun")
    found, built = ticket(*fixed, f"hardware.stack={way}", "hardware.chunk=7")
    expected = trained_by_hand(built, begun, partial(replaced, fraction=0.1, last=60, momentum=0.9))
    assert all(torch.equal(found.masks[name], expected[name]) for name in WEIGHTS)
    assert kept(found.masks) == kept(begun.masks)
    assert kept({"": begun.masks["output.weight"]}) < kept({"": found.masks["output.weight"]}) < 120


@pytest.mark.parametrize("way", ["in_turn", "together"])
def test_an_early_bird_is_drawn_when_its_mask_settles(
    ticket: Callable[..., tuple[Ticket, build.Experiment]], way: str
) -> None:
    """Each of two networks at a look of its own, which its row tells, and its mask does not change after that."""
    fixed = ("pruner=early_bird", *SGD[1:4], f"hardware.stack={way}", "trials=2", "pruner.schedule.every=4")
    _, built = ticket(*fixed, "pruner.schedule.looks=3", "pruner.schedule.distance=0.05", "pruner.schedule.until=0.8")
    steps = []
    for trial in range(2):
        found = load(built.ticket_path(trial, 1))
        dense_start = Ticket(dense(found.masks), found.state, {}, {}, {})
        drawn: list[int] = []
        expected = trained_by_hand(built, dense_start, partial(looked_at, looks=[], drawn=drawn), trial)
        assert all(torch.equal(found.masks[name], expected[name]) for name in WEIGHTS)
        steps += drawn
    rows = [row for row in read_table(built.folder / "rounds.csv") if row["round"] == "1"]
    assert [row["mask_step"] for row in rows] == [str(step) for step in steps]
    assert steps[0] != steps[1]
    assert max(steps) < 48


def test_a_mask_has_settled_when_the_last_ones_are_near_it() -> None:
    """Distances of 10 entries of 100 are not below 0.1; what came before the last looks is forgotten."""
    masks = [{"a": torch.arange(60) < 30 + moved, "b": torch.ones(40, dtype=torch.bool)} for moved in range(30)]
    rule = schedules.Settled(looks=3, distance=0.1)
    assert not rule.after([masks[0]] * 2)
    assert rule.after([masks[0]] * 3)
    assert rule.after([masks[29], masks[0], masks[9], masks[5]])
    assert rule.after([masks[0], masks[18], masks[9]])  # each against the newest, not against each other
    assert not rule.after([masks[0], masks[10], masks[10]])
    assert schedules.Settled(looks=1, distance=0.0).after([masks[0]])


def test_looks_of_an_early_bird() -> None:
    """Each round begins dense, looks at equal distances and prunes at the last look, before its end in any case."""
    settings = {"rounds": 2, "rate": 0.5, "length": 100, "rewind_step": 10, "every": 20, "looks": 5, "distance": 0.1}
    events = [event for event in schedules.early_bird(**settings, until=0.5) if event.round == 2]
    assert [event.step for event in events] == [10, 30, 50, 55]
    assert [event.target.density for event in events] == [1.0, 0.25, 0.25, 0.25]
    assert [event.settled and event.settled.looks for event in events] == [None, 5, 5, 1]
    assert schedules.early_bird(**settings, until=1.0)[-1].step == 99


def replacing(rule: Replacement | None) -> Pruner:
    """A method that replaces weights by `rule`, and does nothing else."""
    return Pruner(
        criterion=criteria.random, allocation=lambda *_: {}, survivors=survivors.rewound, filler=fillers.zero,
        momentum="zero", lr="rewound", replacement=rule,
    )  # fmt: skip


def test_what_a_full_layer_cannot_take_grows_elsewhere() -> None:
    """In proportion as far as there is room, exact in sum; a dense layer stays, and no score anywhere is no error."""

    def scores(*values: float) -> Callable[[Evidence], dict[str, Tensor]]:
        return lambda evidence: {
            name: torch.full(mask.shape, value)
            for (name, mask), value in zip(evidence.masks.items(), values, strict=True)
        }

    def counts(*values: float) -> list[int]:
        pruner = replacing(Replacement(drop=scores(0.0, 0.0, 0.0, 0.0), grow=scores(*values), redistribute=True))
        masks = {name: torch.arange(100) < size for name, size in zip("abcd", (40, 60, 90, 100), strict=True)}
        new = pruner.replace(Evidence({}, {}, {}, masks, generator("mask", 0), lambda _: {}), 0.5)
        return [int(mask.sum()) for mask in new.values()]

    # 20 + 30 + 10 are dropped (of c as many as it has places, of d none): 20, 30, 80 and 100 stay, and 60 grow.
    assert counts(1e-12, 2e-12, 0.0, 0.0) == [40, 70, 80, 100]
    assert counts(1.0, 1.0, 8.0, 50.0) == [40, 50, 100, 100]
    assert counts(0.0, 0.0, 1.0, 0.0) == [40, 50, 100, 100]
    assert sum(counts(0.0, 0.0, 0.0, 0.0)) == 290


def test_replacements_at_random_are_uniform() -> None:
    """SET: every free place is as likely to grow, in 2,000 replacements of 3 of 12 weights of 40."""
    pruner = replacing(Replacement(drop=criteria.final_magnitude, grow=criteria.random, redistribute=False))
    mask = torch.zeros(4, 10, dtype=torch.bool)
    mask.view(-1)[:12] = True
    weights = {"w": torch.arange(40.0, 0, -1).view(4, 10)}
    grown = torch.zeros(40)
    for seed in range(2000):
        evidence = Evidence(weights, weights, weights, {"w": mask}, generator("mask", seed), lambda _: {})
        new = pruner.replace(evidence, 0.25)["w"].flatten()
        assert int(new.sum()) == 12
        assert new[:9].all()  # the three smallest go: 9, 10, 11, which may grow again
        grown += new
    expected = 2000 * 3 / 31
    statistic = float(((grown[9:] - expected) ** 2 / expected).sum()) / (28 / 31)
    assert 10 < statistic < 65  # 30 degrees of freedom


def test_replacing_without_saying_how_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(LtlError, match=r"pruner\.replacement=null is not possible.*pruner=rigl"):  # before it trains
        build.experiment(composed(*SMALL, *SGD, "pruner=rigl", "~pruner.replacement"), tmp_path, hardware_number=0)
    masks = dense({"w": torch.ones(2, 2)})
    with pytest.raises(LtlError, match=r"pruner\.replacement=null is not possible"):
        replacing(None).replace(Evidence({}, {}, {}, masks, generator("mask", 0), lambda _: {}), 0.5)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_scores_of_a_replacement_that_are_no_numbers_are_refused(value: float) -> None:
    """Of kept weights where they are to drop; wherever they are to grow, for what is dropped may grow again."""
    masks = {"w": torch.tensor([[True, False]])}

    def replaced_by(drop: list[float], grow: list[float]) -> list[list[bool]]:
        rule = Replacement(lambda _: {"w": torch.tensor([drop])}, lambda _: {"w": torch.tensor([grow])}, False)
        new = replacing(rule).replace(Evidence({}, {}, {}, masks, generator("mask", 0), lambda _: {}), 1.0)
        return new["w"].tolist()  # type: ignore[no-any-return]

    assert replaced_by([1.0, value], [1.0, 2.0]) == [[False, True]]
    with pytest.raises(LtlError, match=r"^pruner\.replacement\.drop gives scores of w that are no finite numbers"):
        replaced_by([value, 1.0], [1.0, 2.0])
    for grow in ([value, 2.0], [1.0, value]):
        with pytest.raises(LtlError, match=r"^pruner\.replacement\.grow gives scores of w that are no finite numbers"):
            replaced_by([1.0, 1.0], grow)


def test_schedules_before_and_within_a_round() -> None:
    """Densities as published, each round anew from the dense network; search costs are the steps before the mask."""
    settings = {"rounds": 2, "rate": 0.75, "length": 100, "rewind_step": 20}
    events = schedules.at_init(**settings, prunings=4)
    assert [(event.round, event.step, event.search_steps) for event in events] == [(1, 20, 20)] * 4 + [(2, 20, 20)] * 4
    assert [event.anew for event in events] == [True, False, False, False] * 2
    densities = [event.target.density for event in events]
    assert densities == pytest.approx(
        [0.25 ** (t / 4) for t in (1, 2, 3, 4)] + [0.0625 ** (t / 4) for t in (1, 2, 3, 4)]
    )

    events = schedules.gradual(**settings, start=1.0, begin=0.25, end=0.75, prunings=5)
    assert [event.step for event in events[:6]] == [20, 48, 56, 64, 72, 80]
    assert [event.target.density for event in events[6:]] == pytest.approx(
        [1.0] + [0.0625 + 0.9375 * (1 - t) ** 3 for t in (0.2, 0.4, 0.6, 0.8, 1.0)]
    )
    assert events[5].target.density == pytest.approx(0.25)
    assert [event.anew for event in events] == ([True] + [False] * 5) * 2

    late = schedules.gradual(**settings, start=1.0, begin=0.75, end=1.0, prunings=5)
    assert [event.step for event in late[:6]] == [20, 84, 88, 92, 96, 99]

    half = schedules.gradual(**settings, start=0.5, begin=0.25, end=0.75, prunings=5)
    assert [(event.round, event.step, event.anew) for event in half] == [
        (event.round, event.step, event.anew) for event in events
    ]
    assert [event.target.density for event in half[:6]] == pytest.approx(
        [0.5] + [0.25 + 0.25 * (1 - t) ** 3 for t in (0.2, 0.4, 0.6, 0.8, 1.0)]
    )
    flat = schedules.gradual(**settings, start=0.25, begin=0.25, end=0.75, prunings=5)[:6]
    assert [event.target.density for event in flat] == pytest.approx([0.25] * 6)
    with pytest.raises(LtlError, match=r"^pruner\.schedule\.start=0\.2 is below the density 0\.25 of the first round"):
        schedules.gradual(**settings, start=0.2, begin=0.25, end=0.75, prunings=5)

    events = schedules.dynamic(**settings, every=15, until=0.75, fraction=0.3)
    first = [event for event in events if event.round == 1]
    assert [(event.step, event.replaces, event.anew) for event in first] == [
        (20, False, True), (30, True, False), (45, True, False), (60, True, False),
    ]  # fmt: skip
    assert first[0].target == Target(density=0.25)
    assert [event.target.rate for event in first[1:]] == pytest.approx(
        [0.15 * (1 + math.cos(math.pi * step / 75)) for step in (30, 45, 60)]
    )
    late = schedules.dynamic(**{**settings, "rewind_step": 30}, every=15, until=0.75, fraction=0.3)
    assert [event.step for event in late] == [30, 45, 60] * 2  # nothing is replaced before it has been trained


@pytest.mark.parametrize(
    "fixed",
    [
        ("pruner=gradual", "pruner.schedule.prunings=3"),
        ("pruner=early_bird", "pruner.schedule.every=3", "pruner.schedule.looks=2"),
        ("pruner=synflow", "pruner.schedule.prunings=1"),
    ],
)
def test_a_round_that_prunes_anew_begins_with_the_dense_network(
    ticket: Callable[..., tuple[Ticket, build.Experiment]], fixed: tuple[str, ...]
) -> None:
    """Its mask does not depend on the rounds before: the second of 60% each is the first of 84%."""
    first, _ = ticket(*fixed, "pruner.rate=0.84", folder="first")
    _, built = ticket(*fixed, "pruner.rounds=2", folder="second")
    second = load(built.ticket_path(0, 2))
    assert kept(second.masks) == round(0.16 * sum(mask.numel() for mask in second.masks.values()))
    assert all(torch.equal(first.masks[name], second.masks[name]) for name in WEIGHTS)


@pytest.mark.parametrize("begin", [0.5, 1.0])
def test_pruning_until_the_very_end_reaches_the_density_of_the_round(
    ticket: Callable[..., tuple[Ticket, build.Experiment]], begin: float
) -> None:
    """The last pruning comes a step before the end: after it nothing would be trained, nor written."""
    found, _ = ticket("pruner=gradual", f"pruner.schedule.begin={begin}", "pruner.schedule.end=1.0")
    assert kept(found.masks) == round(0.4 * total(found.masks))


def test_a_network_that_has_diverged_is_not_pruned_while_it_trains(
    ticket: Callable[..., tuple[Ticket, build.Experiment]],
) -> None:
    """Its scores would be no numbers, which is an error that would end the others too."""
    found, built = ticket("pruner=gradual")
    (job,) = built.jobs(lambda key: False)
    search = job.networks[0].member
    assert isinstance(search, Search)
    weights = {name: torch.full_like(tensor, torch.nan) for name, tensor in found.state.items()}
    search.take_theta_0(weights)
    search.begin(WEIGHTS)
    step = search.events[1].step
    with pytest.raises(LtlError, match="no finite numbers"):
        search.prune_in_place((1, step), weights)
    search.lost = True
    assert not search.prune_in_place((1, step), weights)


def test_gradual_pruning_is_its_equation_and_never_lets_grow(
    ticket: Callable[..., tuple[Ticket, build.Experiment]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Zhu & Gupta 2017, eq. 1: 0.4 + 0.6 (1 − t)³ of all weights, the largest of those left, three times in a round."""
    seen: list[Weights] = []
    prune = Search.prune_in_place

    def watched(self: Search, *given: object) -> bool:
        pruned = prune(self, *given)  # type: ignore[arg-type]
        seen.extend([self.current.masks] if pruned else [])
        return pruned

    monkeypatch.setattr(Search, "prune_in_place", watched)
    found, built = ticket("pruner=gradual", "pruner.schedule.prunings=3", *SGD[1:4], "hardware.chunk=7")
    made: list[Weights] = []

    def change(step: int, masks: Weights, weights: Weights, gradients: Gradients) -> bool:
        if step in (16, 26, 36):  # from a tenth to six tenths of 60 steps
            density = 0.4 + 0.6 * (1 - (step - 6) / 30) ** 3
            size = torch.cat([(weights[name].abs() * masks[name]).flatten() for name in WEIGHTS])
            kept = torch.zeros(len(size), dtype=torch.bool)
            kept[size.argsort(descending=True)[: round(density * len(size))]] = True
            for name, part in zip(WEIGHTS, kept.split([768, 120]), strict=True):
                masks[name].copy_(part.view_as(masks[name]))
            made.append({name: mask.clone() for name, mask in masks.items()})
        return False

    trained_by_hand(built, Ticket(dense(found.masks), found.state, {}, {}, {}), change)
    assert len(seen) == len(made) == 3
    assert all(torch.equal(one[name], other[name]) for one, other in zip(seen, made, strict=True) for name in WEIGHTS)
    assert not any((new[name] & ~old[name]).any() for old, new in pairwise(seen) for name in WEIGHTS)
    assert all(torch.equal(found.masks[name], seen[-1][name]) for name in WEIGHTS)

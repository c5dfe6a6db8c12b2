"""What pruned weights are held at, from round to round: decided when they are pruned, and never again."""

from collections.abc import Callable
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from conftest import composed
from test_criteria import small
from test_pruning import SHAPES, draws, evidence
from torch import nn

from ltl import build, rebuild
from ltl.masks import Tensors
from ltl.pruning import fillers, schedules, survivors
from ltl.pruning.allocation import Target
from ltl.pruning.pruner import Pruner
from ltl.results import read_table
from ltl.tickets import effective, load
from ltl.training.search import Search

SHRANK, GREW = "zhou_variant_1", "zhou_variant_1_reversed"
RANDOM, ALL = "zhou_variant_1_random", "zhou_variant_2"


@cache
def pruner_of(name: str) -> Pruner:
    """The method that a file of conf/pruner describes."""
    return build._pruner(composed(f"pruner={name}").pruner)


def test_as_set_is_what_the_round_begins_with() -> None:
    known = evidence()
    filled = fillers.as_set(known, known.masks)
    assert list(filled) == list(SHAPES)
    assert all(filled[name] is known.weights[name] for name in SHAPES)


@pytest.mark.parametrize(
    ("name", "expected"),
    [  # kept: shrank, grew; pruned: shrank, grew, turned and grew, never moved, held at 0, at θ_k
        (SHRANK, [1, 1, 0, 1, 1, 1, 0, 1]),
        (ALL, [0, 1, 0, 1, 1, 1, 0, 1]),
        (GREW, [1, 1, 1, 0, 0, 1, 0, 1]),
    ],
)
def test_the_rules_by_hand(name: str, expected: list[int]) -> None:
    """θ_k is 1 everywhere; what trained weights have become decides."""
    known = small([1.0] * 8, [0.5, 1.5, -0.5, 1.5, -1.5, 1.0, 0.0, 1.0])
    masks = {"fc.weight": torch.tensor([[True, True, *[False] * 6]])}
    assert pruner_of(name).survivors(known, masks)["fc.weight"].flatten().tolist() == expected


def test_random_zeros_are_as_many_as_the_rule_has_and_anywhere() -> None:
    """Two of five that were just pruned shrank: any two become 0, each as often, and what is held stays held."""
    masks = {"fc.weight": torch.tensor([[True, *[False] * 7]])}
    zeros = torch.zeros(8)
    for seed in range(250):
        known = small([1.0] * 8, [0.1, 0.5, 0.5, 1.5, 1.5, 1.5, 0.0, 1.0], seed)
        start = pruner_of(RANDOM).survivors(known, masks)["fc.weight"].flatten()
        assert int((start[1:6] == 0).sum()) == 2
        zeros += start == 0
    assert zeros[[0, 6, 7]].tolist() == [0, 250, 0]
    assert float(((zeros[1:6] - 100) ** 2 / 100).sum()) < 14  # less spread than a multinomial, which 14 bounds at 0.7%


@pytest.mark.parametrize("name", [SHRANK, GREW, ALL, RANDOM])
def test_fills_are_decided_at_the_pruning_and_stay(name: str) -> None:
    """Four prunings of a network whose weights wander, some of them never; compared with a table kept by hand."""
    search = Search(
        pruner=pruner_of(name), events=schedules.after_training(rounds=4, rate=0.3, length=10, rewind_step=0), seed=3
    )
    theta = draws(11)
    search.take_theta_0(theta)
    search.begin(list(SHAPES))
    table: dict[str, dict[int, float]] = {layer: {} for layer in SHAPES}
    zeros = held = 0
    for turn in range(4):
        before, noise = search.current, draws(20 + turn)
        trained: Tensors = {}
        for layer, mask in before.masks.items():
            fill = before.fills.get(layer, torch.zeros_like(theta[layer]))
            moved = before.theta[layer] + 0.7 * noise[layer]
            moved.view(-1)[::5] = before.theta[layer].view(-1)[::5]  # an input that is always 0
            trained[layer] = torch.where(mask, moved, fill)
        search.next_round(trained, length=10, first=0)
        now = search.current
        for layer, mask in now.masks.items():
            begun, end = theta[layer].flatten().tolist(), trained[layer].flatten().tolist()
            new = [
                index for index in range(len(begun)) if before.masks[layer].view(-1)[index] and not mask.view(-1)[index]
            ]
            fills = now.fills.get(layer, torch.zeros_like(theta[layer])).flatten().tolist()
            shrank = [index for index in new if abs(end[index]) < abs(begun[index])]
            grew = [index for index in new if abs(end[index]) > abs(begun[index])]
            if name == RANDOM:
                assert sum(fills[index] == 0 for index in new) == len(shrank)
                table[layer] |= {index: fills[index] for index in new}
            else:
                chosen = grew if name == GREW else shrank
                table[layer] |= {index: 0.0 if index in chosen else begun[index] for index in new}
            for index, fill in table[layer].items():
                assert fills[index] == fill
                zeros, held = zeros + (fill == 0), held + (fill != 0)
            kept = now.theta[layer][mask].tolist()
            for index, value in zip(mask.flatten().nonzero().flatten().tolist(), kept, strict=True):
                from_0 = name == ALL and abs(end[index]) < abs(begun[index])
                assert value == (0.0 if from_0 else begun[index])
    assert zeros > 25 and held > 25


def test_pruning_within_a_round_freezes_weights_where_they_are() -> None:
    """as_set has no survivors function to ask then."""
    pruner = pruner_of(SHRANK)
    search = Search(pruner=pruner, events=[schedules.Event(0, 4, Target(rate=0.3), 4)], seed=0)
    search.take_theta_0(draws(0))
    search.begin(list(SHAPES))
    now = draws(1)
    assert search.prune_in_place((0, 4), now)
    for layer, mask in search.current.masks.items():
        assert torch.equal(search.current.fills[layer][~mask], now[layer][~mask])


@pytest.mark.parametrize("name", [SHRANK, RANDOM])
def test_a_run_holds_its_pruned_weights_at_0_or_at_their_first_values(launch: Callable[..., Path], name: str) -> None:
    """In the tickets of four rounds: θ₀ or 0, unchanged once it is there; both occur."""
    folder = launch(f"pruner={name}", "pruner.rounds=3", "control=none")
    tickets = [load(path) for path in sorted(folder.glob("tickets/trial-0/*"))]
    theta = tickets[0].state
    assert len(tickets) == 4
    for earlier, later in pairwise(tickets[1:]):
        for layer, mask in earlier.masks.items():
            assert torch.equal(effective(earlier)[layer][~mask], effective(later)[layer][~mask])
    for layer, mask in tickets[-1].masks.items():
        held, first = effective(tickets[-1])[layer][~mask], theta[layer][~mask]
        assert bool(((held == 0) | (held == first)).all())
        assert 0 < int((held == 0).sum()) < held.numel()
        assert torch.equal(tickets[-1].state[layer][mask], theta[layer][mask])


def test_a_kept_weight_that_begins_at_0_trains_on(launch: Callable[..., Path]) -> None:
    """A mask that is inferred from weights that are not 0, as in the code of Su et al. 2020, would hold it there."""
    folder = launch(f"pruner={ALL}", "pruner.rounds=1", "control=none", "ends=true", "model.widths=[24]")
    ticket = load(folder / "tickets/trial-0/round-01.safetensors")
    after = load(folder / "ends/trial-0/ticket-0-round-01.safetensors").state
    digits = rebuild.dataset_of(ticket)
    network = rebuild.network(ticket, digits)
    nn.functional.cross_entropy(network(digits.train.inputs), digits.train.targets).backward()
    for layer, mask in ticket.masks.items():
        zero, slope = ticket.state[layer] == 0, network.get_parameter(layer).grad
        pulled = mask & zero & (slope != 0)
        assert int(pulled.sum()) > 20, layer
        assert after[layer][pulled].all()
        assert not after[layer][~mask & zero].any()  # pruned, and held there
    row = read_table(folder / "rounds.csv")[1]
    assert row["weights_left"] == str(sum(int(mask.sum()) for mask in ticket.masks.values()))


def test_frozen_at_initialisation() -> None:
    """zhou_freeze_init: θ₀, whatever training did."""
    known = evidence()
    pruner = pruner_of("zhou_freeze_init")
    assert pruner.survivors is not None and pruner.survivors(known, known.masks) is survivors.rewound(
        known, known.masks
    )
    assert all(pruner.filler(known, known.masks)[name] is known.theta_0[name] for name in SHAPES)

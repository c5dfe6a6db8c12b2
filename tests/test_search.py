"""The search for one network's tickets, event by event and without any training: draws, steps, looks and what went."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import pytest
from test_pruning import POOL, SHAPES, draws

from ltl.masks import Masks, Tensors, kept
from ltl.pruning import criteria, fillers, schedules, survivors
from ltl.pruning.allocation import Target
from ltl.pruning.evidence import Evidence
from ltl.pruning.pruner import Pruner, Replacement
from ltl.pruning.schedules import Event
from ltl.training.layers import quartiles
from ltl.training.search import Search

IMP = Pruner(
    criterion=criteria.final_magnitude, allocation=POOL, survivors=survivors.rewound, filler=fillers.zero,
    momentum="zero", lr="rewound",
    replacement=Replacement(drop=criteria.final_magnitude, grow=criteria.random, redistribute=False),
)  # fmt: skip
ROUNDS = {"rounds": 2, "rate": 0.5, "length": 10, "rewind_step": 0}


def search_of(events: Sequence[Event], pruner: Pruner = IMP, seed: int = 0) -> Search:
    search = Search(pruner=pruner, events=events, seed=seed)
    search.take_theta_0(draws(9))
    search.begin(list(SHAPES))
    return search


def steps(search: Search) -> tuple[int | None, int]:
    """At which step the mask changed last, and from which on it keeps as many weights as now."""
    return search.current.mask_step, search.current.density_step


@pytest.mark.parametrize("schedule", [schedules.after_training, partial(schedules.at_init, prunings=2)])
def test_every_pruning_and_every_start_draws_from_a_generator_of_its_own(schedule: "partial[list[Event]]") -> None:
    """Round by round, several prunings of one step too, and other ones in another trial."""
    events = schedule(**ROUNDS)
    pruned: list[int] = []
    begun: list[int] = []

    def score(evidence: Evidence) -> Tensors:
        pruned.append(evidence.generator.initial_seed())
        return evidence.weights

    def start(evidence: Evidence, masks: Masks) -> Tensors:
        begun.append(evidence.generator.initial_seed())
        return evidence.theta_k

    for seed in (0, 1):
        search = search_of(events, replace(IMP, criterion=score, survivors=start), seed)
        for turn in (1, 2):
            search.next_round(draws(turn), length=10, first=0)
    assert len(pruned) == len(set(pruned)) == 2 * len(events)
    assert len(set(begun)) == 2 * 2  # a start that is made again for the mask pruned at it draws the same
    assert not set(pruned) & set(begun)


def test_quartiles_are_of_what_the_last_pruning_took() -> None:
    """Not of what went in the rounds before; a round that prunes nothing has none."""
    search = search_of(schedules.after_training(**ROUNDS))
    for turn in (1, 2):
        before = search.current.masks
        search.next_round(draws(turn), length=10, first=0)
        for name, mask in search.current.masks.items():
            assert search.current.gone[name] == quartiles(draws(turn)[name], before[name] & ~mask)
    search.next_round(draws(3), length=10, first=0)
    assert search.current.gone == {}


def test_replaced_weights_are_as_many_and_a_round_begins_anew() -> None:
    """A mask that a round begins with has not changed in it; a replacement changes the mask, and no density."""
    half = Target(rate=0.5)
    search = search_of([Event(0, 0, half, 0), Event(0, 4, half, 0), Event(0, 6, half, 0, replaces=True)])
    assert search.prune_in_place((0, 0), draws(1))
    assert steps(search) == (None, 0)
    assert search.prune_in_place((0, 4), draws(2))
    assert steps(search) == (4, 4)
    assert search.prune_in_place((0, 6), draws(3))
    assert not search.prune_in_place((0, 7), draws(4))
    assert steps(search) == (6, 4)
    search.next_round(draws(5), length=10, first=0)
    assert steps(search) == (None, 0)


def test_looks_outlast_a_checkpoint_and_not_their_round() -> None:
    """The third look of each round prunes: the first two are kept, and those of the round before are not counted."""
    search = search_of(schedules.early_bird(**{**ROUNDS, "length": 20}, every=4, until=1.0, looks=3, distance=0.3))
    for turn in (1, 2):
        search.next_round(draws(0), length=20, first=0)
        for step in (4, 8, 12):
            resumed = search_of(search.events)
            resumed.load(search.state())
            search = resumed
            assert search.prune_in_place((turn, step), draws(0)) == (step == 12)
        assert kept(search.current.masks) == round(134 * 0.5**turn)

"""Mistakes in parts of one's own: one line that says what is given and what is due, before anything is trained."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch

from ltl.errors import LtlError
from ltl.masks import Tensors, dense
from ltl.pruning import criteria, fillers, survivors
from ltl.pruning.allocation import Target, global_pool
from ltl.pruning.evidence import Evidence
from ltl.pruning.pruner import Pruner, Replacement
from ltl.pruning.schedules import after_training
from ltl.training.search import Search

IMP = Pruner(
    criterion=criteria.final_magnitude,
    allocation=partial(global_pool, exclude=[], allow_empty=False),
    survivors=survivors.rewound,
    filler=fillers.zero,
    momentum="zero",
    lr="rewound",
)


def searched(**parts: Any) -> None:
    """Begin the search of a network by `parts` of one's own, as it is begun before its training."""
    events = after_training(rounds=2, rate=0.2, length=6, rewind_step=0)
    search = Search(pruner=replace(IMP, **parts), events=events, seed=0)
    search.take_theta_0({"a.weight": torch.randn(4, 3), "a.bias": torch.zeros(4), "b.weight": torch.randn(2, 4)})
    search.begin(["a.weight", "b.weight"])


def each(make: Callable[[torch.Tensor], Any]) -> Callable[..., Any]:
    """Return a function that makes something of every weight."""
    return lambda evidence, *masks: {name: make(evidence.weights[name]) for name in evidence.masks}


def theta_0_in_place(evidence: Evidence) -> Tensors:
    return {name: evidence.theta_0[name].abs_() for name in evidence.masks}


WRONG: dict[str, list[tuple[Callable[..., Any], str]]] = {
    "criterion": [
        (each(lambda weight: weight.sum(0)), "a.weight is float32 (3,), and is to fit bool (4, 3): return a dict with"),
        (each(lambda weight: weight > 0), "a.weight is bool (4, 3), and is to fit"),
        (each(lambda weight: weight.to(torch.complex64)), "a.weight is complex64 (4, 3), and is to fit"),
        (each(lambda weight: weight.numpy()), "a.weight is a ndarray, and is to fit"),
        (each(lambda weight: 1.0), "a.weight is a float, and is to fit"),
        (lambda evidence: [evidence.weights["a.weight"]], "returns list: return a dict with one tensor of real"),
        (lambda evidence: None, "returns NoneType: return a dict"),
        (lambda evidence: {"a.weight": evidence.weights["a.weight"]}, "b.weight is absent, and is to fit bool (2, 4)"),
        (lambda evidence: evidence.weights, "a.bias is float32 (4,), and is to fit no tensor"),
        (theta_0_in_place, "changes a tensor of its evidence in place: work on a copy"),
        (each(lambda weight: torch.rand(weight.shape)), "draws from PyTorch's global generator, which no seed fixes"),
    ],
    "survivors": [
        (lambda evidence, masks: None, "returns NoneType: return a dict with one tensor for each of evidence.theta_0"),
        (each(torch.clone), "a.bias is absent, and is to fit float32 (4,)"),
        (
            lambda evidence, masks: {name: one.double() for name, one in evidence.theta_0.items()},
            "a.weight is float64 (4, 3), and is to fit float32 (4, 3)",
        ),
        (lambda evidence, masks: {**evidence.theta_0, "c": torch.zeros(1)}, "c is float32 (1,), and is to fit no tens"),
    ],
    "filler": [
        (lambda evidence, masks: {}, "a.weight is absent, and is to fit float32 (4, 3): return a dict with one"),
        (each(lambda weight: 0.0), "a.weight is a float, and is to fit float32 (4, 3)"),
    ],
}


@pytest.mark.parametrize(
    ("part", "function", "words"), [(part, *case) for part, cases in WRONG.items() for case in cases]
)
def test_what_a_function_returns_is_checked_before_training(
    part: str, function: Callable[..., Any], words: str
) -> None:
    with pytest.raises(LtlError) as told:
        searched(**{part: function})
    assert f"pruner.{part}" in str(told.value)
    assert words in str(told.value)
    assert "\n" not in str(told.value)


def test_criteria_of_a_replacement_are_checked_too() -> None:
    grow = Replacement(drop=criteria.final_magnitude, grow=lambda evidence: {}, redistribute=False)
    with pytest.raises(LtlError, match=r"pruner.replacement.grow: a.weight is absent"):
        searched(replacement=grow)


def test_no_value_is_judged_before_training() -> None:
    """Scores of θ₀ may be what those of trained weights are not: here 0/0."""
    searched(criterion=lambda evidence: {
        name: (evidence.weights[name] - evidence.theta_0[name]) / 0 for name in evidence.masks
    })  # fmt: skip


@pytest.mark.parametrize(
    ("allocation", "words"),
    [
        (lambda scores, masks, target: None, "returns NoneType: return a dict with one tensor of bools"),
        (lambda scores, masks, target: scores, "w is float32 (4, 3), and is to fit bool (4, 3)"),
        (lambda scores, masks, target: dense(scores), "brings back weights of w that are pruned"),
    ],
)
def test_masks_of_an_allocation_are_checked(allocation: Callable[..., Any], words: str) -> None:
    masks = {"w": torch.arange(12).view(4, 3) % 2 == 0}
    with pytest.raises(LtlError) as told:
        replace(IMP, allocation=allocation).allocate({"w": torch.rand(4, 3)}, masks, Target(rate=0.2))
    assert "pruner.allocation" in str(told.value)
    assert words in str(told.value)

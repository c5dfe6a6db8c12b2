"""Mistakes in parts of one's own: one line that says what is given and what is due, before anything is trained."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import composed
from omegaconf import OmegaConf
from torch import nn

from ltl import build, launch, schema
from ltl.datasets.dataset import Dataset, Split, checked
from ltl.errors import LtlError
from ltl.masks import Tensors, dense
from ltl.models.form import check_form
from ltl.pruning import criteria, fillers, survivors
from ltl.pruning.allocation import Target, global_pool
from ltl.pruning.evidence import Evidence
from ltl.pruning.pruner import Pruner, Replacement
from ltl.pruning.schedules import Event, after_training, planned
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
    search.try_out()


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


@pytest.mark.parametrize(
    ("module", "target", "words"),
    [
        ("def f(evidence)\n", "own_a.f", "(SyntaxError: expected ':' (own_a.py, line 1))."),
        ("import not_installed\n", "own_b.f", "(ModuleNotFoundError: No module named 'not_installed')."),
        ("f = 3\n", "own_c.f", "(InstantiationException: Expected a callable target, got '3' of type 'int'"),
        (
            "def f(given): ...\n",
            "own_d.f",
            "missing a required argument: 'given'; it is called with evidence and the keys",
        ),
    ],
)
def test_why_a_function_cannot_be_called_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, target: str, words: str
) -> None:
    (tmp_path / f"{target.partition('.')[0]}.py").write_text(module)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(LtlError) as told:
        build._instantiate(OmegaConf.create({"_target_": target}), "pruner.criterion", "evidence")
    assert words in str(told.value)
    assert "\n" not in str(told.value)


class Net(nn.Module):
    """Two layers, and what a test makes of the second one's outputs."""

    def __init__(self, last: Callable[[torch.Tensor], Any] = lambda outputs: outputs) -> None:
        super().__init__()
        self.first, self.output, self.last = nn.Linear(12, 5), nn.Linear(5, 4), last

    def forward(self, inputs: torch.Tensor) -> Any:
        return self.last(self.output(self.first(inputs.flatten(1)).relu()))


def tied() -> nn.Module:
    network = Net()
    network.last = nn.Linear(5, 4)
    network.last.weight = network.output.weight
    return network


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Net(lambda outputs: outputs[:, :3]), "Net makes (2, 3), and must make logits (2, 4)."),
        (lambda: Net(lambda outputs: outputs.unsqueeze(1)), "of inputs (2, 3, 4) Net makes (2, 1, 4)"),
        (lambda: Net(lambda outputs: (outputs, 1)), "makes tuple"),
        (lambda: nn.Flatten(), "Flatten has no linear or convolution layer to prune."),
        (tied, "last.weight is tied to another weight or parametrised: give each layer"),
        (lambda: "net", "model: its function returns str, and must return a torch.nn.Module."),
    ],
)
def test_a_network_that_cannot_be_pruned_or_trained_is_refused(make: Callable[[], Any], words: str) -> None:
    with pytest.raises(LtlError) as told:
        check_form(make(), (3, 4), 4)
    assert words in str(told.value)


def test_a_network_that_can_is_let_through_from_the_meta_device() -> None:
    with torch.device("meta"):
        network = Net()
    check_form(network, (3, 4), 4)


def data(**changes: Any) -> Dataset:
    """Ten examples of three features and two classes; `inputs` and `targets` are those of the test set."""
    inputs, targets = torch.randn(10, 3), torch.arange(10) % 2
    test = Split(changes.pop("inputs", inputs), changes.pop("targets", targets))
    split = Split(inputs, targets)
    return replace(Dataset("own", True, split, split, test, input_shape=(3,), outputs=2, augment=None), **changes)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: None, "its function returns NoneType, and must return an ltl.datasets.dataset.Dataset."),
        (
            lambda: data(inputs=torch.zeros(10, 3).double()),
            "test.inputs are torch.float64 (10, 3), and must be torch.f",
        ),
        (
            lambda: data(inputs=torch.zeros(10, 4)),
            "test.inputs are torch.float32 (10, 4), and must be torch.float32 (10",
        ),
        (lambda: data(inputs=torch.zeros(9, 3)), "test.inputs are torch.float32 (9, 3), and must be"),
        (lambda: data(inputs=torch.zeros(10, 3).numpy()), "test.inputs are ndarray"),
        (lambda: data(inputs=torch.full((10, 3), torch.nan)), "test.inputs has no examples, or holds numbers that"),
        (lambda: data(inputs=torch.zeros(0, 3), targets=torch.zeros(0).long()), "test.inputs has no examples"),
        (lambda: data(input_shape=3), "input_shape is 3, and must be (3,)."),
        (lambda: data(targets=torch.arange(10)), "test.targets are 0 to 9, and must be classes from 0 to outputs − 1"),
        (lambda: data(targets=torch.arange(10) - 1), "test.targets are -1 to 8"),
        (lambda: data(targets=torch.zeros(10)), "test.targets are torch.float32 (10,), and must be torch.int64 (10,)."),
        (
            lambda: data(augment=lambda inputs, generator: inputs[:, :2]),
            "what augment makes of two inputs are torch.fl",
        ),
    ],
)
def test_a_data_set_of_another_form_is_refused(make: Callable[[], Any], words: str) -> None:
    with pytest.raises(LtlError) as told:
        checked(make())
    assert str(told.value).startswith(f"dataset: {words}")


def test_a_data_set_of_the_form_is_returned() -> None:
    assert checked(one := data()) is one


@pytest.mark.parametrize(
    ("events", "words"),
    [
        (None, "pruner.schedule must return a list of ltl.pruning.schedules.Event"),
        ([1], "pruner.schedule must return a list of"),
        ([(0, 11)], "prunes at step 11 of round 0, which no training reaches: rounds are 0 to 2, steps 0 to 10,"),
        ([(0, 10), (3, 5)], "prunes at step 5 of round 3, which no training reaches"),
        ([(1, 3)], "prunes at step 3 of round 1, which no training reaches: rounds are 0 to 2, steps 4 to 10"),
        ([(1, 4.5)], "prunes at step 4.5 of round 1"),
        ([(2, 10)], "prunes at step 10 of round 2, which no training reaches"),
    ],
)
def test_events_that_no_training_reaches_are_refused(events: Any, words: str) -> None:
    """They would train networks that are never pruned, without a word."""
    made = [Event(*one, Target(rate=0.2), 10) if isinstance(one, tuple) else one for one in events or []]
    with pytest.raises(LtlError) as told:
        planned(lambda **settings: events and made, rounds=2, rate=0.2, length=10, rewind_step=4)
    assert words in str(told.value)


@pytest.mark.parametrize("given", [{}, {"rate": 0.2, "density": 0.8}, {"rate": 1.5}, {"density": -0.1}])
def test_a_target_is_a_rate_or_a_density(given: dict[str, float]) -> None:
    with pytest.raises(LtlError, match=r"Target\(.*\) is not possible: give a rate or a density, between 0 and 1"):
        Target(**given)


def test_a_schedule_of_ones_own_needs_no_warmup() -> None:
    cfg = composed()
    OmegaConf.update(cfg, "lr_schedule", {"_target_": "mine.flat", "_partial_": True}, merge=False)
    schema.check(cfg)


@pytest.mark.parametrize(
    ("file", "told"),
    [("/own/mine.py", "/own/mine.py, line 1, in <module>"), (launch.__file__, ""), (nn.__file__, None)],
)
def test_an_error_is_told_in_one_line_where_ones_own_code_raised_it(file: str, told: str | None) -> None:
    """What ltl raised keeps its traceback; what a library raised is of the code that called it."""
    with pytest.raises(ZeroDivisionError) as error:
        exec(compile("1 / 0", file, "exec"))
    line = launch._own_line(error.value)
    assert line == told if told is not None else line.startswith(__file__)

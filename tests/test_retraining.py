"""What a round begins with after a pruning, against a loop by hand: weights, momentum, learning rate, data order.

The three ways to retrain of Renda, Frankle & Carbin 2020 differ in these alone, and are easily taken for one another:
fine-tuning (Alg. 1), weight rewinding (Alg. 2, `imp_late`) and learning-rate rewinding (Alg. 3).
"""

from pathlib import Path
from typing import Literal

import pytest
import torch
from conftest import composed
from rich.console import Console
from torch import Tensor
from torch.nn import functional as F

from ltl import build, fit
from ltl.callbacks.progress import RunProgress
from ltl.results import read_table
from ltl.tickets import load
from ltl.training.order import DataOrder

LENGTH, K = 12, 3
RATE, MOMENTUM, DECAY = 0.2, 0.9, 0.01
SETTINGS = (
    "model.widths=[12]", "length=12it", "eval_every=5it", "batch=20", "dataset.limit=200", "trials=1", "control=none",
    "pruner.rounds=2", "pruner.rate=0.4", "pruner.rewind_to=3it", "logger=csv", "hardware.precision=64-true",
    "ends=true", "optimizer=sgd", "optimizer.lr=0.2", "optimizer.weight_decay=0.01", "lr_schedule=milestones",
    "lr_schedule.milestones=[2it,5it,9it]", "lr_schedule.factor=0.3",
)  # fmt: skip
State = dict[str, Tensor]


class Loop:
    """SGD with momentum and weight decay on a perceptron, under masks."""

    def __init__(self, built: build.Experiment, theta: State) -> None:
        self.inputs, self.targets = built.dataset.train.inputs.flatten(1), built.dataset.train.targets
        self.order = DataOrder(examples=200, batch=20, seed=0, by_round="same", device=torch.device("cpu"))
        self.theta = {name: tensor.clone() for name, tensor in theta.items()}
        self.velocity = {name: torch.zeros_like(tensor) for name, tensor in theta.items()}
        self.masks = {name: torch.ones_like(theta[name], dtype=torch.bool) for name in ("fc1.weight", "output.weight")}

    def state(self) -> tuple[State, State]:
        return dict(self.theta), dict(self.velocity)

    def step(self, number: int, rate: float) -> None:
        rows = self.order.indices((0, 0), number)
        leaves = {name: tensor.clone().requires_grad_() for name, tensor in self.theta.items()}
        hidden = F.linear(self.inputs[rows], leaves["fc1.weight"], leaves["fc1.bias"]).relu()
        outputs = F.linear(hidden, leaves["output.weight"], leaves["output.bias"])
        slopes = torch.autograd.grad(F.cross_entropy(outputs, self.targets[rows]), list(leaves.values()))
        for (name, theta), slope in zip(self.theta.items(), slopes, strict=True):
            kept = self.masks.get(name, torch.ones_like(theta))
            self.velocity[name] = MOMENTUM * self.velocity[name] + kept * slope + DECAY * theta
            self.theta[name] = theta - rate * self.velocity[name]

    def prune(self) -> None:
        """Take 40% of what each layer has left, 20% in the last, by |θ|."""
        for name, part in (("fc1.weight", 0.4), ("output.weight", 0.2)):
            mask, sizes = self.masks[name], self.theta[name].abs()
            lowest = sizes[mask].sort().values[int(part * int(mask.sum()) + 1e-9) - 1]
            self.masks[name] = mask & (sizes > lowest)

    def hold(self) -> None:
        for name, mask in self.masks.items():
            self.theta[name], self.velocity[name] = self.theta[name] * mask, self.velocity[name] * mask


@pytest.mark.parametrize(
    ("pruner", "weights", "momentum", "rate"),
    [
        ("finetune", "trained", "kept", "last"),
        ("lr_rewind", "trained", "zero", "rewound"),
        ("imp_late", "rewound", "zero", "rewound"),
        ("imp_late pruner.momentum=saved lr_schedule.milestones=[3it]", "rewound", "saved", "rewound"),
        ("imp_late pruner.lr=last", "rewound", "zero", "last"),
    ],
)
def test_retraining_is_what_its_name_says(
    tmp_path: Path,
    pruner: str,
    weights: Literal["trained", "rewound"],
    momentum: Literal["zero", "kept", "saved"],
    rate: Literal["last", "rewound"],
) -> None:
    """Masks, weights at every beginning and end, and the learning rate that is logged, over two prunings."""
    cfg = composed(*SETTINGS, *f"pruner={pruner}".split())
    built = build.experiment(cfg, tmp_path, hardware_number=0)
    fit.run(built, lambda steps: RunProgress(total_steps=steps, console=Console(quiet=True)))
    tickets = [load(built.ticket_path(0, turn)) for turn in range(3)]
    milestones = [int(one.removesuffix("it")) for one in cfg.lr_schedule.milestones]
    loop, rates = Loop(built, tickets[0].state), []
    at_k = loop.state()
    for turn in range(3):
        if turn:
            loop.prune()
            loop.theta = dict(at_k[0]) if weights == "rewound" else loop.theta
            if momentum != "kept":
                loop.velocity = {name: slot * (momentum == "saved") for name, slot in at_k[1].items()}
        begun = {name: tensor * tickets[turn].masks.get(name, 1) for name, tensor in tickets[turn].state.items()}
        loop.hold()
        assert_near(begun, loop.theta)
        for step in range(K if turn else 0, LENGTH):
            if (turn, step) == (0, K):
                at_k = loop.state()
            place = LENGTH - 1 if turn and rate == "last" else step
            rates.append(RATE * 0.3 ** sum(place >= milestone for milestone in milestones))
            loop.step(step, rates[-1])
        assert all(torch.equal(tickets[turn].masks[name], mask) for name, mask in loop.masks.items())
        assert_near(load(built.end_path(0, "ticket", 0, turn)).state, loop.theta)
    logged = [float(row["lr"]) for row in read_table(tmp_path / "metrics.csv")]
    ends = [5, 10, 12, 14, 19, 21, 23, 28, 30]  # steps in all, at every evaluation
    assert logged == pytest.approx([rates[end - 1] for end in ends])


def assert_near(found: State, expected: State) -> None:
    for name, tensor in found.items():
        assert torch.allclose(tensor, expected[name], rtol=1e-9, atol=1e-12), name

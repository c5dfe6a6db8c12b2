"""What a GPU must not change: run where there is one, skipped elsewhere."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from test_cycle import rows, tickets
from test_hardware import RESNET

from ltl.errors import Stopped
from ltl.tickets import load

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
Launch = Callable[..., Path]

# Learning rates that float32 holds exactly: a recorded step reads its rate from a float32 on the device.
LENET = ("length=60it", "eval_every=20it", "trials=3", "control=[reinit]", "draws=2", "optimizer.lr=0.0009765625")
SMALL = (*RESNET, "length=24it", "eval_every=12it", "trials=2", "optimizer.lr=0.0625", "hardware.deterministic=true")
GRADUAL = ("pruner.rate=0.6", "pruner.schedule.prunings=4", "pruner.schedule.end=0.5")
KINDS = {
    "lenet": LENET,
    "lenet-in-pieces": (*LENET, "model.widths=[300,100]"),  # large enough for the optimiser to take it in pieces
    "lenet-sgd": (*LENET, "optimizer=sgd", "optimizer.lr=0.0625", "clip=1.0"),
    "signs": (*LENET, "model.activation=sign", "model.bias=false"),  # BatchNorm before each
    "heuristic": (*LENET, "pruner=zhou_heuristic"),  # the dense network alone is trained
    "reinit": (*LENET, "pruner=imp_reinit"),  # each round draws weights on the processor
    "frozen-fill": (*LENET, "pruner=zhou_freeze_init"),
    "edge-popup": (*LENET, "pruner=edge_popup", "pruner.rounds=2"),
    "binary-gradual": (*LENET, "pruner=multi_prize_gradual", "pruner.rounds=2", *GRADUAL),
    "one-threshold": (*LENET, "pruner=multi_prize_global", "pruner.rounds=2"),
    "probabilities": (*LENET, "pruner=zhou_supermask_rescaled", "pruner.rounds=2"),
    "resnet": SMALL,
    "resnet-edge-popup": (*SMALL, "pruner=edge_popup", "pruner.rounds=2"),
    "resnet-bf16": (*SMALL, "hardware.precision=bf16-mixed", "hardware.memory_format=channels_last"),
}


@pytest.fixture
def run(launch: Launch) -> Launch:
    """Run one of the kinds on a GPU, in a folder of its own."""

    def on_gpu(kind: str, *overrides: str, folder: str) -> Path:
        return launch("hardware=gpu", *KINDS[kind], *overrides, folder=folder, tiny=KINDS[kind][0] == LENET[0])

    return on_gpu


@pytest.mark.parametrize("kind", KINDS)
def test_a_recorded_step_is_the_step(run: Launch, kind: str) -> None:
    """The same bits with and without CUDA graphs, over rounds, rewinding and controls."""
    played, plain = (run(kind, f"hardware.graph={on}", folder=on) for on in ("true", "false"))
    assert rows(played) == rows(plain)
    assert tickets(played) == tickets(plain)


@pytest.mark.parametrize("kind", ["lenet", "lenet-sgd", "signs", "resnet"])
def test_side_by_side_trains_what_one_alone_does(run: Launch, kind: str) -> None:
    """In float64 the same masks, and losses within 1e-9."""
    together, in_turn = (
        run(kind, "hardware.precision=64-true", f"hardware.stack={way}", folder=way) for way in ("together", "in_turn")
    )
    for path in sorted(in_turn.glob("tickets/*/*")):
        one, other = load(path), load(together / path.relative_to(in_turn))
        for name, mask in one.masks.items():
            assert torch.equal(mask, other.masks[name]), (path.name, name)
    losses = [
        {
            tuple(row[name] for name in ("trial", "arm", "draw", "round")): float(row["test_loss"])
            for row in rows(folder)
        }
        for folder in (together, in_turn)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-9)


@pytest.mark.parametrize("kind", ["lenet", "resnet-bf16"])
def test_a_run_cut_into_pieces_ends_as_a_whole_one(run: Launch, kind: str) -> None:
    whole = run(kind, folder="whole")
    with pytest.raises(Stopped):
        run(kind, "hardware.stop_after=0s", folder="pieces")
    pieces = run(kind, folder="pieces")
    assert rows(pieces) == rows(whole)
    assert tickets(pieces) == tickets(whole)


def test_the_processor_and_the_gpu_start_from_the_same_numbers(launch: Launch) -> None:
    """θ₀ and random masks are drawn on the processor; what is trained agrees up to rounding."""
    fixed = (*RESNET, "pruner=random")
    here, there = (launch(*fixed, f"hardware={name}", folder=name, tiny=False) for name in ("cpu", "gpu"))
    for left, right in zip(rows(here), rows(there), strict=True):
        assert (left["init_sha256"], left["mask_sha256"]) == (right["init_sha256"], right["mask_sha256"])
        assert float(left["test_loss"]) == pytest.approx(float(right["test_loss"]), rel=1e-2)

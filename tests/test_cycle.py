"""Laws of the prune-rewind cycle, on whole runs: exact rewinding, exact masks, and hashes that nothing else changes."""

import hashlib
import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from itertools import count, pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from conftest import TIME_COLUMNS, train_in
from torch import nn

from ltl import experiment, fit, resume
from ltl.callbacks import PruneRewind, record
from ltl.callbacks.checkpoint import CheckedCheckpointIO
from ltl.errors import Diverged, Stopped
from ltl.experiment import Experiment
from ltl.masks import Tensors, density, kept
from ltl.results import read_status, read_table
from ltl.tickets import Ticket, load
from ltl.training import module
from ltl.training.controls import Control
from ltl.training.module import MaskedTraining
from ltl.training.search import Search
from ltl.training.start import Start

Launch = Callable[..., Path]


def tickets(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.glob("tickets/*/*.safetensors"))
    }


def rows(folder: Path, *without: str) -> list[dict[str, str]]:
    table = read_table(folder / "rounds.csv")
    return [{name: value for name, value in row.items() if name not in (*TIME_COLUMNS, *without)} for row in table]


def hashes(folder: Path) -> list[tuple[str, ...]]:
    names = ("trial", "arm", "draw", "round", "test_accuracy", "test_loss", "train_loss", "init_sha256", "mask_sha256")
    return [tuple(row[name] for name in names) for row in read_table(folder / "rounds.csv")]


class Spy(pl.Callback):
    """Looks at weights and optimiser slots after every step (with chunk=1), and at the start of every round."""

    def __init__(self) -> None:
        self.steps = 0
        self.starts: list[dict[str, torch.Tensor]] = []

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        turn, step = pl_module.position  # type: ignore[misc]
        if step == pl_module.timeline.first[turn]:  # type: ignore[union-attr, index]
            self.starts.append({name: value.detach().clone() for name, value in pl_module.networks()[0].items()})  # type: ignore[operator]

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: object) -> None:
        assert isinstance(pl_module, MaskedTraining)
        cycle = next(one for one in trainer.callbacks if isinstance(one, PruneRewind))  # type: ignore[attr-defined]
        for number, (member, now) in enumerate(zip(cycle.members, pl_module.networks(), strict=True)):
            for name, mask in member.current.masks.items():
                assert bool((now[name][~mask] == 0).all())
                weight = pl_module.stack.stacked(name)
                for slot in trainer.optimizers[0].state[weight].values():
                    if isinstance(slot, torch.Tensor) and slot.shape == weight.shape:
                        mine = slot if pl_module.stack.plain else slot[number].mT
                        assert bool((mine[~mask] == 0).all())
        self.steps += 1


@pytest.fixture
def spy(monkeypatch: pytest.MonkeyPatch) -> Spy:
    """Add a Spy to every Trainer."""
    spy = Spy()
    make = pl.Trainer.__init__

    def patched(self: pl.Trainer, *args: object, callbacks: list[pl.Callback], **kwargs: object) -> None:
        cycles = [one for one in callbacks if isinstance(one, PruneRewind)]
        make(self, *args, callbacks=[*callbacks, spy] if cycles else callbacks, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(pl.Trainer, "__init__", patched)
    return spy


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize(
    "pruner",
    [
        "imp",
        "imp_oneshot",
        "imp_late",
        "imp_late pruner.momentum=saved",
        "lr_rewind",
        "finetune",
        "random",
        "magnitude_init",
        "rigl pruner.schedule.every=4",
    ],
)
def test_pruned_weights_and_their_slots_are_zero_after_every_step(
    launch: Launch, spy: Spy, pruner: str, optimizer: str
) -> None:
    """Momentum, Adam moments and weight decay must not move a pruned weight, whatever happens between rounds."""
    launch(
        f"pruner={pruner.split()[0]}",
        *pruner.split()[1:],
        f"optimizer={optimizer}",
        "optimizer.weight_decay=0.01",
        "clip=0.5",
        "recipe.rewind_to=3it",
        "hardware.chunk=1",
        "control=none",
    )
    assert spy.steps == (12 + 2 * 9 if pruner.startswith("imp_late") else 36)


@pytest.mark.parametrize(
    ("pruner", "more"),
    [
        ("imp", "hardware.sparse_below=0"),
        ("imp", "hardware.sparse_below=1"),  # all rounds but the dense one train by sparse products
        ("imp", "hardware.stack=together"),
        ("snip", "hardware.sparse_below=0"),
    ],
)
def test_every_rewind_is_exact(launch: Launch, spy: Spy, pruner: str, more: str) -> None:
    """Lightning's own ModelPruning aliases the saved copy and survives one rewind only; SNIP's code draws again."""
    trials = "trials=2" if "together" in more else "trials=1"
    folder = launch(f"pruner={pruner}", "control=none", "pruner.rounds=3", "optimizer=adamw", trials, more)
    theta_0 = load(folder / "tickets/trial-0/round-00.safetensors").state
    assert len(spy.starts) == 4
    for turn, start in enumerate(spy.starts):
        masks = load(folder / f"tickets/trial-0/round-{turn:02d}.safetensors").masks
        for name, value in start.items():
            expected = torch.where(masks[name], theta_0[name], 0) if name in masks else theta_0[name]
            assert torch.equal(value, expected), (turn, name)
    data = [value.data_ptr() for start in spy.starts for value in start.values()]
    assert len(set(data)) == len(data)


def test_late_rewinding_goes_back_to_the_weights_of_step_k_with_buffers(launch: Launch, spy: Spy) -> None:
    """θ_k is what round 0 had at step k, BatchNorm statistics included, in every later round."""
    common = ("model=resnet20", "model.width=2", "model.blocks=[1]", "eval_every=3it", "control=none")
    slim = [one for one in common if "widths" not in one]
    folder = launch(
        *slim, "pruner=imp_late", "pruner.rewind_to=3it", "length=7it", "pruner.rounds=2", "trials=1", "batch=20",
        "dataset.limit=200", "pruner.allocation.exclude=[output.weight]", tiny=False,
    )  # fmt: skip
    short = launch(
        *slim, "pruner=finetune", "length=3it", "pruner.rounds=1", "trials=1", "batch=20", "dataset.limit=200",
        "pruner.rate=0.001", "pruner.allocation.exclude=[output.weight]", folder="short", tiny=False,
    )  # fmt: skip
    at_3 = load(short / "tickets/trial-0/round-01.safetensors").state  # trained for exactly 3 steps
    for turn in (1, 2):
        ticket = load(folder / f"tickets/trial-0/round-{turn:02d}.safetensors")
        assert ticket.metadata["rewind_step"] == "3"
        assert all(torch.equal(value, at_3[name]) for name, value in ticket.state.items())
    assert int(at_3["stem.norm.num_batches_tracked"]) == 3
    table = read_table(folder / "rounds.csv")
    assert [row["steps"] for row in table] == ["7", "4", "4"]
    assert [row["total_steps"] for row in table] == ["7", "11", "15"]


def test_masks_shrink_by_exact_counts(launch: Launch) -> None:
    """20% of what is left goes each round, 10% in the output layer, always ⌊rate · n⌋."""
    folder = launch("pruner.rounds=4", "control=none")
    before = None
    for turn in range(5):
        masks = load(folder / f"tickets/trial-0/round-{turn:02d}.safetensors").masks
        if before is not None:
            for name, mask in masks.items():
                assert not (mask & ~before[name]).any()
                n = int(before[name].sum())
                assert int(mask.sum()) == n - int((0.1 if name == "output.weight" else 0.2) * n + 1e-9)
        assert read_table(folder / "rounds.csv")[turn]["weights_left"] == str(kept(masks))
        assert float(read_table(folder / "rounds.csv")[turn]["density"]) == density(masks)
        before = masks


def test_one_shot_masks_are_of_the_dense_network_s_weights(launch: Launch) -> None:
    """Every density's mask keeps the largest |θ_T| of round 0 alone, also after a resume; the reference sorts."""
    finetune = launch("pruner=finetune", "pruner.rounds=1", "control=none", folder="finetune")
    trained = load(finetune / "tickets/trial-0/round-01.safetensors").state
    launch("pruner=imp_oneshot", "pruner.rounds=1", "control=none")
    folder = launch("pruner=imp_oneshot", "pruner.rounds=3", "control=none")
    counts = {name: mask.numel() for name, mask in load(folder / "tickets/trial-0/round-00.safetensors").masks.items()}
    for turn in (1, 2, 3):
        for name, mask in load(folder / f"tickets/trial-0/round-{turn:02d}.safetensors").masks.items():
            counts[name] -= int((0.1 if name == "output.weight" else 0.2) * counts[name] + 1e-9)
            order = np.argsort(-np.abs(trained[name].numpy().ravel()), kind="stable")
            assert set(np.flatnonzero(mask.numpy().ravel())) == set(order[: counts[name]])


def test_one_shot_pruned_networks_start_from_the_dense_network_s_weights(launch: Launch) -> None:
    """Every round's weights are those that round 0 ended with, also after a resume (Renda et al. 2020)."""
    one_shot = ("pruner=lr_rewind", "pruner.schedule._target_=ltl.pruning.schedules.after_dense", "control=none")
    launch(*one_shot, "pruner.rounds=1")
    folder = launch(*one_shot, "pruner.rounds=2")
    first, second = (load(folder / f"tickets/trial-0/round-{turn:02d}.safetensors") for turn in (1, 2))
    assert kept(second.masks) < kept(first.masks)
    for name, weights in first.state.items():
        assert torch.equal(second.state[name], weights)


@pytest.mark.parametrize("pruner", ["imp", "imp_oneshot", "finetune"])
def test_pruned_quartiles_are_of_the_trained_weights_that_went(launch: Launch, pruner: str) -> None:
    """Those of round 1 against numpy; none in round 0 and in a branch, where nothing was pruned."""
    fixed = (f"pruner={pruner}", "pruner.rounds=1", "control=[reinit]")
    trained = load(launch("pruner=finetune", *fixed[1:], folder="f") / "tickets/trial-0/round-01.safetensors").state
    folder = launch(*fixed)
    branch = launch(*fixed, f"ticket={folder}@1", folder="branch")
    masks = load(folder / "tickets/trial-0/round-01.safetensors").masks
    layers = [*read_table(folder / "layers.csv"), *read_table(branch / "layers.csv")]
    empty = [row for row in layers if row["pruned_q50"] == ""]
    assert len(layers) - len(empty) == len(masks)
    for row in layers:
        if row["pruned_q50"]:
            assert (row["arm"], row["round"]) == ("ticket", "1")
            gone = np.abs(trained[row["layer"]].numpy())[~masks[row["layer"]].numpy()]
            for percent in (25, 50, 75):
                assert float(row[f"pruned_q{percent}"]) == np.quantile(gone, percent / 100, method="lower")


SCIENCE = ("pruner=imp_late", "pruner.rewind_to=4it", "control=[reinit,random_mask,random_ticket,small_dense]")


@pytest.fixture(scope="module")
def science(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_in(tmp_path_factory.mktemp("science") / "one", *SCIENCE)


@pytest.mark.parametrize(
    "other",
    [
        ("hardware.chunk=1",),
        ("hardware.chunk=7",),
        ("logger=none",),
        ("eval_every=2it",),
        ("eval_every=100it",),
        ("hardware.checkpoint_every=0",),
        ("hardware.eval_batch=7",),
        (),
    ],
)
def test_nothing_but_the_science_changes_a_hash(launch: Launch, science: Path, other: tuple[str, ...]) -> None:
    """Chunk length, logger, evaluations, checkpoints and a second run of the same command leave every hash as it is."""
    one, two = science, launch(*SCIENCE, *other, folder="two")
    names = ("trial", "arm", "draw", "round", "test_accuracy", "train_accuracy", "init_sha256", "mask_sha256")
    pick = [[tuple(row[name] for name in names) for row in rows(folder)] for folder in (one, two)]
    assert pick[0] == pick[1]
    states = [[load(path).state for path in sorted(folder.glob("tickets/*/*"))] for folder in (one, two)]
    for left, right in zip(*states, strict=True):
        assert all(torch.equal(left[name], right[name]) for name in left)
    if not other:
        assert tickets(one) == tickets(two)


def test_a_trial_alone_is_the_same_trial_of_many(launch: Launch) -> None:
    """seed=3 equals trial 3 of seed=0 trials=4, bit for bit in turn, in the search and its controls."""
    fixed = ("control=[reinit,random_mask]", "pruner=random", "draws=2", "hardware.stack=in_turn")
    alone, many = launch(*fixed, "seed=3", folder="alone"), launch(*fixed, "trials=4", folder="many")
    third = [row for row in rows(many, "trial") if row in rows(alone, "trial")]
    assert [row[1:] for row in hashes(alone)] == [row[1:] for row in hashes(many) if row[0] == "3"]
    assert len(third) == len(rows(alone))
    assert len({row[-2] for row in hashes(many) if row[1] == "ticket"}) == 4


def test_pinned_streams_make_siblings(launch: Launch) -> None:
    """Two trials with seeds.init pinned share θ₀ and nothing else."""
    folder = launch("trials=2", "seeds.init=0", "control=none")
    table = read_table(folder / "rounds.csv")
    assert len({row["init_sha256"] for row in table}) == 1
    assert table[0]["test_loss"] != table[3]["test_loss"]
    alone = rows(launch("control=none", folder="first"))[0]["test_loss"]
    assert float(table[0]["test_loss"]) == pytest.approx(float(alone), rel=1e-6)  # side by side, and alone


def test_initialisation_depends_on_no_pruner(launch: Launch) -> None:
    """Pruners of every kind have one θ₀ at one seed, in every round, to the bit: those that score, and supermasks.

    SNIP's own code draws its weights again after scoring, and a GraSP code its last layer before.
    """
    names = ("imp", "dense", "imp_oneshot", "finetune", "snip", "grasp", "synflow")
    short = ("control=none", "length=2it", "eval_every=2it", "hardware.checkpoint_every=1000")
    theta_0, seen = {}, set()
    for name in (*names, "edge_popup", "multi_prize", "zhou_supermask"):
        folder = launch(f"pruner={name}", *short, *(["pruner.rounds=0"] if name == "dense" else []), folder=name)
        seen |= {row["init_sha256"] for row in read_table(folder / "rounds.csv")}
        for path in sorted(folder.glob("tickets/*/*")):
            state = load(path).state
            theta_0 = theta_0 or state
            if "-00" in path.name or name not in ("finetune", "multi_prize"):  # which go on, or are kept as signs
                assert all(torch.equal(state[key], value) for key, value in theta_0.items())
    assert len(seen) == 1


def test_controls_keep_what_they_say(launch: Launch) -> None:
    """reinit has the ticket's mask, random_mask its layer counts, small_dense about its number of weights."""
    arms = "reinit,random_mask,random_ticket,small_dense,shuffled_inputs,shuffled_units,shuffled_weights"
    folder = launch(f"control=[{arms}]", "draws=2", "pruner.rate=0.5")
    table = {(row["arm"], row["draw"], row["round"]): row for row in read_table(folder / "rounds.csv")}
    assert len(table) == 3 + 7 * 2 * 2
    for turn in "12":
        ticket = table["ticket", "0", turn]
        for draw in "01":
            reinit, random_mask = table["reinit", draw, turn], table["random_mask", draw, turn]
            random_ticket, small = table["random_ticket", draw, turn], table["small_dense", draw, turn]
            assert reinit["mask_sha256"] == ticket["mask_sha256"]
            assert reinit["init_sha256"] != ticket["init_sha256"]
            assert random_mask["init_sha256"] == ticket["init_sha256"]
            assert random_mask["mask_sha256"] != ticket["mask_sha256"]
            assert random_mask["weights_left"] == random_ticket["weights_left"] == ticket["weights_left"]
            assert random_ticket["init_sha256"] != ticket["init_sha256"]
            assert 0.6 * int(ticket["weights_left"]) < int(small["weights_left"]) <= int(ticket["weights_left"])
            assert float(small["density"]) == 1
            inputs, units = table["shuffled_inputs", draw, turn], table["shuffled_units", draw, turn]
            assert inputs["weights_left"] == units["weights_left"] == ticket["weights_left"]
            assert inputs["init_sha256"] == units["init_sha256"] == ticket["init_sha256"]
            masks = {one["mask_sha256"] for one in (ticket, random_mask, random_ticket, inputs, units)}
            assert len(masks) == 5
            moved = table["shuffled_weights", draw, turn]
            assert moved["mask_sha256"] == ticket["mask_sha256"]
            assert moved["init_sha256"] not in {ticket["init_sha256"], reinit["init_sha256"]}
        for arm in arms.split(","):  # each draw is another one
            drawn = [(table[arm, draw, turn]["init_sha256"], table[arm, draw, turn]["mask_sha256"]) for draw in "01"]
            assert drawn[0] != drawn[1]


def test_early_stopping_looks_at_validation_alone(launch: Launch) -> None:
    """Found afterwards in the curve: the first lowest validation loss, not the best test accuracy, which other code
    prints; the test set is looked at there and at the end."""
    folder = launch("control=[reinit]", "pruner.rounds=1", "optimizer.lr=0.1", "length=60it", "eval_every=3it")
    curves, apart = read_table(folder / "metrics.csv"), 0
    for row in read_table(folder / "rounds.csv"):
        mine = [one for one in curves if row_key(one) == row_key(row)]
        losses = [float(one["val_loss"]) for one in mine]
        lowest = mine[losses.index(min(losses))]
        assert [int(one["step"]) for one in mine] == list(range(3, 61, 3))
        assert row["early_stop_step"] == lowest["step"]
        assert row["early_stop_test_accuracy"] == lowest["test_accuracy"]
        assert row["early_stop_censored"] == str(int(int(lowest["step"]) > 57))
        assert (row["test_accuracy"], row["val_loss"]) == (mine[-1]["test_accuracy"], mine[-1]["val_loss"])
        for number, one in enumerate(mine):
            falls = losses[number] < min(losses[:number], default=math.inf)
            assert bool(one["test_accuracy"]) == (falls or number == len(mine) - 1)
        best = max(float(one["test_accuracy"]) for one in mine if one["test_accuracy"])
        assert float(row["best_test_accuracy"]) == best
        apart += lowest is not mine[-1] and float(lowest["test_accuracy"]) < best
    assert apart > 0


def test_of_equal_losses_the_first_stops_and_the_last_twentieth_is_censored() -> None:
    """As those of a dead network are."""
    curve = [
        {"step": step, "val_loss": loss, "test_accuracy": step / 100} for step, loss in ((90, 2), (95, 1), (96, 1))
    ]
    names = ("early_stop_step", "early_stop_censored", "early_stop_test_accuracy")
    assert record._early_stop(curve, 100) == dict(zip(names, (95, 0, 0.95), strict=True))
    assert record._early_stop(curve[2:], 100) == dict(zip(names, (96, 1, 0.96), strict=True))


@pytest.mark.parametrize("pruner", ["gradual", "multi_prize_gradual", "rigl"])
def test_early_stopping_looks_at_the_density_of_the_row_alone(launch: Launch, pruner: str) -> None:
    """While a mask shrinks, a lower validation loss is that of a denser network; replaced weights are as many."""
    rounds = ("pruner.rounds=2", "pruner.rate=0.9", "pruner.allocation.allow_empty=true", "eval_every=3it")
    end = "pruner.schedule.every=6" if pruner == "rigl" else "pruner.schedule.end=0.9"
    folder = launch(f"pruner={pruner}", "control=none", *rounds, "optimizer.lr=0.1", "length=60it", end)
    curves, apart = read_table(folder / "metrics.csv"), 0
    for row in read_table(folder / "rounds.csv"):
        since = 0 if row["round"] == "0" or pruner == "rigl" else 54
        every = [one for one in curves if row_key(one) == row_key(row)]
        mine = [one for one in every if int(one["step"]) >= since]
        lowest, whole = (min(some, key=lambda one: float(one["val_loss"])) for some in (mine, every))
        assert row["early_stop_step"] == lowest["step"]
        assert row["early_stop_test_accuracy"] == lowest["test_accuracy"]
        best = max(float(one["test_accuracy"]) for one in mine if one["test_accuracy"])
        assert float(row["best_test_accuracy"]) == best
        apart += lowest is not whole
    assert (apart > 0) == (pruner != "rigl")


@pytest.mark.parametrize("fixed", [("hardware.stack=in_turn",), ("hardware.stack=together", "trials=2")])
def test_a_branch_of_the_same_settings_repeats_the_search(launch: Launch, fixed: tuple[str, ...]) -> None:
    """ticket=<folder>@2 with nothing else changed trains round 2 again, bit for bit; other settings change it.

    (A search of one network is not stacked and a branch may be: side by side, sums are taken in another order.)
    """
    search = launch("control=none", *fixed)
    again = launch(f"ticket={search}@2", "control=none", *fixed, folder="again")
    assert rows(again) == [row for row in rows(search) if row["round"] == "2"]
    assert tickets(again) == {}
    other = launch(f"ticket={search}@2", "seeds.order=9", "control=[random_mask]", *fixed, folder="other")
    assert [row["arm"] for row in rows(other)[:2]] == ["ticket", "random_mask"]
    assert rows(other)[0]["mask_sha256"] == rows(again)[0]["mask_sha256"]
    assert rows(other)[0]["test_loss"] != rows(again)[0]["test_loss"]


def test_extending_equals_having_asked_at_once(launch: Launch) -> None:
    """A finished run with more rounds ends with the rows and tickets of one that asked for them at the start."""
    fixed = ("pruner=imp_late", "pruner.rewind_to=4it", "pruner.momentum=saved", "control=[reinit,small_dense]")
    launch(*fixed, "pruner.rounds=1", folder="extended")
    extended = launch(*fixed, "pruner.rounds=3", folder="extended")
    at_once = launch(*fixed, "pruner.rounds=3", folder="at_once")
    assert rows(extended) == rows(at_once)
    assert tickets(extended) == tickets(at_once)
    for name in ("layers.csv", "metrics.csv"):
        pair = [sorted(map(str, read_table(folder / name))) for folder in (extended, at_once)]
        assert pair[0] == pair[1]
    assert read_status(extended)["state"] == "done"


@pytest.mark.parametrize("way", ["in_turn", "together"])
def test_a_trial_that_diverges_leaves_the_others_as_they_are(
    launch: Launch, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """Its rows end, the others are bit for bit those of a run in which nothing diverged, and the error names it."""
    fixed = ("trials=3", "control=[reinit]", f"hardware.stack={way}", "hardware.sparse_below=0")
    sound = launch(*fixed, folder="sound")
    make = fit._network

    def spoilt(experiment: Experiment, model: Callable[..., nn.Module], trial: int) -> nn.Module:
        network = make(experiment, model, trial)  # type: ignore[arg-type]
        if trial == 1:
            with torch.no_grad():
                network.get_parameter("fc1.weight").fill_(1e38)
        return network

    monkeypatch.setattr(fit, "_network", spoilt)
    with pytest.raises(Diverged, match=r"training loss is (nan|inf).*trial 1"):
        launch(*fixed)
    folder = sound.with_name("run")
    assert rows(folder) == [row for row in rows(sound) if row["trial"] != "1"]
    assert tickets(folder) == {name: sha for name, sha in tickets(sound).items() if "trial-1" not in name}
    status = read_status(folder)
    assert status["state"] == "failed"
    assert "trial 1" in status["reason"]
    with pytest.raises(Diverged, match=r"trial 1"):  # a resume finds it again, and changes nothing
        launch(*fixed)
    assert rows(folder) == [row for row in rows(sound) if row["trial"] != "1"]


@pytest.mark.parametrize("way", [("stack=in_turn",), ("stack=together", "stack_size=1")])
def test_a_control_that_diverges_takes_no_other_with_it(
    launch: Launch, monkeypatch: pytest.MonkeyPatch, way: tuple[str, ...]
) -> None:
    """Whichever control trains beside it or after it: one row is missing."""
    fixed = (
        "trials=2",
        "control=[reinit]",
        "control.reinit.draws=2",
        "hardware.sparse_below=0",
        *(f"hardware.{one}" for one in way),
    )
    sound = launch(*fixed, folder="sound")
    make = experiment.control_start

    def spoilt(ticket: Ticket, control: Control, *, turn: int, draw: int, **others: Any) -> Start:
        start = make(ticket, control, turn=turn, draw=draw, **others)
        if (ticket.metadata["trial"], turn, draw) == ("0", 1, 1):
            start.theta["fc1.weight"].fill_(1e38)
        return start

    monkeypatch.setattr(experiment, "control_start", spoilt)
    with pytest.raises(Diverged, match=r"round 1 \(reinit, trial 0\)"):
        launch(*fixed)
    missing = [row for row in rows(sound) if row not in rows(sound.with_name("run"))]
    assert [(row["trial"], row["arm"], row["draw"], row["round"]) for row in missing] == [("0", "reinit", "1", "1")]


@pytest.mark.parametrize("way", ["in_turn", "together"])
def test_a_search_that_diverges_keeps_the_controls_of_its_finished_rounds(
    launch: Launch, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """Only what needs a ticket that there is not is missing, of that trial alone."""
    fixed = ("trials=2", "control=[reinit]", f"hardware.stack={way}", "hardware.sparse_below=0")
    sound = launch(*fixed, folder="sound")
    go_on = Search.next_round

    def spoilt(search: Search, trained: Tensors, **lengths: int) -> None:
        go_on(search, trained, **lengths)
        if search.seed == 1 and search.current.round == 2:
            search.start = replace(
                search.current, theta={**search.current.theta, "fc1.weight": trained["fc1.weight"] + 1e38}
            )

    monkeypatch.setattr(Search, "next_round", spoilt)
    with pytest.raises(Diverged, match=r"round 2 \(ticket, trial 1\)"):
        launch(*fixed)
    assert rows(sound.with_name("run")) == [row for row in rows(sound) if (row["trial"], row["round"]) < ("1", "2")]


@pytest.mark.parametrize("way", ["in_turn", "together"])
def test_a_run_cut_into_pieces_ends_as_a_whole_one(launch: Launch, way: str) -> None:
    """hardware.stop_after ends a run at an evaluation, as interrupted; resumes end with the same rows and tickets."""
    fixed = ("trials=2", "control=[random_mask]", f"hardware.stack={way}", "pruner.rate=0.5", "eval_every=6it")
    whole, pieces = launch(*fixed, folder="whole"), 0
    while True:
        try:
            folder = launch(*fixed, "hardware.stop_after=0s")
            break
        except Stopped:
            pieces += 1
            status = read_status(whole.with_name("run"))
            assert (status["state"], status["reason"]) == ("interrupted", "hardware.stop_after=0s")
    assert pieces == (2 * 3 + 2 if way == "together" else 2 * (2 * 3 + 2 * 2))
    assert rows(folder) == rows(whole)
    assert tickets(folder) == tickets(whole)


@pytest.mark.parametrize("trials", [1, 3])
def test_a_checkpoint_holds_weights_and_moments_once(launch: Launch, tmp_path: Path, trials: int) -> None:
    """Of each network its parameters, Adam's two moments and the masks in bits: θ₀ is drawn again from its seed."""
    widths, kib = (64, 300, 100, 10), 1024
    for _ in range(4):  # evaluations: the last is the first of round 1
        with suppress(Stopped):
            launch(f"trials={trials}", "model.widths=[300,100]", "hardware.stop_after=0s", folder="cut")
    [checkpoint] = tmp_path.glob("cut/checkpoints/*.ckpt")
    weights = sum(one * two for one, two in pairwise(widths))
    parameters = weights + sum(widths[1:])
    assert checkpoint.stat().st_size < trials * (3 * 4 * parameters + weights / 8 + 16 * kib) + 32 * kib


def test_the_time_of_a_stack_is_shared_by_its_networks(launch: Launch, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the seconds of all rows add up to what was spent; with a clock that ticks at every look."""
    clock = count()
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: float(next(clock))))
    for trials, way in ((1, "together"), (2, "together"), (4, "together"), (2, "in_turn")):
        folder = launch(f"trials={trials}", f"hardware.stack={way}", "control=none", folder=f"{trials}-{way}")
        seconds = [float(row["seconds"]) for row in read_table(folder / "rounds.csv")]
        spans = 3 * (trials if way == "in_turn" else 1)  # between two evaluations
        assert seconds == [pytest.approx(spans / trials)] * 3 * trials


@pytest.mark.parametrize("way", ["in_turn", "together"])
def test_controls_can_be_added(launch: Launch, way: str) -> None:
    """More arms, rounds and draws of a finished run equal having asked for all at once; what is there is kept."""
    late = ("pruner=imp_late", "pruner.rewind_to=4it")
    fixed = ("trials=2", f"hardware.stack={way}", "hardware.precision=64-true", *late)
    asked = ("control=[reinit,random_mask]", "draws=2")
    whole = launch(*fixed, *asked, folder="whole")
    launch(*fixed, "control=[reinit]", "control.reinit.rounds=[2]")
    first = {row_key(row): row for row in read_table(whole.with_name("run") / "rounds.csv")}
    folder = launch(*fixed, *asked)
    assert {key: row for key, row in first.items() if row in read_table(folder / "rounds.csv")} == first
    if way == "in_turn":
        assert rows(folder) == rows(whole)
        return
    assert [row_key(row) for row in rows(folder)] == [row_key(row) for row in rows(whole)]
    for mine, theirs in zip(read_table(folder / "rounds.csv"), read_table(whole / "rounds.csv"), strict=True):
        assert float(mine["train_loss"]) == pytest.approx(float(theirs["train_loss"]), rel=1e-9)


def row_key(row: dict[str, str]) -> tuple[str, ...]:
    return tuple(row[name] for name in ("trial", "arm", "draw", "round"))


@pytest.mark.parametrize("way", ["in_turn", "together"])
def test_sparse_products_know_no_chunks_and_no_resumes(launch: Launch, way: str) -> None:
    """Chunk length and an extension change no bit of a run whose later rounds train by sparse products."""
    fixed = (f"hardware.stack={way}", "trials=2", "pruner.rate=0.6", "hardware.sparse_below=0.5", "control=[reinit]")
    one = launch(*fixed, "hardware.chunk=1", folder="one")
    launch(*fixed, "hardware.chunk=5", "pruner.rounds=1", folder="two")
    two = launch(*fixed, "hardware.chunk=5", folder="two")
    assert rows(one, "hardware") == rows(two, "hardware")
    assert tickets(one) == tickets(two)
    dense = launch(*fixed, "hardware.sparse_below=0", folder="dense")
    assert rows(dense)[0] == rows(one)[0]  # of the round before


def test_a_loss_that_is_no_number_fails_in_one_line_and_keeps_finished_rounds(launch: Launch, tmp_path: Path) -> None:
    """The error names optimizer.lr; status.json says why."""
    with pytest.raises(ValueError, match=r"training loss is (nan|inf).*lower optimizer.lr"):
        launch("optimizer=sgd", "optimizer.lr=1e30", "control=none")
    status = read_status(tmp_path / "run")
    assert status["state"] == "failed"
    assert "optimizer.lr" in status["reason"]


def test_rows_of_changed_hardware_are_marked(launch: Launch) -> None:
    """A resume may change the hardware; the rows trained on the other say so, and status.json says what it was."""
    launch("control=none", "pruner.rounds=1")
    folder = launch("control=none", "pruner.rounds=2", "hardware.threads=2")
    torch.set_num_threads(1)
    assert [row["hardware"] for row in read_table(folder / "rounds.csv")] == ["0", "0", "1"]
    used = read_status(folder)["hardware"]
    assert [one["threads"] for one in used] == [1, 2]


def test_a_run_from_before_stacks_of_several_runs_is_extended(launch: Launch) -> None:
    """Its checkpoint holds the rows of all trials in one list; it ends with the rows of a run made at once."""
    fixed = ("trials=2", "control=none", "hardware.stack=together")
    whole, folder = launch(*fixed, folder="whole"), launch(*fixed, "pruner.rounds=1")
    path, files = folder / "checkpoints/trial-0-to-1-ticket.ckpt", CheckedCheckpointIO(settings={})
    state = files.load_checkpoint(path)
    for name in ("rows", "layer_rows"):
        state["callbacks"]["Record"][name] = [row for one in state["callbacks"]["Record"][name] for row in one]
    files.save_checkpoint(state, path)
    launch(*fixed)
    assert rows(folder) == rows(whole)


def test_controls_grow_but_do_not_turn_into_others() -> None:
    """More draws or rounds of a control hold what there was; a switch turned on is no "more"."""
    assert resume._holds(3, 2) and resume._holds("all", [1, 2]) and resume._holds([1, 2, 3], [1, 2])
    assert not (resume._holds(1, 2) or resume._holds([1], [1, 2]) or resume._holds(True, False))

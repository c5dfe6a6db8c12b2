"""Supermasks found in whole runs: tickets, rows, exactness, stacks and resuming."""

import io
import re
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pytest
import test_cycle
import torch
from conftest import CONF, TINY, composed, train_in
from omegaconf import OmegaConf
from rich.console import Console
from safetensors.torch import load_file, save_file
from test_stack import FAMILIES, assert_alike, trained
from test_ticket_cli import alone
from test_ticket_cli import row as line

import ltl.report
from ltl import build, rebuild
from ltl.callbacks import progress
from ltl.callbacks.supermask import TrainScores
from ltl.comparison import compare
from ltl.datasets.dataset import Dataset
from ltl.errors import LtlError
from ltl.launch import train
from ltl.masks import distance, mask_sha256, tensors_sha256
from ltl.results import read_table
from ltl.rng import generator
from ltl.ticket import main
from ltl.tickets import Ticket, bits_of, effective, load, save
from ltl.training.evaluation import evaluate
from ltl.training.module import MaskedTraining

assert trained  # a fixture
FILES = {path.stem: OmegaConf.load(path) for path in sorted((CONF / "pruner").glob("*.yaml"))}


def scored(name: str) -> bool:
    """Whether a pruner has scores, its own or those of a file that it begins with."""
    return "scores" in FILES[name].get("pruner", {}) or any(
        scored(parent) for parent in FILES[name].get("defaults", []) if parent in FILES
    )


PRUNERS = [name for name in FILES if scored(name)]
BINARY = ("multi_prize", "trained_ternary")  # what tickets in bits are called, or begin with
Launch = Callable[..., Path]
Look = Callable[[Callable[[Any], None]], None]


def is_judged_as(row: dict[str, str], found: tuple[float, float], pruner: str) -> None:
    """Loss and accuracy of a row are those `found`, up to the order of additions: it decides signs of sums near 0."""
    loss, accuracy = (0.05, 0.05) if pruner == "multi_prize_binary_activations" else (1e-5, 0.0)
    if pruner == "trained_ternary":
        accuracy = 0.01  # one magnitude in every layer: outputs tie
    assert found[0] == pytest.approx(float(row["test_loss"]), rel=loss)
    assert found[1] == pytest.approx(float(row["test_accuracy"]), abs=accuracy)


def tickets(folder: Path) -> dict[str, Ticket]:
    """By trial and round."""
    paths = sorted(folder.glob("tickets/*/*.safetensors"))
    return {f"{path.parent.name}/{path.stem}": load(path) for path in paths}


def rows(folder: Path) -> dict[tuple[str, ...], dict[str, str]]:
    return {
        tuple(row[name] for name in ("trial", "arm", "draw", "round")): row for row in read_table(folder / "rounds.csv")
    }


def theta_0(folder: Path, trial: int) -> dict[str, torch.Tensor]:
    """The initialisation of a trial, drawn again."""
    built = build.experiment(OmegaConf.load(folder / ".hydra" / "config.yaml"), folder, hardware_number=0)  # type: ignore[arg-type]
    network = built.network(built.model, generator("init", built.seeds.of("init", trial)))
    return dict(network.state_dict())


def digits(folder: Path) -> Dataset:
    return build.experiment(OmegaConf.load(folder / ".hydra" / "config.yaml"), folder, hardware_number=0).dataset  # type: ignore[arg-type]


@pytest.fixture(scope="module", params=PRUNERS)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """Two rounds of two trials, with a control of the last."""
    where = tmp_path_factory.mktemp(request.param)
    train_in(
        where, f"pruner={request.param}", "trials=2", "length=40it", "eval_every=20it", "control.reinit.rounds=[2]"
    )
    return request.param, where


def test_rows_are_of_the_mask_that_is_kept(run: tuple[str, Path]) -> None:
    """Test accuracy and loss of the ticket's network, evaluated without ltl's training; the columns as in any run."""
    name, folder = run
    table, dataset = rows(folder), digits(folder)
    assert {key[1:] for key in table} == {
        *(("ticket", "0", str(turn)) for turn in range(3)),
        ("reinit", "0", "2"),
    }
    for trial in range(2):
        for turn in (1, 2):
            row, ticket = table[str(trial), "ticket", "0", str(turn)], tickets(folder)[f"trial-{trial}/round-0{turn}"]
            network = rebuild.network(ticket, dataset)
            found = evaluate(lambda x, of=network: of(x).unsqueeze(0), dataset, dataset.test, 500, form="rows")  # type: ignore[misc]
            is_judged_as(row, found[0], name)
            assert row["mask_sha256"] == mask_sha256(ticket.masks)
            assert (row["steps"], row["total_steps"]) == ("40", "40")
            assert ticket.metadata["search_steps"] == "40"
            assert ticket.metadata["test_accuracy"] == row["test_accuracy"]  # not that of masks that are drawn
        control = table[str(trial), "reinit", "0", "2"]
        assert control["weights_left"] == row["weights_left"]
        assert control["total_steps"] == "80"


def test_weights_are_not_touched(run: tuple[str, Path]) -> None:
    """To the last bit those of θ₀, or what the method makes of θ₀ before scores are trained; biases stay 0."""
    name, folder = run
    for trial in range(2):
        initial = theta_0(folder, trial)
        for turn in (1, 2):
            ticket = tickets(folder)[f"trial-{trial}/round-0{turn}"]
            assert ticket.metadata["init_sha256"] == tensors_sha256(initial)
            for key, value in ticket.state.items():
                expected = initial[key]
                if key.split(".")[-1] in ("running_mean", "running_var", "num_batches_tracked"):
                    continue  # what was seen, not what was drawn
                if key in ticket.masks and "constant" in name:
                    expected = torch.sign(expected) * expected.std(correction=0)
                elif key in ticket.masks and name == "edge_popup_scaled":
                    expected = expected * (expected.numel() / int(ticket.masks[key].sum())) ** 0.5
                elif key in ticket.masks and name == "trained_ternary":
                    expected = value.sign()  # weights that were trained: of each a sign is left
                elif key in ticket.masks and name.startswith("multi_prize"):
                    gain = ticket.gains[key.removesuffix(".weight")]  # magnitudes are in it alone
                    torch.testing.assert_close(gain, expected[ticket.masks[key]].abs().mean())
                    expected = torch.where(expected < 0, -1.0, 1.0)
                assert torch.equal(value, expected), key


def test_densities_are_those_of_the_schedule(run: tuple[str, Path]) -> None:
    """Exact counts in every layer, where the method keeps a number; else gains and probabilities say what was found."""
    name, folder = run
    rate = composed(f"pruner={name}").pruner.rate
    for key, ticket in tickets(folder).items():
        turn = int(key[-2:])
        if turn == 0:
            continue
        if name.startswith("zhou"):
            for layer, mask in ticket.masks.items():
                assert torch.equal(mask, ticket.probabilities[layer] > 0.5)
                gain = ticket.gains.get(layer.removesuffix(".weight"))
                assert (gain is not None) == ("rescaled" in name)
                assert gain is None or float(gain) == pytest.approx(mask.numel() / max(1, int(mask.sum())))
        else:
            whole = sum(mask.numel() for mask in ticket.masks.values())
            kept = {layer: int(mask.sum()) for layer, mask in ticket.masks.items()}
            assert sum(kept.values()) == round((1 - rate) ** turn * whole)
            for layer, mask in ticket.masks.items():
                apart = abs(kept[layer] - (1 - rate) ** turn * mask.numel()) <= 1
                assert apart or (name.endswith("global") and kept[layer] > 0)
            assert not ticket.probabilities


def test_drawn_masks_are_averaged_where_they_are_drawn(run: tuple[str, Path]) -> None:
    name, folder = run
    for key, row in rows(folder).items():
        drawn = row["sampled_test_accuracy"]
        assert bool(drawn) == (name.startswith("zhou") and key[1] == "ticket" and key[3] != "0")
        assert not drawn or 0 <= float(drawn) <= 1
        assert not drawn or 0 < float(row["sampled_test_accuracy_sd"]) < 0.5


@pytest.fixture
def look(monkeypatch: pytest.MonkeyPatch) -> Look:
    """Have a function see the scores that are trained, before each of their steps."""
    searches: list[TrainScores] = []
    make, step = TrainScores.__init__, MaskedTraining.masked_step

    def made(self: TrainScores, **given: Any) -> None:
        searches.append(self)
        make(self, **given)

    def looking(see: Callable[[Any], None]) -> None:
        def watched(self: MaskedTraining, *given: Any) -> torch.Tensor:
            if searches and (scores := searches[-1].scores):
                see(scores)
            return step(self, *given)

        monkeypatch.setattr(TrainScores, "__init__", made)
        monkeypatch.setattr(MaskedTraining, "masked_step", watched)

    return looking


def test_masks_are_drawn_anew_at_every_step_in_every_network(launch: Launch, look: Look) -> None:
    """In every layer, whatever the chunks: no draw of a step is that of another step, trial or round."""
    seen: list[torch.Tensor] = []  # by step: (networks, weights) of each layer

    def see(scores: Any) -> None:
        layers = [layer.draws for layer in scores._layers.values() if layer.draws is not None]
        seen.extend(draws.flatten(1).clone() for draws in layers)

    look(see)
    launch("pruner=zhou_supermask", "control=none", "trials=2", "length=24it", "hardware.chunk=7")
    assert len(seen) == 24 * 3
    assert all(len(draws) == 2 * 2 for draws in seen)
    assert len({one.numpy().tobytes() for draws in seen for one in draws}) == 24 * 3 * 4


@pytest.mark.parametrize("pruner", ["zhou_supermask", "zhou_supermask_rescaled"])
def test_what_is_averaged_is_of_masks_by_the_tickets_probabilities(launch: Launch, pruner: str) -> None:
    """Mean and deviation over ten are near those over forty that are drawn here, unlike those of the mask that is kept.

    Where all masks give one answer to every input, as after few steps at the published rate, nothing is tested.
    """
    fixed = ("pruner.scores.optimizer.lr=10", "length=300it", "pruner.rounds=1", "control=none", "trials=2")
    folder = launch(f"pruner={pruner}", *fixed)
    dataset, source = digits(folder), generator("mask", 3)
    for key, ticket in tickets(folder).items():
        if key.endswith("00"):
            continue
        row, accuracies = rows(folder)[key[6], "ticket", "0", "1"], []
        for _ in range(40):
            masks = {name: torch.rand(p.shape, generator=source) < p for name, p in ticket.probabilities.items()}
            sizes = {name.removesuffix(".weight"): mask.double().mean().float() for name, mask in masks.items()}
            gains = {layer: 1 / sizes[layer] for layer in ticket.gains}
            network = rebuild.network(replace(ticket, masks=masks, gains=gains), dataset)
            found = evaluate(lambda x, of=network: of(x).unsqueeze(0), dataset, dataset.test, 500, form="rows")  # type: ignore[misc]
            accuracies.append(found[0][1])
        apart = abs(float(row["sampled_test_accuracy"]) - mean(accuracies))
        assert stdev(accuracies) > 0.005
        assert apart < 4.5 * stdev(accuracies) * (1 / 10 + 1 / 40) ** 0.5
        assert 1 / 3 < float(row["sampled_test_accuracy_sd"]) / stdev(accuracies) < 3


def test_a_binary_ticket_is_kept_in_bits(
    run: tuple[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two bits a weight at most, the size shown and in the row, and the exported network is the row's."""
    name, folder = run
    path, table = folder / "tickets" / "trial-0" / "round-01.safetensors", rows(folder)
    ticket, dataset = load(path), digits(folder)
    assert main(["show", str(path)]) == 0
    shown = re.findall(r"binary: .*, (.*) bits in all", capsys.readouterr().out)
    sizes = {key: row["bits"] for key, row in table.items()}
    assert shown == [f"{float(size):,.0f}" for size in [sizes["0", "ticket", "0", "1"]] if size]
    assert {key for key, size in sizes.items() if size} == {
        key for key in table if name.startswith(BINARY) and key[1] == "ticket" and key[3] != "0"
    }
    assert main(["export", str(path), str(tmp_path / "plain.safetensors")]) == 0
    network = rebuild.network(ticket, dataset)
    rebuilt = {key: value.clone() for key, value in network.state_dict().items()}
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(torch.nan)
    network.load_state_dict(load_file(tmp_path / "plain.safetensors"))
    assert all(torch.equal(value, rebuilt[key]) for key, value in network.state_dict().items())
    found = evaluate(lambda inputs: network(inputs).unsqueeze(0), dataset, dataset.test, 500, form="rows")  # type: ignore[misc, operator]
    is_judged_as(table["0", "ticket", "0", "1"], found[0], name)
    if name.startswith(BINARY):
        weights = sum(mask.numel() for mask in ticket.masks.values())
        others = sum(4 * value.numel() for key, value in ticket.state.items() if key not in ticket.masks)
        assert path.stat().st_size < weights / 4 + others + 6000  # of header
        again = tmp_path / "again.safetensors"
        save(ticket, again)
        assert again.read_bytes() == path.read_bytes()


def test_trials_and_rounds_have_masks_of_their_own(run: tuple[str, Path]) -> None:
    _, folder = run
    found = [ticket for key, ticket in tickets(folder).items() if not key.endswith("00")]
    assert len({mask_sha256(ticket.masks) for ticket in found}) == 4
    assert compare(found[0].masks, found[1].masks, found[0].state, found[1].state)


@pytest.mark.parametrize("family", ["convolution", "batch_norm"])
def test_every_family_is_side_by_side_as_alone(trained: Callable[..., object], family: str) -> None:
    fixed = (
        *FAMILIES[family],
        "pruner=edge_popup",
        "length=20it",
        "eval_every=10it",
        "control=none",
        "pruner.rounds=1",
    )
    fixed += ("pruner.scores.batch_norm=trained",)
    runs = [trained(*fixed, f"hardware.stack={way}", folder=way) for way in ("in_turn", "together")]
    assert_alike(*runs)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("pruner", "model"),
    [
        ("edge_popup", ("model=resnet18", "model.width_factor=0.03125")),
        ("multi_prize", ("model=wide_resnet50", "model.width=2", "model.blocks=[1,1]")),
        ("multi_prize", ("model=vgg_small", "model.width_factor=0.03125")),
        ("multi_prize_binary_activations", ("model=vgg_small", "model.width_factor=0.03125")),
        ("multi_prize_binary_activations", ("model=resnet18", "model.width_factor=0.03125")),
        ("multi_prize_binary_activations", ("model=resnet20", "model.width=4")),
        ("multi_prize_binary_activations", ("model=vgg11", "model.blocks=[[2],[3,3]]")),
        ("multi_prize_binary_activations", ("model=wide_resnet50", "model.width=2", "model.blocks=[1,1]")),
        ("multi_prize_binary_activations", ("model=conv2", "model.blocks=[3]", "model.widths=[8]")),
    ],
)
def test_deep_networks_have_supermasks(launch: Launch, pruner: str, model: tuple[str, ...]) -> None:
    """With BatchNorm as it began; the row is that of the ticket's file, and every layer has its density."""
    fixed = (f"pruner={pruner}", "control=none", "length=6it", "eval_every=3it", "batch=20", "trials=1")
    fixed += ("dataset.limit=100", "pruner.rounds=1", "recipe.rewind_to=1it")
    folder = launch(*model, *fixed, tiny=False)
    ticket, row = tickets(folder)["trial-0/round-01"], rows(folder)["0", "ticket", "0", "1"]
    dataset, network = digits(folder), rebuild.network(ticket, digits(folder))
    found = evaluate(lambda inputs: network(inputs).unsqueeze(0), dataset, dataset.test, 500, form="rows")
    is_judged_as(row, found[0], pruner)
    for name, mask in ticket.masks.items():
        assert abs(int(mask.sum()) - 0.7 * mask.numel()) <= 2, name
    frozen = [value for key, value in ticket.state.items() if "norm" in key and key.endswith((".weight", ".bias"))]
    assert frozen
    assert all(value.unique().numel() == 1 for value in frozen)


@pytest.mark.parametrize("pruner", ["edge_popup", "zhou_supermask_rescaled", "multi_prize"])
def test_bfloat16_leaves_scores_and_weights_as_they_are(launch: Launch, pruner: str) -> None:
    """Products alone are rounded: θ is that of float32, scores train, and counts are exact."""
    folder = launch(f"pruner={pruner}", "control=none", "length=60it", "hardware.precision=bf16-mixed")
    initial, found = theta_0(folder, 0), tickets(folder)["trial-0/round-01"]
    for name in found.masks:
        assert found.state[name].dtype == torch.float32
        assert torch.equal(found.state[name], initial[name].sign() if pruner == "multi_prize" else initial[name])
    row = rows(folder)["0", "ticket", "0", "1"]
    assert float(row["train_loss"]) < 2.3
    assert pruner.startswith("zhou") or float(row["density"]) == pytest.approx(0.7, abs=1e-3)


def test_the_progress_line_tells_the_density_of_the_mask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not that of the network whose scores train, which has all its weights."""
    monkeypatch.setattr(progress, "_LINE_EVERY", 0.0)
    cfg = composed(*TINY, "pruner=edge_popup", "control=none", "pruner.rounds=1", "pruner.rate=0.25")
    (tmp_path / ".hydra").mkdir()
    printed = io.StringIO()
    train(cfg, tmp_path, Console(file=printed, width=500))
    lines = printed.getvalue().splitlines()
    assert {line.split(" · ")[3] for line in lines if "round 0" in line} == {"density 100.00%"}
    assert [line.split(" · ")[3] for line in lines if "round 1" in line] == ["density 75.00%"] * 3


ALONE = """
import runpy
from collections import OrderedDict
import numpy as np
from safetensors.torch import load_file
from torch import nn
test = load_file("test.safetensors")
for name in ("multi_prize", "multi_prize_binary_activations"):
    export = runpy.run_path(f"{name}.py")
    layers = [("flatten", nn.Flatten())]
    for number, sizes in enumerate([(64, 12), (12, 8)], 1):
        layers.append((f"fc{number}", nn.Linear(*sizes)))
        if "Sign" in export:
            layers.append((f"norm{number}", nn.BatchNorm1d(sizes[1])))
        layers.append((f"activation{number}", export.get("Sign", nn.ReLU)()))
    network = export["load_ticket"](nn.Sequential(OrderedDict([*layers, ("output", nn.Linear(8, 10))]))).eval()
    right = network(test["inputs"]).argmax(1) == test["targets"]
    print(np.float32(int(right.sum()) / len(right)))
"""


def test_a_binary_ticket_has_its_accuracy_without_ltl(launch: Launch, tmp_path: Path) -> None:
    """Exported, and evaluated on a plain network by a process that cannot import ltl; binary activations too."""
    accuracies = []
    for name in ("multi_prize", "multi_prize_binary_activations"):
        folder = launch(f"pruner={name}", "control=none", "length=60it", "pruner.rounds=1", folder=name)
        accuracies.append(rows(folder)["0", "ticket", "0", "1"]["test_accuracy"])
        assert main(["export", f"{folder}@1", str(tmp_path / f"{name}.safetensors")]) == 0
    test = digits(folder).test
    save_file({"inputs": test.inputs, "targets": test.targets}, tmp_path / "test.safetensors")
    assert alone(ALONE, tmp_path).split() == accuracies
    assert min(map(float, accuracies)) > 0.2  # than chance


def test_a_supermask_is_compared_with_a_trained_ticket(launch: Launch, capsys: pytest.CaptureFixture[str]) -> None:
    """By the command: overlap of their masks, signs of one θ₀, and the accuracy of the supermask's row."""
    fixed = ("control=none", "length=60it", "pruner.rounds=1")
    one, other = (launch(f"pruner={name}", *fixed, folder=name) for name in ("multi_prize", "imp"))
    assert main(["diff", f"{one}@1", f"{other}@1"]) == 0
    text = capsys.readouterr().out
    masks = [load(folder / "tickets" / "trial-0" / "round-01.safetensors").masks for folder in (one, other)]
    a, b = (torch.cat([mask.flatten() for mask in each.values()]) for each in masks)
    cells = line(text, "all")
    both, either = int((a & b).sum()), int((a | b).sum())
    assert cells[3:5] == [str(both), f"{both / either:.3g}"]
    assert cells[-1] == "1"
    assert f"accuracy of A {float(rows(one)['0', 'ticket', '0', '1']['test_accuracy']):.2%}, of B" in text


def test_trained_ternary_weights_take_as_many_bits_as_a_multi_prize_ticket(
    launch: Launch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same counts in every layer, so the same bits; signs are learned, beginning with those of θ₀."""
    sizes, masks = [], []
    for name in ("multi_prize", "trained_ternary"):
        fixed = (f"pruner={name}", "control=none", "trials=1", "length=60it", "pruner.rounds=1")
        path = launch(*fixed, folder=name) / "tickets" / "trial-0" / "round-01.safetensors"
        assert main(["show", str(path)]) == 0
        sizes.append(re.findall(r"binary: (.*)", capsys.readouterr().out))
        masks.append(load(path).masks)
    assert sizes[0] == sizes[1] != []
    initial, found = theta_0(path.parents[2], 0), load(path).state
    assert bits_of(load(path).masks, found) is not None
    moved = [float((found[key] != initial[key].sign()).double().mean()) for key in masks[1]]
    assert 0 < max(moved) < 0.5
    assert any(not torch.equal(masks[0][key], masks[1][key]) for key in masks[1])


def test_chunks_decide_nothing(launch: Launch) -> None:
    fixed = ["pruner=zhou_supermask", "control=none", "length=24it", "eval_every=13it", "trials=1"]
    one, other = (launch(*fixed, f"hardware.chunk={chunk}", folder=f"by-{chunk}") for chunk in (1, 7))
    for path in sorted(one.glob("tickets/*/*")):
        assert path.read_bytes() == (other / path.relative_to(one)).read_bytes()


def test_flips_are_those_between_the_masks_of_two_evaluations(launch: Launch) -> None:
    """Tickets of runs cut at each evaluation are the masks at that time; other rounds have none."""
    fixed = ["pruner=multi_prize_gradual", "control=none", "trials=1", "pruner.rounds=1", "eval_every=10it"]
    fixed += ["pruner.scores.lr_schedule._target_=ltl.training.lr_schedules.constant", "pruner.schedule.begin=0.0"]
    fixed += ["pruner.schedule.end=0.0", "pruner.schedule.prunings=1"]
    folders = [launch(*fixed, f"length={10 * count}it", folder=f"to-{count}") for count in (1, 2, 3)]
    found = [tickets(folder)["trial-0/round-01"].masks for folder in folders]
    table = read_table(folders[-1] / "metrics.csv")
    assert all(row["mask_flips"] == "" for row in table if row["round"] == "0")
    flips = [float(row["mask_flips"]) for row in table if row["round"] == "1"]
    assert flips[1:] == [distance(one, other) for one, other in pairwise(found)]
    assert 0 < flips[0] < 1


@pytest.mark.parametrize("pruner", ["zhou_supermask_rescaled", "multi_prize_gradual", "multi_prize_global"])
def test_a_step_that_is_played_back_is_the_step(launch: Launch, pruner: str) -> None:
    """Draws and counts are read where they lie; on a processor, playing a recorded step back is running it."""
    rates = ["optimizer.lr=0.0009765625", "pruner.scores.optimizer.lr=0.125"]  # that float32 holds exactly
    rates.append("pruner.scores.lr_schedule._target_=ltl.training.lr_schedules.constant")
    fixed = [f"pruner={pruner}", "control=none", "length=20it", "hardware.chunk=7", *rates]
    played, plain = (launch(*fixed, f"hardware.graph={on}", folder=on) for on in ("true", "false"))
    assert test_cycle.rows(played) == test_cycle.rows(plain)
    assert test_cycle.tickets(played) == test_cycle.tickets(plain)


@pytest.mark.parametrize("allocation", ["uniform", "global"])
def test_the_density_falls_by_the_cubic_while_scores_train(launch: Launch, look: Look, allocation: str) -> None:
    """From a half, as published, by Zhu & Gupta's eq. 1: the counts of every optimiser step, of two rounds at once."""
    seen: list[list[dict[str, int]]] = []
    look(
        lambda scores: seen.append(
            [{name: int(one.mask.sum()) for name, one in mine.items()} for mine in scores.found()]
        )
    )
    fixed = ["pruner=multi_prize_gradual", "pruner.rate=0.6", "pruner.schedule.prunings=4", "pruner.schedule.end=0.5"]
    folder = launch(*fixed, f"allocation={allocation}", "control=none", "length=40it", "hardware.chunk=7")
    sizes = {name: mask.numel() for name, mask in tickets(folder)["trial-0/round-01"].masks.items()}
    assert len(seen) == 40
    for number, counts in enumerate(seen):
        rest = 1 - min(4, number // 5) / 4  # four prunings up to half of 40 steps
        for final, mine in zip((0.4, 0.16), counts, strict=True):
            density = final + (0.5 - final) * rest**3
            assert sum(mine.values()) == round(density * sum(sizes.values()))
            near = [abs(mine[name] - density * size) <= 1 for name, size in sizes.items()]
            assert all(near) or allocation == "global"
    for turn in (1, 2):
        masks = tickets(folder)[f"trial-0/round-0{turn}"].masks
        assert sum(int(mask.sum()) for mask in masks.values()) == sum(seen[-1][turn - 1].values())


@pytest.mark.parametrize("kind", ["frozen", "trained"])
def test_scale_and_shift_of_batch_norm_are_trained_only_where_told(launch: Launch, kind: str) -> None:
    """Frozen they stay 1 and 0, as in the papers' non-affine BatchNorm; trained, all of them move with the scores."""
    model = ("model=conv2", "model.blocks=[3]", "model.widths=[8]", "model.batch_norm=true")
    fixed = ("pruner=edge_popup", f"pruner.scores.batch_norm={kind}", "control=none", "pruner.rounds=1", "trials=1")
    folder = launch(*model, *fixed, "length=8it", "batch=40", "dataset.limit=200", tiny=False)
    initial, found = theta_0(folder, 0), tickets(folder)["trial-0/round-01"].state
    parts = [(name, part) for name in ("norm1", "norm2", "fc_norm1") for part in ("weight", "bias")]
    for name, part in parts:
        now = found[f"{name}.{part}"]
        assert ((now != (part == "weight")) == (kind == "trained")).all(), name
    apart = {f"{name}.{part}" for name, part in parts}
    statistics = {key for key in found if key.split(".")[-1] in ("running_mean", "running_var", "num_batches_tracked")}
    assert all(torch.equal(found[key], initial[key]) for key in found.keys() - apart - statistics)
    assert all(int(found[f"{name}.num_batches_tracked"]) == 8 for name in ("norm1", "norm2", "fc_norm1"))


def test_weights_are_scaled_by_the_density_of_the_network(launch: Launch) -> None:
    """Where that of each layer is left to the scores."""
    folder = launch("pruner=edge_popup_scaled", "allocation=global", "control=none", "pruner.rounds=1")
    initial, ticket = theta_0(folder, 0), tickets(folder)["trial-0/round-01"]
    for name, mask in ticket.masks.items():
        scale = ticket.state[name] / initial[name]
        assert torch.allclose(scale, torch.tensor(0.7**-0.5), rtol=1 / (0.7 * mask.numel()), atol=0)
    assert any(abs(int(mask.sum()) - 0.7 * mask.numel()) > 2 for mask in ticket.masks.values())


@pytest.mark.parametrize("pruner", ["edge_popup_global", "multi_prize_global"])
def test_a_layer_is_emptied_only_where_that_is_allowed(launch: Launch, pruner: str) -> None:
    """Scores begin as U(±1/√fan_in): few weights over all layers are those of the layers of small fan-in.

    An empty layer cuts every path: one output for all inputs. Rows, layers and ticket are of the mask that is saved.
    """
    fixed = (f"pruner={pruner}", "pruner.rate=0.9", "pruner.rounds=1", "control=none", "length=2it")
    fixed += ("pruner.allocation.exclude=[output.weight]",)
    for allowed in (True, False):
        folder = launch(*fixed, f"pruner.allocation.allow_empty={allowed}", folder=f"allowed-{allowed}")
        masks, row = tickets(folder)["trial-0/round-01"].masks, rows(folder)["0", "ticket", "0", "1"]
        sizes = {name: int(mask.sum()) for name, mask in masks.items()}
        whole = sum(mask.numel() for mask in masks.values())
        assert sizes["output.weight"] == masks["output.weight"].numel()
        assert sum(sizes.values()) == int(row["weights_left"]) == round(0.1 * whole)
        kept = {one["layer"]: int(one["kept"]) for one in read_table(folder / "layers.csv") if one["round"] == "1"}
        assert kept == sizes
        assert (sizes["fc1.weight"] == 0) == allowed


HEURISTIC = [
    ("in_turn", "zhou_heuristic_init"),
    ("together", "zhou_heuristic"),
    ("together", "zhou_heuristic_magnitude"),
]


@pytest.mark.parametrize("arm", ["ticket", "untrained"])
@pytest.mark.parametrize(("way", "pruner"), HEURISTIC)
def test_a_ticket_may_be_evaluated_before_any_training(launch: Launch, way: str, pruner: str, arm: str) -> None:
    """Heuristic supermasks at θ₀, and at constants with the signs of a later rewind point; or `control=untrained`.

    Masks are of one dense training; the accuracy is that of the ticket's own file, after no step of training.
    """
    fixed = [f"pruner={pruner}", "length=40it", "trials=2", f"hardware.stack={way}"]
    fixed += ["pruner.rewind_to=7it"] if way == "together" else []
    fixed += ["control=untrained", "pruner.schedule._target_=ltl.pruning.schedules.after_dense"] * (arm == "untrained")
    folder = launch(*fixed)
    dataset, table = digits(folder), rows(folder)
    for trial in range(2):
        assert table[str(trial), "ticket", "0", "0"]["steps"] == "40"
        for turn in (1, 2):
            row, ticket = table[str(trial), arm, "0", str(turn)], tickets(folder)[f"trial-{trial}/round-0{turn}"]
            assert ticket.metadata["rewind_step"] == ("7" if way == "together" else "0")
            network = rebuild.network(ticket, dataset)
            found = evaluate(lambda x, of=network: of(x).unsqueeze(0), dataset, dataset.test, 500, form="rows")  # type: ignore[misc]
            assert float(row["test_accuracy"]) == found[0][1] == float(row["early_stop_test_accuracy"])
            assert (row["steps"], row["early_stop_step"], row["early_stop_censored"]) == ("0", "0", "0")
            assert row["total_steps"] == ticket.metadata["search_steps"] == "40"
            if pruner == "zhou_heuristic_init":
                assert all(torch.equal(ticket.state[name], value) for name, value in theta_0(folder, trial).items())
            elif pruner == "zhou_heuristic":
                assert all(len(ticket.state[name].abs().unique()) == 1 for name in ticket.masks)
    metrics = read_table(folder / "metrics.csv")
    assert all((row["train_loss"] == "") == (row["arm"] == arm and row["round"] != "0") for row in metrics)


def test_a_heuristic_supermask_may_be_trained(launch: Launch) -> None:
    """`control=trained` gives what tickets give where they are trained, up to reassociation in a stack."""
    fixed = ("length=40it", "eval_every=10it")
    trained = rows(launch("pruner=zhou_heuristic_magnitude", "control=trained", *fixed, folder="supermask"))
    tickets_of = rows(launch("pruner=imp_oneshot", "control=none", *fixed, folder="ticket"))
    for turn in ("1", "2"):
        ours, theirs = trained["0", "trained", "0", turn], tickets_of["0", "ticket", "0", turn]
        for name in ("mask_sha256", "steps", "total_steps", "early_stop_step"):
            assert ours[name] == theirs[name], name
        for name in ("train_loss", "test_loss"):
            assert float(ours[name]) == pytest.approx(float(theirs[name]), rel=1e-6), name


def test_a_supermask_may_be_trained(launch: Launch) -> None:
    """`control=trained` begins at the weights that the supermask has, gain and all."""
    folder = launch("pruner=multi_prize", "control=[trained,untrained]", "length=40it")
    table = rows(folder)
    for turn in ("1", "2"):
        ours, before = table["0", "ticket", "0", turn], table["0", "untrained", "0", turn]
        assert before["test_accuracy"] == ours["test_accuracy"]
        assert float(before["test_loss"]) == pytest.approx(float(ours["test_loss"]), rel=1e-5)
        assert table["0", "trained", "0", turn]["weights_left"] == ours["weights_left"]
        assert float(table["0", "trained", "0", turn]["train_loss"]) < float(before["train_loss"])


@pytest.mark.parametrize("pruner", ["multi_prize_binary_activations", "zhou_supermask_rescaled"])
def test_the_weights_at_the_end_are_those_that_the_mask_was_judged_with(launch: Launch, pruner: str) -> None:
    """They have the gain in them already, and have it once."""
    folder = launch(f"pruner={pruner}", "pruner.rounds=1", "pruner.rate=0.5", "ends=true", "control=none")
    found = load(folder / "tickets/trial-0/round-01.safetensors")
    end = load(folder / "ends/trial-0/ticket-0-round-01.safetensors")
    assert found.gains and not end.gains
    for name, value in effective(found).items():
        torch.testing.assert_close(effective(end)[name], value)


def test_a_run_whose_mask_is_empty_is_reported(launch: Launch) -> None:
    """Probabilities that begin below a half, trained for too short: p > ½ nowhere."""
    folder = launch("pruner=zhou_supermask", "pruner.rounds=2", "pruner.rate=0.9", "control=none")
    densities = [float(row["density"]) for row in rows(folder).values()]
    assert min(densities) == 0
    ltl.report.write([folder])
    assert (folder / "report.html").is_file()


def test_one_drawn_mask_has_no_deviation(launch: Launch) -> None:
    folder = launch("pruner=zhou_supermask", "pruner.scores.samples=1", "pruner.rounds=1", "control=none")
    (row,) = (row for key, row in rows(folder).items() if key[3] != "0")
    assert row["sampled_test_accuracy"] and not row["sampled_test_accuracy_sd"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["allocation=positive"], r"^pruner\.allocation is not possible with pruner\.scores"),
        (["pruner.rewind_to=3it"], r"^pruner\.rewind_to is not possible with pruner\.scores"),
        (
            ["pruner.schedule._target_=ltl.pruning.schedules.after_training", "~pruner.schedule.prunings"],
            r"^pruner\.schedule is not possible with pruner\.scores",
        ),
        (
            ["pruner.filler._target_=ltl.pruning.fillers.initial"],
            r"^pruner\.filler is not possible with pruner\.scores",
        ),
        (
            ["pruner.momentum=kept"],
            r"^pruner\.momentum is not possible with pruner\.scores, other than zero: .* got kept",
        ),
        (["pruner.lr=last"], r"^pruner\.lr is not possible with pruner\.scores, other than rewound"),
        (
            ["pruner.survivors._target_=ltl.pruning.survivors.trained"],
            r"^pruner\.survivors=trained is not possible with",
        ),
        (
            ["pruner.rate=0.9", "pruner.rounds=6"],
            r"^pruner\.rate: the 0 weights that are to stay are fewer than the layers",
        ),
        (
            ["pruner=edge_popup_scaled", "pruner.survivors.survivors._target_=ltl.pruning.survivors.trained"],
            r"^pruner\.survivors=trained is not possible with pruner\.scores",
        ),
        (["pruner.scores.length=0.001ep"], r"^pruner\.scores\.length=0\.001ep is 0 steps: scores are trained for 1 to"),
        (
            ["pruner.scores.estimator._target_=torch.nn.ReLU"],
            r"^pruner\.scores\.estimator\._target_=torch\.nn\.ReLU is no est",
        ),
    ],
)
def test_what_scores_cannot_follow_is_one_line(tmp_path: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(LtlError, match=message) as error:
        build.experiment(composed("pruner=edge_popup", *overrides), tmp_path, hardware_number=0)
    assert "\n" not in str(error.value)

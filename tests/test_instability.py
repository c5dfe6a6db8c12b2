"""Instability analysis: lines between trained networks, against the same thing written out."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from ltl import rebuild
from ltl.errors import LtlError
from ltl.instability import __main__ as command
from ltl.instability.figure import word
from ltl.instability.lines import ends_below, instability, line, pairs
from ltl.results import read_table
from ltl.tickets import effective, load, save

Launch = Callable[..., Path]


def test_the_line_is_that_of_the_two_networks(launch: Launch) -> None:
    """Two orders of one initialisation: error at each α by a forward pass written again; nothing else pairs."""
    folder = launch("trials=2", "seeds.init=0", "ends=true", "control=none", "pruner.rounds=1", "length=40it")
    ends = ends_below([folder], ["ticket"])
    assert len(ends) == 4
    [(a, b)] = pairs(ends)  # of round 0: the masks of round 1 differ
    assert [end.ticket.metadata["round"] for end in (a, b)] == ["0", "0"]
    dataset = rebuild.dataset_of(a.ticket)
    found = line(a, b, dataset, points=5, batch=64, recompute=False)
    assert found.alphas == [0, 0.25, 0.5, 0.75, 1]
    for split, errors in ((dataset.train, found.train), (dataset.test, found.test)):
        for alpha, error in zip(found.alphas, errors, strict=True):
            at = {name: (1 - alpha) * one + alpha * b.ticket.state[name] for name, one in a.ticket.state.items()}
            hidden = F.relu(F.linear(split.inputs.flatten(1), at["fc1.weight"], at["fc1.bias"]))
            hidden = F.relu(F.linear(hidden, at["fc2.weight"], at["fc2.bias"]))
            outputs = F.linear(hidden, at["output.weight"], at["output.bias"])
            assert error == pytest.approx(float((outputs.argmax(1) != split.targets).double().mean()), abs=2e-3)
    rows = [row for row in read_table(folder / "rounds.csv") if row["round"] == "0"]
    for end, error in ((a, found.test[0]), (b, found.test[-1])):
        trial = end.path.parent.name.removeprefix("trial-")
        assert 1 - float(next(row["test_accuracy"] for row in rows if row["trial"] == trial)) == pytest.approx(error)
    distance = torch.cat([(a.ticket.state[name] - b.ticket.state[name]).flatten() for name in a.ticket.masks]).norm()
    assert found.distance == pytest.approx(float(distance))


def test_tickets_trained_again_in_other_orders_pair(
    launch: Launch, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Branches of one ticket share mask and start; the command writes every place of every line, and two figures."""
    known = rebuild.dataset_of
    monkeypatch.setattr(rebuild, "dataset_of", lambda ticket: replace(known(ticket), canonical=False))
    search = launch("control=none", "pruner=imp_late", "pruner.rewind_to=3it", folder="search")
    for order in (5, 6, 7):
        launch(f"ticket={search}/tickets/*/*", f"seeds.order={order}", "ends=true", "control=none", folder=f"o/{order}")
    out = search.parent / "o"
    assert command.main([str(out), "--points", "4"]) == 0
    rows = read_table(out / "instability.csv")
    assert len(rows) == 3 * 3 * 4  # rounds, pairs, places
    says = "no verdict: a test set of 200 images is too small"
    assert says in capsys.readouterr().out
    for name in ("instability", "error_along_lines"):
        svg = (out / f"figures/{name}.svg").read_text()
        assert "not the canonical files" in svg and "no verdict: a test set of" in svg
        assert "LeNet-300-100 on " in svg and "· 9 pairs ·" in svg
    for number in range(0, len(rows), 4):
        errors = [float(row["test_error"]) for row in rows[number : number + 4]]
        assert float(rows[number]["test_instability"]) == pytest.approx(max(errors) - (errors[0] + errors[3]) / 2)


def test_statistics_taken_anew_know_no_dropout(launch: Launch) -> None:
    """They are of the network that is evaluated, as if it had been built without."""
    small = ("model=conv2", "model.blocks=[2]", "model.widths=[8]", "model.batch_norm=true", "model.dropout=0.5")
    fixed = ("trials=2", "seeds.init=0", "ends=true", "control=none", "pruner=dense", "length=6it", "batch=20")
    folder = launch(*small, *fixed, "dataset.limit=60", tiny=False)
    [(a, b)] = pairs(ends_below([folder], ["ticket"]))
    dataset = rebuild.dataset_of(a.ticket)
    model = json.loads(a.ticket.metadata["model"]) | {"dropout": 0.0}
    metadata = a.ticket.metadata | {"model": json.dumps(model)}
    without = replace(a, ticket=replace(a.ticket, metadata=metadata))
    found, expected = (line(one, b, dataset, points=3, batch=30, recompute=True) for one in (a, without))
    assert found == expected


def test_statistics_of_batch_norm_are_interpolated_or_taken_anew(launch: Launch) -> None:
    """Taken anew, they are the means over batches of what each layer sees when the layers before use their batch's."""
    small = ("model=resnet20", "model.width=2", "model.blocks=[1]", "length=6it", "dataset.limit=60", "batch=20")
    folder = launch(*small, "trials=2", "seeds.init=0", "ends=true", "control=none", "pruner=dense", tiny=False)
    [(a, b)] = pairs(ends_below([folder], ["ticket"]))
    dataset = rebuild.dataset_of(a.ticket)
    plain = line(a, b, dataset, points=3, batch=30, recompute=False)
    anew = line(a, b, dataset, points=3, batch=30, recompute=True)
    network = rebuild.network(a.ticket, dataset)
    states = [effective(end.ticket) for end in (a, b)]
    for state, place in ((states[0], 0), (states[1], -1)):
        network.load_state_dict(state)
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.reset_running_stats()
                module.momentum = None  # a plain mean over batches
        network.train()
        with torch.no_grad():
            for part in dataset.train.inputs.split(30):
                network(part)
            wrong = network.eval()(dataset.test.inputs).argmax(1) != dataset.test.targets
        assert anew.test[place] == pytest.approx(float(wrong.double().mean()))
    assert plain.test != anew.test


def test_arms_and_data_sets_are_not_mixed(launch: Launch, capsys: pytest.CaptureFixture[str]) -> None:
    """Reinitialised masks of three orders share a start too, but are compared only when asked for."""
    search = launch("control=none", folder="search")
    for order in (5, 6):
        launch(
            f"ticket={search}@2", f"seeds.order={order}", "ends=true", "control=[reinit]", folder=f"o/{order}"
        )  # fmt: skip
    out = search.parent / "o"
    for arm in ("ticket", "reinit"):
        [(a, b)] = pairs(ends_below([out], [arm]))
        assert a.path.name == b.path.name == f"{arm}-0-round-02.safetensors"
    launch(f"ticket={search}@2", "dataset.validation=40", "ends=true", "control=none", folder="o/other")
    assert command.main([str(out)]) == 1
    assert "networks of several data sets or settings of one" in capsys.readouterr().err


def test_copies_of_tickets_and_of_the_dense_network_from_several_steps(
    launch: Launch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Controls that repeat a training in other orders, at two rewind points: each kind by itself, two figures."""
    for step in (0, 6):
        launch(
            "control=[reordered,dense_reordered]", "control.reordered.draws=2", "control.dense_reordered.draws=2",
            "seeds.order_by_round=fresh", "pruner=imp_late", f"pruner.rewind_to={step}it", "pruner.rounds=1",
            "ends=true", "trials=2", folder=f"sweep/{step}",
        )  # fmt: skip
    folder = launch("control=none", folder="sweep/other").parent
    rows = read_table(folder / "0" / "rounds.csv")
    losses = {(row["trial"], row["arm"], row["draw"]): row["train_loss"] for row in rows if row["round"] == "1"}
    for trial in "01":
        assert losses[trial, "reordered", "0"] == losses[trial, "ticket", "0"] != losses[trial, "reordered", "1"]
        assert losses[trial, "dense_reordered", "0"] != losses[trial, "dense_reordered", "1"]
    assert command.main([str(folder), "--arm", "reordered", "dense_reordered", "--points", "3"]) == 0
    table = read_table(folder / "instability.csv")
    kinds = {(row["arm"], row["rewind_step"], row["density"] == "1.0") for row in table}
    assert kinds == {("reordered", k, False) for k in "06"} | {("dense_reordered", k, True) for k in "06"}
    assert len(table) == 4 * 2 * 3  # kinds, trials, places
    data = read_table(folder / "figures" / "instability.csv")
    assert {row["rewind_step"] for row in data} == {"0", "6"}
    curves = read_table(folder / "figures" / "error_along_lines.csv")
    of_one = [row for row in table if (row["arm"], row["rewind_step"], row["alpha"]) == ("reordered", "6", "0.5")]
    mean = sum(float(row["test_error"]) for row in of_one) / 2
    [drawn] = [
        row
        for row in curves
        if row["kind"].startswith("reordered") and "k = 6" in row["kind"] and row["alpha"] == "0.5"
    ]
    assert float(drawn["mean"]) == pytest.approx(100 * mean)
    assert capsys.readouterr().out.count("no verdict: a test set of 200 images is too small") == 4


def test_copies_in_one_order_would_be_one_training(launch: Launch) -> None:
    with pytest.raises(LtlError, match=r"^control=reordered trains .* again.*seeds\.order_by_round=fresh"):
        launch("control=[reordered]", "seeds.order_by_round=same")


def test_instability_and_its_words() -> None:
    assert instability([0.1, 0.3, 0.2]) == pytest.approx(0.15)
    assert instability([0.3, 0.1, 0.2]) == pytest.approx(0.05)
    assert word([0.001, 0.002, 0.0015]) == "stable"
    assert word([0.1, 0.11, 0.12]) == "unstable"
    assert word([0.0, 0.02, 0.04]) == "undecided"
    assert word([0.0, 0.0]) == "not judged (n = 2)"


def test_a_model_of_ones_own_is_not_run(launch: Launch, capsys: pytest.CaptureFixture[str]) -> None:
    """The line advises nothing that this command does not have."""
    folder = launch("trials=2", "seeds.init=0", "pruner=dense", "pruner.rounds=0", "ends=true", "control=none")
    for path in folder.glob("ends/*/*"):
        end = load(path)
        end.metadata["model"] = end.metadata["model"].replace("ltl.models.lenet", "my_models")
        save(end, path)
    assert command.main([str(folder)]) == 1
    said = "a ticket's metadata names code 'my_models.LeNet' that is not one of ltl.models: other code is not run."
    assert capsys.readouterr().err == f"ltl-instability: {said}\n"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["{run}"], "no two of the 2 trained networks began alike"),
        (["{empty}"], "no trained weights of ticket here"),
        (["{run}", "--points", "2"], "--points 2 is not possible"),
    ],
)
def test_what_cannot_be_compared_is_one_line(
    launch: Launch, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    run = launch("trials=2", "pruner=dense", "pruner.rounds=0", "ends=true", "control=none")
    (tmp_path / "empty").mkdir()
    given = [one.format(run=run, empty=tmp_path / "empty") for one in arguments]
    assert command.main(given) == 1
    [text] = capsys.readouterr().err.splitlines()
    assert text.startswith("ltl-instability: ") and says in text

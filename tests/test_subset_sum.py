"""The theory's own construction: the masked random network computes what the replaced weights do, sum by sum."""

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ltl import rebuild, tickets
from ltl.errors import LtlError
from ltl.masks import dense
from ltl.models.lenet import LeNet
from ltl.nearest_subset import nearest_items, nearest_subsets
from ltl.results import read_table
from ltl.subset_sum import __main__ as command
from ltl.subset_sum.construction import SPARE, Choose, outputs_of, replaced, ticket_of, weights_of
from ltl.tickets import Ticket, effective

Launch = Callable[..., Path]


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def trained(*sizes: int, bias: bool = False) -> Ticket:
    """A perceptron with weights in float64, as a ticket that says what it is."""
    weights = [
        torch.randn(out, into, generator=draws(into), dtype=torch.float64) / into**0.5 for into, out in pairwise(sizes)
    ]
    names = [f"fc{number}.weight" for number in range(1, len(weights))] + ["output.weight"]
    state = dict(zip(names, weights, strict=True))
    model = {
        "_target_": "ltl.models.lenet.LeNet",
        "widths": sizes[1:-1],
        "dropout": 0.0,
        "activation": "relu",
        "bias": bias,
    }
    return Ticket(dense(state), state, {"model": json.dumps(model)}, {}, {})


def masked_network(ticket: Ticket, inputs: int) -> nn.Module:
    """A plain module with the ticket's weights, built from what its metadata say."""
    model = json.loads(ticket.metadata["model"])
    names = ("widths", "dropout", "activation", "bias")
    outputs = len(ticket.state["output.weight"])
    network = LeNet(input_shape=(inputs,), outputs=outputs, **{name: model[name] for name in names})
    network.double().load_state_dict(effective(ticket))
    return network


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("choose", [nearest_subsets, nearest_items])
def test_the_masked_network_computes_what_the_replaced_weights_do(choose: Choose, signed: bool) -> None:
    source = trained(7, 6, 5, 3)
    generator = draws()
    pairs = [
        replaced(weight, n=9, signed=signed and not number, choose=choose, generator=generator)
        for number, weight in enumerate(weights_of(source))
    ]
    ticket = ticket_of(pairs, source, {"seed": 0})
    network = masked_network(ticket, 7)
    assert sum(isinstance(module, nn.Linear) for module in network) == 2 * 3
    inputs = torch.randn(50, 7, generator=draws(5), dtype=torch.float64)
    inputs = inputs if signed else inputs.abs()
    written = [inputs.clamp(min=0) @ pairs[0].sums[0].T]
    if signed:
        written.append(inputs.clamp(max=0) @ pairs[0].sums[1].T)
    hidden = F.relu(torch.stack(written).sum(0))
    expected = F.relu(hidden @ pairs[1].sums[0].T) @ pairs[2].sums[0].T
    torch.testing.assert_close(network(inputs), expected)
    torch.testing.assert_close(outputs_of(pairs, inputs), expected)


def test_every_unit_serves_one_input_and_every_product_is_of_the_random_layers() -> None:
    weight = trained(6, 4).state["output.weight"]
    pair = replaced(weight, n=5, signed=True, choose=nearest_subsets, generator=draws())
    assert pair.first.shape == (2 * 5 * 6 + SPARE, 6)
    assert pair.first.abs().max() <= 1 and pair.second.abs().max() <= weight.abs().max()
    assert pair.first_mask.sum(1).max() == 1
    assert torch.equal(pair.first_mask.any(1), pair.second_mask.any(0))  # what no output takes is pruned
    for sign, sums in zip((1, -1), pair.sums, strict=True):
        own = pair.first * pair.first_mask * (sign * pair.first > 0)
        torch.testing.assert_close((pair.second * pair.second_mask) @ own, sums)


def test_sums_are_nearer_with_more_products_and_nearer_than_a_single_one() -> None:
    weight = trained(10, 30).state["output.weight"]

    def missed(n: int, choose: Choose) -> float:
        [sums] = replaced(weight, n=n, signed=False, choose=choose, generator=draws()).sums
        return float((sums - weight).abs().median())

    assert missed(16, nearest_subsets) < 0.05 * missed(8, nearest_subsets) < 0.05 * missed(8, nearest_items)


def test_a_draw_without_enough_units_of_a_sign_is_refused() -> None:
    def none(coefficients: Tensor, targets: Tensor) -> Tensor:
        return torch.zeros_like(coefficients, dtype=torch.bool)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "rand", lambda shape, **_: torch.zeros(shape))
        with pytest.raises(LtlError, match=r"^--n 3: the random layer lacks units for input 0: take another --seed"):
            replaced(torch.ones(1, 1), n=3, signed=False, choose=none, generator=draws())


def test_networks_with_biases_are_refused() -> None:
    with pytest.raises(LtlError, match=r"cannot be built from subset sums: train .* model\.bias=false"):
        weights_of(trained(4, 3, 2, bias=True))


def test_the_ticket_is_a_file_like_any_other(tmp_path: Path) -> None:
    source = trained(4, 3, 2)
    pairs = [replaced(w, n=3, signed=False, choose=nearest_items, generator=draws()) for w in weights_of(source)]
    ticket = ticket_of(pairs, source, {"seed": 7})
    tickets.save(ticket, tmp_path / "n.safetensors")
    loaded = tickets.load(tmp_path / "n.safetensors")
    assert loaded.metadata["seed"] == "7" and float(loaded.metadata["density"]) < 0.1
    assert all(torch.equal(mask, loaded.masks[name]) for name, mask in ticket.masks.items())


DENSE = ("pruner=dense", "pruner.rounds=0", "control=none", "ends=true", "model.bias=false", "model.widths=[6]")


@pytest.mark.parametrize("mean", [0.0, 0.5])
def test_the_command_replaces_the_network_that_a_run_ended_with(
    launch: Launch, capsys: pytest.CaptureFixture[str], mean: float
) -> None:
    """Inputs at or above 0, or of both signs: the row is that of the ticket, whose accuracy is counted again here."""
    folder = launch(*DENSE, f"dataset.mean=[{mean}]")
    assert command.main([str(folder), "--n", "3", "9"]) == 0
    assert "best single product" in capsys.readouterr().out
    rows = {(row["rule"], int(row["n"])): row for row in read_table(folder / "subset_sum.csv")}
    assert list(rows) == [("subset", 3), ("single", 3), ("subset", 9), ("single", 9)]
    end = tickets.load(folder / "ends/trial-0/ticket-0-round-00.safetensors")
    dataset = rebuild.dataset_of(end)
    for n in (3, 9):
        row = rows["subset", n]
        ticket = tickets.load(folder / f"subset_sum/n-{n:02d}.safetensors")
        network = rebuild.network(ticket, dataset)
        right = network(dataset.test.inputs).argmax(1) == dataset.test.targets
        assert float(row["test_accuracy"]) == pytest.approx(float(right.double().mean()))
        assert int(row["weights_kept"]) == sum(int(mask.sum()) for mask in ticket.masks.values())
        assert int(row["products_kept"]) == sum(
            int(ticket.masks[name].sum()) for name in ("fc2.weight", "output.weight")
        )
        sides = 2 if mean else 1
        assert int(row["target_weights"]) == 6 * 64 + 10 * 6
        assert int(row["products"]) == n * (sides * 6 * 64 + 10 * 6)
        assert int(row["weights"]) == sum(mask.numel() for mask in ticket.masks.values())
        assert float(row["difference"]) < 1e-4
        assert float(row["error_median"]) < float(rows["single", n]["error_median"])
        if not mean:
            first, second, third, fourth = (ticket.state[name] * mask for name, mask in ticket.masks.items())
            sums = {"fc1.weight": second @ first, "output.weight": fourth @ third}
            errors = torch.cat([(one - end.state[name]).abs().flatten() for name, one in sums.items()])
            for name, part in (("median", 0.5), ("p99", 0.99), ("max", 1.0)):
                expected = float(errors.quantile(part, interpolation="nearest"))
                assert float(row[f"error_{name}"]) == pytest.approx(expected, rel=0.1, abs=1e-6), name
            missed = (errors > float(row["epsilon"])).double().mean()
            assert float(row["missed"]) == pytest.approx(float(missed), abs=0.01)
    assert float(rows["subset", 9]["error_median"]) < float(rows["subset", 3]["error_median"])
    trained_right = rebuild.network(end, dataset)(dataset.test.inputs).argmax(1) == dataset.test.targets
    assert float(row["test_accuracy_before"]) == pytest.approx(float(trained_right.double().mean()))
    for name in ("subset_sum_error", "subset_sum_accuracy"):
        assert "LeNet-300-100 on " in (folder / "figures" / f"{name}.svg").read_text()


def test_files_that_are_not_canonical_are_marked(launch: Launch, monkeypatch: pytest.MonkeyPatch) -> None:
    known = rebuild.dataset_of
    monkeypatch.setattr(rebuild, "dataset_of", lambda ticket: replace(known(ticket), canonical=False))
    folder = launch(*DENSE)
    assert command.main([str(folder), "--n", "2"]) == 0
    for name in ("subset_sum_error", "subset_sum_accuracy"):
        assert "not the canonical files" in (folder / "figures" / f"{name}.svg").read_text()


def test_the_same_seed_finds_the_same_ticket(launch: Launch, tmp_path: Path) -> None:
    folder = launch(*DENSE)
    for out, seed in (("a", "0"), ("b", "0"), ("c", "1")):
        assert command.main([str(folder), "--n", "4", "--seed", seed, "--out", str(tmp_path / out)]) == 0
    a, b, c = ((tmp_path / out / "subset_sum/n-04.safetensors").read_bytes() for out in "abc")
    assert a == b != c


@pytest.mark.parametrize(
    ("overrides", "arguments", "says"),
    [
        ((), [], "2 trained networks, where one is needed"),
        (("trials=1",), ["--n", "4", "25"], "--n 25 is not possible: at most 24"),
        (("trials=1",), ["--n", "0"], "--n 0 is not possible"),
        (("trials=1",), ["--epsilon", "0"], "--epsilon 0.0 is not possible"),
        (("trials=1", "model.bias=true"), [], "cannot be built from subset sums"),
        (("trials=1", "ends=false"), [], "no trained weights here"),
    ],
)
def test_what_cannot_be_replaced_is_one_line(
    launch: Launch, capsys: pytest.CaptureFixture[str], overrides: tuple[str, ...], arguments: list[str], says: str
) -> None:
    folder = launch(*DENSE, "trials=2", *overrides)
    assert command.main([str(folder), *arguments]) == 1
    [text] = capsys.readouterr().err.splitlines()
    assert text.startswith("ltl-subset-sum: ") and says in text
    assert not (folder / "subset_sum").exists()

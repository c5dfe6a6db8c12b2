"""ltl-ticket: what it shows, compares, exports and imports, and one line for every mistake."""

import dataclasses
import json
import os
import re
import runpy
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from sklearn.datasets import load_digits  # type: ignore[import-untyped]
from torch import Tensor, nn
from torch.nn.utils import prune

from ltl import tickets, torch_prune
from ltl.datasets.idx import FILES
from ltl.errors import LtlError
from ltl.masks import density, mask_sha256, prunable
from ltl.models.activations import Sign
from ltl.rng import generator
from ltl.ticket import main
from ltl.tickets import Ticket, effective

Config = dict[str, object]

MODEL: Config = {
    "_target_": "ltl.models.lenet.LeNet",
    "_partial_": True,
    "name": "lenet",
    "widths": [12, 8],
    "dropout": 0.0,
    "activation": "relu",
    "width_factor": 1,
}
DATASET: Config = {
    "_target_": "ltl.datasets.digits.load_digits",
    "name": "digits",
    "test": 360,
    "validation": 150,
    "limit": None,
    "mean": [0.5],
    "std": [0.25],
    "augment": True,
    "padding": 1,
    "flip": False,
}


def sequential() -> nn.Sequential:
    layers = {"flatten": nn.Flatten(), "fc1": nn.Linear(64, 12), "relu1": nn.ReLU(), "fc2": nn.Linear(12, 8)}
    return nn.Sequential(OrderedDict(layers | {"relu2": nn.ReLU(), "output": nn.Linear(8, 10)}))


def weights(seed: int) -> dict[str, Tensor]:
    draws = torch.Generator().manual_seed(seed)
    return {name: torch.randn(like.shape, generator=draws) for name, like in sequential().state_dict().items()}


def make(seed: int, **metadata: str) -> Ticket:
    draws = torch.Generator().manual_seed(seed + 100)
    state = weights(seed)
    masks = {name: torch.rand(state[name].shape, generator=draws) < 0.4 for name in prunable(sequential())}
    facts = {
        "round": "2",
        "density": repr(density(masks)),
        "mask_sha256": mask_sha256(masks),
        "input_shape": "[1, 8, 8]",
    }
    facts |= {"outputs": "10", "model": json.dumps(MODEL), "dataset": json.dumps(DATASET)}
    return Ticket(masks=masks, state=state, metadata=facts | metadata, gains={}, fills={})


@pytest.fixture
def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Ticket, Ticket]:
    monkeypatch.chdir(tmp_path)
    both = make(1), make(2)
    for name, ticket in zip("ab", both, strict=True):
        tickets.save(ticket, Path(name))
    return both


def fails(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    try:
        code = main(arguments)
    except SystemExit as stop:
        code = stop.code  # type: ignore[assignment]
    out, err = capsys.readouterr()
    assert code == 1
    assert out == ""
    assert err.startswith("ltl-ticket: ")
    assert err.count("\n") == 1
    return err


def row(text: str, start: str) -> list[str]:
    return next(line.split() for line in text.splitlines() if line.split()[:1] == [start])


def test_show_prints_provenance_layers_and_checksum(
    pair: tuple[Ticket, Ticket], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["show", "a"]) == 0
    text = capsys.readouterr().out
    mask = pair[0].masks["fc2.weight"]
    kept = int(mask.sum())
    assert row(text, "fc2.weight") == ["fc2.weight", "8×12", "96", str(kept), f"{kept / 96:.3g}"]
    assert row(text, "all")[1:2] == [str(64 * 12 + 12 * 8 + 80)]
    assert row(text, "all")[-1] == f"{density(pair[0].masks):.3g}"
    assert row(text, "mask_sha256")[1] == mask_sha256(pair[0].masks)
    assert "unmasked: 30 values in 3 parameters" in text
    assert tickets.load(Path("a")).metadata["sha256"] in text


def test_show_names_gains_and_fills(pair: tuple[Ticket, Ticket], capsys: pytest.CaptureFixture[str]) -> None:
    fills = {"output.weight": torch.ones(10, 8)}
    tickets.save(dataclasses.replace(pair[0], gains={"fc1": torch.tensor(2.0)}, fills=fills), Path("c"))
    assert main(["show", "c"]) == 0
    text = capsys.readouterr().out
    assert [row(text, name)[5:] for name in ("fc1.weight", "fc2.weight", "output.weight")] == [["gain"], [], ["fill"]]


def test_show_takes_folder_at_round_and_shows_every_trial(
    pair: tuple[Ticket, Ticket], capsys: pytest.CaptureFixture[str]
) -> None:
    for trial, ticket in enumerate(pair):
        tickets.save(ticket, Path(f"run/tickets/trial-{trial}/round-03.safetensors"))
    assert main(["show", "run@3"]) == 0
    assert re.findall(r"^run/\S*(trial-\d)", capsys.readouterr().out, re.MULTILINE) == ["trial-0", "trial-1"]
    assert "names 2 tickets" in fails(capsys, "export", "run@3", "x.safetensors")


def test_a_foreign_file_does_not_steer_the_terminal(
    pair: tuple[Ticket, Ticket], capsys: pytest.CaptureFixture[str]
) -> None:
    tickets.save(make(1, note="\x1b[31m[bold]:smile:\r\nx"), Path("c"))
    assert main(["show", "c"]) == 0
    assert r"\x1b[31m[bold]:smile:\r\nx" in capsys.readouterr().out


def test_diff_prints_overlap_chance_and_signs(pair: tuple[Ticket, Ticket], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diff", "a", "b", "--data", "none"]) == 0
    text = capsys.readouterr().out
    a, b = (ticket.masks["fc1.weight"] for ticket in pair)
    both, either, least = int((a & b).sum()), int((a | b).sum()), min(int(a.sum()), int(b.sum()))
    signs = [ticket.state["fc1.weight"][a & b] > 0 for ticket in pair]
    mean = int(a.sum()) * int(b.sum()) / 768
    cells = row(text, "fc1")
    assert cells[1:4] == [f"{a.float().mean():.3g}", f"{b.float().mean():.3g}", str(both)]
    assert cells[4:6] == [f"{both / either:.3g}", f"{mean / (int(a.sum()) + int(b.sum()) - mean):.3g}"]
    assert cells[6:8] == [f"{both / least:.3g}", f"{mean / least:.3g}"]
    assert cells[9] == f"{(signs[0] == signs[1]).float().mean():.3g}"
    assert len(row(text, "all")) == len(cells) == 10
    assert "not compared (--data none)" in text


def test_numbers_stay_whole_in_a_narrow_terminal(
    pair: tuple[Ticket, Ticket], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "dumb")
    rows = []
    for terminal in (True, False):
        monkeypatch.setattr(sys.stdout, "isatty", lambda terminal=terminal: terminal)
        assert main(["diff", "a", "b", "--data", "none"]) == 0
        lines = capsys.readouterr().out.splitlines()
        rows.append(row("\n".join(lines), "fc1"))
        assert (max(map(len, lines[2:-1])) <= 80) or not terminal
    assert rows[0] == rows[1]


def digits_test_inputs(mean: float, std: float) -> tuple[Tensor, Tensor]:
    images, labels = load_digits(return_X_y=True)
    chosen = torch.randperm(len(labels), generator=generator("order", 0, "split"))[:360]
    inputs = (torch.from_numpy(images).float() / 16 - mean) / std
    return inputs[chosen].view(-1, 1, 8, 8), torch.from_numpy(labels)[chosen]


@pytest.mark.parametrize(("data", "mean", "std"), [("ticket", 0.5, 0.25), ("digits", 0.0, 1.0)])
def test_diff_compares_predictions(
    pair: tuple[Ticket, Ticket], capsys: pytest.CaptureFixture[str], data: str, mean: float, std: float
) -> None:
    inputs, targets = digits_test_inputs(mean, std)
    predicted = []
    for ticket in pair:
        network = sequential()
        network.load_state_dict({name: value * ticket.masks.get(name, 1) for name, value in ticket.state.items()})
        predicted.append(network(inputs).argmax(1))
    assert main(["diff", "a", "b", "--data", data]) == 0
    text = capsys.readouterr().out
    same = (predicted[0] == predicted[1]).double().mean().item()
    accuracy = [(one == targets).double().mean().item() for one in predicted]
    assert f"the same class to {same:.2%} of the 360 test examples of digits" in text
    assert f"(accuracy of A {accuracy[0]:.2%}, of B {accuracy[1]:.2%})" in text
    assert main(["diff", "a", "a", "--data", data]) == 0
    assert "the same class to 100.00% of" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"input_shape": "[1, 28, 28]"}, "inputs [1, 28, 28] to 10 outputs, and digits has inputs [1, 8, 8]"),
        ({"model": json.dumps(MODEL | {"widths": [12, 9]})}, "not those of the model"),
        ({"model": json.dumps(MODEL | {"widths": [2**40, 2**20]})}, "cannot be built here"),
        ({"model": json.dumps(MODEL | {"width": 3})}, "cannot be built here"),
        ({"model": json.dumps(MODEL | {"_target_": "ltl.models.gone.Gone"})}, "no 'ltl.models.gone.Gone'"),
        ({"dataset": json.dumps(DATASET | {"mean": []})}, "'digits' cannot be read here: dataset.mean"),
    ],
)
def test_diff_goes_on_without_predictions_that_cannot_be_had(
    pair: tuple[Ticket, Ticket], capsys: pytest.CaptureFixture[str], metadata: dict[str, str], words: str
) -> None:
    tickets.save(make(3, **metadata), Path("c"))
    assert main(["diff", "c", "b"]) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith("predictions: not compared: ")
    assert words in line


def test_diff_downloads_nothing(pair: tuple[Ticket, Ticket], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diff", "a", "b", "--data", "mnist"]) == 0
    assert "'mnist' cannot be read here: data/mnist/" in capsys.readouterr().out.splitlines()[-1]
    assert sorted(path.name for path in Path().iterdir()) == ["a", "b"]


HARM = "import pathlib; pathlib.Path('harm').touch()"


@pytest.mark.parametrize(
    ("key", "config"),
    [
        ("model", {"_target_": "builtins.exec", "_args_": [HARM]}),
        ("model", {"_target_": "builtins.exec", "_partial_": True, "_args_": [HARM]}),
        ("model", MODEL | {"_target_": "ltl.models.lenet.math.prod"}),
        ("model", MODEL | {"_target_": "ltl.models.lenet.nn"}),
        ("model", MODEL | {"_target_": "ltl.models.lenet.Sequence"}),
        ("model", MODEL | {"_target_": "ltl.models.initialisers.initialise"}),
        ("model", MODEL | {"_target_": "ltl.models.lenet.LeNet\n"}),
        ("model", MODEL | {"_target_": "ltl.models..LeNet"}),
        ("model", MODEL | {"_target_": "ltl.modelsx.lenet.LeNet"}),
        ("model", MODEL | {"_target_": 3}),
        ("model", MODEL | {"widths": [{"_target_": "builtins.exec", "_args_": [HARM]}]}),
        ("model", MODEL | {"x": {"y": {"_target_": "ltl.models.lenet.LeNet"}}}),
        ("model", MODEL | {"_args_": []}),
        ("model", MODEL | {"widths": "${oc.env:HOME}"}),
        ("model", []),
        ("dataset", DATASET | {"_target_": "ltl.datasets.download.obtain"}),
        ("dataset", DATASET | {"_target_": "ltl.datasets.digits.torch.load"}),
        ("dataset", DATASET | {"_target_": "ltl.models.lenet.LeNet"}),
        ("dataset", DATASET | {"mean": [{"_target_": "builtins.exec", "_args_": [HARM]}]}),
        ("dataset", DATASET | {"mean": "${oc.env:HOME}"}),
    ],
)
def test_code_that_a_ticket_names_runs_only_if_it_is_ltls_own(
    pair: tuple[Ticket, Ticket], capsys: pytest.CaptureFixture[str], key: str, config: object
) -> None:
    tickets.save(make(3, **{key: json.dumps(config)}), Path("c"))
    for arguments in (("c", "b"), ("b", "c"), ("b", "c", "--data", "digits")):
        if key == "model" or arguments[0] == "c":
            assert "use --data none" in fails(capsys, "diff", *arguments)
    assert not Path("harm").exists()
    assert main(["diff", "c", "b", "--data", "none"]) == 0


@pytest.mark.parametrize("place", [{}, {"root": "/etc", "download": True}])
def test_where_data_lies_is_not_the_tickets_to_say(
    pair: tuple[Ticket, Ticket], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, place: Config
) -> None:
    config: Config = {"_target_": "ltl.datasets.idx.load_idx", "name": "mnist"}
    config |= {
        "mirrors": ["file:///etc"],
        "checksums": dict.fromkeys(FILES, "md5:"),
        "verify": False,
        "outputs": 10,
        "validation": 9,
    }
    config |= place | {"limit": None, "mean": [0.0], "std": [1.0], "augment": False, "padding": 1, "flip": False}
    tickets.save(make(3, dataset=json.dumps(config)), Path("c"))
    monkeypatch.setenv("LTL_DATA_DIR", "here")
    assert main(["diff", "c", "b"]) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    assert "here/mnist" in line
    assert "/etc" not in line


def alone(program: str, folder: Path) -> str:
    """Run `program` in a process that cannot import ltl, Hydra or Lightning."""
    barred = "import sys; sys.modules.update(dict.fromkeys(('ltl', 'hydra', 'omegaconf', 'pytorch_lightning')))\n"
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment |= {"PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", barred + program],
        cwd=folder,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout


def test_export_loads_without_ltl(pair: tuple[Ticket, Ticket], capsys: pytest.CaptureFixture[str]) -> None:
    ticket = dataclasses.replace(
        pair[0],
        gains={"fc1": torch.tensor(2.0)},
        fills={"output.weight": torch.randn(10, 8, generator=generator("mask", 0))},
    )
    tickets.save(ticket, Path("c"))
    assert main(["export", "c", "out/net work.safetensors"]) == 0
    loader = Path("out/net work.py").read_text()
    assert loader in capsys.readouterr().out
    state = load_file("out/net work.safetensors")
    want = effective(ticket)
    assert state.keys() == want.keys() == ticket.state.keys()
    assert all(torch.equal(state[name], want[name]) for name in want)
    names = alone("import runpy; runpy.run_path('net work.py', run_name='__main__')", Path("out"))
    assert "fc1.weight (12, 64)" in names.splitlines()
    program = """
import runpy
from collections import OrderedDict
import torch
from torch import nn
network = nn.Sequential(OrderedDict(flatten=nn.Flatten(), fc1=nn.Linear(64, 12), relu1=nn.ReLU(),
                                    fc2=nn.Linear(12, 8), relu2=nn.ReLU(), output=nn.Linear(8, 10)))
load_ticket = runpy.run_path("net work.py")["load_ticket"]
print(load_ticket(network)(torch.arange(64.0).view(1, 1, 8, 8) / 64).tolist())
"""
    network = sequential()
    network.load_state_dict(want)
    outputs = network(torch.arange(64.0).view(1, 1, 8, 8) / 64)
    assert torch.allclose(torch.tensor(json.loads(alone(program, Path("out")))), outputs, rtol=1e-5)


@pytest.mark.parametrize(
    ("model", "held"),
    [
        (json.dumps(MODEL | {"activation": "sign"}), True),
        (json.dumps(MODEL), False),
        ("[]", False),
        ("no JSON", False),
    ],
)
def test_export_holds_the_sign_of_binary_activations(
    pair: tuple[Ticket, Ticket], capsys: pytest.CaptureFixture[str], model: str, held: bool
) -> None:
    """It is no module of PyTorch: who builds the network again needs it, with 1 for an input of 0."""
    tickets.save(make(3, model=model), Path("c"))
    assert main(["export", "c", "c.safetensors"]) == 0
    found = runpy.run_path("c.py")
    assert ("Sign" in found) is held
    assert "load_ticket" in found
    if held:
        inputs = torch.tensor([-1.5, -0.0, 0.0, 1e-30, -1e-30], dtype=torch.float64)
        assert torch.equal(found["Sign"]()(inputs), Sign()(inputs))
        assert found["Sign"]()(inputs).tolist() == [-1, 1, 1, 1, -1]


def test_export_overwrites_nothing(pair: tuple[Ticket, Ticket], capsys: pytest.CaptureFixture[str]) -> None:
    assert "name it *.safetensors" in fails(capsys, "export", "a", "out.pt")
    Path("out.py").write_text("mine")
    assert "out.py exists already" in fails(capsys, "export", "a", "out.safetensors")
    assert not Path("out.safetensors").exists()
    assert "b exists already" in fails(capsys, "import", "a", "b")


def pruned() -> nn.Sequential:
    network = sequential()
    network.load_state_dict(weights(5))
    for layer, amount in (("fc1", 0.5), ("fc2", 7), ("output", 0.9)):
        prune.l1_unstructured(network.get_submodule(layer), "weight", amount)  # type: ignore[no-untyped-call]
    return network


@pytest.mark.parametrize("wrap", [lambda state: state, lambda state: {"state_dict": state, "epoch": 3}])
def test_import_reads_torch_prune_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], wrap: object
) -> None:
    monkeypatch.chdir(tmp_path)
    network = pruned()
    torch.save(wrap(network.state_dict()), "network.pt")  # type: ignore[operator]
    assert main(["import", "network.pt", "ticket"]) == 0
    ticket = tickets.load(Path("ticket"))
    assert row(capsys.readouterr().out, "fc2.weight")[2:4] == ["96", "89"]
    assert list(ticket.masks) == ["fc1.weight", "fc2.weight", "output.weight"]
    assert all(torch.equal(ticket.state[name], value) for name, value in weights(5).items())
    pruned_weight: Any = network.get_submodule("fc1").weight
    assert torch.equal(effective(ticket)["fc1.weight"], pruned_weight)
    assert ticket.metadata["mask_sha256"] == mask_sha256(ticket.masks)
    copy = sequential()
    copy.load_state_dict(effective(ticket))
    inputs = torch.ones(2, 1, 8, 8)
    assert torch.equal(copy(inputs), network(inputs))
    assert main(["diff", "ticket", "ticket"]) == 0
    assert "not compared: a ticket's metadata has no" in capsys.readouterr().out


class Bomb:
    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (Path("harm"),)


def bias_pruned() -> dict[str, Tensor]:
    network = pruned()
    prune.l1_unstructured(network.get_submodule("fc1"), "bias", 3)  # type: ignore[no-untyped-call]
    return network.state_dict()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (Bomb(), "nothing was run"),
        (nn.Linear(2, 2), "nothing was run"),
        (pruned().state_dict() | {"x": Bomb()}, "nothing was run"),
        (weights(5), "no *.weight_orig"),
        ({}, "no *.weight_orig"),
        ([torch.ones(1)], "but a list"),
        ({1: torch.ones(1)}, "no state dict"),
        ({"x": 3}, "'x', which is no dense tensor"),
        (pruned().state_dict() | {"x": torch.eye(2).to_sparse()}, "'x', which is no dense tensor"),
        (pruned().state_dict() | {"fc1.weight": torch.ones(12, 64)}, "'fc1.weight' twice"),
        (pruned().state_dict() | {"fc1.weight_mask": torch.full((12, 64), 0.5)}, "only 0 and 1"),
        (pruned().state_dict() | {"fc1.weight_mask": torch.ones(64, 12)}, "of its shape"),
        ({"fc1.weight_orig": torch.ones(2, 2)}, "no 'fc1.weight_mask'"),
        (bias_pruned(), "prunes 'fc1.bias'"),
    ],
)
def test_import_refuses_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], content: object, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(content, "network.pt")
    assert words in fails(capsys, "import", "network.pt", "ticket")
    assert [path.name for path in Path().iterdir()] == ["network.pt"]


def test_import_refuses_broken_files_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(pruned().state_dict(), "whole")
    whole = Path("whole").read_bytes()
    for content in (b"", b"hello", b"\x80\x02", whole[:100], whole[: len(whole) // 2], whole[:-30]):
        Path("broken").write_bytes(content)
        fails(capsys, "import", "broken", "ticket")
    assert "No such file" in fails(capsys, "import", "none", "ticket")
    assert "Is a directory" in fails(capsys, "import", ".", "ticket")


def test_import_notices_flipped_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.load does not look at the checksums of the archive: a weight of another sign would pass."""
    monkeypatch.chdir(tmp_path)
    torch.save(pruned().state_dict(), "whole")
    content, draws, refused = Path("whole").read_bytes(), generator("mask", 0), 0
    whole = torch_prune.read(Path("whole"))
    for place in torch.randint(len(content), (150,), generator=draws).tolist():
        flip = 1 << int(torch.randint(8, (), generator=draws))
        Path("flipped").write_bytes(content[:place] + bytes([content[place] ^ flip]) + content[place + 1 :])
        try:
            read = torch_prune.read(Path("flipped"))
        except (LtlError, OSError) as error:
            assert "\n" not in str(error)
            refused += 1
        else:  # in padding, or a time
            assert all(torch.equal(read.state[name], value) for name, value in whole.state.items())
            assert all(torch.equal(read.masks[name], value) for name, value in whole.masks.items())
    assert refused > 75


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "required: COMMAND"),
        (["bogus"], "invalid choice: 'bogus'"),
        (["show"], "required: TICKET"),
        (["show", "none"], "no such file"),
        (["diff", "a"], "required: B"),
        (["diff", "a", "none"], "no such file"),
        (["diff", "a", "b", "--data", "imagenet"], "allowed are"),
        (["diff", "a", "b", "--data", "../model/conv2"], "allowed are"),
        (["export", "a", "b/out.safetensors"], "File exists: 'b'"),
    ],
)
def test_mistakes_get_one_line(
    pair: tuple[Ticket, Ticket], capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert words in fails(capsys, *arguments)


def test_diff_of_different_models_is_refused(pair: tuple[Ticket, Ticket], capsys: pytest.CaptureFixture[str]) -> None:
    other = dataclasses.replace(pair[0], masks={"fc1.weight": pair[0].masks["fc1.weight"]}, metadata={})
    tickets.save(other, Path("c"))
    assert "only the first has 'fc2.weight'" in fails(capsys, "diff", "a", "c")


@pytest.mark.parametrize("arguments", [["--help"], ["diff", "--help"], ["bogus"], ["show"]])
def test_help_and_mistakes_do_not_wait_for_torch(arguments: list[str]) -> None:
    program = (
        "import sys; from ltl.ticket import main\n"
        f"try: main({arguments!r})\n"
        "except SystemExit: pass\n"
        "assert not {'torch', 'numpy', 'hydra', 'rich'} & set(sys.modules), 'slow imports'"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment, capture_output=True)


def test_module_runs_as_a_program(pair: tuple[Ticket, Ticket]) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(tickets.__file__).parents[1]), *sys.path])}
    done = subprocess.run(
        [sys.executable, "-m", "ltl.ticket", "show", "none"], env=environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)

"""Tickets as files: exact round trips, equal bytes for equal tickets, and nothing but whole tickets is read."""

import dataclasses
import hashlib
import json
import math
import os
import pickle
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save as to_bytes
from safetensors.torch import save_file

from ltl import tickets
from ltl.errors import LtlError
from ltl.masks import mask_sha256
from ltl.tickets import Ticket


def make(seed: int = 0, **changes: Any) -> Ticket:
    generator = torch.Generator().manual_seed(seed)
    state = {
        "conv.weight": torch.randn(3, 1, 3, 3, generator=generator),
        "conv.bias": torch.randn(3, generator=generator),
        "norm.running_mean": torch.randn(3, generator=generator),
        "norm.num_batches_tracked": torch.tensor(7),
        "output.weight": torch.randn(5, 3, generator=generator),
    }
    masks = {
        name: torch.rand(state[name].shape, generator=generator) < 0.4 for name in ("conv.weight", "output.weight")
    }
    metadata = {"round": "3", "model": '{"name": "é\\n"}', **{f"key {i}": str(i) for i in range(20)}}
    gains = {"conv": torch.tensor([0.5, 2.0, -1.0]).view(3, 1, 1, 1), "output": torch.tensor(3.0)}
    fills = {"output.weight": torch.randn(5, 3, generator=generator)}
    ticket = Ticket(masks=masks, state=state, metadata=metadata, gains=gains, fills=fills)
    return dataclasses.replace(ticket, **changes)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    tickets.save(make(), tmp_path / "a.safetensors")
    return tmp_path / "a.safetensors"


def rewritten(path: Path, change: str) -> Path:
    """Rewrite a ticket by the library alone, with its sha256 made right again: what a careless foreign writer does."""
    with safe_open(path, "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    exec(change, {"torch": torch}, {"tensors": tensors, "metadata": metadata})
    metadata["sha256"] = tickets._sha256(tensors, metadata)
    content = to_bytes(tensors, metadata)
    start = 8 + int.from_bytes(content[:8], "little")
    path.write_bytes(tickets._header_bytes(json.loads(content[8:start])) + content[start:])
    return path


def test_bits_are_those_of_mask_and_signs() -> None:
    """Two of four and one of two weights kept: log₂(6 · 2) for the mask, and a sign each; none where weights vary."""
    masks = {"a": torch.tensor([[True, False], [False, True]]), "b": torch.tensor([True, False])}
    signs = {name: torch.where(mask, 1.0, -1.0) for name, mask in masks.items()}
    assert tickets.bits_of(masks, signs) == pytest.approx(math.log2(12) + 3)
    assert tickets.bits_of(masks, signs | {"b": torch.tensor([1.0, 0.5])}) is None


def test_round_trip_is_exact(path: Path) -> None:
    ticket, read = make(), tickets.load(path)
    for field in ("masks", "state", "gains", "fills"):
        want, got = getattr(ticket, field), getattr(read, field)
        assert want.keys() == got.keys()
        for name in want:
            assert want[name].dtype == got[name].dtype
            assert torch.equal(want[name], got[name])
    assert ticket.metadata.items() <= read.metadata.items()
    assert read.metadata.keys() - ticket.metadata.keys() == {"format", "sha256"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weights_of_1_and_minus_1_are_bits_and_come_back_as_they_were(path: Path, dtype: torch.dtype) -> None:
    """Bits say nothing of a type, so those of another one stay numbers."""
    weight = make().state["output.weight"].sign().to(dtype)
    tickets.save(make(state=make().state | {"output.weight": weight}, fills={}), path)
    read = tickets.load(path).state["output.weight"]
    assert read.dtype == dtype and torch.equal(read, weight)
    with safe_open(path, "pt") as file:
        assert ("sign/output.weight" in file.keys()) == (dtype == torch.float32)  # noqa: SIM118


def test_file_is_plain_safetensors_with_one_bit_a_weight(path: Path) -> None:
    with safe_open(path, "pt") as file:
        bits = file.get_tensor("mask/conv.weight")
        assert file.metadata()["format"] == "ltl-ticket/1"
        assert file.get_slice("theta/output.weight").get_shape() == [5, 3]
    flat = [int(bit) for byte in bits.tolist() for bit in f"{byte:08b}"][:27]
    assert flat == make().masks["conv.weight"].flatten().int().tolist()


def test_same_ticket_gives_same_bytes_in_every_process(path: Path) -> None:
    program = "import sys, test_tickets as t; t.tickets.save(t.make(), t.Path(sys.argv[1]))"
    digests = {hashlib.sha256(path.read_bytes()).hexdigest()}
    for seed in "12":
        other = path.with_name(seed)
        environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        subprocess.run([sys.executable, "-c", program, other], check=True, cwd=Path(__file__).parent, env=environment)
        digests.add(hashlib.sha256(other.read_bytes()).hexdigest())
    ticket = make()
    reordered = dataclasses.replace(
        ticket,
        state=dict(reversed(ticket.state.items())),
        masks=dict(reversed(ticket.masks.items())),
        metadata=dict(reversed(ticket.metadata.items())),
    )
    for again in (reordered, tickets.load(path)):
        tickets.save(again, path)
        digests.add(hashlib.sha256(path.read_bytes()).hexdigest())
    assert len(digests) == 1


def test_memory_layout_and_shared_memory_do_not_matter(path: Path, tmp_path: Path) -> None:
    ticket = make()
    laid_out = {
        "conv.weight": ticket.state["conv.weight"].repeat(1, 2, 1, 1).to(memory_format=torch.channels_last)[:, :1],
        "output.weight": ticket.state["output.weight"].t().contiguous().t(),
    }
    tickets.save(dataclasses.replace(ticket, state=ticket.state | laid_out), tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == path.read_bytes()
    shared = ticket.state["output.weight"]
    tickets.save(dataclasses.replace(ticket, state=ticket.state | {"tied": shared}), tmp_path / "c")
    assert torch.equal(tickets.load(tmp_path / "c").state["tied"], shared)


@pytest.mark.parametrize(
    "change",
    [
        {"metadata": make().metadata | {"round": "4"}},
        {"state": make().state | {"conv.bias": make().state["conv.bias"].nextafter(torch.tensor(9.0))}},
        {"state": make().state | {"conv.bias": make().state["conv.bias"].view(3, 1)}},
        {"fills": {}},
    ],
)
def test_sha256_tells_tickets_apart(path: Path, change: dict[str, Any]) -> None:
    tickets.save(dataclasses.replace(make(), **change), path.with_name("b"))
    assert tickets.load(path.with_name("b")).metadata["sha256"] != tickets.load(path).metadata["sha256"]


def test_header_of_any_length_is_read(path: Path) -> None:
    """The first bytes of a file are a length, and may look like the start of a pickle or a zip archive."""
    starts = set()
    for length in range(0, 2200, 8):
        tickets.save(make(metadata={"pad": " " * length}), path)
        starts.add(path.read_bytes()[:1])
        assert tickets.load(path).metadata["pad"] == " " * length
    assert b"\x80" in starts


def test_every_flipped_byte_is_refused(path: Path) -> None:
    whole = path.read_bytes()
    generator = torch.Generator().manual_seed(0)
    for position in range(len(whole)):
        old = whole[position]
        flips = {int(torch.randint(1, 256, (), generator=generator)), 0x20, 0x2A}
        for flip in flips if position < 200 or old == 0x20 else [flips.pop()]:
            path.write_bytes(whole[:position] + bytes([old ^ flip]) + whole[position + 1 :])
            with pytest.raises(LtlError) as error:
                tickets.load(path)
            assert "\n" not in str(error.value)


def test_every_cut_and_extension_is_refused(path: Path) -> None:
    whole = path.read_bytes()
    for length in range(0, len(whole), 3):
        path.write_bytes(whole[:length])
        with pytest.raises(LtlError, match=r"cut off|not a safetensors"):
            tickets.load(path)
    for more in (b"\0", b" ", whole):
        path.write_bytes(whole + more)
        with pytest.raises(LtlError):
            tickets.load(path)


def test_header_written_another_way_is_refused(path: Path) -> None:
    """The same JSON in other bytes would let a flipped byte pass."""
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    text = json.dumps(json.loads(content[8:start])).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[start:])
    with pytest.raises(LtlError, match="altered"):
        tickets.load(path)


class Bomb:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.target,)


def test_foreign_files_get_one_clear_line(path: Path, tmp_path: Path) -> None:
    def refused(file: Path, words: str) -> None:
        with pytest.raises(LtlError, match=words) as error:
            tickets.load(file)
        assert "\n" not in str(error.value)

    refused(tmp_path / "no", "no such file")
    refused(tmp_path, "directory")
    plain = tmp_path / "plain"
    save_file({"weight": torch.zeros(2)}, plain)
    refused(plain, "no ltl ticket")
    save_file({"weight": torch.zeros(2)}, plain, {"format": "pt"})
    refused(plain, "no ltl ticket")
    plain.write_bytes(b'\x20\0\0\0\0\0\0\0{"__metadata__":null}           ')
    refused(plain, "no ltl ticket")
    plain.write_text("trial,arm,draw,round\n")
    refused(plain, "not a safetensors file")
    refused(rewritten(path, "metadata['format'] = 'ltl-ticket/2'"), "newer format 'ltl-ticket/2'.*upgrade")
    bomb = tmp_path / "bomb"
    plain.write_bytes(pickle.dumps(Bomb(bomb)))
    refused(plain, "does not unpickle")
    torch.save({"x": Bomb(bomb)}, plain)
    refused(plain, "does not unpickle")
    plain.write_bytes(struct.pack("<Q", 2**20) + b"[" * 2**20)
    refused(plain, "not a safetensors file")
    plain.write_bytes(struct.pack("<Q", 2**20) + b'{"a":' * (2**20 // 5) + b" ")
    refused(plain, "not whole")
    assert not bomb.exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("tensors['mask/output.weight'][-1] |= 1", "bits beyond"),
        ("tensors['mask/output.weight'] = tensors['mask/output.weight'][:1]", "one bit a weight"),
        ("tensors['mask/output.weight'] = tensors['mask/output.weight'].int()", "one bit a weight"),
        ("tensors['mask/other'] = torch.zeros(1, dtype=torch.uint8)", "no weight of that name"),
        ("tensors['else/other'] = torch.zeros(1)", "knows mask/"),
        ("tensors['fill/output.weight'] = torch.zeros(3)", "fill of 'output.weight'"),
        ("tensors['fill/conv.bias'] = torch.zeros(3)", "fill of 'conv.bias'"),
        ("tensors['gain/conv'] = torch.zeros(4)", "gain of 'conv'"),
        ("tensors['gain/norm'] = torch.zeros(())", "gain of 'norm'"),
        ("del tensors['mask/conv.weight'], tensors['mask/output.weight']", "mask of at least one"),
        ("metadata['mask_sha256'] = '0'", "of other masks"),
        ("tensors['sign/output.weight'] = tensors['mask/output.weight'].clone()", "holds 'output.weight' twice"),
        (
            "tensors['sign/other'] = torch.zeros(1, dtype=torch.uint8); metadata['signs'] = '{\"other\": [-1, -8]}'",
            "signs of 'other'",
        ),
    ],
)
def test_inconsistent_content_is_refused_although_its_sha256_is_right(path: Path, change: str, words: str) -> None:
    tickets.load(rewritten(path, "pass"))
    with pytest.raises(LtlError, match=words):
        tickets.load(rewritten(path, change))


def test_save_refuses_what_load_would_refuse(tmp_path: Path) -> None:
    ticket = make()
    stale = ticket.metadata | {"mask_sha256": mask_sha256(ticket.masks)}
    tickets.save(dataclasses.replace(ticket, metadata=stale), tmp_path / "good")
    for change in (
        {"masks": {"conv.weight": ticket.masks["conv.weight"]}, "metadata": stale, "gains": {}, "fills": {}},
        {"masks": {"conv.weight": torch.ones(3, 1, 3, 3)}},
        {"masks": {"else": torch.ones(3, dtype=torch.bool)}},
    ):
        with pytest.raises(LtlError):
            tickets.save(dataclasses.replace(ticket, **change), tmp_path / "bad")
    assert [file.name for file in tmp_path.iterdir()] == ["good"]


def test_effective_weight_is_gain_mask_theta_and_fill() -> None:
    ticket = make()
    conv, output = (ticket.state[name] for name in ("conv.weight", "output.weight"))
    conv_mask, output_mask = (ticket.masks[name].float() for name in ("conv.weight", "output.weight"))
    got = tickets.effective(ticket)
    assert torch.equal(got["conv.weight"], ticket.gains["conv"] * (conv_mask * conv))
    assert torch.equal(
        got["output.weight"], 3.0 * output_mask * output + ticket.fills["output.weight"] * (1 - output_mask)
    )
    for name in ("conv.bias", "norm.running_mean", "norm.num_batches_tracked"):
        assert torch.equal(got[name], ticket.state[name])


def run_folder(root: Path, trials: int, rounds: int) -> Path:
    for trial in range(trials):
        folder = root / "tickets" / f"trial-{trial}"
        folder.mkdir(parents=True)
        for round_ in range(rounds):
            (folder / f"round-{round_:02d}.safetensors").touch()
            (folder / f".round-{round_:02d}.safetensors.1.tmp").touch()
    return root


def test_find(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "a@[1]", trials=11, rounds=3)
    two = [run / "tickets" / f"trial-{trial}" / "round-02.safetensors" for trial in range(11)]
    assert tickets.find(f"{run}@2") == tickets.find(f"{run}@02") == two
    assert tickets.find(str(two[3])) == two[3:4]
    plain = run_folder(tmp_path / "b", trials=1, rounds=101)
    assert tickets.find(f"{plain}@100") == [plain / "tickets" / "trial-0" / "round-100.safetensors"]
    assert [file.parts[-4:][0] for file in tickets.find(f"{tmp_path}/*@1")] == ["a@[1]"] * 11 + ["b"]
    assert tickets.find(f"{tmp_path}/b/tickets/*/*")[98:] == [
        plain / "tickets" / "trial-0" / f"round-{number}.safetensors" for number in ("98", "99", "100")
    ]


def test_find_relative_to_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_folder(tmp_path / "run", trials=2, rounds=1)
    monkeypatch.chdir(tmp_path)
    want = [Path("run/tickets/trial-0/round-00.safetensors"), Path("run/tickets/trial-1/round-00.safetensors")]
    assert tickets.find("run@0") == tickets.find("run/**/round*") == want


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{run}@7", r"rounds 0, 1, 2; write .*run@2"),
        ("{run}", r"rounds 0, 1, 2; write .*run@2"),
        ("{run}/..@7", "holds no tickets"),
        ("{run}/none@7", "no such file or run folder"),
        ("{run}/none", "no such file or run folder"),
        ("{run}/n*", "no such file or run folder"),
        ("/*none", "no such file or run folder"),
    ],
)
def test_find_nothing_says_what_there_is(tmp_path: Path, text: str, words: str) -> None:
    run = run_folder(tmp_path / "run", trials=1, rounds=3)
    with pytest.raises(LtlError, match=words) as error:
        tickets.find(text.format(run=run))
    assert "\n" not in str(error.value)


def test_tickets_load_without_lightning_and_our_classes(path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from ltl import tickets; tickets.load(Path(sys.argv[1]));"
        "foreign = ('pytorch_lightning', 'hydra', 'ltl.models', 'ltl.datasets');"
        "bad = [name for name in sys.modules if name.startswith(foreign)];"
        "sys.exit(str(bad) if bad else 0)"
    )
    subprocess.run(
        [sys.executable, "-c", program, path], check=True, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    )

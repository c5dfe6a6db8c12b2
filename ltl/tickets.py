"""A ticket as a file: masks, all parameters and buffers at the rewind point, and provenance (docs/tickets.md)."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as tensors_from_bytes
from safetensors.torch import save as tensors_to_bytes

from ltl.errors import LtlError
from ltl.masks import Masks, Tensors, kept, mask_bits, mask_sha256, pack, tensors_sha256, unpack
from ltl.results import write_atomic

FORMAT = "ltl-ticket/1"

_KINDS = ("mask", "theta", "gain", "fill", "probability")
_SIGN = "sign"  # bits in the place of a masked weight's theta that is 1 or −1 everywhere
_SIGNED = "signs"  # metadata: the shapes of these


@dataclass(frozen=True)
class Ticket:
    """A mask and the weights its survivors are set back to, with provenance.

    `masks` (bool) and `fills` are keyed by the name of the weight, `gains` by its layer (the name without `.weight`);
    `state` holds every parameter and buffer at the rewind point, unmasked; `probabilities` are those of keeping each
    weight, by name, where a mask was learned by them. Metadata values are strings; a loaded ticket's also hold `format`
    and `sha256`, which `save` sets itself.
    """

    masks: Masks
    state: Tensors
    metadata: dict[str, str]
    gains: Tensors
    fills: Tensors
    probabilities: Tensors = field(default_factory=dict)


def start_of(ticket: Ticket) -> Tensors:
    """Return what training a ticket begins from, before it is masked: θ, times the gains of its layers."""
    state = dict(ticket.state)
    for name in ticket.masks:
        gain = ticket.gains.get(_layer(name))
        state[name] = state[name] if gain is None else (gain * state[name]).to(state[name].dtype)
    return state


def effective(ticket: Ticket) -> Tensors:
    """Return the ticket's network as a state dict: gain·(m ⊙ θ) + fill·(1 − m) for masked weights, θ for the rest."""
    state = start_of(ticket)
    for name, mask in ticket.masks.items():
        state[name] = torch.where(mask, state[name], ticket.fills.get(name, torch.zeros_like(state[name])))
    return state


def save(ticket: Ticket, path: Path) -> None:
    """Write `ticket` to `path`, whole or not at all; the same ticket always gives the same bytes.

    Masked weights that are 1 or −1 everywhere are written as bits. LtlError if masks, gains or fills do not fit the
    weights.
    """
    _check(ticket, str(path))
    signs = {name: ticket.state[name] for name in ticket.masks if _is_binary(ticket.state[name])}
    parts = dict(zip(_KINDS, _parts(ticket), strict=True))
    tensors = {
        f"{kind}/{name}": pack(value)
        if kind == "mask"
        else value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for kind, part in parts.items()
        for name, value in part.items()
        if kind != "theta" or name not in signs
    }
    tensors |= {f"{_SIGN}/{name}": pack(value > 0) for name, value in signs.items()}
    metadata = {**ticket.metadata, "format": FORMAT}
    metadata.pop(_SIGNED, None)
    if signs:
        metadata[_SIGNED] = json.dumps({name: list(value.shape) for name, value in signs.items()})
    metadata["sha256"] = _sha256(tensors, metadata)
    content = tensors_to_bytes(tensors, metadata)
    start = 8 + int.from_bytes(content[:8], "little")
    # The library writes metadata in random order; ours is sorted, so that equal tickets are equal files.
    write_atomic(path, _header_bytes(json.loads(content[8:start])) + content[start:])


def load(path: Path) -> Ticket:
    """Read the ticket at `path` without unpickling, masks in natural order of name.

    LtlError for anything but a whole, unaltered ltl ticket.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise LtlError(f"ticket {str(path)!r}: no such file; give a file, 'run folder@round' or a glob.") from None
    except OSError as error:
        raise LtlError(f"ticket {str(path)!r}: cannot be read: {error.strerror}.") from None
    where = f"ticket {str(path)!r}"
    header, tensors = _parse(content, where)
    metadata = header.get("__metadata__") or {}
    _check_format(metadata.get("format", ""), where)
    whole = content.startswith(_header_bytes(header)) and metadata.get("sha256") == _sha256(tensors, metadata)
    if not whole:
        raise LtlError(f"{where}: was altered: its content does not match its sha256; get an unaltered copy.")
    parts: dict[str, Tensors] = {kind: {} for kind in (*_KINDS, _SIGN)}
    for key, tensor in tensors.items():
        kind, _, name = key.partition("/")
        if kind not in parts or not name:
            raise LtlError(f"{where}: holds {key!r}; {FORMAT} knows {', '.join(f'{kind}/' for kind in parts)} only.")
        parts[kind][name] = tensor
    parts["theta"] |= _signs(parts[_SIGN], metadata.get(_SIGNED, "{}"), parts["theta"], where)
    packed = sorted(parts["mask"].items(), key=lambda item: _natural(item[0]))
    masks = {name: _unpacked(bits, name, parts["theta"], where) for name, bits in packed}
    ticket = Ticket(masks, parts["theta"], metadata, parts["gain"], parts["fill"], parts["probability"])
    _check(ticket, str(path))
    return ticket


def bits_of(masks: Masks, state: Tensors) -> float | None:
    """Return the bits that tell mask and signs of a ticket whose masked weights are all 1 or −1; None for any other."""
    binary = all(_is_binary(state[name]) for name in masks)
    return mask_bits(masks) + kept(masks) if binary else None


def find(text: str) -> list[Path]:
    """Return the tickets that `text` names, in natural order: a file, `run folder@round` (all its trials) or a glob.

    The folder may be a glob too. LtlError if nothing is found.
    """
    path = Path(text).expanduser()
    if path.is_file():
        return [path]
    at_round = re.fullmatch(r"(.+)@(\d+)", text)
    if at_round:
        folders = [folder for folder in _matches(at_round[1]) if folder.is_dir()]
        name = f"round-{int(at_round[2]):02d}.safetensors"
        found = list(chain.from_iterable(folder.glob(f"tickets/trial-*/{name}") for folder in folders))
    else:
        # A killed process can leave `.<name>.tmp` files beside its tickets.
        found = [match for match in _matches(text) if match.is_file() and not match.name.startswith(".")]
    if found:
        return sorted(found, key=lambda match: _natural(str(match)))
    raise LtlError(f"ticket={text}: {_why_none(text, at_round[1] if at_round else text)}")


def check_trials(metadata: Mapping[Path, Mapping[str, str]]) -> None:
    """LtlError if tickets, given by their metadata, are of one trial and round, or of one trial and different θ₀."""
    rounds: dict[tuple[int, int], Path] = {}
    starts: dict[int, tuple[str, Path]] = {}
    for path, facts in metadata.items():
        trial, turn = int(facts["trial"]), int(facts["round"])
        if (other := rounds.setdefault((trial, turn), path)) != path:
            raise LtlError(
                f"ticket={path} and {other} are both of trial {trial}, round {turn}: train them in two runs."
            )
        start, first = starts.setdefault(trial, (facts.get("init_sha256", ""), path))
        if start != facts.get("init_sha256", ""):
            raise LtlError(
                f"ticket={path} and {first} are both of trial {trial} and were found from different initialisations "
                "(init_sha256), so the one says nothing of the other: train them in two runs."
            )


def layer_counts(*, ticket: str | None) -> dict[str, int]:
    """Return how many weights of each layer the tickets keep that `ticket` names, as `find` reads it.

    LtlError if it names none, or tickets that differ in this.
    """
    if ticket is None:
        raise LtlError(
            "pruner.allocation.like.ticket=null is not possible: name the ticket to match, a file or run folder@round."
        )
    counts = [{name: kept({name: mask}) for name, mask in load(path).masks.items()} for path in find(ticket)]
    if any(one != counts[0] for one in counts):
        raise LtlError(
            f"pruner.allocation.like.ticket={ticket}: these {len(counts)} tickets keep different numbers of weights in "
            "their layers: name a single file."
        )
    return counts[0]


def _matches(pattern: str) -> list[Path]:
    path = Path(pattern).expanduser()
    if path.exists():
        return [path]
    relative = path.relative_to(path.anchor)
    return list(Path(path.anchor).glob(str(relative))) if any(sign in pattern for sign in "*?[") else []


def _why_none(text: str, folder: str) -> str:
    runs = [match for match in _matches(folder) if match.is_dir()]
    rounds = {int(file.stem[6:]) for run in runs for file in run.glob("tickets/trial-*/round-*[0-9].safetensors")}
    if rounds:
        have = ", ".join(map(str, sorted(rounds)))
        return f"this run has tickets of rounds {have}; write {folder}@{max(rounds)}."
    if runs:
        return "this folder holds no tickets (tickets/trial-*/round-*.safetensors); give a run folder and a round."
    return "no such file or run folder; give a file, 'run folder@round' or a glob."


def _parts(ticket: Ticket) -> tuple[Tensors, ...]:
    return ticket.masks, ticket.state, ticket.gains, ticket.fills, ticket.probabilities


def _natural(text: str) -> list[tuple[str, int]]:
    return [(part, int(digits or 0)) for part, digits in re.findall(r"(\D*)(\d*)", text)]


def _layer(name: str) -> str:
    return name.removesuffix(".weight")


def _header_bytes(header: dict[str, Any]) -> bytes:
    entries = {**header, "__metadata__": dict(sorted(header["__metadata__"].items()))}
    text = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _sha256(tensors: Tensors, metadata: dict[str, str]) -> str:
    content = {key: value for key, value in metadata.items() if key != "sha256"}
    text = json.dumps([content, tensors_sha256(tensors)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _parse(content: bytes, where: str) -> tuple[dict[str, Any], Tensors]:
    start = 8 + int.from_bytes(content[:8], "little")
    if content[8:9] not in (b"{", b"") or start > 100_000_000:
        if content.startswith((b"PK", b"\x80")):
            raise LtlError(f"{where}: is a torch.save file, which ltl does not unpickle; try ltl-ticket import.")
        raise LtlError(f"{where}: is not a safetensors file, so no ltl ticket.")
    try:
        tensors = tensors_from_bytes(content)
        return json.loads(content[8:start]), tensors
    except (SafetensorError, KeyError, ValueError, RuntimeError, TypeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise LtlError(f"{where}: is not whole: it was cut off or altered ({reason}); copy it again.") from None


def _check_format(text: str, where: str) -> None:
    version = re.fullmatch(r"ltl-ticket/([1-9]\d{0,5})", text)
    if not version:
        raise LtlError(f"{where}: is a safetensors file but no ltl ticket: its metadata has no format {FORMAT!r}.")
    if text != FORMAT:
        raise LtlError(f"{where}: has the newer format {text!r}; this ltl reads {FORMAT!r}: upgrade ltl.")


def _is_binary(weight: torch.Tensor) -> bool:
    return weight.dtype == torch.float32 and bool((weight.abs() == 1).all())


def _signs(packed: Tensors, shapes: str, state: Tensors, where: str) -> Tensors:
    """Return 1 and −1 where bits say so; LtlError for shapes that metadata does not name, and for names of `state`."""
    try:
        named = json.loads(shapes).items()
        known = {name: torch.Size(shape) for name, shape in named if min(shape, default=0) >= 0}
    except (ValueError, TypeError, AttributeError, RecursionError):
        known = {}
    for name, bits in packed.items():
        if name in state:
            raise LtlError(f"{where}: holds {name!r} twice, as numbers and as signs.")
        if name not in known or bits.dtype != torch.uint8 or bits.shape != (-(-known[name].numel() // 8),):
            raise LtlError(f"{where}: the signs of {name!r} are not of the shape that its metadata names.")
    return {name: unpack(bits, known[name]).float() * 2 - 1 for name, bits in packed.items()}


def _unpacked(bits: torch.Tensor, name: str, state: Tensors, where: str) -> torch.Tensor:
    if name not in state:
        raise LtlError(f"{where}: has a mask of {name!r} but no weight of that name.")
    shape = state[name].shape
    if bits.dtype != torch.uint8 or bits.shape != (-(-shape.numel() // 8),):
        raise LtlError(f"{where}: the mask of {name!r} has {tuple(bits.shape)} {bits.dtype}, not one bit a weight.")
    mask = unpack(bits, shape)
    if not torch.equal(pack(mask), bits):
        raise LtlError(f"{where}: the mask of {name!r} has bits beyond its last weight that are not 0.")
    return mask


def _check(ticket: Ticket, path: str) -> None:
    where = f"ticket {path!r}"
    if not ticket.masks or any(mask.numel() == 0 for mask in ticket.masks.values()):
        raise LtlError(f"{where}: needs a mask of at least one layer, and no empty layers.")
    for name, mask in ticket.masks.items():
        weight = ticket.state.get(name)
        if weight is None or mask.dtype != torch.bool or mask.shape != weight.shape or not weight.is_floating_point():
            raise LtlError(f"{where}: the mask of {name!r} must be bool and of the shape of a weight of that name.")
    shapes = {_layer(name): mask.shape for name, mask in ticket.masks.items()}
    for layer, gain in ticket.gains.items():
        if layer not in shapes or not _broadcasts(gain.shape, shapes[layer]):
            raise LtlError(f"{where}: the gain of {layer!r} {tuple(gain.shape)} fits no masked layer of that name.")
    for name, fill in ticket.fills.items():
        weight = ticket.state.get(name)
        if name not in ticket.masks or weight is None or fill.shape != weight.shape or fill.dtype != weight.dtype:
            raise LtlError(f"{where}: the fill of {name!r} must have the shape and type of a masked weight.")
    for name, probability in ticket.probabilities.items():
        if name not in ticket.masks or probability.shape != ticket.masks[name].shape:
            raise LtlError(f"{where}: the probabilities of {name!r} must have the shape of a masked weight.")
    if ticket.metadata.get("mask_sha256", (sha := mask_sha256(ticket.masks))) != sha:
        raise LtlError(f"{where}: metadata mask_sha256 is of other masks; it must be {sha}.")


def _broadcasts(shape: torch.Size, to: torch.Size) -> bool:
    return len(shape) <= len(to) and all(
        size in (1, wanted) for size, wanted in zip(reversed(shape), reversed(to), strict=False)
    )

"""Tickets on the command line: `ltl-ticket show | diff | export | import` (docs/tickets.md)."""

import argparse
import json
import math
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from ltl.errors import LtlError

# torch takes seconds to import: only commands do, so that --help and mistakes answer at once.
if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from ltl.comparison import Overlap
    from ltl.tickets import Ticket

_LOADER = '''"""Load a ticket with torch and safetensors alone; its pruned weights are already {pruned}."""
from pathlib import Path
import torch
from safetensors.torch import load_file

state = load_file(Path(__file__).with_name({name!r}))
{sign}
def load_ticket(network: torch.nn.Module) -> torch.nn.Module:
    network.load_state_dict(state)  # by name, all parameters and buffers; run this file to see names and shapes
    return network

if __name__ == "__main__":
    print(*(f"{{name}} {{tuple(tensor.shape)}}" for name, tensor in state.items()), sep="\\n")
'''
_SIGN = '''
class Sign(torch.nn.Module):
    """What the hidden units of this network have in the place of ReLU: 1 where an input is 0 or more, else -1."""
    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return torch.where(inputs >= 0, 1.0, -1.0).to(inputs.dtype)
'''


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(1, f"ltl-ticket: {' '.join(message.split())} (see {self.prog} --help)\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; a mistake of the user's is one line on stderr and exit code 1."""
    given = _parser().parse_args(arguments)
    try:
        given.run(given)
    except (LtlError, OSError) as error:
        print(_plain(f"ltl-ticket: {error}"), file=sys.stderr)
        return 1
    return 0


def show(given: argparse.Namespace) -> None:
    """Print provenance, layers and checksum of each ticket that was named."""
    from ltl import tickets

    for path in tickets.find(given.ticket):
        _print_ticket(path, tickets.load(path))


def diff(given: argparse.Namespace) -> None:
    """Print how two tickets compare, layer by layer and in all."""
    from ltl import tickets
    from ltl.comparison import compare, in_all

    paths = [_only(given.a), _only(given.b)]
    a, b = (tickets.load(path) for path in paths)
    layers = compare(a.masks, b.masks, a.state, b.state)
    _print_diff(paths, (a, b), [*layers, in_all(layers)], _predictions(a, b, given.data))


def export(given: argparse.Namespace) -> None:
    """Write the ticket's network as a plain state dict, and the Python that loads it beside."""
    from safetensors.torch import save

    from ltl import tickets
    from ltl.results import write_atomic

    ticket = tickets.load(_only(given.ticket))
    out = Path(given.out)
    if out.suffix != ".safetensors":
        raise LtlError(f"{given.out}: the state dict is a safetensors file, so name it *.safetensors.")
    _refuse_existing(out, loader := out.with_suffix(".py"))
    # A transposed or tied weight would be refused as a view, so every tensor gets its own memory.
    state = {name: tensor.contiguous().clone() for name, tensor in tickets.effective(ticket).items()}
    pruned, sign = "filled" if ticket.fills else "0", _SIGN if _has_signs(ticket) else ""
    text = _LOADER.format(name=out.name, pruned=pruned, sign=sign)
    write_atomic(out, save(state, {"format": "pt"}))
    write_atomic(loader, text.encode())
    print(f"wrote {out} and {loader}, which holds:\n\n{text}", end="")


def import_(given: argparse.Namespace) -> None:
    """Write a ticket from the state dict of a network that torch.nn.utils.prune has masked."""
    from ltl import tickets, torch_prune

    out = Path(given.out)
    _refuse_existing(out)
    tickets.save(torch_prune.read(Path(given.file)), out)
    _print_ticket(out, tickets.load(out))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="ltl-ticket",
        description="Look at, compare and convert tickets (docs/tickets.md).",
        epilog="TICKET is a file, RUN_FOLDER@ROUND (all trials of that round) or a glob. No ticket is ever unpickled.",
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    one = commands.add_parser("show", help="provenance, layers, densities and checksum", description=show.__doc__)
    one.add_argument("ticket", metavar="TICKET", help="a file, RUN_FOLDER@ROUND or a glob; several are shown in turn")
    one.set_defaults(run=show)

    two = commands.add_parser(
        "diff",
        help="overlap against chance, signs, predictions",
        description="Print how two tickets of one model compare: Jaccard index and overlap of their masks, what chance "
        "gives at the same layer densities, equal signs among common survivors, agreement of predictions.",
    )
    two.add_argument("a", metavar="A", help="a ticket: a file, or RUN_FOLDER@ROUND of a run with one trial")
    two.add_argument("b", metavar="B", help="the ticket to compare with")
    two.add_argument(
        "--data",
        default="ticket",
        metavar="NAME",
        help="test set for the predictions: a dataset by name (digits, mnist, …), none, or ticket: the one that A was "
        "found on (default); nothing is downloaded",
    )
    two.set_defaults(run=diff)

    three = commands.add_parser(
        "export",
        help="a plain safetensors state dict, and the Python that loads it without ltl",
        description="Write the network m ⊙ θ, gains and fills applied, as a plain safetensors state dict, and beside "
        "it a .py file that loads it with torch and safetensors alone.",
    )
    three.add_argument("ticket", metavar="TICKET", help="a ticket file, or RUN_FOLDER@ROUND of a run with one trial")
    three.add_argument("out", metavar="OUT.safetensors", help="the file to write; it must not exist yet")
    three.set_defaults(run=export)

    four = commands.add_parser(
        "import",
        help="a ticket from the keys of torch.nn.utils.prune",
        description="Write a ticket from a torch.save file with a state dict that has *.weight_orig and *.weight_mask. "
        "The file is read with weights_only=True: one that would run code is refused.",
    )
    four.add_argument("file", metavar="FILE", help="torch.save(network.state_dict(), FILE)")
    four.add_argument("out", metavar="OUT", help="the ticket to write; it must not exist yet")
    four.set_defaults(run=import_)
    return parser


def _only(text: str) -> Path:
    from ltl import tickets

    paths = tickets.find(text)
    if len(paths) > 1:
        raise LtlError(f"{text} names {len(paths)} tickets, where one is needed: give a file, such as {paths[0]}.")
    return paths[0]


def _refuse_existing(*paths: Path) -> None:
    for path in paths:
        if path.exists():
            raise LtlError(f"{path} exists already and would be overwritten: choose another name or remove it.")


def _has_signs(ticket: "Ticket") -> bool:
    """Return whether hidden units give signs, by the model that the metadata names, if it does."""
    with suppress(ValueError, RecursionError, AttributeError):
        return bool(json.loads(ticket.metadata.get("model", "{}")).get("activation") == "sign")
    return False


def _predictions(a: "Ticket", b: "Ticket", data: str) -> str:
    from ltl import rebuild
    from ltl.comparison import agreement
    from ltl.run import CONF

    if data == "none":
        return "not compared (--data none)"
    try:
        dataset = rebuild.dataset_of(a) if data == "ticket" else rebuild.dataset_named(data, CONF)
        found = agreement(rebuild.outputs(a, dataset), rebuild.outputs(b, dataset), dataset.test.targets)
    except rebuild.Unavailable as reason:
        return f"not compared: {reason}"
    except rebuild.Foreign as error:
        raise LtlError(f"{str(error).rstrip('.')}; use --data none.") from None
    return (
        f"both give the same class to {found.same:.2%} of the {found.examples} test examples of {dataset.name} "
        f"(accuracy of A {found.accuracy_a:.2%}, of B {found.accuracy_b:.2%})"
    )


def _print_ticket(path: Path, ticket: "Ticket") -> None:
    from ltl.masks import kept, total
    from ltl.tickets import bits_of

    console = _console()
    console.print(_plain(str(path)), soft_wrap=True)
    facts = [[key, value] for key, value in sorted(ticket.metadata.items()) if key != "sha256"]
    console.print(_table(["provenance", ""], facts, left=2))
    rows = []
    for name, mask in ticket.masks.items():
        extras = [("gain", name.removesuffix(".weight") in ticket.gains), ("fill", name in ticket.fills)]
        given = " ".join(word for word, there in extras if there)
        rows.append([name, "×".join(map(str, mask.shape)), *_counts(int(mask.sum()), mask.numel()), given])
    rows.append(["all", "", *_counts(kept(ticket.masks), total(ticket.masks)), ""])
    console.print(_table(["layer", "shape", "weights", "kept", "density", ""], rows, last_is_total=True))
    others = [value.numel() for name, value in ticket.state.items() if name not in ticket.masks]
    console.print(f"unmasked: {sum(others):,} values in {len(others)} parameters and buffers")
    if (bits := bits_of(ticket.masks, ticket.state)) is not None:
        signs = kept(ticket.masks)
        console.print(f"binary: {signs:,} signs and {bits - signs:,.0f} bits of mask, {bits:,.0f} bits in all")
    console.print(f"sha256 {ticket.metadata['sha256']} (checked)", soft_wrap=True)


def _print_diff(paths: list[Path], tickets: "tuple[Ticket, Ticket]", layers: "list[Overlap]", predictions: str) -> None:
    console = _console()
    for label, path, ticket in zip("AB", paths, tickets, strict=True):
        console.print(f"{label}: {_plain(str(path))}, sha256 {ticket.metadata['sha256']}", soft_wrap=True)
    rows = []
    for layer in layers:
        densities = [_number(kept / layer.weights) for kept in (layer.kept_a, layer.kept_b)]
        overlaps = [layer.jaccard, layer.jaccard_by_chance, layer.overlap, layer.overlap_by_chance]
        cells = [layer.layer.removesuffix(".weight"), *densities, f"{layer.common:,}", *map(_number, overlaps)]
        rows.append([*cells, _number(layer.z, ".1f"), _number(layer.sign_agreement)])
    heads = ["layer", "density\nA", "density\nB", "both\nkeep", "Jaccard", "by\nchance", "overlap", "by\nchance"]
    heads += ["z", "equal\nsigns"]
    console.print(_table(heads, rows, last_is_total=True))
    console.print(f"predictions: {_plain(predictions)}", soft_wrap=True)


def _console() -> "Console":
    from rich.console import Console

    # In a pipe or a file nothing is to be cut or folded at 80 columns.
    return Console(width=None if sys.stdout.isatty() else 160, markup=False, emoji=False, highlight=False)


def _table(heads: list[str], rows: list[list[str]], *, left: int = 1, last_is_total: bool = False) -> "Table":
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for number, head in enumerate(heads):
        text = number < left
        table.add_column(head, justify="left" if text else "right", overflow="fold", no_wrap=not text)
    for number, row in enumerate(rows, 1):
        if last_is_total and number == len(rows):
            table.add_section()
        table.add_row(*(Text(_plain(cell)) for cell in row))
    return table


def _plain(text: str) -> str:
    """Return `text` with control characters written out: a foreign file must not steer the terminal."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


def _counts(kept: int, weights: int) -> tuple[str, str, str]:
    return f"{weights:,}", f"{kept:,}", _number(kept / weights)


def _number(value: float, form: str = ".3g") -> str:
    return "–" if math.isnan(value) else format(value, form)


if __name__ == "__main__":
    sys.exit(main())

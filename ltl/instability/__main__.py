"""`python -m ltl.instability FOLDER…`: instability of networks that were trained several times from the same start."""

import argparse
import os
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ltl.errors import LtlError

if TYPE_CHECKING:
    from ltl.report.statistics import Interval

_COLUMNS = (
    "arm round density rewind_step init_sha256 mask_sha256 a b alpha train_error test_error train_instability "
    "test_instability distance"
).split()
_BATCH = 125  # examples at a time: more leave the caches of a processor (docs/performance.md)


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare all trained networks below the folders that `arguments` name; return the exit code."""
    options = _parser().parse_args(arguments)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read once, when PyTorch is imported
    try:
        if options.points < 3:
            raise LtlError(f"--points {options.points} is not possible: a line needs 3 places or more.")
        _run(options)
    except (LtlError, OSError) as error:
        print(f"ltl-instability: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ltl-instability",
        description="Interpolates between trained networks that began from the same weights and mask in other data "
        "orders (runs with ends=true), and writes instability.csv and a figure (Frankle et al. 2020).",
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="run folders, or sweeps of them")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where to write (default: the first folder)")
    parser.add_argument(
        "--arm", nargs="+", default=["ticket"], help="the arms, each by itself (default: ticket; or controls' names)"
    )
    parser.add_argument("--points", type=int, default=30, metavar="N", help="places on each line (30, as published)")
    parser.add_argument(
        "--recompute", action="store_true", help="BatchNorm's statistics anew from the training set, not interpolated"
    )
    return parser


def _run(options: argparse.Namespace) -> None:
    from rich.progress import track

    from ltl import rebuild
    from ltl.console import print_table, terminal
    from ltl.instability.figure import Measured, Start, draw, draw_lines, word
    from ltl.instability.lines import Kind, Line, ends_below, instability, line, pairs
    from ltl.report.statistics import two_sided
    from ltl.report.verdict import data_cautions, too_small
    from ltl.report.words import count, dataset_words, model_words, percent
    from ltl.results import write_table

    out, recompute = options.out or options.folders[0], options.recompute
    ends = ends_below(options.folders, options.arm)
    found = pairs(ends)
    if not found:
        raise LtlError(
            f"no two of the {len(ends)} trained networks began alike: train tickets again in other orders, such as "
            "`-m ticket='run@*' seeds.order=1,2,3 ends=true`."
        )
    dataset = rebuild.dataset_of(found[0][0].ticket)
    console = terminal()
    rows = []
    measured: defaultdict[Kind, defaultdict[str, list[Line]]] = defaultdict(lambda: defaultdict(list))
    for a, b in track(found, "between pairs", console=console, disable=not console.is_terminal):
        between = line(a, b, dataset, points=options.points, batch=_BATCH, recompute=recompute)
        measured[a.kind][a.began[0]].append(between)
        fixed = {
            **dict(zip(("arm", "density", "rewind_step"), a.kind, strict=True)),
            **dict(zip(("init_sha256", "mask_sha256"), a.began[:2], strict=True)),
            **{name: os.path.relpath(end.path, out) for name, end in (("a", a), ("b", b))},
            "round": a.ticket.metadata["round"],
            "train_instability": instability(between.train),
            "test_instability": instability(between.test),
            "distance": between.distance,
        }
        for alpha, train, test in zip(between.alphas, between.train, between.test, strict=True):
            rows.append({**fixed, "alpha": alpha, "train_error": train, "test_error": test})
    write_table(out / "instability.csv", _COLUMNS, rows)
    kinds = sorted(measured, key=lambda kind: (kind.arm, -kind.density, kind.step))
    by_kind = [Measured(kind, [Start.of(lines) for lines in measured[kind].values()]) for kind in kinds]
    most = max(len(one.starts) for one in by_kind)
    statistics = "BatchNorm recomputed" if recompute else "all entries interpolated"
    named = [rebuild.names(a.ticket) for a, _ in found]
    models = ", ".join(dict.fromkeys(model_words(model) for model, _ in named))
    subtitle = f"{models} on {dataset_words(named[0][1])} · {len(found)} pairs · n = {most} starts · {statistics}"
    no_verdict = too_small(len(dataset.test.targets))
    cautions = data_cautions(canonical=dataset.canonical, no_verdict=no_verdict)
    drawings = [function(by_kind, subtitle, cautions, out / "figures") for function in (draw, draw_lines)]
    table = [
        [
            kind.arm, percent(kind.density), count(kind.step), str(len(starts)),
            _shown(two_sided([one.test for one in starts])), _shown(two_sided([one.train for one in starts])),
            no_verdict or word([one.test for one in starts]),
        ]
        for kind, starts in by_kind
    ]  # fmt: skip
    header = ["arm", "density (%)", "k", "starts", "test instability (%)", "train instability (%)", "verdict (test)"]
    print_table(console, header, table, left=(header[0], header[-1]))
    for path in (out / "instability.csv", *(path for drawing in drawings for path in drawing.paths)):
        console.print(str(path), highlight=False, markup=False, soft_wrap=True)


def _shown(interval: "Interval") -> str:
    from ltl.report.statistics import FEWEST_TRIALS

    half = f" ± {100 * (interval.high - interval.mean):.2f}" if interval.n >= FEWEST_TRIALS else ""
    return f"{100 * interval.mean:.2f}{half}"


if __name__ == "__main__":
    sys.exit(main())

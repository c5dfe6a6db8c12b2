"""`python -m ltl.instability FOLDER…`: instability of networks that were trained several times from the same start."""

import argparse
import os
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from ltl.errors import LtlError

if TYPE_CHECKING:
    from ltl.report.statistics import Interval

_COLUMNS = (
    "round density init_sha256 mask_sha256 a b alpha train_error test_error train_instability test_instability distance"
).split()


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare all trained networks below the folders that `arguments` name; return the exit code."""
    options = _parser().parse_args(arguments)
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
    parser.add_argument("--arm", default="ticket", help="the arm to compare (default: ticket; or a control's name)")
    parser.add_argument("--points", type=int, default=30, metavar="N", help="places on each line (30, as published)")
    parser.add_argument(
        "--recompute", action="store_true", help="BatchNorm's statistics anew from the training set, not interpolated"
    )
    return parser


def _run(options: argparse.Namespace) -> None:
    from rich.progress import track

    from ltl import rebuild
    from ltl.console import print_table, terminal
    from ltl.instability.figure import draw, word
    from ltl.instability.lines import ends_below, instability, line, pairs
    from ltl.report.statistics import two_sided
    from ltl.report.words import percent
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
    values: dict[str, defaultdict[float, defaultdict[str, list[float]]]] = {
        split: defaultdict(lambda: defaultdict(list)) for split in ("test", "train")
    }
    for a, b in track(found, "between pairs", console=console, disable=not console.is_terminal):
        between = line(a, b, dataset, points=options.points, batch=1000, recompute=recompute)
        metadata = a.ticket.metadata
        files = [os.path.relpath(end.path, out) for end in (a, b)]
        rise = {"train": instability(between.train), "test": instability(between.test)}
        for split, value in rise.items():
            values[split][float(metadata["density"])][metadata["init_sha256"]].append(value)
        for alpha, train, test in zip(between.alphas, between.train, between.test, strict=True):
            cells = (
                metadata["round"], metadata["density"], *a.began, *files, alpha, train, test,
                rise["train"], rise["test"], between.distance,
            )  # fmt: skip
            rows.append(dict(zip(_COLUMNS, cells, strict=True)))
    write_table(out / "instability.csv", _COLUMNS, rows)
    splits = {
        split: [
            (density, [fmean(pair) for pair in starts.values()]) for density, starts in sorted(by_density.items())[::-1]
        ]
        for split, by_density in values.items()
    }
    most = max(len(starts) for _, starts in splits["test"])
    statistics = "BatchNorm recomputed" if recompute else "all entries interpolated"
    drawing = draw(splits, f"{dataset.name} · {len(found)} pairs · n = {most} starts · {statistics}", out / "figures")
    table = [
        [percent(density), str(len(on_test)), _shown(two_sided(on_test)), _shown(two_sided(on_train)), word(on_test)]
        for (density, on_test), (_, on_train) in zip(splits["test"], splits["train"], strict=True)
    ]
    header = ["density (%)", "starts", "test instability (%)", "train instability (%)", "verdict (test)"]
    print_table(console, header, table, left=header[4:])
    for path in (out / "instability.csv", *drawing.paths):
        console.print(str(path), highlight=False, markup=False, soft_wrap=True)


def _shown(interval: "Interval") -> str:
    from ltl.report.statistics import FEWEST_TRIALS

    half = f" ± {100 * (interval.high - interval.mean):.2f}" if interval.n >= FEWEST_TRIALS else ""
    return f"{100 * interval.mean:.2f}{half}"


if __name__ == "__main__":
    sys.exit(main())

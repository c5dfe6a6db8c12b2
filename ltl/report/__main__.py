"""`python -m ltl.report PATH…`: tables, figures and one HTML page from run folders."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ltl.errors import LtlError
from ltl.report.widths import WIDTHS


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the report on the run folders that `arguments` name and print its table; return the exit code."""
    options = _parser().parse_args(arguments)
    from ltl.report import show, write

    try:
        show(write(options.paths, out=options.out, compare=options.compare, pdf=True, width=options.width))
    except (LtlError, OSError) as error:
        print(f"ltl-report: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ltl-report",
        description="Reads run folders and writes figures (SVG, PNG, PDF, and their numbers as CSV), tables (Markdown, "
        "LaTeX, CSV) and one self-contained report.html.",
    )
    parser.add_argument(
        "paths", nargs="+", type=Path, metavar="PATH", help="run folder, multirun folder or glob of them"
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="where to write (default: the run folder, or the folder of all of them)"
    )
    parser.add_argument("--compare", action="store_true", help="two paths A B: also the paired differences A − B")
    parser.add_argument(
        "--width",
        choices=list(WIDTHS),
        default="page",
        help="of the figures: page (default), or for a paper, without title: "
        + ", ".join(f"{name} ({width.inches:g} in)" for name, width in WIDTHS.items() if not width.titled),
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())

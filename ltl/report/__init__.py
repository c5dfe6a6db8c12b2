"""The report: reads run folders and knows nothing of training."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ltl.report.report import Report

__all__ = ["line", "show", "write"]


def write(
    folders: "Sequence[Path]",
    *,
    out: "Path | None" = None,
    compare: bool = False,
    pdf: bool = False,
    width: str = "page",
) -> "Report":
    """Write figures, tables and report.html on run folders (or folders and globs of them) and return what was found.

    They go to the run folder, for several runs to the folder that holds them all, or to `out`. With `compare` there are
    two paths, and their tickets are set against each other, trial by trial. `pdf` writes the figures as PDF as well, a
    third of a second each; `width` is one of `ltl.report.widths.WIDTHS`. LtlError if there is nothing to report.
    """
    # Imported when called: whoever asks for --help waits for neither scipy nor matplotlib.
    from ltl.report.report import write as write_report

    return write_report(folders, out=out, compare=compare, pdf=pdf, width=width)


def show(report: "Report", *, brief: bool = False) -> None:
    """Print the table of rounds, the verdict and the paths of what was written.

    `brief`: where there are several settings, a line for each of them instead of their tables.
    """
    from ltl.report.report import show as show_report

    show_report(report, brief=brief)


def line(report: "Report") -> str:
    """Return the verdict of a report and its page in one line."""
    from ltl.report.report import line as line_of

    return line_of(report)

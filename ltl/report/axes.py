"""What all figures share: colours, the reversed density axis, titles, and saving as SVG, PNG and PDF."""

import io
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from matplotlib.typing import RcKeyType

from ltl.report.words import count, percent
from ltl.results import write_atomic

# Okabe & Ito (2008): told apart by colour-blind readers; each series has its own marker as well.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
GREY = "#5c5c5c"
# Without viridis' last tenth, whose yellow is too light on white.
SHADES = LinearSegmentedColormap.from_list("shades", matplotlib.colormaps["viridis"]([i / 100 for i in range(91)]))

_STYLE: dict[RcKeyType, Any] = {
    "font.size": 10.5,
    "axes.labelsize": 10.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "lines.linewidth": 1.8,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9.5,
    "svg.fonttype": "path",
    "pdf.fonttype": 42,  # TrueType: conferences refuse Type 3, which would be faster
}


@dataclass(frozen=True)
class Drawing:
    """A finished figure: its name, what it shows in a sentence (also for those who cannot see it), and its SVG."""

    name: str
    caption: str
    svg: str
    paths: tuple[Path, ...]
    figure: Figure


@contextmanager
def canvas(title: str, subtitle: str, cautions: Sequence[str]) -> Iterator[tuple[Figure, Axes]]:
    """Yield a figure of one panel; `cautions` are printed on it in so many words."""
    lines = [line for text in (subtitle, " · ".join(cautions)) for line in textwrap.wrap(text, 78)]
    head = 0.36 + 0.165 * len(lines)
    width, height = 5.2, 4.1 + head
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, height))
        FigureCanvasAgg(figure)
        # The words stand at the figure's left edge, above what the layout arranges: beside the axis there is less room.
        figure.set_layout_engine("constrained", rect=(0, 0, 1, 1 - head / height))
        figure.text(0.013, 1 - 0.07 / height, title, va="top", fontsize=12.5, fontweight="bold")
        figure.text(0.013, 1 - 0.33 / height, "\n".join(lines), va="top", fontsize=9, color=GREY, linespacing=1.3)
        yield figure, figure.add_subplot()


def density_axis(axes: Axes, densities: Sequence[float]) -> None:
    """Make x a reversed log axis of densities with a tick at each measured one, labelled wherever there is room."""
    measured = sorted({density for density in densities if density > 0}, reverse=True)
    axes.set_xscale("log")
    axes.set_xlim(max(measured) * 1.12, min(measured) / 1.12)
    # Room for about 12 labels on the width of a figure.
    apart = (max(measured) / min(measured)) ** (1 / 12)
    labelled: list[float] = []
    for density in measured:
        if not labelled or labelled[-1] / density >= apart * 0.999:
            labelled.append(density)
    axes.xaxis.set_major_locator(FixedLocator(labelled))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: percent(value)))
    axes.xaxis.set_minor_locator(FixedLocator([density for density in measured if density not in labelled]))
    axes.xaxis.set_minor_formatter(FuncFormatter(lambda value, _: ""))
    axes.set_xlabel("density: prunable weights left (%)")


def percent_axis(axes: Axes, label: str) -> None:
    """Make y an axis of percent."""
    axes.yaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 2.5, 5, 10]))
    axes.set_ylabel(f"{label} (%)")


def step_axis(axes: Axes, which: str, label: str) -> None:
    """Make an axis of optimiser steps with spaces between thousands."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(FuncFormatter(lambda value, _: count(value)))
    axis.set_label_text(label)


def percent_log_axis(axes: Axes, label: str) -> None:
    """Make y a log axis of percent, for values that are fractions."""
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    marks = [mark for power in range(-6, 1) for mark in (10.0**power, 2 * 10.0**power, 5 * 10.0**power) if mark <= 1]
    axes.yaxis.set_major_locator(FixedLocator([mark for mark in marks if low <= mark <= high]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g}"))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_ylabel(f"{label} (%)")


def save(figure: Figure, folder: Path, name: str, caption: str) -> Drawing:
    """Write `name`.svg and `name`.png below `folder`; equal figures give equal bytes."""
    svg, png = io.StringIO(), io.BytesIO()
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
        figure.savefig(png, format="png", dpi=200, metadata={"Software": None})
    paths = (folder / f"{name}.svg", folder / f"{name}.png")
    write_atomic(paths[0], svg.getvalue().encode())
    write_atomic(paths[1], png.getvalue())
    return Drawing(name, caption, svg.getvalue(), paths, figure)


def save_pdf(drawing: Drawing) -> Path:
    """Write a drawing as PDF beside its other files; equal figures give equal bytes."""
    pdf = io.BytesIO()
    with matplotlib.rc_context(_STYLE):
        drawing.figure.savefig(pdf, format="pdf", metadata={"CreationDate": None, "Creator": None, "Producer": None})
    path = drawing.paths[0].with_suffix(".pdf")
    write_atomic(path, pdf.getvalue())
    return path

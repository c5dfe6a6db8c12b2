"""The sheet that a figure is drawn on: size and style, the words around it, and saving it with its data."""

import io
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.typing import RcKeyType

from ltl.report.widths import Width
from ltl.results import write_atomic, write_table

# Okabe & Ito (2008): told apart by colour-blind readers; each series has its own marker as well.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES = ("-", (0, (3, 1.5)), (0, (1, 1.5)))  # of the first seven series, the next seven and the rest
GREY = "#5c5c5c"
# Without viridis' last tenth, whose yellow is too light on white.
SHADES = LinearSegmentedColormap.from_list("shades", matplotlib.colormaps["viridis"]([i / 100 for i in range(91)]))

_LETTERS_PER_EM = 1.85  # of the figures' font: a line of any words but of capitals fits
_MARGIN = 0.013  # of the figure's width, on both sides of the words above it
_HANDLE = 5  # em that a line and its gaps take in a legend


@dataclass(frozen=True)
class Sheet:
    """Where a figure goes, how wide it is, and whether it is written as PDF too, a third of a second each."""

    folder: Path
    width: Width
    pdf: bool


@dataclass(frozen=True)
class Words:
    """What is said about a figure: cautions stand on it in so many words, the title where its width has it."""

    title: str
    subtitle: str
    caption: str
    cautions: Sequence[str]


@dataclass(frozen=True)
class Drawing:
    """A finished figure: its name, what it shows (also for those who cannot see it), its SVG and its files."""

    name: str
    caption: str
    svg: str
    paths: tuple[Path, ...]


@contextmanager
def canvas(sheet: Sheet) -> Iterator[tuple[Figure, Axes]]:
    """Yield a figure of one panel."""
    with matplotlib.rc_context(_style(sheet.width)):
        figure = Figure(layout="constrained")
        FigureCanvasAgg(figure)
        yield figure, figure.add_subplot()


def legend(figure: Figure, axes: Axes) -> None:
    """Name the lines below the panel, for which the figure grows; in two columns where the labels leave room."""
    handles, labels = axes.get_legend_handles_labels()
    columns = 2 if max(map(len, labels)) <= letters(columns=2) and len(labels) > 2 else 1
    labels = [textwrap.fill(label, letters(columns=1)) for label in labels]
    figure.legend(handles, labels, loc="outside lower left", ncols=columns)
    em = matplotlib.rcParams["font.size"] / 72
    lines = -(-sum(label.count("\n") + 1 for label in labels) // columns)
    figure.set_figheight(figure.get_figheight() + (1 + 1.7 * lines) * em)


def note(axes: Axes, text: str) -> None:
    """Say in small letters above the panel what cannot be seen in it."""
    axes.set_title(textwrap.fill(text, letters(columns=1)), loc="left", fontsize="medium", color=GREY)


def letters(columns: int) -> int:
    """Return how many small letters fit on the width of the figure, or of each of its columns."""
    em = 72 * matplotlib.rcParams["figure.figsize"][0] / matplotlib.rcParams["font.size"]
    return int((em / columns - _HANDLE) * _LETTERS_PER_EM)


def save(figure: Figure, sheet: Sheet, name: str, words: Words, data: Sequence[Mapping[str, Any]]) -> Drawing:
    """Write a figure, and the numbers drawn as `name`.csv, to the sheet's folder; equal figures give equal bytes."""
    _head(figure, sheet.width, words)
    files = {
        "svg": _saved(figure, {"Date": None, "Creator": None}, format="svg"),
        "png": _saved(figure, {"Software": None}, format="png", dpi=200),
    }
    if sheet.pdf:
        files["pdf"] = _saved(figure, {"CreationDate": None, "Creator": None, "Producer": None}, format="pdf")
    for kind, content in files.items():
        write_atomic(sheet.folder / f"{name}.{kind}", content)
    write_table(sheet.folder / f"{name}.csv", list(data[0]), data)
    caption = words.caption if sheet.width.titled else f"{words.title}. {words.subtitle}. {words.caption}"
    paths = tuple(sheet.folder / f"{name}.{kind}" for kind in (*files, "csv"))
    return Drawing(name, caption, files["svg"].decode(), paths)


def _head(figure: Figure, width: Width, words: Words) -> None:
    """Put the words at the figure's left edge, above what the layout arranges: beside the axis there is less room."""
    room = int(72 * width.inches * (1 - 2 * _MARGIN) / width.small * _LETTERS_PER_EM)
    texts = (words.subtitle if width.titled else "", " · ".join(words.cautions))
    lines = [line for text in texts for line in textwrap.wrap(text, room)]
    title = 0.33 if width.titled else 0.03
    head = title + 0.0183 * width.small * len(lines) + 0.03 if lines or width.titled else 0.0
    height = figure.get_figheight() + head
    figure.set_figheight(height)
    figure.set_layout_engine("constrained", rect=(0, 0, 1, 1 - head / height))
    if width.titled:
        figure.text(_MARGIN, 1 - 0.07 / height, words.title, va="top", fontsize=1.2 * width.letters, weight="bold")
    figure.text(_MARGIN, 1 - title / height, "\n".join(lines), va="top", color=GREY, linespacing=1.3)


def _saved(figure: Figure, metadata: Mapping[str, None], **how: Any) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, metadata=metadata, **how)
    figure.set_layout_engine("none")  # what has been arranged stays: arranging is a quarter of the time
    return file.getvalue()


def _style(width: Width) -> dict[RcKeyType, Any]:
    return {
        "figure.figsize": (width.inches, width.height),
        "font.size": width.small,
        "axes.labelsize": width.letters,
        "axes.linewidth": 0.8 * width.line / 1.8,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.titlepad": 4,
        "grid.color": "#e4e4e4",
        "grid.linewidth": 0.8,
        "legend.frameon": False,
        "legend.fontsize": width.small,
        "lines.linewidth": width.line,
        "lines.markersize": 2.8 * width.line,
        "xtick.labelsize": width.small,
        "ytick.labelsize": width.small,
        "svg.fonttype": "path",
        "svg.hashsalt": "ltl",
        "pdf.fonttype": 42,  # TrueType: conferences refuse Type 3, which would be faster
    }

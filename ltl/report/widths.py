"""How wide figures are drawn: for the page, or for one or two columns of a paper."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Width:
    """A figure's size in inches, `height` without the words above and the legend below; letters and lines in points.

    `letters`: axis labels; `small`: ticks, legend and notes; `titled`: the title stands on the figure. In a paper it
    belongs in the caption.
    """

    inches: float
    height: float
    letters: float
    small: float
    line: float
    titled: bool


# 3.25 and 6.75 inches are the column and the text of ICML; most other two-column styles lie within a tenth of an inch.
WIDTHS: Mapping[str, Width] = {
    "page": Width(5.2, 3.5, letters=10.5, small=9, line=1.8, titled=True),
    "one-column": Width(3.25, 2.4, letters=8, small=8, line=1.2, titled=False),
    "two-column": Width(6.75, 2.8, letters=9, small=8, line=1.4, titled=False),
}

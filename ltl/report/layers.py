"""How density is spread over the layers."""

from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean
from typing import Any

import matplotlib
import numpy as np

from ltl.report.axes import density_axis, percent_log_axis
from ltl.report.canvas import COLOURS, GREY, MARKERS, SHADES, Drawing, Sheet, Words, canvas, legend, save
from ltl.report.load import LayerRow
from ltl.report.statistics import density_at
from ltl.report.study import Study
from ltl.report.words import mean_of

_MOST_NAMED_LAYERS = len(COLOURS)


def density_by_layer(study: Study, sheet: Sheet) -> Drawing | None:
    """Draw each layer's density, and effective density, against that of the whole; None where nothing was pruned."""
    data = _data(study)
    if all(row["round"] == 0 for row in data):
        return None
    layers = list(dict.fromkeys(row["layer"] for row in data))
    few = len(layers) <= _MOST_NAMED_LAYERS
    caption = (
        "Share of each layer's weights that is left, against the share of all. Dashed: only those weights that lie on "
        "a path of kept weights from input to output."
        + ("" if few else f" {len(layers)} layers, from the first (dark) to the last (light).")
    )
    subtitle = f"{study.heading} · density by layer, {mean_of(study.trials)}"
    words = Words("Where the weights are left", subtitle, caption, study.cautions)
    with canvas(sheet) as (figure, axes):
        line, marker = matplotlib.rcParams["lines.linewidth"], matplotlib.rcParams["lines.markersize"]
        for index, name in enumerate(layers):
            colour = COLOURS[index] if few else SHADES(index / (len(layers) - 1))
            place = "" if few else " (first)" if index == 0 else " (last)"
            drawn = [row for row in data if row["layer"] == name]
            overall = [row["density"] for row in drawn]
            # Later layers are drawn thinner, so that equal ones do not hide one another.
            size = 1 - index / len(layers)
            axes.plot(
                overall,
                [row["layer_density"] for row in drawn],
                color=colour,
                linewidth=(0.6 + 1.1 * size) * line,
                label=f"{name}{place}" if few or index in (0, len(layers) - 1) else None,
                marker=MARKERS[index] if few else "",
                markersize=(0.6 + 0.8 * size) * marker,
            )
            live = [row["layer_effective_density"] for row in drawn]
            axes.plot(overall, np.array(live, float), color=colour, linestyle="--", linewidth=0.6 * line)
        densities = sorted({row["density"] for row in data})
        axes.plot(densities, densities, color=GREY, linewidth=0.6 * line, linestyle=":", label="all layers alike")
        axes.plot([], [], color=GREY, linestyle="--", linewidth=0.6 * line, label="effective: on a live path")
        density_axis(axes, densities)
        percent_log_axis(axes, "weights left in the layer")
        legend(figure, axes)
        return save(figure, sheet, "density_by_layer", words, data)


def _data(study: Study) -> list[dict[str, Any]]:
    layers: defaultdict[str, defaultdict[int, list[LayerRow]]] = defaultdict(lambda: defaultdict(list))
    for row in study.layers:
        if row.arm == "ticket":
            layers[row.layer][row.round].append(row)
    return [
        {
            "layer": name,
            "round": round,
            "density": density_at(study.rows, round),
            "layer_density": fmean(row.density for row in rows),
            "layer_effective_density": _effective(rows),
            "n": len(rows),
        }
        for name, by_round in layers.items()
        for round, rows in sorted(by_round.items())
    ]


def _effective(rows: Sequence[LayerRow]) -> float | None:
    live = [row.effective_density for row in rows if row.effective_density is not None]
    return fmean(live) if live else None

"""What the loggers of a run are told: every evaluation as a row of metrics.csv; all others numbers, one for each place.

A line plot at wandb.ai draws one value for each run, name and place on the axis; of several it draws the last. So a
name is never given two: learning curves are those of one network, and a round is a mean that is computed here.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean

from pytorch_lightning.loggers import Logger

from ltl.report.load import LayerRow, RoundRow, load_layers, load_rounds
from ltl.report.statistics import Measure, by_trial, density_at, early_stop_accuracy, end_accuracy, two_sided
from ltl.results import Key, Row
from ltl.training.loggers import CsvLogger

_PLACE = ("trial", "arm", "draw", "round", "step", "total_step")  # of an evaluation; the rest was measured
_MEASURES: Mapping[str, Measure] = {
    "test_accuracy": end_accuracy,
    "early_stop_test_accuracy": early_stop_accuracy,
    "early_stop_step": lambda row: row.early_stop_step,
    "early_stop_censored": lambda row: float(row.early_stop_censored),
    "effective_density": lambda row: row.effective_density,
    "total_steps": lambda row: row.total_steps,
}
_BOUNDED = ("test_accuracy", "early_stop_test_accuracy")


class Tracking:
    """Hands the evaluations and rounds of one run in `folder` to its loggers; `keys` are all rows that it will write.

    `metrics.csv` gets every evaluation. The others get, by names as in docs/dashboards.md, the evaluations of the first
    trial and draw, and each round of each arm once: means over trials, in which draws are averaged first.
    """

    def __init__(self, *, folder: Path, loggers: Sequence[Logger], keys: Sequence[Key]) -> None:
        self.folder = folder
        self.tables = [logger for logger in loggers if isinstance(logger, CsvLogger)]
        self.others = [logger for logger in loggers if not isinstance(logger, CsvLogger)]
        self.first_trial = min(key[0] for key in keys)
        self.left: defaultdict[tuple[str, int], list[Key]] = defaultdict(list)  # rounds not told yet
        for key in keys:
            self.left[key[1], key[3]].append(key)

    def evaluation(self, row: Row, place: int) -> None:
        """Tell of one evaluation, a row of metrics.csv, at `place` on an axis that never runs backwards."""
        for table in self.tables:
            table.log_metrics(row, step=place)
        if row["trial"] == self.first_trial and row["draw"] == 0:
            name = f"curve/{row['arm']}/round-{row['round']:02d}"
            point = {"curve/step": row["step"], "curve/total_step": place}
            point |= {f"{name}/{what}": value for what, value in row.items() if what not in _PLACE}
            for logger in self.others:
                logger.log_metrics(point, step=place)

    def rounds(self, has: Callable[[Key], bool], *, whole: bool) -> None:
        """Tell of the rounds whose rows are all in rounds.csv, and unless `whole` of those with any row there.

        LtlError if a table is cut off.
        """
        enough = all if whole else any
        ready = [told for told, keys in self.left.items() if enough(map(has, keys))] if self.others else []
        if ready:
            rows, layers = load_rounds(self.folder, 0), load_layers(self.folder, 0)
            for arm, turn in ready:
                del self.left[arm, turn]
                for logger in self.others:
                    logger.log_metrics(_point(rows, layers, arm, turn), step=turn)


def _point(rows: Sequence[RoundRow], layers: Sequence[LayerRow], arm: str, turn: int) -> dict[str, float]:
    """Return one round of one arm as numbers by name; what no trial has is left out."""
    units = {row.unit for row in rows if (row.arm, row.round) == (arm, turn)}
    point = {"round/density": density_at(rows, turn, arm), "round/number": turn, f"round/{arm}/trials": len(units)}
    for name, measure in _MEASURES.items():
        interval = two_sided(list(by_trial(rows, arm, turn, measure).values()))
        bounds = {"_low": interval.low, "_high": interval.high} if name in _BOUNDED else {}
        for end, value in {"": interval.mean, **bounds}.items():
            if math.isfinite(value):
                point[f"round/{arm}/{name}{end}"] = value
    densities: defaultdict[str, list[float]] = defaultdict(list)
    for layer in layers:
        if (arm, turn) == ("ticket", layer.round):
            densities[layer.layer].append(layer.density)
    return point | {f"round/layer/{name}": fmean(values) for name, values in densities.items()}

"""The logger that writes `metrics.csv`: one row an evaluation."""

import csv
import io
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning_utilities.core.rank_zero import rank_zero_only
from pytorch_lightning.loggers import Logger

from ltl.results import METRIC_COLUMNS, Row, read_rows, write_table

_KEY = ("trial", "arm", "draw", "round")


class CsvLogger(Logger):
    """Collects evaluations and appends them to `<folder>/metrics.csv` at round ends.

    The first row of a round in this process replaces what an earlier, interrupted one wrote of it from that step on.
    """

    def __init__(self, *, folder: str | Path) -> None:
        super().__init__()
        self.path = Path(folder) / "metrics.csv"
        self._pending: list[Row] = []
        self._earlier = {self._key(row) for row in self._written()}
        self._whole = False  # a full disk or a kill may have cut the last line

    @property
    def name(self) -> str:
        """The logger's name."""
        return "csv"

    @property
    def version(self) -> str:
        """Nothing: a run folder holds one table."""
        return ""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Take one evaluation."""
        row = {name: metrics[name] for name in METRIC_COLUMNS if name in metrics}
        if (key := self._key(row)) in self._earlier:
            self._earlier.remove(key)
            kept = [one for one in self._written() if self._key(one) != key or int(one["step"]) < int(row["step"])]
            write_table(self.path, METRIC_COLUMNS, kept)
        self._pending.append(row)

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the configuration is in `.hydra/`."""

    @rank_zero_only
    def save(self) -> None:
        """Append what was collected."""
        text = io.StringIO()
        csv.DictWriter(text, METRIC_COLUMNS, restval="", lineterminator="\n").writerows(self._pending)
        if not self._whole:
            write_table(self.path, METRIC_COLUMNS, self._written())
            self._whole = True
        with self.path.open("a") as file:
            file.write(text.getvalue())
        self._pending = []

    def _written(self) -> list[dict[str, str]]:
        whole = ("trial", "draw", "round", "step")
        return list(read_rows(self.path, METRIC_COLUMNS, whole=whole, grows=True))

    @staticmethod
    def _key(row: Row) -> tuple[str, ...]:
        return tuple(str(row[name]) for name in _KEY)

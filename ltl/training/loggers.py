"""The logger that writes `metrics.csv`: one row an evaluation."""

import csv
import io
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from ltl.results import METRIC_COLUMNS, Row, read_table, write_table

_JOB = ("trial", "arm")


class CsvLogger(Logger):
    """Collects evaluations and appends them to `<folder>/metrics.csv` at round ends.

    The first row of an arm in this process replaces what an earlier, interrupted process wrote from that step on.
    """

    def __init__(self, *, folder: str | Path) -> None:
        super().__init__()
        self.path = Path(folder) / "metrics.csv"
        self._pending: list[Row] = []
        self._seen: set[tuple[str, ...]] = set()

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
        job = tuple(str(row[name]) for name in _JOB)
        if job not in self._seen:
            self._seen.add(job)
            self._drop(job, int(row["total_step"]))
        self._pending.append(row)

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the configuration is in `.hydra/`."""

    @rank_zero_only
    def save(self) -> None:
        """Append what was collected."""
        text = io.StringIO()
        csv.DictWriter(text, METRIC_COLUMNS, restval="", lineterminator="\n").writerows(self._pending)
        if not self.path.exists():
            write_table(self.path, METRIC_COLUMNS, [])
        with self.path.open("a") as file:
            file.write(text.getvalue())
        self._pending = []

    def _drop(self, job: tuple[str, ...], step: int) -> None:
        rows = read_table(self.path)
        kept = [
            row for row in rows if tuple(row[name] for name in _JOB) != job or int(row["total_step"] or 0) < step
        ]
        if len(kept) < len(rows):
            write_table(self.path, METRIC_COLUMNS, kept)

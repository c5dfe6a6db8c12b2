"""Run folders in, typed rows out: what the rest of the report is computed from."""

import glob
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ltl.errors import LtlError
from ltl.results import damaged, read_config, read_rows, read_status


@dataclass(frozen=True)
class RoundRow:
    """One training of one arm, a row of rounds.csv; accuracies are fractions, None is "not measured".

    What has a default here may be missing from the table of an older run.
    """

    trial: int
    arm: str
    draw: int
    round: int
    density: float
    weights_left: int | None
    effective_density: float | None
    train_accuracy: float | None
    train_loss: float | None
    val_accuracy: float | None
    val_loss: float | None
    test_accuracy: float | None
    test_loss: float | None
    early_stop_step: float | None
    early_stop_censored: bool
    early_stop_test_accuracy: float | None
    best_test_accuracy: float | None
    steps: float | None
    total_steps: float | None
    seconds: float | None
    eval_seconds: float | None
    init_sha256: str
    sampled_test_accuracy: float | None = None
    sampled_test_accuracy_sd: float | None = None
    bits: float | None = None
    unit: str = ""


@dataclass(frozen=True)
class LayerRow:
    """One layer after one training, a row of layers.csv."""

    trial: int
    arm: str
    draw: int
    round: int
    layer: str
    weights: int
    kept: int
    density: float
    effective_density: float | None


@dataclass(frozen=True)
class MetricRow:
    """One evaluation, a row of metrics.csv; `step` counts optimiser steps within the round."""

    trial: int
    arm: str
    draw: int
    round: int
    step: float
    val_accuracy: float | None
    val_loss: float | None
    mask_flips: float | None = None


@dataclass(frozen=True)
class Run:
    """One run folder: its config, its status and its rows (of layers and metrics, the search's own)."""

    folder: Path
    config: DictConfig
    status: Mapping[str, Any]
    rows: list[RoundRow]
    layers: list[LayerRow]
    metrics: list[MetricRow]

    def setting(self, key: str) -> Any:
        """Return the value of a dotted config key as plain Python; None if absent or not resolvable here."""
        try:
            value = OmegaConf.select(self.config, key)
            return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
        except OmegaConfBaseException:
            return None


TableRow = TypeVar("TableRow", RoundRow, LayerRow, MetricRow)


def find_runs(paths: Iterable[Path]) -> list[Path]:
    """Return the run folders that `paths` name: run folders, folders that hold some, or globs; LtlError if none."""
    found: dict[Path, Path] = {}
    for path in paths:
        matches = [path] if path.exists() else [Path(match) for match in glob.glob(str(path.expanduser()))]  # noqa: PTH207
        here = [run for match in matches for run in _runs_below(match)]
        if not here:
            reason = "nothing of that name exists" if not matches else "no folder in it has a status.json"
            raise LtlError(f"{path} holds no run: {reason}; give a run folder, a multirun folder or a glob of them.")
        for run in sorted(here, key=_natural):
            found.setdefault(run.resolve(), run)  # one folder by two names is one run
    return list(found.values())


def load(folder: Path) -> Run:
    """Read one run folder; LtlError if a file of it is missing or cut off."""
    status = read_status(folder)
    config = read_config(folder)
    seed = OmegaConf.select(config, "seed")
    first = seed if isinstance(seed, int) else 0
    rows = load_rounds(folder, first)
    ended = {(row.trial, row.round) for row in rows}
    metrics = [_shifted(row, first) for row in _rows(folder / "metrics.csv", MetricRow, "ticket", grows=True)]
    metrics = [row for row in metrics if (row.trial, row.round) in ended]
    return Run(folder, config, status, rows, load_layers(folder, first), metrics)


def load_rounds(folder: Path, seed: int) -> list[RoundRow]:
    """Read the rounds of a run of `seed`; LtlError if the file is cut off."""
    return _with_units([_shifted(row, seed) for row in _rows(folder / "rounds.csv", RoundRow)])


def load_layers(folder: Path, seed: int) -> list[LayerRow]:
    """Read the layers of the search of a run of `seed`; LtlError if the file is cut off."""
    return [_shifted(row, seed) for row in _rows(folder / "layers.csv", LayerRow, "ticket")]


def _runs_below(path: Path) -> list[Path]:
    if (path / "status.json").exists():
        return [path]
    return [status.parent for status in path.rglob("status.json")] if path.is_dir() else []


def _natural(path: Path) -> list[tuple[int, int, str]]:
    """Sort key under which job 10 comes after job 9."""
    return [(1, int(part), "") if part.isdigit() else (0, 0, part) for part in re.split(r"(\d+)", str(path))]


def _rows(path: Path, row_type: type[TableRow], arm: str | None = None, *, grows: bool = False) -> list[TableRow]:
    """Read a table row by row, `arm` alone if given: the curves of all controls may be hundreds of megabytes."""
    columns = [(field.name, str(field.type), field.default is MISSING) for field in fields(row_type)]
    rows = []
    for number, cells in enumerate(read_rows(path, grows=grows), start=2):
        if arm is not None and cells.get("arm") not in (arm, None):
            continue
        try:
            given = {name: _cell(cells[name], kind) for name, kind, must in columns if must or name in cells}
            rows.append(row_type(**given))
        except (KeyError, OverflowError, ValueError) as error:
            raise damaged(path, number, error) from None
    return rows


def _cell(text: str, kind: str) -> Any:
    optional = "None" in kind
    if text == "" and optional:
        return None
    if "str" in kind:
        return text
    if "bool" in kind:
        return text not in ("", "0", "False")
    number = float(text)
    if optional and not math.isfinite(number):
        return None
    return int(number) if "int" in kind else number


def _shifted(row: TableRow, seed: int) -> TableRow:
    """Trial i of a run uses seed + i, so that is the number under which runs of several seeds are joined."""
    return replace(row, trial=row.trial + seed)


def _with_units(rows: list[RoundRow]) -> list[RoundRow]:
    """Name each row's unit of replication: the hash of the θ₀ that its trial's search, or branch, started from."""
    searched = sorted((row for row in rows if row.arm == "ticket"), key=lambda row: row.round, reverse=True)
    theta0 = {row.trial: row.init_sha256 for row in searched}  # of the first round that there is
    return [replace(row, unit=theta0.get(row.trial) or f"trial {row.trial}") for row in rows]

"""The files of a run folder: tables, status and the lock, each written whole or not at all (docs/files.md)."""

import csv
import fcntl
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeGuard, get_args

from omegaconf import DictConfig, ListConfig, OmegaConf

from ltl.errors import LtlError

ROUND_COLUMNS = (
    "trial arm draw round density weights_left effective_density train_accuracy train_loss val_accuracy val_loss "
    "test_accuracy test_loss early_stop_step early_stop_censored early_stop_test_accuracy best_test_accuracy steps "
    "total_steps seconds eval_seconds init_sha256 mask_sha256 hardware sampled_test_accuracy sampled_test_accuracy_sd "
    "bits mask_step"
).split()
LAYER_COLUMNS = (
    "trial arm draw round layer weights kept density effective_density dead_inputs dead_units sign_flips "
    "distance_from_init kept_q25 kept_q50 kept_q75 pruned_q25 pruned_q50 pruned_q75"
).split()
METRIC_COLUMNS = (
    "trial arm draw round step total_step train_loss val_accuracy val_loss test_accuracy test_loss lr mask_flips"
).split()

Row = dict[str, Any]
Key = tuple[int, str, int, int]  # what tells a row of a training: trial, arm, draw, round
Outcome = Literal["done", "failed", "interrupted"]
STATES = ("running", *get_args(Outcome))  # of status.json


def rank() -> int:
    """Return this process's number among those that train together, which Lightning sets; the first one writes."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def write_atomic(path: Path, data: bytes) -> None:
    """Write `data` to `path` so that a reader, or a crash, sees either the old file or the whole new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):  # a full disk does not say which file it was
            error.filename = str(path)
        raise


def write_table(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Write `rows` as CSV with a header; a missing value or None is an empty cell."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomic(path, text.getvalue().encode())


def read_table(path: Path) -> list[dict[str, str]]:
    """Read a CSV with a header, as `read_rows` does."""
    return list(read_rows(path))


def read_rows(
    path: Path, columns: Sequence[str] = (), *, whole: Sequence[str] = (), grows: bool = False
) -> Iterator[dict[str, str]]:
    """Yield the rows of a CSV with a header; no file is an empty table.

    Of a table that `grows` by lines, the last one counts when its end is there. LtlError names the first line that is
    no row: by too few or too many cells, by columns other than `columns` if they are given, or by a cell in one of the
    columns `whole` that is no whole number.
    """
    if not path.exists():
        return
    with path.open("rb") as file:
        reader = csv.DictReader(_lines(file, path, grows))
        try:
            for row in reader:
                if reason := _odd(row, columns, whole):
                    raise damaged(path, reader.line_num, reason)
                yield row
        except csv.Error as error:
            raise damaged(path, reader.line_num, error) from None


def _lines(file: BinaryIO, path: Path, grows: bool) -> Iterator[str]:
    for number, line in enumerate(file, start=1):
        if grows and not line.endswith(b"\n"):
            return
        try:
            yield line.decode()
        except UnicodeDecodeError as error:
            raise damaged(path, number, error.reason) from None


def _odd(row: Mapping[str, str], columns: Sequence[str], whole: Sequence[str]) -> str | None:
    """Return why `row` is none of its table, if so."""
    if None in row or None in row.values():  # as csv marks cells beyond the last column, and columns without a cell
        return "too many cells" if None in row else "too few cells"
    if columns and (other := sorted(set(row) - set(columns))):
        return f"there is no column {other[0]}"
    return next((f"{name} is {row.get(name)}" for name in whole if not row.get(name, "").isdecimal()), None)


def damaged(path: Path, line: int, reason: Exception | str) -> LtlError:
    """Return the error for a table whose `line` is no row."""
    return LtlError(f"{path} line {line} is not a row of it ({reason}): put back a copy, or take the line out.")


def read_yaml(path: Path) -> DictConfig | ListConfig:
    """Read a file that Hydra wrote; no tag in it runs anything. LtlError if it is not there or cannot be read."""
    try:
        return OmegaConf.load(path)
    except Exception as error:  # PyYAML raises several unrelated types
        reason = str(error).splitlines()[0].rstrip(".")
        raise LtlError(f"{path} is not readable as YAML ({reason}): put back a copy.") from None


def read_config(folder: Path) -> DictConfig:
    """Read the configuration of a run folder; LtlError if it is not there or cannot be read."""
    path = folder / ".hydra" / "config.yaml"
    if not path.is_file():
        raise LtlError(f"{folder} is not a whole run folder: it has no .hydra/config.yaml.")
    config = read_yaml(path)
    if not isinstance(config, DictConfig):
        raise LtlError(f"{path} is not the configuration of a run: it holds no keys.")
    return config


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write `content` as indented JSON."""
    write_atomic(path, (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())


def read_status(folder: Path) -> dict[str, Any]:
    """Read `status.json`; LtlError if `folder` is not a run folder."""
    path = folder / "status.json"
    try:
        status = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise LtlError(f"{folder} is not a run folder: it has no status.json.") from None
    except (ValueError, RecursionError):
        status = None
    if not _is_status(status):
        raise LtlError(
            f'{path} is not valid JSON of a run\'s status: put back a copy, or write {{"state": "failed"}} to resume.'
        )
    if status["state"] == "running" and not is_locked(folder):
        status["state"] = "interrupted"
    return status


def _is_status(status: Any) -> TypeGuard[dict[str, Any]]:
    kinds = {"dataset": dict, "versions": dict, "hardware": list, "parameters": int, "prunable": int}
    return (
        isinstance(status, dict)
        and status.get("state") in STATES
        and all(isinstance(status.get(key, kind()), kind) for key, kind in kinds.items())
        and all(isinstance(status.get("dataset", {}).get(name, 0), int) for name in ("train", "validation", "test"))
        and all(isinstance(used, dict) for used in status.get("hardware", []))
    )


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold the run folder for this process; the lock dies with the process. LtlError if another one holds it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise in_use(folder) from None
        yield


def in_use(folder: Path) -> LtlError:
    """Return the error for a run folder that another process holds."""
    return LtlError(f"{folder} is in use by another process: wait until it ends, or stop it first.")


def is_locked(folder: Path) -> bool:
    """Return whether a living process holds the run folder; nothing is written there."""
    try:
        with (folder / ".lock").open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False

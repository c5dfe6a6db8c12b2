"""The files of a run folder: tables, status and the lock, each written whole or not at all (DESIGN §5)."""

import csv
import fcntl
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ltl.errors import LtlError

ROUND_COLUMNS = (
    "trial arm draw round density weights_left effective_density train_accuracy train_loss val_accuracy val_loss "
    "test_accuracy test_loss early_stop_step early_stop_censored early_stop_test_accuracy best_test_accuracy steps "
    "total_steps seconds eval_seconds init_sha256 mask_sha256 hardware"
).split()
LAYER_COLUMNS = (
    "trial arm draw round layer weights kept density effective_density dead_inputs dead_units sign_flips "
    "distance_from_init kept_q25 kept_q50 kept_q75 pruned_q25 pruned_q50 pruned_q75"
).split()
METRIC_COLUMNS = (
    "trial arm draw round step total_step train_loss val_accuracy val_loss test_accuracy test_loss lr"
).split()
TIME_COLUMNS = ("seconds", "eval_seconds")

Row = dict[str, Any]


def rank() -> int:
    """Return this process's number among those that train together, which Lightning sets; the first one writes."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def write_atomic(path: Path, data: bytes | memoryview) -> None:
    """Write `data` to `path` so that a reader, or a crash, sees either the old file or the whole new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_table(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Write `rows` as CSV with a header; a missing value or None is an empty cell."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomic(path, text.getvalue().encode())


def read_table(path: Path) -> list[dict[str, str]]:
    """Read a CSV with a header; no file is an empty table."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


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
    except ValueError:
        status = None
    if not isinstance(status, dict):
        raise LtlError(f"{path} is not valid JSON of a run's status: the file was altered or cut off.")
    if status.get("state") == "running" and not is_locked(folder):
        status["state"] = "interrupted"
    return status


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

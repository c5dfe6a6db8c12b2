"""The files of a run folder: whole or not at all, tables that come back, and a lock that dies with its process."""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ltl import results
from ltl.errors import LtlError
from ltl.results import is_locked, lock, read_status, read_table, write_atomic, write_json, write_table

ROW = {"trial": 0, "arm": "ticket", "test_loss": 0.1 + 0.2, "val_loss": None, "note": 'a,"b"\nc'}


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    """Folders are made, and nothing else is left there."""
    path = tmp_path / "new" / "folder" / "table.csv"
    write_atomic(path, b"old")
    write_atomic(path, b"new\0")
    assert path.read_bytes() == b"new\0"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_the_old_file_stays_when_writing_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, error: BaseException
) -> None:
    """A full disk, or a user who stops it: the old content, no temporary file, and the reason raised on."""
    path = tmp_path / "status.json"
    write_atomic(path, b"old")

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(*((results.os, "fsync") if call == "fsync" else (Path, "replace")), fail)  # type: ignore[attr-defined]
    with pytest.raises(type(error)):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_content_is_on_disk_before_the_file_takes_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a power cut could leave an empty file of the right name."""
    calls: list[str] = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda number: (calls.append("fsync"), fsync(number)))
    monkeypatch.setattr(Path, "replace", lambda *paths: (calls.append("replace"), replace(*paths))[1])
    write_atomic(tmp_path / "file", b"content")
    assert calls == ["fsync", "replace"]


def test_tables_come_back_as_they_were_written(tmp_path: Path) -> None:
    """Numbers with all their digits, None and missing values as empty cells, any text in quotes."""
    path, columns = tmp_path / "rounds.csv", [*ROW, "missing"]
    write_table(path, columns, [ROW, {"trial": 1}])
    first, second = read_table(path)
    assert list(first) == columns
    assert float(first["test_loss"]) == 0.1 + 0.2
    assert (first["val_loss"], first["missing"], first["note"]) == ("", "", ROW["note"])
    assert second == {"trial": "1"} | dict.fromkeys(columns[1:], "")
    assert path.read_bytes().splitlines()[0] == b"trial,arm,test_loss,val_loss,note,missing"
    assert b"\r" not in path.read_bytes()
    assert read_table(tmp_path / "none.csv") == []


def test_columns_that_a_table_does_not_have_are_refused(tmp_path: Path) -> None:
    """A misspelt column would otherwise vanish; the old table stays."""
    write_table(tmp_path / "rounds.csv", list(ROW), [ROW])
    with pytest.raises(ValueError, match="test_los"):
        write_table(tmp_path / "rounds.csv", list(ROW), [{"test_los": 1}])
    assert len(read_table(tmp_path / "rounds.csv")) == 1


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"{", b"[]", b"null", b"\xff\xfe\x00"),
        b'{"state": "done", "dataset": {"test": "many"}}',
        b'{"state": "done", "hardware": [1]}',
        b'{"state": "done", "versions": ["torch"]}',
        b'{"state": "done", "parameters": "266610"}',
    ],
)
def test_a_broken_status_is_one_line(tmp_path: Path, content: bytes) -> None:
    """Cut off, or something else altogether."""
    (tmp_path / "status.json").write_bytes(content)
    with pytest.raises(LtlError, match=r"status.json is not valid JSON"):
        read_status(tmp_path)


def test_other_folders_are_told_apart(tmp_path: Path) -> None:
    """No folder, a file, a folder without a status."""
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "none", tmp_path / "file"):
        with pytest.raises(LtlError, match="is not a run folder"):
            read_status(path)


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock of `tmp_path`."""
    program = (
        "import sys, time; from pathlib import Path; from ltl.results import lock\n"
        "with lock(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_the_lock_is_held_by_one_process_and_dies_with_it(tmp_path: Path, holder: "subprocess.Popen[str]") -> None:
    """SIGKILL leaves nothing to clean up; a run whose process is gone was interrupted."""
    write_json(tmp_path / "status.json", {"state": "running"})
    assert is_locked(tmp_path)
    assert read_status(tmp_path)["state"] == "running"
    with pytest.raises(LtlError, match="in use by another process") as info, lock(tmp_path):
        pass
    assert "\n" not in str(info.value)
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert not is_locked(tmp_path)
    assert read_status(tmp_path)["state"] == "interrupted"
    with lock(tmp_path):
        assert is_locked(tmp_path)
        assert read_status(tmp_path)["state"] == "running"


def test_a_finished_run_is_what_its_status_says(tmp_path: Path) -> None:
    """Only `running` needs a living process; the folder is not written to by reading."""
    for state in ("done", "failed", "running"):
        write_json(tmp_path / "status.json", {"state": state, "reason": "≥ 0"})
        status = read_status(tmp_path)
        assert status == {"state": "interrupted" if state == "running" else state, "reason": "≥ 0"}
    assert [path.name for path in tmp_path.iterdir()] == ["status.json"]


def test_the_lock_is_freed_when_the_work_fails(tmp_path: Path) -> None:
    """An exception is no reason to hold on; the same process may not take it twice either."""
    with pytest.raises(RuntimeError, match="work"), lock(tmp_path):
        with pytest.raises(LtlError, match="in use"), lock(tmp_path):
            pass
        raise RuntimeError("work")
    assert not is_locked(tmp_path)


def test_columns_are_those_of_the_design() -> None:
    """Others read these files: a column is added on purpose or not at all."""
    assert ",".join(results.ROUND_COLUMNS).startswith(
        "trial,arm,draw,round,density,weights_left,effective_density,train_accuracy,train_loss,val_accuracy,val_loss,"
        "test_accuracy,test_loss,early_stop_step,early_stop_censored,early_stop_test_accuracy,best_test_accuracy,steps,"
        "total_steps,seconds,eval_seconds,init_sha256,mask_sha256"
    )
    assert ",".join(results.LAYER_COLUMNS) == (
        "trial,arm,draw,round,layer,weights,kept,density,effective_density,dead_inputs,dead_units,sign_flips,"
        "distance_from_init,kept_q25,kept_q50,kept_q75,pruned_q25,pruned_q50,pruned_q75"
    )
    assert ",".join(results.METRIC_COLUMNS) == (
        "trial,arm,draw,round,step,total_step,train_loss,val_accuracy,val_loss,test_accuracy,test_loss,lr,mask_flips"
    )

"""Sweeps: what their jobs are called, an index of their states, the joint report, and how what is missing goes on."""

import os
import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from ltl import report, resume
from ltl.errors import LtlError
from ltl.overrides import composed
from ltl.results import read_status, read_table, write_json, write_table

_COLUMNS = ("job", "state", "reason", "overrides")
_SWEPT = "LTL_SWEPT"  # the keys that vary, for processes that launchers start
_LONGEST = 100  # characters of a folder's name


@dataclass(frozen=True)
class Job:
    """One job of a sweep: its folder, its command line, and how it went."""

    folder: Path
    overrides: list[str]
    state: str
    reason: str


def begin(config: DictConfig) -> Path:
    """Write the index of the sweep that `config` describes, before its first job starts, and return its folder."""
    folder = Path(config.hydra.sweep.dir)
    fixed = OmegaConf.select(config, "hydra.sweeper.params") or {}
    planned = jobs([*(f"{key}={value}" for key, value in fixed.items()), *config.hydra.overrides.task])
    named = "ltl_job" in str(OmegaConf.to_container(config.hydra.sweep, resolve=False))
    if named and config.hydra.sweeper._target_.endswith(".BasicSweeper"):  # another one decides as it goes
        _write(folder, [Job(folder / name, overrides, "not started", "") for name, overrides in planned.items()])
    return folder


def jobs(arguments: Sequence[str]) -> dict[str, list[str]]:
    """Return the jobs that the overrides of a sweep describe: the name of each with its own overrides."""
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    parsed = OverridesParser.create().parse_overrides(list(arguments))
    os.environ[_SWEPT] = " ".join(one.get_key_element() for one in parsed if one.is_sweep_override())
    [split] = BasicSweeper.split_arguments(parsed, None)
    return {job_name(number, overrides): overrides for number, overrides in enumerate(split)}


def job_name(number: int, overrides: Sequence[str]) -> str:
    """Return what the folder of a job is called: its number, and the keys that vary with their values.

    Only letters that a command line takes unquoted, so that `ticket=` and `resume=` can name it.
    """
    swept = os.environ.get(_SWEPT, "").split()
    values = "_".join(one.replace("=", "-") for one in overrides if one.partition("=")[0] in swept)
    return f"{number}-{re.sub(r'[^A-Za-z0-9._+-]+', '_', values)}"[:_LONGEST].rstrip("-")


def is_sweep(folder: Path) -> bool:
    """Return whether `folder` is one of a sweep."""
    return (folder / "jobs.csv").is_file()


def go_on(folder: Path, arguments: Sequence[str], conf: Path, run: Callable[[DictConfig, Path], None]) -> None:
    """Run what is missing of a sweep, job after job, by its own command lines and what a resume may change."""
    for job in _jobs(folder):
        if job.state == "done":
            continue
        try:
            if (job.folder / ".hydra" / "config.yaml").is_file() and (job.folder / "status.json").is_file():
                cfg = resume.configuration(job.folder, arguments, conf)
            else:
                overrides = [*job.overrides, *resume.changes(arguments)]
                cfg = composed(overrides, conf)
                (job.folder / ".hydra").mkdir(parents=True, exist_ok=True)
                OmegaConf.save(cfg, job.folder / ".hydra" / "config.yaml")
                OmegaConf.save(OmegaConf.create(overrides), job.folder / ".hydra" / "overrides.yaml")
            run(cfg, job.folder)
        except LtlError as error:
            failed(job.folder, error)


def failed(folder: Path, error: LtlError) -> None:
    """Note in the folder of a job that it failed before it could begin."""
    if not (folder / "status.json").exists():
        write_json(folder / "status.json", {"state": "failed", "reason": str(error)})


def close(folder: Path) -> list[str]:
    """Write the index and the joint report, print a line a job, and return a line for each that is not done."""
    jobs = _jobs(folder)
    _write(folder, jobs)
    table = Table(header_style="bold", show_edge=False, pad_edge=False)
    for name in ("job", "state", "reason"):
        table.add_column(name, overflow="fold")
    for job in jobs:
        table.add_row(str(job.folder.relative_to(folder)), job.state, job.reason)
    console = Console()
    if not console.is_terminal:
        console = Console(width=200)  # a file has no width to keep to
    try:
        report.show(report.write([folder]))
    except LtlError as error:
        console.print(f"no joint report: {error}", highlight=False, markup=False)
    console.print(table)
    left = [job for job in jobs if job.state != "done"]
    if left:
        line = (
            f"{len(left)} of {len(jobs)} jobs are not done; `python -m ltl.run resume={folder}` runs what is missing."
        )
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    return [f"{job.folder} {job.state}: {job.reason}" for job in left]


def _jobs(folder: Path) -> list[Job]:
    """Return the jobs of a sweep in their order: those planned, and those whose folders are there."""
    planned = {row["job"]: shlex.split(row["overrides"]) for row in read_table(folder / "jobs.csv")}
    found = {str(path.parent.relative_to(folder)) for path in folder.rglob("status.json")}
    names = [*planned, *sorted(found - set(planned))]
    jobs = []
    for name in names:
        status = read_status(folder / name) if name in found else {"state": "not started"}
        jobs.append(Job(folder / name, planned.get(name, []), status["state"], status.get("reason") or ""))
    return jobs


def _write(folder: Path, jobs: Sequence[Job]) -> None:
    rows = [
        {
            "job": str(job.folder.relative_to(folder)),
            "state": job.state,
            "reason": job.reason,
            "overrides": shlex.join(job.overrides),
        }
        for job in jobs
    ]
    write_table(folder / "jobs.csv", _COLUMNS, rows)

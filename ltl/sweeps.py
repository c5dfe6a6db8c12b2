"""Sweeps: what their jobs are called, an index of their states, the joint report, and how what is missing goes on."""

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from ltl import report, resume
from ltl.errors import LtlError
from ltl.overrides import checked
from ltl.results import read_config, read_rows, read_status, write_json, write_table
from ltl.shorthand import searchpath

_COLUMNS = ("job", "state", "reason", "overrides")
_SWEPT = "LTL_SWEPT"  # the keys that vary, for processes that launchers start
_LONGEST = 100  # characters of a folder's name


@dataclass(frozen=True)
class Job:
    """One job of a sweep: its folder within the sweep's, its command line, and how it went."""

    name: str
    overrides: list[str]
    state: str
    reason: str


def begin(config: DictConfig) -> None:
    """Write the index of the sweep that `config` describes, before its first job starts."""
    folder = Path(config.hydra.sweep.dir)
    fixed = OmegaConf.select(config, "hydra.sweeper.params") or {}
    arguments = [*(f"{key}={value}" for key, value in fixed.items()), *config.hydra.overrides.task]
    named = "ltl_job" in str(OmegaConf.to_container(config.hydra.sweep, resolve=False))
    if config.hydra.sweeper._target_.endswith(".BasicSweeper") and named:
        _write(folder, [Job(name, overrides, "not started", "") for name, overrides in jobs(arguments).items()])
    else:  # the jobs, or their folders, are known when they are there
        _parsed(arguments)


def jobs(arguments: Sequence[str]) -> dict[str, list[str]]:
    """Return the jobs that the overrides of a sweep describe: the name of each with its own overrides."""
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    [split] = BasicSweeper.split_arguments(_parsed(arguments), None)
    return {job_name(number, overrides): overrides for number, overrides in enumerate(split)}


def _parsed(arguments: Sequence[str]) -> list[Override]:
    """Parse overrides, and remember which of them vary."""
    parsed = OverridesParser.create().parse_overrides(list(arguments))
    os.environ[_SWEPT] = " ".join(one.get_key_element() for one in parsed if one.is_sweep_override())
    return parsed


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


def check(folder: Path) -> None:
    """LtlError if the index of a sweep cannot be read."""
    _planned(folder)


def missing(folder: Path, arguments: Sequence[str], conf: Path, errors: dict[str, str]) -> dict[Path, DictConfig]:
    """Return the jobs of a sweep that are to go on or to begin, by their folders, with what a resume may change.

    A job that is done is among them if the resume changes it; what goes wrong is written into `errors`, by job.
    """
    arguments = [*arguments, *searchpath(arguments, folder)]
    given = resume.changes(arguments)
    found: dict[Path, DictConfig] = {}
    for job in _jobs(folder, errors):
        if job.state == "done" and not given:
            continue
        path = folder / job.name
        try:
            cfg = _configuration(path, job.overrides, arguments, conf)
            if job.state != "done" or OmegaConf.to_yaml(cfg) != OmegaConf.to_yaml(read_config(path)):
                found[path] = cfg
        except LtlError as error:
            errors[job.name] = str(error)
    return found


def beside(folder: Path) -> list[str]:
    """Return the names of all jobs of the stack that the job in `folder` trains in; none before it has begun."""
    with suppress(LtlError):  # it is told of where the job goes on
        if (folder / "status.json").is_file():
            names: list[str] = read_status(folder).get("beside", [folder.name])
            return names
    return []


def _configuration(folder: Path, overrides: Sequence[str], arguments: Sequence[str], conf: Path) -> DictConfig:
    """Return the configuration of a job that is to go on, or to begin in a folder made for it."""
    if (folder / "status.json").is_file() and (folder / ".hydra" / "config.yaml").is_file():
        return resume.configuration(folder, arguments, conf)
    whole = [*overrides, *resume.changes(arguments)]
    cfg = checked([*searchpath(arguments), *whole], conf)
    (folder / ".hydra").mkdir(parents=True, exist_ok=True)
    OmegaConf.save(cfg, folder / ".hydra" / "config.yaml")
    OmegaConf.save(OmegaConf.create(whole), folder / ".hydra" / "overrides.yaml")
    return cfg


def failed(folder: Path, error: LtlError) -> None:
    """Note in the folder of a job that it failed before it could begin."""
    if not (folder / "status.json").exists():
        write_json(folder / "status.json", {"state": "failed", "reason": str(error)})


def close(folder: Path, errors: Mapping[str, str]) -> list[str]:
    """Write the index and the joint report, print a line a job, and return a line for each that failed.

    Jobs that `hardware.stop_after` cut, or left for later, did not fail. `errors` are what went wrong just now, by job.
    """
    from ltl.console import print_table, terminal  # not before there is something to print

    jobs = _jobs(folder, errors)
    _write(folder, jobs)
    console = terminal()
    try:
        report.show(report.write([folder]), brief=True)
    except (LtlError, OSError) as error:
        console.print(f"no joint report: {error}", highlight=False, markup=False)
    header = ("job", "state", "reason")
    print_table(console, header, [[job.name, job.state, job.reason] for job in jobs], left=header)
    left = [job for job in jobs if job.state != "done"]
    if left:
        line = (
            f"{len(left)} of {len(jobs)} jobs are not done; `python -m ltl.run resume={folder}` runs what is missing."
        )
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    return [f"{folder / job.name} failed: {job.reason}" for job in left if job.state == "failed"]


def _planned(folder: Path) -> dict[str, list[str]]:
    """Return the command line of each job of the index; LtlError if it is none."""
    path = folder / "jobs.csv"
    try:
        return {row["job"]: shlex.split(row["overrides"]) for row in read_rows(path, _COLUMNS)}
    except (KeyError, ValueError):
        raise LtlError(
            f"{path} is not the index of a sweep: it was altered or cut off; resume its jobs one by one."
        ) from None


def _jobs(folder: Path, errors: Mapping[str, str]) -> list[Job]:
    """Return the jobs of a sweep in their order: those planned, and those whose folders are there."""
    planned = _planned(folder)
    found = {str(path.parent.relative_to(folder)) for path in folder.rglob("status.json")}
    return [
        Job(name, planned.get(name, []), *_state(folder / name, errors.get(name)))
        for name in [*planned, *sorted(found - set(planned))]
    ]


def _state(folder: Path, error: str | None) -> tuple[str, str]:
    """Return the state of a job and the reason for it."""
    if error is not None:
        return "failed", error
    if not (folder / "status.json").is_file():
        return "not started", ""
    try:
        status = read_status(folder)
    except LtlError as damaged:
        return "failed", str(damaged)
    return status["state"], status.get("reason") or ""


def _write(folder: Path, jobs: Sequence[Job]) -> None:
    rows = [
        {"job": job.name, "state": job.state, "reason": job.reason, "overrides": shlex.join(job.overrides)}
        for job in jobs
    ]
    write_table(folder / "jobs.csv", _COLUMNS, rows)

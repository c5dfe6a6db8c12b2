"""`python -m ltl.run`: composes the configuration, builds an experiment from it and runs it."""

import os
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import hydra
from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from ltl import overrides, resume, schema, shorthand, sweeps, usage
from ltl.errors import LtlError, Stopped, refused
from ltl.results import rank

_PACKAGED = Path(__file__).parent / "conf"  # inside a wheel
_CHECKOUT = Path(__file__).parents[1] / "conf"
CONF = _PACKAGED if _PACKAGED.is_dir() else _CHECKOUT

OmegaConf.register_new_resolver("ltl_unique", lambda: os.urandom(3).hex(), use_cache=True, replace=True)
OmegaConf.register_new_resolver("ltl_job", sweeps.job_name, replace=True)


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def main(cfg: DictConfig) -> None:
    """Run one job in the folder that Hydra made for it, or note it if jobs of its sweep may train side by side."""
    job = HydraConfig.get()
    folder = Path(job.runtime.output_dir)
    try:
        if job.mode != RunMode.MULTIRUN:
            run(cfg, folder)
            return
        if cfg.hardware.strategy == "ddp":  # its processes repeat the command line
            raise LtlError("hardware=ddp cannot be swept: start these runs one by one, or sweep on one process each.")
        _check(cfg)
        if _in_turn(job):
            Sweep.jobs[folder] = cfg
        else:
            _run_together({folder: cfg}, Path(job.sweep.dir), {})
    except LtlError as error:
        if job.mode == RunMode.MULTIRUN:  # the other jobs go on; cli() tells of this one when all have ended
            sweeps.failed(folder, error)
            return
        if rank() == 0 and not (folder / "status.json").exists():
            _discard(folder, Path(job.run.dir))
        sys.exit(f"ltl: {error}")


def _in_turn(job: HydraConf) -> bool:
    """Return whether all jobs of a sweep are known, and run in this process, before any outcome is asked for."""
    parts = (job.launcher._target_, job.sweeper._target_)
    return all(name.endswith((".BasicLauncher", ".BasicSweeper")) for name in parts)


def _check(cfg: DictConfig) -> None:
    """LtlError for values that cannot be run."""
    schema.check(cfg)
    if cfg.plan:
        raise LtlError("plan=true belongs on the command line: set plan=false in the configuration.")
    _set_wait_policy(cfg)


def _set_wait_policy(cfg: DictConfig) -> None:
    """Say what idle threads do; this is read once, when PyTorch is imported."""
    os.environ.setdefault("OMP_WAIT_POLICY", cfg.hardware.wait_policy)


def run(cfg: DictConfig, folder: Path) -> None:
    """Check `cfg`, then run it in `folder`; LtlError for whatever the user can mend."""
    _check(cfg)
    from ltl.launch import launch

    launch(cfg, folder)


def _run_together(jobs: Mapping[Path, DictConfig], sweep: Path, errors: dict[str, str]) -> None:
    """Run jobs of the folder `sweep`, side by side where they can; what goes wrong is written into `errors`, by job.

    When the time of one is up, those that have not begun are left for a resume.
    """
    _set_wait_policy(next(iter(jobs.values())))
    from ltl.build import stackable
    from ltl.launch import launch_together

    began = time.monotonic()
    groups: dict[str, dict[Path, DictConfig]] = {}
    for folder, cfg in jobs.items():
        groups.setdefault(" ".join(sweeps.beside(folder)) or stackable(cfg), {})[folder] = cfg
    wrong: dict[Path, LtlError] = {}
    try:
        with suppress(Stopped):
            for group in groups.values():
                launch_together(group, sweep, began, wrong)
    finally:
        for folder, error in wrong.items():
            sweeps.failed(folder, error)
            errors[str(folder.resolve().relative_to(sweep.resolve()))] = str(error)


def cli(arguments: Sequence[str] | None = None) -> None:
    """Run the command line: help, a run folder or a sweep to resume, or a new job or sweep."""
    try:
        _run(list(sys.argv[1:] if arguments is None else arguments))
    except (LtlError, OSError, HydraException) as error:
        reason = refused(error) if isinstance(error, OSError) else " ".join(str(error).split())
        sys.exit(f"ltl: {reason}")


def _run(arguments: list[str]) -> None:
    if not {"-h", "--help"}.isdisjoint(arguments):
        print(usage.text(CONF))
        return
    folder = resume.folder_of(arguments)
    arguments = shorthand.spelled_out(arguments, CONF)
    arguments.sort(key=overrides.is_override)  # flags first: Hydra wants the overrides in one piece
    sys.argv[1:] = arguments
    if "plan=true" in map(str.lower, arguments):
        _plan(arguments)
        return
    if folder is not None and not sweeps.is_sweep(folder):
        resume.check(folder)
        run(resume.configuration(folder, arguments, CONF), folder)
        return
    if folder is None:
        overrides.check(arguments, CONF)
    else:
        sweeps.check(folder)
    failures: list[str] = []
    errors: dict[str, str] = {}
    Sweep.folder, Sweep.jobs = folder, {}
    try:
        if folder is not None:
            Sweep.jobs = sweeps.missing(folder, arguments, CONF, errors)
        else:
            _begin()
        if Sweep.folder is not None and Sweep.jobs:
            _run_together(Sweep.jobs, Sweep.folder, errors)
    finally:
        if Sweep.folder is not None and Sweep.folder.is_dir():
            failures = sweeps.close(Sweep.folder, errors)
        print("".join(f"ltl: {line}\n" for line in failures), end="", file=sys.stderr)
    if failures:
        sys.exit(1)


def _begin() -> None:
    """Have Hydra make the folder of a job, or of a sweep, and run in it; LtlError if it cannot be written."""
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # else Hydra prints what is raised in it, in many lines
    try:
        main()
    except OSError as error:
        raise LtlError(
            f"hydra.run.dir, or hydra.sweep.dir for a sweep, cannot be written: {refused(error)}; choose another "
            "folder, or mend that."
        ) from error


def _plan(arguments: Sequence[str]) -> None:
    """Print what a job, or each of a sweep, would cost; LtlError for what cannot be planned."""
    flags, given = ([one for one in arguments if overrides.is_override(one) is kind] for kind in (False, True))
    if not set(flags) <= {"-m", "--multirun"} or resume.folder_of(arguments):
        raise LtlError("plan=true goes with -m and overrides of a new run only: leave out resume= and other flags.")
    if flags:
        overrides.check(arguments, CONF)
    jobs = sweeps.jobs(given) if flags else {"run": given}
    configurations = {name: overrides.checked(own, CONF) for name, own in jobs.items()}
    _set_wait_policy(next(iter(configurations.values())))
    from ltl import plan

    plan.show([plan.plan(cfg, name) for name, cfg in configurations.items()])


class Sweep(Callback):
    """Writes the index of a sweep before its jobs begin, and remembers where they are; named in conf/config.yaml."""

    folder: Path | None = None
    jobs: ClassVar[dict[Path, DictConfig]] = {}  # that wait until all are known

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Take the folder, in which this moment's time is written."""
        Sweep.folder = Path(config.hydra.sweep.dir)
        with suppress(OSError):  # Hydra, which meets the same next, would make a warning of it here
            sweeps.begin(config)


def _discard(folder: Path, given: Path) -> None:
    """Take away what a run that never began has left: Hydra's files, and the folders made for them."""
    for name in ("config.yaml", "hydra.yaml", "overrides.yaml"):
        (folder / ".hydra" / name).unlink(missing_ok=True)
    (folder / ".lock").unlink(missing_ok=True)
    made = [folder / ".hydra", folder] if given.is_absolute() else [folder / ".hydra", folder, *given.parents[:-1]]
    for path in made:
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()


if __name__ == "__main__":
    from ltl.run import cli as imported  # under its own name, so that launchers can pickle the task by reference

    imported()

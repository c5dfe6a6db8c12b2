"""Runs jobs in their folders: holds the locks, keeps the status, trains, and closes with the report."""

import sysconfig
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from ltl import build, fit, report
from ltl.callbacks.progress import RunProgress
from ltl.dashboard.wandb_run import WandbRun
from ltl.errors import Diverged, LtlError, Spread, Stopped, refused
from ltl.experiment import Experiment
from ltl.results import Outcome, lock, rank, read_status, write_atomic, write_json


def launch(cfg: DictConfig, folder: Path) -> None:
    """Train what `folder` does not hold yet, write its report, and print the closing table."""
    with suppress(Stopped), _going_on(cfg, folder), _mendable(folder):
        try:
            train(cfg, folder, Console())
        except Diverged:
            with suppress(LtlError):  # there may be no finished round to report
                _close(folder, brief=False)
            raise
        _close(folder, brief=False)


def launch_together(jobs: Mapping[Path, DictConfig], sweep: Path, began: float, errors: dict[Path, LtlError]) -> None:
    """Train what the folders of jobs in `sweep` do not hold yet, as one stack if networks are to be stacked.

    Each is reported in a line; what goes wrong is written into `errors`, by folder. Stopped when the time is up, which
    counts from `began` on the clock of `time.monotonic`.
    """
    with ExitStack() as locks:
        runs: list[_Run] = []
        for folder, cfg in jobs.items():
            try:
                with _mendable(folder):
                    locks.enter_context(lock(folder))
                    like = runs[0].built if runs else None
                    runs.append(_Run(cfg, build.experiment(cfg, folder, hardware_number=0, like=like)))
            except LtlError as error:
                errors[folder] = error
        together = len(runs) > 1 and runs[0].built.together()
        for group in [runs] if together else [[one] for one in runs]:
            with _going_on(group[0].cfg, sweep):
                errors |= _launch(group, sweep, began)


def _launch(runs: "Sequence[_Run]", sweep: Path, began: float) -> dict[Path, LtlError]:
    """Train jobs of a sweep as one stack, and report each in a line; return what went wrong, by folder."""
    names = [str(one.folder.resolve().relative_to(sweep.resolve())) for one in runs]
    for one in runs:
        one.beside = names if len(names) > 1 else one.beside
    errors: dict[Path, LtlError] = {}
    try:
        with _mendable(sweep):
            lost = _train(runs, Console(), sweep if runs[0].beside else None, began)
            errors = {one.folder: Diverged(why) for one, why in zip(runs, lost, strict=True) if why}
            for one in runs:
                with suppress(LtlError) if one.folder in errors else nullcontext():  # no finished round to report
                    _close(one.folder, brief=True)
    except LtlError as error:
        errors |= {one.folder: error for one in runs if one.folder not in errors}
    return errors


@contextmanager
def _going_on(cfg: DictConfig, folder: Path) -> Iterator[None]:
    """Say how what is interrupted, or stops when its time is up, goes on."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):  # Lightning makes the one of the other
        raise SystemExit(f"ltl: interrupted; `python -m ltl.run resume={folder}` goes on.") from None
    except Stopped:
        if rank() == 0:
            stop = f"hardware.stop_after={cfg.hardware.stop_after} is over"
            print(f"ltl: {stop}; `python -m ltl.run resume={folder}` goes on.")
        raise


@contextmanager
def _mendable(folder: Path) -> Iterator[None]:
    """Make one line of what the system refuses, and of memory that runs out."""
    try:
        yield
    except OSError as error:
        raise LtlError(
            f"the run in {folder} stopped: {refused(error)}. What it has finished is kept; when that is mended, "
            f"`python -m ltl.run resume={folder}` goes on."
        ) from error
    except LtlError:
        raise
    except Exception as error:  # PyTorch has an error of its own for a GPU's memory alone
        gpu = isinstance(error, torch.OutOfMemoryError)
        if not gpu and not isinstance(error, MemoryError) and "can't allocate memory" not in str(error):
            where = _own_line(error)
            if not where:
                raise
            kept = f"What is finished is kept; when that is mended, `python -m ltl.run resume={folder}` goes on."
            said = " ".join(f"{where}: {type(error).__name__}: {error}".split())
            raise LtlError(f"{said}. {kept if (folder / 'status.json').exists() else ''}".rstrip()) from error
        where = "the GPU" if gpu else "this machine"
        raise LtlError(
            f"the run in {folder} stopped: {where} has no memory left for it. What it has finished is kept; when some "
            f"is free again, or with a smaller hardware.eval_batch, `python -m ltl.run resume={folder}` goes on; fewer "
            "networks side by side (hardware.stack_size) are a new run."
        ) from error


def _own_line(error: Exception) -> str:
    """Return the line in which code that is neither ltl's nor a library's raised `error`; "" if ltl's did."""
    libraries = [Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "platlib")]
    theirs = {place for path in libraries for place in (path, path.resolve())}
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        above = Path(frame.filename).parents
        if Path(__file__).parent in above:
            return ""
        if not frame.filename.startswith("<") and theirs.isdisjoint(above):
            return f"{frame.filename}, line {frame.lineno}, in {frame.name}"
    return ""


def _close(folder: Path, *, brief: bool) -> None:
    if rank() != 0:
        return
    written = report.write([folder])
    if brief:
        print(f"{folder.name}: {report.line(written)}")
    else:
        report.show(written)


def train(cfg: DictConfig, folder: Path, console: Console) -> None:
    """Train what `folder` does not hold yet; `status.json` says how it went."""
    if rank() != 0:
        built = build.experiment(cfg, folder, hardware_number=0)
        fit.run(built, lambda steps: RunProgress(total_steps=steps, console=Console(quiet=True)))
        return
    began = time.monotonic()
    with lock(folder):
        one = _Run(cfg, build.experiment(cfg, folder, hardware_number=0))
        one.check_alone()
        [lost] = _train([one], console, None, began)
    if lost:
        raise Diverged(lost)


def _train(runs: "Sequence[_Run]", console: Console, sweep: Path | None, began: float) -> list[str]:
    """Train what the folders of `runs` do not hold yet, and keep their status; return why rows of each were lost.

    Where a loss that is no number may have spread, they go on once more from the last checkpoint, each network apart.
    """
    try:
        return _train_once(runs, console, sweep, began)
    except Spread:
        if runs[0].cfg.hardware.devices != 1:  # other processes would have to do the same
            raise
        console.print("a loss is no finite number: on from the last checkpoint with hardware.merge=false")
        return _train_once([one.apart() for one in runs], console, sweep, began)


def _train_once(runs: "Sequence[_Run]", console: Console, sweep: Path | None, began: float) -> list[str]:
    for one in runs:
        one.begin()
    outcome: Outcome = "failed"
    reason, lost = "interrupted by the user", [""] * len(runs)
    try:
        for one in runs:
            for logger in one.built.loggers:
                logger.log_hyperparams(build.plain(one.cfg))
        built = [one.built for one in runs]
        lost = fit.side_by_side(built, lambda steps: RunProgress(total_steps=steps, console=console), sweep, began)
        outcome, reason = "done", ""
    except Stopped:
        outcome, reason = "interrupted", f"hardware.stop_after={runs[0].cfg.hardware.stop_after}"
        raise
    except Exception as error:
        reason = str(error) if isinstance(error, LtlError) else f"{type(error).__name__}: {error}"
        raise
    finally:
        for one, why in zip(runs, lost, strict=True):
            one.end("failed" if why else outcome, why or reason)
    return lost


class _Run:
    """One run in its folder, and what `status.json` says of it."""

    def __init__(self, cfg: DictConfig, built: Experiment) -> None:
        self.cfg, self.folder = cfg, built.folder
        cfg.hardware.stack = "together" if built.together() else "in_turn"  # a resume goes on in the same way
        before = read_status(self.folder) if (self.folder / "status.json").exists() else {}
        used, now = before.get("hardware", []), build.used_hardware(cfg)
        if not used or any(used[-1].get(key) != value for key, value in now.items()):
            used = [*used, now]
        self.built = replace(built, hardware_number=len(used) - 1)
        self.beside: list[str] = before.get("beside", [])  # the jobs of its sweep that it trains with
        self.known: dict[str, Any] = {**build.status(self.built), "hardware": used}

    def apart(self) -> "_Run":
        """Return the run as a resume would find it, whose networks do not pass as one."""
        self.cfg.hardware.merge = False
        return _Run(self.cfg, build.experiment(self.cfg, self.folder, hardware_number=0, like=self.built))

    def check_alone(self) -> None:
        """LtlError if there is more to search, and the checkpoint is one of several jobs."""
        if self.beside and fit.searching(self.built):
            raise LtlError(
                f"resume={self.folder} cannot go on alone, because it trains side by side with {len(self.beside) - 1} "
                "other jobs: resume its sweep, which makes the same changes to all of them."
            )

    def begin(self) -> None:
        """Note that it is running."""
        write_atomic(self.folder / ".hydra" / "config.yaml", OmegaConf.to_yaml(self.cfg).encode())
        self._write("running", None)

    def end(self, outcome: Outcome, reason: str) -> None:
        """Note how it went."""
        self._write(outcome, reason or None)
        for logger in self.built.loggers:
            if isinstance(logger, WandbRun):
                logger.close(outcome)

    def _write(self, state: str, reason: str | None) -> None:
        beside = {"beside": self.beside} if self.beside else {}
        write_json(self.folder / "status.json", {"state": state, "reason": reason, **beside, **self.known})

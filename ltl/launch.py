"""Runs one job in its folder: holds the lock, keeps the status, trains, and closes with the report."""

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Literal

from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from ltl import build, fit, report
from ltl.callbacks.progress import RunProgress
from ltl.dashboard.wandb_run import WandbRun
from ltl.errors import Diverged, LtlError, Stopped
from ltl.results import lock, rank, read_status, write_atomic, write_json


def launch(cfg: DictConfig, folder: Path, *, brief: bool = False) -> None:
    """Train what `folder` does not hold yet, write its report, and print the closing table, or a line if `brief`."""
    try:
        train(cfg, folder, Console())
    except (KeyboardInterrupt, SystemExit):  # Lightning makes the one of the other
        raise SystemExit(f"ltl: interrupted; `python -m ltl.run resume={folder}` goes on.") from None
    except Stopped:
        if rank() == 0:
            stop = f"hardware.stop_after={cfg.hardware.stop_after} is over"
            print(f"ltl: {stop}; `python -m ltl.run resume={folder}` goes on.")
        return
    except Diverged:
        with suppress(LtlError):  # there may be no finished round to report
            _close(folder, brief)
        raise
    _close(folder, brief)


def _close(folder: Path, brief: bool) -> None:
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
    with lock(folder):
        built = build.experiment(cfg, folder, hardware_number=0)
        cfg.hardware.stack = "together" if built.together() else "in_turn"  # a resume goes on in the same way
        used = read_status(folder).get("hardware", []) if (folder / "status.json").exists() else []
        if not used or used[-1] != build.used_hardware(cfg):
            used = [*used, build.used_hardware(cfg)]
        built = replace(built, hardware_number=len(used) - 1)
        known = {**build.status(built), "hardware": used}
        write_atomic(folder / ".hydra" / "config.yaml", OmegaConf.to_yaml(cfg).encode())
        write_json(folder / "status.json", {"state": "running", "reason": None, **known})
        state: Literal["done", "failed", "interrupted"] = "failed"
        reason = "interrupted by the user"
        try:
            for logger in built.loggers:
                logger.log_hyperparams(build.plain(cfg))
            fit.run(built, lambda steps: RunProgress(total_steps=steps, console=console))
            state, reason = "done", ""
        except Stopped:
            state, reason = "interrupted", f"hardware.stop_after={cfg.hardware.stop_after}"
            raise
        except Exception as error:
            reason = str(error) or type(error).__name__
            raise
        finally:
            write_json(folder / "status.json", {"state": state, "reason": reason or None, **known})
            for logger in built.loggers:
                if isinstance(logger, WandbRun):
                    logger.close(state)

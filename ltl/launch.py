"""Runs one job in its folder: holds the lock, keeps the status, trains, and closes with the report."""

import logging
import warnings
from pathlib import Path

from omegaconf import DictConfig
from pytorch_lightning.utilities.rank_zero import rank_zero_only
from rich.console import Console

from ltl import build, report
from ltl.callbacks.progress import RunProgress
from ltl.errors import LtlError
from ltl.results import lock, write_json


def launch(cfg: DictConfig, folder: Path) -> None:
    """Train what `folder` does not hold yet, write its report and print the closing table."""
    for name in ("pytorch_lightning", "pytorch_lightning.utilities.rank_zero", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"pytorch_lightning\.")
    console = Console(stderr=False)
    if rank_zero_only.rank != 0:
        build.experiment(cfg, folder).run(lambda steps: RunProgress(total_steps=steps, console=Console(quiet=True)))
        return
    with lock(folder):
        _run(cfg, folder, console)


def _run(cfg: DictConfig, folder: Path, console: Console) -> None:
    built = build.experiment(cfg, folder)
    known = build.status(built, cfg)
    write_json(folder / "status.json", {"state": "running", "reason": None, **known})
    try:
        built.run(lambda steps: RunProgress(total_steps=steps, console=console))
    except (Exception, KeyboardInterrupt) as error:
        write_json(folder / "status.json", {"state": "failed", "reason": str(error) or type(error).__name__, **known})
        _finish_wandb(cfg, 1)
        raise
    _finish_wandb(cfg, 0)
    write_json(folder / "status.json", {"state": "done", "reason": None, **known})
    report.show(report.write([folder]), console)


def _finish_wandb(cfg: DictConfig, exit_code: int) -> None:
    """Close the W&B run with its outcome: the jobs of a sweep share a process."""
    if "wandb" in cfg.logger:
        import wandb

        wandb.finish(exit_code=exit_code)

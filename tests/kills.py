"""Runs that are killed: the child side of tests/test_kill.py, in processes that forked.py makes."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from rich.console import Console

import ltl.callbacks.record
import ltl.results
from ltl import resume
from ltl.callbacks.checkpoint import IntervalCheckpoint
from ltl.launch import train
from ltl.pruning.pruner import Pruner
from ltl.run import CONF
from ltl.training.module import MaskedTraining

POINTS = ("training", "evaluation", "pruning", "rows", "ticket", "checkpoint")


def run(folder: str, overrides: list[str], point: str | None, count: int) -> None:
    """Start a run, or go on with the one in `folder`; die by SIGKILL at the `count`-th passage of `point`."""
    torch.set_num_threads(1)
    if point is not None:
        _arm(point, count)
    where = Path(folder)
    if (where / "status.json").exists():
        cfg = resume.configuration(where, [f"resume={folder}"], CONF)
    else:
        cfg = resume.composed(overrides, CONF)
        (where / ".hydra").mkdir(parents=True, exist_ok=True)
        (where / ".hydra" / "config.yaml").write_text(OmegaConf.to_yaml(cfg))
        (where / ".hydra" / "overrides.yaml").write_text(OmegaConf.to_yaml(overrides))
    train(cfg, where, Console(quiet=True))


def _arm(point: str, count: int) -> None:
    left = [count]

    def die_when_due() -> None:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def dying(function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            die_when_due()
            return function(*args, **kwargs)

        return wrapper

    if point == "training":
        MaskedTraining.masked_step = dying(MaskedTraining.masked_step)  # type: ignore[method-assign]
    elif point == "evaluation":
        ltl.callbacks.record.evaluating = dying(ltl.callbacks.record.evaluating)  # type: ignore[attr-defined]
    elif point == "pruning":
        Pruner.prune = dying(Pruner.prune)  # type: ignore[method-assign]
    elif point == "rows":  # written, and no checkpoint yet
        save = IntervalCheckpoint.on_train_epoch_end
        IntervalCheckpoint.on_train_epoch_end = dying(save)  # type: ignore[method-assign]
    else:
        suffix = {"ticket": ".safetensors", "checkpoint": ".ckpt"}[point]
        fsync = os.fsync

        def torn(descriptor: int) -> None:
            """Leave half of the file behind and die."""
            name = str(Path(f"/proc/self/fd/{descriptor}").readlink())
            if suffix in name:
                left[0] -= 1
                if left[0] == 0:
                    os.truncate(descriptor, os.fstat(descriptor).st_size // 2)
                    os.kill(os.getpid(), signal.SIGKILL)
            fsync(descriptor)

        ltl.results.os.fsync = torn  # type: ignore[assignment]

"""The typed schema of a run: every value is checked before training starts, and before PyTorch is imported."""

from typing import Any

from omegaconf import DictConfig

from ltl import lengths
from ltl.errors import LtlError

_NUMBERS: dict[str, tuple[type, float, float, str]] = {
    "seed": (int, 0, 2**62, "a whole number ≥ 0"),
    "trials": (int, 1, 10**6, "a whole number ≥ 1"),
    "draws": (int, 1, 10**6, "a whole number ≥ 1"),
    "batch": (int, 1, 10**9, "a whole number ≥ 1 of examples"),
    "pruner.rounds": (int, 0, 10**4, "a whole number ≥ 0 of prunings"),
    "report.margin": (float, 0.0, 1.0, "a fraction between 0 and 1 (0.002 is 0.2 percentage points)"),
    "optimizer.lr": (float, 0.0, 1e6, "a number ≥ 0"),
    "optimizer.weight_decay": (float, 0.0, 1e6, "a number ≥ 0"),
    "optimizer.momentum": (float, 0.0, 1.0, "a number from 0 to 1"),
    "dataset.validation": (int, 1, 10**9, "a whole number ≥ 1 of examples carved from the training set"),
    "model.dropout": (float, 0.0, 0.999, "a fraction from 0 to below 1 of units to drop"),
    "hardware.devices": (int, 1, 10**4, "a whole number ≥ 1 of processes"),
    "hardware.threads": (int, 1, 10**4, "a whole number ≥ 1 of threads"),
    "hardware.chunk": (int, 1, 10**6, "a whole number ≥ 1 of optimiser steps"),
    "hardware.eval_batch": (int, 1, 10**9, "a whole number ≥ 1 of examples"),
    "hardware.checkpoint_every": (float, 0.0, 1e9, "a number ≥ 0 of seconds"),
    "pruner.allocation.conv": (float, 0.0, 1e3, "a multiple ≥ 0 of pruner.rate"),
    "pruner.allocation.linear": (float, 0.0, 1e3, "a multiple ≥ 0 of pruner.rate"),
    "pruner.allocation.output": (float, 0.0, 1e3, "a multiple ≥ 0 of pruner.rate"),
}
_CHOICES: dict[str, tuple[Any, ...]] = {
    "seeds.order_by_round": ("same", "fresh"),
    "pruner.momentum": ("zero", "saved", "kept"),
    "pruner.lr": ("rewound", "last"),
    "hardware.accelerator": ("cpu", "gpu"),
    "hardware.precision": ("32-true", "bf16-mixed"),
    "hardware.memory_format": ("contiguous", "channels_last"),
    "hardware.deterministic": (True, False),
    "hardware.wait_policy": ("PASSIVE", "ACTIVE"),
    "dataset.verify": (True, False),
    "dataset.download": (True, False),
    "dataset.augment": (True, False),
    "pruner.allocation.allow_empty": (True, False),
}
_CONTROL: dict[str, tuple[str, ...]] = {
    "mask": ("same", "shuffled", "dense"),
    "weights": ("rewound", "fresh"),
    "network": ("same", "small"),
}


def check(cfg: DictConfig) -> None:
    """Check every value of a composed configuration; LtlError names the first key that is out of its range."""
    for key, (kind, low, high, allowed) in _NUMBERS.items():
        if (value := _select(cfg, key)) is not None:
            _number(key, value, kind, low, high, allowed)
    for key, choices in _CHOICES.items():
        if (value := _select(cfg, key)) is not None and value not in choices:
            raise LtlError(f"{key}={value} is not possible: choose {' or '.join(map(str, choices))}.")
    for stream in ("init", "order", "augmentation", "mask"):
        if cfg.seeds[stream] is not None:
            _number(f"seeds.{stream}", cfg.seeds[stream], int, 0, 2**62, "a whole number ≥ 0, or null")
    if cfg.dataset.get("limit") is not None:
        _number("dataset.limit", cfg.dataset.limit, int, 1, 10**9, "a whole number ≥ 1 of examples, or null for all")
    if cfg.clip is not None:
        _number("clip", cfg.clip, float, 1e-12, 1e12, "a gradient norm above 0, or null")
    rate = cfg.pruner.rate
    if not _is_number(rate, float) or not 0 < rate < 1:
        raise LtlError(
            f"pruner.rate={rate} is not possible: it is the fraction of the remaining weights that a pruning removes "
            "and must lie between 0 and 1; 0.2 keeps 80% each round."
        )
    _lengths(cfg)
    _controls(cfg)


def _lengths(cfg: DictConfig) -> None:
    length = lengths.parse(cfg.length, "length")
    if length.value <= 0:
        raise LtlError(f"length={cfg.length} trains nothing: a round needs at least 1it.")
    every = lengths.parse(cfg.eval_every, "eval_every")
    if every.value <= 0:
        raise LtlError(f"eval_every={cfg.eval_every} is not possible: evaluate every 1it or more.")
    rewind = lengths.parse(cfg.pruner.rewind_to, "pruner.rewind_to")
    if rewind.unit == length.unit and rewind.value >= length.value:
        raise beyond_the_end(cfg.pruner.rewind_to, cfg.length)
    lengths.parse(cfg.lr_schedule.warmup, "lr_schedule.warmup")
    for number, milestone in enumerate(cfg.lr_schedule.get("milestones", [])):
        lengths.parse(milestone, f"lr_schedule.milestones[{number}]")


def beyond_the_end(rewind_to: str, length: str) -> LtlError:
    """Return the error of a rewind point at or after the end of a round."""
    return LtlError(
        f"pruner.rewind_to={rewind_to} is at or past the end of a round (length={length}): later rounds would train "
        "nothing; choose an earlier step."
    )


def _controls(cfg: DictConfig) -> None:
    for arm, control in cfg.control.items():
        if not isinstance(control, DictConfig):
            raise LtlError(f"control.{arm}={control} is not a control: write control=[reinit,random_mask].")
        for name, choices in _CONTROL.items():
            if control.get(name) not in choices:
                raise LtlError(
                    f"control.{arm}.{name}={control.get(name)} is not possible: choose {' or '.join(choices)}."
                )
        _number(f"control.{arm}.draws", control.draws, int, 1, 10**6, "a whole number ≥ 1")
        if control.rounds != "all":
            for turn in control.rounds if not isinstance(control.rounds, str) else [control.rounds]:
                _number(f"control.{arm}.rounds", turn, int, 1, 10**4, "all, or a list of rounds such as [3,7,12]")


def _number(key: str, value: Any, kind: type, low: float, high: float, allowed: str) -> None:
    if not _is_number(value, kind) or not low <= value <= high:
        raise LtlError(f"{key}={value} is not possible: it must be {allowed}.")


def _is_number(value: Any, kind: type) -> bool:
    return isinstance(value, int if kind is int else (int, float)) and not isinstance(value, bool)


def _select(cfg: DictConfig, key: str) -> Any:
    node: Any = cfg
    for part in key.split("."):
        if not isinstance(node, DictConfig) or part not in node:
            return None
        node = node[part]
    return node

"""Synthetic run folders for the report's tests: the files of a run, with gains and speeds that the test chooses."""

import copy
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import Any, BinaryIO

import yaml
from matplotlib.figure import Figure

from ltl.report.load import RoundRow, load
from ltl.results import LAYER_COLUMNS, METRIC_COLUMNS, ROUND_COLUMNS, write_json, write_table

CONFIG: dict[str, Any] = {
    "seed": 0,
    "trials": 5,
    "length": "50000it",
    "batch": 60,
    "eval_every": "100it",
    "dataset": {"name": "mnist", "validation": 5000},
    "model": {"name": "lenet_300_100", "_target_": "ltl.models.lenet.LeNet"},
    "pruner": {
        "name": "imp",
        "rounds": 10,
        "rate": 0.2,
        "rewind_to": "0it",
        "survivors": {"_target_": "ltl.pruning.survivors.rewound", "_partial_": True},
    },
    "optimizer": {"_target_": "torch.optim.Adam", "lr": 1.2e-3},
    "draws": 1,
    "report": {"margin": 0.002},
    "rewinding_note": None,
    "claim": None,
}
DENSE = 0.980
LAYERS = {"hidden1": 784 * 300, "hidden2": 300 * 100, "output": 1000}

Curve = Callable[[int], float]


def flat(value: float) -> Curve:
    """Return the curve that has `value` in every round."""
    return lambda round: value


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with `changes` laid over it, mappings key by key."""
    result = copy.deepcopy(dict(base))
    for key, value in changes.items():
        old = result.get(key)
        result[key] = merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return result


def make_run(
    folder: Path,
    *,
    trials: int = 5,
    rounds: int = 10,
    gains: Mapping[str, Curve] | None = None,
    speeds: Mapping[str, Curve] | None = None,
    noise: float = 0.0003,
    draws: int = 1,
    censored: Callable[[str, int, int], bool] = lambda arm, trial, round: False,
    test_images: int = 10_000,
    canonical: bool = True,
    state: str = "done",
    reason: str | None = None,
    config: Mapping[str, Any] | None = None,
    curves: bool = False,
) -> Path:
    """Write a run folder whose arm `a` in round r has accuracy dense + gains[a](r) and is speeds[a](r) times as fast.

    Both are per arm; the default is a ticket as accurate as dense, 1.2 times as fast, and no control. `noise` is the
    standard deviation of an accuracy about it; steps vary by 5%. With `curves`, metrics.csv is filled as well.
    """
    whole = merged(CONFIG, config or {})
    gains = gains or {"ticket": flat(0.0)}
    speeds = speeds or {"ticket": flat(1.2)}
    random = Random(whole["seed"])
    rows, metrics, layers = [], [], []
    for trial in range(trials):
        own = random.gauss(0, 0.0005)
        for arm, gain in gains.items():
            for round in range(0 if arm == "ticket" else 1, rounds + 1):
                for draw in range(1 if arm == "ticket" else draws):
                    density = 0.8**round
                    accuracy = DENSE + own + (gain(round) if round else 0.0) + random.gauss(0, noise)
                    speed = speeds.get(arm, flat(1.0))(round) if round else 1.0
                    step = max(100, int(6000 / speed * random.uniform(0.95, 1.05)) // 100 * 100)
                    cut = censored(arm, trial, round)
                    where = {"trial": trial, "arm": arm, "draw": draw, "round": round}
                    rows.append(
                        where
                        | {
                            "density": density,
                            "weights_left": int(266_200 * density),
                            "effective_density": density * 0.98,
                            "train_accuracy": 1.0,
                            "val_accuracy": accuracy - 0.001,
                            "val_loss": 0.07,
                            "test_accuracy": accuracy - 0.0005,
                            "test_loss": 0.08,
                            "early_stop_step": 49_000 if cut else step,
                            "early_stop_censored": int(cut),
                            "early_stop_test_accuracy": accuracy,
                            "best_test_accuracy": accuracy + 0.001,
                            "steps": 50_000,
                            "total_steps": 50_000 * (round + 1),
                            "seconds": 41.5,
                            "eval_seconds": 3.0,
                            "init_sha256": f"theta-{whole['seed'] + trial}{'' if arm == 'ticket' else arm}",
                            "mask_sha256": f"mask-{trial}-{round}",
                        }
                    )
                    if arm == "ticket":
                        layers += [_layer(where, name, weights, density) for name, weights in LAYERS.items()]
                        metrics += _curve(where, accuracy, step) if curves else []
    write_table(folder / "rounds.csv", ROUND_COLUMNS, rows)
    write_table(folder / "layers.csv", LAYER_COLUMNS, layers)
    write_table(folder / "metrics.csv", METRIC_COLUMNS, metrics)
    write_json(
        folder / "status.json",
        {
            "state": state,
            "reason": reason,
            "versions": {"ltl": "0.1.0", "torch": "2.13.0"},
            "revision": "0123abc",
            "hardware": [{"device": "cpu", "threads": 1, "precision": "32-true"}],
            "dataset": {
                "name": whole["dataset"]["name"],
                "canonical": canonical,
                "train": 55_000,
                "validation": 5_000,
                "test": test_images,
            },
            "parameters": 266_610,
            "prunable": 266_200,
        },
    )
    path = folder / ".hydra" / "config.yaml"
    path.parent.mkdir(exist_ok=True)
    # Through JSON: PyYAML writes 1e-05 where OmegaConf would read a string.
    path.write_text(yaml.safe_dump(json.loads(json.dumps(whole)), sort_keys=False, allow_unicode=True))
    return folder


def _layer(where: Mapping[str, Any], name: str, weights: int, density: float) -> dict[str, Any]:
    own = density**0.5 if name == "output" else density
    effective = own * 0.95
    return {
        **where,
        "layer": name,
        "weights": weights,
        "kept": int(weights * own),
        "density": own,
        "effective_density": effective,
    }


def _curve(where: Mapping[str, Any], accuracy: float, early_stop: int) -> list[dict[str, Any]]:
    points = []
    for step in range(500, 50_001, 500):
        near = 2 ** (-step / early_stop * 3)
        points.append(
            {
                **where,
                "step": step,
                "total_step": where["round"] * 50_000 + step,
                "val_accuracy": accuracy - 0.08 * near,
                "val_loss": 0.07 + 0.25 * near + 1e-6 * abs(step - early_stop),
            }
        )
    return points


def save_empty(figure: Figure, file: BinaryIO, **how: object) -> None:
    """Write nothing of `figure`, in the place of `Figure.savefig`."""
    file.write(b"<svg></svg>")


def make_rows(folder: Path, **settings: Any) -> list[RoundRow]:
    """Return the rows of `make_run`, as the report reads them."""
    return load(make_run(folder, **settings)).rows

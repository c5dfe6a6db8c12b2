"""Writes docs/methods.md, the list of pruning methods, from conf/pruner/: `python tests/methods_page.py`."""

import re
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "methods.md"
HEAD = """# Pruning methods

Each file in `conf/pruner/` is one method, a point in the product criterion × allocation × schedule × survivors × filler
([concepts](concepts.md)), and names the paper that it is from; a few, such as `quantised`, are no paper's, and say what
they vary. `python -m ltl.run pruner=snip` runs one with everything else; the allocation may be changed by
`allocation=global` and the like. Settings stand in brackets, without those that the model decides and switches that are
off. *Rewind* is the step of the rewind point, the learning-rate schedule and the optimiser's state after a pruning.
*Search* is what finding the mask of the last round has cost before the ticket's own training, in trainings of the dense
network; where scores are trained it is that training. Written by `python tests/methods_page.py`.

"""
COLUMNS = [
    *("method", "what and by whom", "criterion", "allocation", "schedule", "survivors", "pruned entries", "rewind"),
    *("rounds × rate", "search", "experiments"),
]
LENGTH = 1000


def page(composed: Any) -> str:
    """Return the page; `composed(*overrides)` composes a configuration."""
    rows, experiments = [COLUMNS, ["---"] * len(COLUMNS)], _experiments()
    for path in sorted((ROOT / "conf" / "pruner").glob("*.yaml")):
        cfg = composed(f"pruner={path.stem}").pruner
        cells = [
            f"`{path.stem}`",
            _paper(path),
            _scores(cfg),
            _function(cfg.allocation),
            _function(cfg.schedule),
            _function(cfg.survivors),
            _function(cfg.filler),
            f"{_own(cfg, 'rewind_to')}, {cfg.lr}, {cfg.momentum}",
            f"{cfg.rounds} × {cfg.rate}",
            _search(cfg),
            ", ".join(f"`{name}`" for name, pruners in experiments.items() if path.stem in pruners) or "none",
        ]
        rows.append([cell.replace("|", "\\|") for cell in cells])
    return HEAD + "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _paper(path: Path) -> str:
    comment = next(line for line in path.read_text().splitlines() if not line.startswith("# @package"))
    return comment.removeprefix("# ").rstrip(".")


def _scores(cfg: DictConfig) -> str:
    """What ranks the weights: a criterion, with those by which weights are replaced, or scores and what trains them."""
    if cfg.get("scores") is not None:
        optimizer = cfg.scores.optimizer
        trained = f"{optimizer._target_.rpartition('.')[2]}(lr={optimizer.lr})"
        return f"scores: {_function(cfg.scores.estimator)} by {trained}"
    if cfg.get("replacement") is None:
        return _function(cfg.criterion)
    drop, grow = (_function(cfg.replacement[name]) for name in ("drop", "grow"))
    shared = ", redistributed" if cfg.replacement.redistribute else ""
    return f"{_function(cfg.criterion)}; drop {drop} → grow {grow}{shared}"


def _function(section: DictConfig) -> str:
    """The function's name with its settings, and those of a function within it."""
    inside = [_function(value) for value in section.values() if OmegaConf.is_dict(value) and "_target_" in value]
    for name, value in section.items():
        plain = isinstance(value, int | float | str) and value is not False
        if plain and not str(name).startswith("_") and not OmegaConf.is_interpolation(section, name):
            inside.append(f"{name}={str(value).lower() if value is True else value}")
    return section["_target_"].rpartition(".")[2] + (f"({', '.join(inside)})" if inside else "")


def _own(section: DictConfig, key: str) -> str:
    return "the model's" if OmegaConf.is_interpolation(section, key) else str(section[key])


def _search(cfg: DictConfig) -> str:
    if cfg.get("scores") is not None:
        return "1"
    events = instantiate(cfg.schedule)(rounds=cfg.rounds, rate=cfg.rate, length=LENGTH, rewind_step=0)
    return f"{max((event.search_steps for event in events), default=0) / LENGTH:g}"


def _experiments() -> dict[str, list[str]]:
    """Return the pruners of each experiment."""
    found = {}
    for path in sorted((ROOT / "conf" / "experiment").glob("*.yaml")):
        content = OmegaConf.load(path)
        fixed = [one["override /pruner"] for one in content.get("defaults", []) if "override /pruner" in one]
        swept = str(OmegaConf.select(content, "hydra.sweeper.params.pruner") or "")
        found[path.stem] = re.split(r"\s*,\s*", swept) if swept else fixed
    return found


if __name__ == "__main__":
    from conftest import composed

    PAGE.write_text(page(composed))

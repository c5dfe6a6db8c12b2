"""Writes docs/methods.md, the list of pruning methods, from conf/pruner/: `python tests/methods_page.py`."""

import re
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "methods.md"
HEAD = """# Pruning methods

Each file in `conf/pruner/` is one published method: a point in the product criterion × allocation × schedule ×
survivors × filler ([concepts](concepts.md)). `python -m ltl.run pruner=snip` runs one with everything else; the
allocation may be changed by `allocation=global` and the like. *Search* is what finding the mask of the last of 16
rounds has cost before the ticket's own training, in trainings of the dense network; where scores are trained it is that
training. Written by `python tests/methods_page.py`.

| method | what and by whom | criterion | allocation | schedule | survivors | pruned entries | search | experiments |
|---|---|---|---|---|---|---|---|---|
"""
LENGTH, ROUNDS = 1000, 16


def page(composed: Any) -> str:
    """Return the page; `composed(*overrides)` composes a configuration."""
    rows, experiments = [], _experiments()
    for path in sorted((ROOT / "conf" / "pruner").glob("*.yaml")):
        cfg = composed(f"pruner={path.stem}").pruner
        cells = [
            f"`{path.stem}`",
            _paper(path),
            _function(cfg.criterion) if cfg.get("scores") is None else f"scores: {_function(cfg.scores.estimator)}",
            _function(cfg.allocation),
            _function(cfg.schedule),
            _function(cfg.survivors),
            _function(cfg.filler),
            _search(cfg),
            ", ".join(f"`{name}`" for name, pruners in experiments.items() if path.stem in pruners),
        ]
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return HEAD + "\n".join(rows) + "\n"


def _paper(path: Path) -> str:
    comment = next(line for line in path.read_text().splitlines() if not line.startswith("# @package"))
    return comment.removeprefix("# ").rstrip(".")


def _function(section: DictConfig) -> str:
    """The function's name, with the settings that are numbers, and the criterion within a criterion."""
    inner = [_function(value) for value in section.values() if OmegaConf.is_dict(value) and "_target_" in value]
    return section["_target_"].rpartition(".")[2] + (f"({', '.join(inner)})" if inner else "")


def _search(cfg: DictConfig) -> str:
    rounds = 0 if cfg.rounds == 0 else ROUNDS
    if cfg.get("scores") is not None:
        return "1"
    events = instantiate(cfg.schedule)(rounds=rounds, rate=0.2, length=LENGTH, rewind_step=0)
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

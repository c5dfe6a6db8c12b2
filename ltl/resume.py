"""The configuration of a run that goes on: that of its folder, with what a resume may change."""

from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from ltl import schema
from ltl.errors import LtlError
from ltl.overrides import composed
from ltl.results import in_use, is_locked, rank, read_status

_MAY_CHANGE = ("logger", "hardware", "report", "tags")
_STAY = ("hardware.stack", "hardware.stack_size")  # which networks share a checkpoint


def folder_of(arguments: Sequence[str]) -> Path | None:
    """Return the run folder that `resume=` names, if any; LtlError if it is none."""
    given = [argument.partition("=")[2] for argument in arguments if argument.startswith("resume=")]
    if not given or given[-1] in ("", "null"):
        return None
    folder = Path(given[-1])
    read_status(folder)
    if rank() == 0 and is_locked(folder):
        raise in_use(folder)
    if not (folder / ".hydra" / "config.yaml").is_file():
        raise LtlError(f"resume={folder} cannot go on: it has no .hydra/config.yaml.")
    return folder


def configuration(folder: Path, arguments: Sequence[str], conf: Path) -> DictConfig:
    """Return the configuration of `folder` with the overrides that a resume may make.

    pruner.rounds may grow; logger, hardware, report and tags may change; any other override must say what the run
    already has. LtlError names the key otherwise.
    """
    stored = OmegaConf.load(folder / ".hydra" / "config.yaml")
    assert isinstance(stored, DictConfig)
    before = [str(one) for one in OmegaConf.load(folder / ".hydra" / "overrides.yaml")]
    new = [argument for argument in arguments if not argument.startswith(("resume=", "hydra."))]
    old_cfg, new_cfg = composed(before, conf), composed([*before, *new], conf)
    schema.check(new_cfg)
    old, wanted, kept = (dict(schema.leaves(OmegaConf.to_container(cfg))) for cfg in (old_cfg, new_cfg, stored))
    for key in sorted({*old, *wanted}):
        if old.get(key) == wanted.get(key):
            continue
        if key == "pruner.rounds" and wanted[key] >= kept[key]:
            stored.pruner.rounds = wanted[key]
        elif (key in _STAY or key.split(".")[0] not in _MAY_CHANGE) and wanted.get(key) != kept.get(key):
            raise LtlError(
                f"{key}={wanted.get(key)} differs from the run in {folder}, which has {kept.get(key)}: a resume may "
                "change pruner.rounds (to more), logger and hardware only; start a new run for anything else."
            )
    for section in _MAY_CHANGE:
        if new_cfg[section] != old_cfg[section]:
            stored[section] = new_cfg[section]
    for key in _STAY:
        OmegaConf.update(stored, key, kept[key])
    schema.check(stored)
    return stored

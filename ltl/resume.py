"""The configuration of a run that goes on, and of a new one before Hydra writes anything: mistakes in one line."""

import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ltl import schema
from ltl.errors import LtlError
from ltl.results import read_status, write_atomic

_MAY_CHANGE = ("logger", "hardware", "report", "tags")


def folder_of(arguments: Sequence[str]) -> Path | None:
    """Return the run folder that `resume=` names, if any; LtlError if it is none."""
    given = [argument.partition("=")[2] for argument in arguments if argument.startswith("resume=")]
    if not given or given[-1] in ("", "null"):
        return None
    folder = Path(given[-1])
    read_status(folder)
    if not (folder / ".hydra" / "config.yaml").is_file():
        raise LtlError(f"resume={folder} cannot go on: it has no .hydra/config.yaml.")
    return folder


def configuration(folder: Path, arguments: Sequence[str], conf: Path) -> DictConfig:
    """Return the configuration of `folder` with the overrides that a resume may make, and keep it there.

    pruner.rounds may grow; logger, hardware, report and tags may change; any other override must say what the run
    already has. LtlError names the key otherwise.
    """
    stored = OmegaConf.load(folder / ".hydra" / "config.yaml")
    assert isinstance(stored, DictConfig)
    before = [str(one) for one in OmegaConf.load(folder / ".hydra" / "overrides.yaml")]
    new = [argument for argument in arguments if not argument.startswith(("resume=", "hydra."))]
    old_cfg, new_cfg = composed(before, conf), composed([*before, *new], conf)
    old, wanted, kept = (dict(_leaves(OmegaConf.to_container(cfg))) for cfg in (old_cfg, new_cfg, stored))
    for key in sorted({*old, *wanted}):
        if old.get(key) == wanted.get(key):
            continue
        if key == "pruner.rounds" and wanted[key] >= kept[key]:
            stored.pruner.rounds = wanted[key]
        elif key.split(".")[0] not in _MAY_CHANGE and wanted.get(key) != kept.get(key):
            raise LtlError(
                f"{key}={wanted.get(key)} differs from the run in {folder}, which has {kept.get(key)}: a resume may "
                "change pruner.rounds (to more), logger and hardware only; start a new run for anything else."
            )
    for section in _MAY_CHANGE:
        if new_cfg[section] != old_cfg[section]:
            stored[section] = new_cfg[section]
    schema.check(stored)
    write_atomic(folder / ".hydra" / "config.yaml", OmegaConf.to_yaml(stored).encode())
    return stored


def check_overrides(arguments: Sequence[str], conf: Path) -> None:
    """Compose a single run's configuration and check it, so that a mistake is one line and leaves no folder behind.

    Sweeps and Hydra's own flags (--help, --cfg …) are left to Hydra.
    """
    if any(argument.startswith("-") for argument in arguments):
        return
    schema.check(composed([argument for argument in arguments if not argument.startswith("hydra")], conf))


def composed(overrides: Sequence[str], conf: Path) -> DictConfig:
    """Compose a configuration as Hydra would; LtlError in one line for whatever does not compose."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException, MissingConfigException
    from omegaconf.errors import OmegaConfBaseException

    try:
        with initialize_config_dir(version_base="1.3", config_dir=str(conf.resolve())):
            return compose("config", overrides=list(overrides))
    except MissingConfigException as error:
        raise LtlError(_no_option(error.missing_cfg_file or "", list(error.options or []))) from None
    except (HydraException, OmegaConfBaseException) as error:
        raise LtlError(_one_line(error, overrides, conf)) from None
    finally:
        GlobalHydra.instance().clear()


def _no_option(option: str, options: list[str]) -> str:
    group, _, name = option.rpartition("/")
    near = difflib.get_close_matches(name, options, 1)
    hint = f" Did you mean {near[0]}?" if near else ""
    return f"{group}={name} is not an option.{hint} {group} can be {', '.join(options)}."


def _one_line(error: Exception, overrides: Sequence[str], conf: Path) -> str:
    text = " ".join(str(error).split())
    for override in overrides:
        key = override.lstrip("+~").partition("=")[0]
        if key and key in text:
            keys = [name for name, _ in _leaves(OmegaConf.to_container(composed([], conf)))]
            near = difflib.get_close_matches(key, keys, 1)
            hint = f" Did you mean {near[0]}?" if near and near[0] != key else ""
            return f"{override} is not possible: {text.split(' full_key')[0].rstrip('.')}.{hint}"
    return text


def _leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict) and node:
        for key, value in node.items():
            yield from _leaves(value, f"{path}.{key}" if path else str(key))
    else:
        yield path, node

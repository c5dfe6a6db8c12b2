"""The configuration of a run that goes on: that of its folder, with what a resume may change."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from ltl import schema
from ltl.errors import LtlError
from ltl.overrides import composed
from ltl.results import in_use, is_locked, rank, read_config, read_status, read_yaml
from ltl.shorthand import searchpath

_STAY = ("hardware.stack", "hardware.stack_size")  # which networks share a checkpoint


def folder_of(arguments: Sequence[str]) -> Path | None:
    """Return the folder that `resume=` names, if any."""
    given = [argument.partition("=")[2] for argument in arguments if argument.startswith("resume=")]
    return None if not given or given[-1] in ("", "null") else Path(given[-1])


def check(folder: Path) -> None:
    """LtlError if `folder` is no run folder, or none that can go on now."""
    read_status(folder)
    if rank() == 0 and is_locked(folder):
        raise in_use(folder)


def configuration(folder: Path, arguments: Sequence[str], conf: Path) -> DictConfig:
    """Return the configuration of `folder` with the overrides that a resume may make.

    pruner.rounds and the controls may grow; logger, hardware, report and tags may change; any other override must say
    what the run already has. LtlError names the key otherwise, and the file if it is the folder's own that is damaged.
    """
    before = [*searchpath(arguments, folder), *_overrides(folder)]
    with _naming(folder / ".hydra" / "overrides.yaml"):
        old_cfg = composed(before, conf)
    new_cfg = composed([*before, *changes(arguments)], conf)
    schema.check(new_cfg)
    stored = _stored(folder, old_cfg)
    old, wanted, kept = (dict(schema.leaves(OmegaConf.to_container(cfg))) for cfg in (old_cfg, new_cfg, stored))
    for key in sorted({*old, *wanted}):
        if old.get(key) == wanted.get(key) or _is_control(key):
            continue
        if key == "pruner.rounds" and wanted[key] >= kept[key]:
            stored.pruner.rounds = wanted[key]
        elif key in _STAY and not any(one.lstrip("+").startswith(f"{key}=") for one in changes(arguments)):
            continue  # another option of hardware says so, and it is kept as it was
        elif (key in _STAY or key.split(".")[0] not in schema.MAY_CHANGE) and wanted.get(key) != kept.get(key):
            raise LtlError(
                f"{key}={wanted.get(key)} differs from the run in {folder}, which has {kept.get(key)}: a resume may "
                "change pruner.rounds and controls (to more), logger and hardware only; start a new run for anything "
                "else."
            )
    if any(old.get(key) != wanted.get(key) for key in {*old, *wanted} if _is_control(key)):
        _add_controls(stored, new_cfg, folder)
    for section in schema.MAY_CHANGE:
        if new_cfg[section] != old_cfg[section]:
            stored[section] = new_cfg[section]
    for key in _STAY:
        OmegaConf.update(stored, key, kept[key])
    schema.check(stored)
    return stored


def _overrides(folder: Path) -> list[str]:
    """Return the command line that `folder` was made by."""
    path = folder / ".hydra" / "overrides.yaml"
    overrides = read_yaml(path)
    if not isinstance(overrides, ListConfig):
        raise LtlError(f"{path} is not a list of overrides: it was altered or cut off.")
    return [str(one) for one in overrides]


def _stored(folder: Path, whole: DictConfig) -> DictConfig:
    """Return the configuration kept in `folder`, with what is younger than the run taken from `whole`."""
    stored = read_config(folder)
    _fill(stored, whole)
    for section in ("hardware", "report", "model"):
        _fill(stored[section], whole[section])
    for arm in set(stored.get("control") or ()) & set(whole.control):
        _fill(stored.control[arm], whole.control[arm])
    with _naming(folder / ".hydra" / "config.yaml"):
        schema.check(stored)
    return stored


def _fill(section: Any, whole: DictConfig) -> None:
    """Give a section, if it is one, the keys of `whole` that it lacks."""
    if isinstance(section, DictConfig):
        for key in set(whole) - set(section):
            section[key] = whole[key]


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Put before an error the file that it comes from."""
    try:
        yield
    except LtlError as error:
        raise LtlError(f"{path}: {error}") from None


def changes(arguments: Sequence[str]) -> list[str]:
    """Return the overrides of a resume that are about the run itself."""
    return [argument for argument in arguments if not argument.startswith(("resume=", "hydra."))]


def _is_control(key: str) -> bool:
    return key == "draws" or key.partition(".")[0] == "control"


def _add_controls(stored: DictConfig, wanted: DictConfig, folder: Path) -> None:
    """Take the controls of `wanted` over into `stored`; LtlError if one that was there is missing or has less to do."""
    before, after = _controls(stored), _controls(wanted)
    for arm, has in before.items():
        if arm not in after:
            raise LtlError(
                f"control={sorted(after)} leaves out {arm}, which the run in {folder} has: a resume may add controls, "
                "not take them away."
            )
        gets = after[arm]
        for key in has:
            if not _holds(gets[key], has[key]):
                raise LtlError(
                    f"control.{arm}.{key}={gets[key]} differs from the run in {folder}, which has {has[key]}: a resume "
                    "may add rounds and draws of a control; start a new run for anything else."
                )
    stored.control, stored.draws = wanted.control, wanted.draws


def _controls(cfg: DictConfig) -> dict[str, dict[str, Any]]:
    controls: dict[str, dict[str, Any]] = OmegaConf.to_container(cfg.control, resolve=True)  # type: ignore[assignment]
    return controls


def _holds(value: Any, before: Any) -> bool:
    """Return whether a control's `value` has all that it had before: draws are a number, rounds a list or "all"."""
    if isinstance(value, int) and isinstance(before, int) and not isinstance(value, bool):
        return value >= before
    if isinstance(value, list) and isinstance(before, list):
        return set(value) >= set(before)
    return bool(value in (before, "all"))

"""The configuration of a run that goes on: that of its folder, with what a resume may change."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from ltl import schema
from ltl.errors import LtlError
from ltl.overrides import composed, key_of
from ltl.results import in_use, is_locked, rank, read_config, read_status, read_yaml
from ltl.shorthand import searchpath

_CONTROLS = ("control", "draws")  # may grow
_CHOSEN = ("logger", "hardware", "control")  # groups of which a resume may choose options
_STAY = ("hardware.stack", "hardware.stack_size")  # which networks share a checkpoint
_FIXED = (*_STAY, "hardware.precision")  # in which θ₀ is drawn


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
    """Return the configuration that `folder` holds, with the overrides that a resume may make.

    pruner.rounds and the controls may grow; logger, report, tags and hardware, but for its precision, may change; any
    other override must say what the run already has. LtlError names the key otherwise, and the file if it is the
    folder's own that is damaged.
    """
    path, given = searchpath(arguments, folder), changes(arguments)
    before = [*path, *_overrides(folder)]
    with _naming(folder / ".hydra" / "overrides.yaml"):
        old = composed(before, conf)
    stored = _stored(folder, old)
    options = [one for one in given if (conf / key_of(one)).is_dir()]
    chosen = [one for one in options if key_of(one) in _CHOSEN]
    if others := [one for one in options if one not in chosen]:
        _compare_others(old, composed([*before, *others], conf), stored, folder)
    cfg = stored.copy()
    if chosen:
        _choose(cfg, composed([*path, *chosen], conf), {key_of(one) for one in chosen})
    cfg = composed([one for one in given if one not in options], conf, on=cfg)
    schema.check(cfg)
    _compare(stored, cfg, folder)
    return cfg


def _compare_others(old: DictConfig, new: DictConfig, stored: DictConfig, folder: Path) -> None:
    """LtlError for the first key that other options change in the run's own command line, unless it is `stored` so."""
    was, wanted, has = map(_leaves, (old, new, stored))
    for key in sorted({*was, *wanted}):
        if wanted.get(key) not in (was.get(key), has.get(key)):
            raise _differs(key, wanted.get(key), has.get(key), folder)


def _choose(cfg: DictConfig, options: DictConfig, groups: set[str]) -> None:
    """Put the `options` chosen of `groups` in the place of what `cfg` has; a control that is there stays as it is."""
    kept = {key: OmegaConf.select(cfg, key) for key in _STAY}
    kept |= {f"control.{arm}": cfg.control[arm] for arm in set(cfg.control) & set(options.get("control") or ())}
    for group in groups:
        cfg[group] = options.get(group)
    for key, value in kept.items():
        OmegaConf.update(cfg, key, value)


def _compare(stored: DictConfig, cfg: DictConfig, folder: Path) -> None:
    """LtlError for the first key of `cfg` that a resume may not change so."""
    has, wanted = _leaves(stored), _leaves(cfg)
    changed = [key for key in sorted({*has, *wanted}) if has.get(key) != wanted.get(key)]
    for key in changed:
        section, more = key.partition(".")[0], key == "pruner.rounds" and wanted[key] > has[key]
        if not more and section not in _CONTROLS and (key in _FIXED or section not in schema.MAY_CHANGE):
            raise _differs(key, wanted.get(key), has.get(key), folder)
    if any(key.partition(".")[0] in _CONTROLS for key in changed):
        _compare_controls(_controls(stored), _controls(cfg), folder)


def _leaves(cfg: DictConfig) -> dict[str, Any]:
    """Return values by key as they are written, but the rounds, which may grow, as a number."""
    return dict(schema.leaves(OmegaConf.to_container(cfg))) | {"pruner.rounds": cfg.pruner.rounds}


def _differs(key: str, wanted: Any, has: Any, folder: Path) -> LtlError:
    return LtlError(
        f"{key}={wanted} differs from the run in {folder}, which has {has}: a resume may change pruner.rounds and "
        "controls (to more), and, by overrides of their own, logger, report, tags and hardware but for its precision, "
        "stack and stack_size; choose what the run has, or start a new run."
    )


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


def _compare_controls(before: dict[str, dict[str, Any]], after: dict[str, dict[str, Any]], folder: Path) -> None:
    """LtlError if a control that was there is missing or has less to do."""
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

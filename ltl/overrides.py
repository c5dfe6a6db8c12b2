"""Overrides of the command line: composed and checked before Hydra writes anything, so that a mistake is one line."""

import difflib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice, product
from pathlib import Path
from typing import Any, NoReturn

from omegaconf import DictConfig, OmegaConf

from ltl import schema
from ltl.errors import LtlError
from ltl.results import rank

_SWEEP = {"-m", "--multirun"}
_SHOW = {"-c", "--cfg", "-p", "--package", "--resolve"}


def check(arguments: Sequence[str], conf: Path) -> None:
    """Compose a run's configuration and check it, so that a mistake is one line and leaves no folder behind.

    So is every job of a sweep; of one with a sweeper of its own, which chooses its jobs itself, the first. What Hydra
    alone can answer (other folders of configurations, --info …) is left to it.
    """
    _check_flags(arguments)
    flags = {argument for argument in arguments if argument.startswith("-")}
    overrides = [argument for argument in arguments if is_override(argument) or not flags]
    if flags & _SWEEP and flags & _SHOW:
        raise LtlError(f"{' '.join(sorted(flags))} do not go together: leave out -m to see one job's configuration.")
    if flags <= _SWEEP:
        _check_folder(arguments)
    if flags <= _SWEEP and flags:
        jobs = _jobs(overrides, conf)
        for one in islice(jobs, 1) if any(each.startswith("hydra/sweeper=") for each in overrides) else jobs:
            _check_job(one, sorted(set(one) - set(overrides)), conf)
    elif flags <= _SHOW:
        (composed if flags else checked)(overrides, conf)


def _check_flags(arguments: Sequence[str]) -> None:
    """Refuse in one line what Hydra's parser would, and the flag that unpickles."""
    from hydra._internal.utils import get_args_parser

    def refuse(message: str) -> NoReturn:
        raise LtlError(f"{message}: values are set without dashes, as in seed=3; see --help.")

    parser = get_args_parser()
    parser.error = refuse  # type: ignore[method-assign]
    if parser.parse_args(list(arguments)).experimental_rerun is not None:
        raise LtlError("--experimental-rerun would unpickle a file, which can run code: give the overrides instead.")


def is_override(argument: str) -> bool:
    """Return whether a word of the command line is `key=value` or `~key`, not a flag or a flag's value."""
    return argument.startswith("~") or ("=" in argument and not argument.startswith("-"))


def key_of(override: str) -> str:
    """Return the key of an override: pruner.rate for `pruner.rate=0.1`, `+pruner.rate=0.1` and `~pruner.rate`."""
    return override.lstrip("+~").partition("=")[0]


def composed(
    overrides: Sequence[str], conf: Path, *, with_hydra: bool = False, on: DictConfig | None = None
) -> DictConfig:
    """Compose a configuration as Hydra would; LtlError in one line for whatever does not compose.

    The overrides set values of `on`, if it is given, in the place of conf/config.yaml.
    """
    from hydra import compose
    from hydra.core.config_store import ConfigStore
    from hydra.errors import HydraException, MissingConfigException
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    name = "config"
    if on is not None:
        ConfigStore.instance().store(name := "ltl_given", on)
    try:
        with _hydra(conf):
            return compose(name, overrides=list(overrides), return_hydra_config=with_hydra)
    except MissingConfigException as error:
        raise LtlError(_no_option(error.missing_cfg_file or "", overrides, conf)) from None
    except (HydraException, OmegaConfBaseException, YAMLError, ValueError) as error:
        raise LtlError(_one_line(error, overrides, conf)) from None


def checked(overrides: Sequence[str], conf: Path) -> DictConfig:
    """Compose a configuration and check its values; LtlError for the first that is not possible."""
    cfg = composed(overrides, conf)
    schema.check(cfg)
    return cfg


@contextmanager
def _hydra(conf: Path) -> Iterator[None]:
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    try:
        with initialize_config_dir(version_base="1.3", config_dir=str(conf.resolve())):
            yield
    finally:
        GlobalHydra.instance().clear()


def _jobs(overrides: Sequence[str], conf: Path) -> Iterator[list[str]]:
    """Yield the overrides of each job of a sweep."""
    swept = _swept(overrides, conf)
    for values in product(*swept.values()):
        own = dict(zip(swept, values, strict=True))
        yield [own.get(number, text) for number, text in enumerate(overrides)]


def _check_job(overrides: Sequence[str], own: Sequence[str], conf: Path) -> None:
    """Check a job of a sweep; LtlError names the overrides that are its own."""
    cfg = composed(overrides, conf)
    try:
        schema.check(cfg)
    except LtlError as error:
        raise LtlError(f"job {' '.join(own)} of the sweep: {error}" if own else str(error)) from None


def first_job(overrides: Sequence[str], conf: Path) -> list[str]:
    """Return the overrides of the first job of a sweep; LtlError if they cannot be read."""
    return next(_jobs(overrides, conf))


def _swept(overrides: Sequence[str], conf: Path) -> dict[int, list[str]]:
    """Return what each override that holds several values stands for, by its place."""
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        with _hydra(conf):
            parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
            parsed = parser.parse_overrides(list(overrides))
            return {
                number: [f"{one.get_key_element()}={value}" for value in one.sweep_string_iterator()]
                for number, one in enumerate(parsed)
                if one.is_discrete_sweep()
            }
    except HydraException as error:
        raise LtlError(_one_line(error, overrides, conf)) from None


def _check_folder(arguments: Sequence[str]) -> None:
    """Refuse a folder that holds a run: two runs never share one (Lightning's further processes do, with the first)."""
    given = dict(argument.split("=", 1) for argument in arguments if is_override(argument) and "=" in argument)
    for key, pattern in (("hydra.run.dir", "status.json"), ("hydra.sweep.dir", "*/status.json")):
        if key in given and rank() == 0 and any(Path(given[key]).glob(pattern)):
            raise LtlError(
                f"{key}={given[key]} holds a run already: choose another folder, or go on with it by "
                f"resume={given[key] if pattern == 'status.json' else 'its job folder'}."
            )


def _no_option(option: str, overrides: Sequence[str], conf: Path) -> str:
    group, _, name = option.rpartition("/")
    options = _options(group, overrides, conf)
    if not options:
        return f"{option} is not a configuration of ltl: `--help` lists the groups and their options."
    near = difflib.get_close_matches(name, options, 1)
    hint = f" Did you mean {near[0]}?" if near else ""
    return f"{group}={name} is not an option.{hint} {group} can be {', '.join(options)}."


def _options(group: str, overrides: Sequence[str], conf: Path) -> list[str]:
    from hydra.core.global_hydra import GlobalHydra

    with _hydra(conf):
        loader = GlobalHydra.instance().config_loader()
        return loader.get_group_options(group, config_name="config", overrides=list(overrides))


def _one_line(error: Exception, overrides: Sequence[str], conf: Path) -> str:
    text = " ".join(str(error).split()).split(" full_key")[0].split(" See https")[0].rstrip(".")
    named = [(key, one) for one in overrides if (key := key_of(one)) and key in text]
    key, override = max(named, key=lambda pair: len(pair[0]), default=("", ""))
    if not key:
        return f"the command line cannot be read: {text}."
    if "Ambiguous value" in text:
        return f"{override} is several values: add -m to run them one after another, or write [a,b] for a list."
    if "Could not override" not in text:
        return f"{override} is not possible: {text}."
    keys = _keys(OmegaConf.to_container(composed([], conf))) | {
        group.name for group in conf.iterdir() if group.is_dir()
    }
    near = difflib.get_close_matches(key, sorted(keys), 1, cutoff=0.75)
    if near and near[0] != key:
        return f"{override} is not possible: there is no key {key}. Did you mean {near[0]}?"
    if key in keys:
        reason = str(error.__cause__ or "it does not take that").splitlines()[0].rstrip(".")
        return f"{override} is not possible: {reason}; to add keys to {key} write +{override}."
    return f"{override} is not possible: there is no key {key}; `--cfg job` lists all keys."


def _keys(node: Any) -> set[str]:
    """Return the dotted keys of all values and sections."""
    paths = [path.split(".") for path, _ in schema.leaves(node)]
    return {".".join(path[:end]) for path in paths for end in range(1, len(path) + 1)}

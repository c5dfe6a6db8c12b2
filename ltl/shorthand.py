"""What a command line stands for: the sweep that an experiment describes, and folders of further configurations."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from omegaconf import ListConfig, OmegaConf

from ltl.errors import LtlError
from ltl.overrides import composed, first_job, is_override, key_of
from ltl.results import read_yaml

_FOLDER = ("--config-dir", "-cd")
_MULTIRUN = {"-m", "--multirun"}
_SEARCHPATH = "hydra.searchpath="


def spelled_out(arguments: Sequence[str], conf: Path) -> list[str]:
    """Return `arguments` with everything in them that stands for something else written out.

    `--config-dir FOLDER` becomes `hydra.searchpath=[…]`, which composes the same and is kept in the run folder. An
    experiment whose `hydra.mode` is MULTIRUN becomes `-m` with the parameters of its sweeper, but those that the
    command line sets itself. LtlError for a folder that is not there.
    """
    return _with_sweep(_with_folders(arguments), conf)


def searchpath(arguments: Sequence[str], folder: Path | None = None) -> list[str]:
    """Return the override that names folders of further configurations: of `arguments`, or as `folder` was run."""
    given = [one for one in arguments if one.startswith(_SEARCHPATH)]
    kept = next((path for path in _kept_in(folder) if path.is_file()), None) if folder is not None else None
    if given or kept is None:
        return given
    stored = OmegaConf.select(read_yaml(kept), "hydra.searchpath")
    return [_quoted(map(str, stored))] if isinstance(stored, ListConfig) and stored else []


def _kept_in(folder: Path) -> tuple[Path, Path]:
    """Where Hydra wrote its own settings down: in the folder of a run, and of a sweep."""
    return folder / ".hydra" / "hydra.yaml", folder / "multirun.yaml"


def _with_folders(arguments: Sequence[str]) -> list[str]:
    words, folders, rest = iter(arguments), [], []
    for word in words:
        flag, _, value = word.partition("=")
        if flag in _FOLDER:
            folders.append(value or next(words, ""))
        else:
            rest.append(word)
    if not folders:
        return rest
    path = Path(folders[-1])  # as Hydra: the last one counts
    if not folders[-1] or not path.is_dir():
        raise LtlError(f"--config-dir {folders[-1] or '(nothing)'} is no folder: name the one that holds your groups.")
    return [*rest, _quoted([f"file://{path.resolve()}"])]


def _quoted(paths: Iterable[str]) -> str:
    return _SEARCHPATH + "[" + ",".join("'" + path.replace("'", "\\'") + "'" for path in paths) + "]"


def _with_sweep(arguments: Sequence[str], conf: Path) -> list[str]:
    flags = [one for one in arguments if not is_override(one)]
    overrides = [one for one in arguments if is_override(one)]
    if not any(one.startswith("experiment=") for one in overrides) or not set(flags) <= _MULTIRUN:
        return list(arguments)
    cfg = composed(first_job(overrides, conf), conf, with_hydra=True)
    params: Mapping[str, str] = OmegaConf.select(cfg, "hydra.sweeper.params") or {}
    if not params or not (flags or str(cfg.hydra.mode).endswith("MULTIRUN")):
        return list(arguments)
    given = {key_of(one) for one in overrides}
    swept = [f"{key}={values}" for key, values in params.items() if key.lstrip("+") not in given]
    return ["-m", *overrides, *swept, "hydra.sweeper.params=null"]

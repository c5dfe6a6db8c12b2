"""What tests share: tiny problems, and run folders made through the real command line's own functions."""

import gc
import hashlib
import os
import pickle
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import hydra
import pytest
import pytorch_lightning  # noqa: F401
import torch
from hydra import compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.plugins.config_source import ConfigResult
from matplotlib.figure import Figure
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

sys.path.insert(0, str(Path(__file__).parent))
import report_rows

torch.set_num_threads(1)
os.environ["WANDB_MODE"] = "offline"  # whoever runs the tests may have a key

CONF = Path(__file__).parents[1] / "conf"
TINY = (
    "length=12it",
    "eval_every=5it",
    "trials=1",
    "pruner.rounds=2",
    "model.widths=[12,8]",
    "batch=20",
    "dataset.limit=200",
)
TIME_COLUMNS = ("seconds", "eval_seconds")  # of rounds.csv: all that may differ between two runs of one command


def pytest_collection_finish() -> None:
    """Have the collection after every fit leave out libraries and tests: more than half the time of a small run."""
    gc.collect()
    gc.freeze()


_read = FileConfigSource.load_config
_files: dict[tuple[str, str, int], bytes] = {}  # pickled, like configurations: every collection walks through objects


def _read_once(source: FileConfigSource, config_path: str) -> ConfigResult:
    """Read a file of a group once a process: Hydra does so in every composition, which is half of its time."""
    file = Path(source.path) / config_path
    file = file if file.suffix == ".yaml" else file.with_name(f"{file.name}.yaml")
    key = (source.path, config_path, file.stat().st_mtime_ns if file.exists() else 0)
    if key not in _files:
        _files[key] = pickle.dumps(_read(source, config_path))
    read: ConfigResult = pickle.loads(_files[key])
    return read


FileConfigSource.load_config = _read_once  # type: ignore[method-assign]


def composed(*overrides: str) -> DictConfig:
    """Return the configuration of a run.

    Options of groups are composed, values are set in what comes out, as Hydra itself does: so runs that differ in
    values share a composition, which takes longer than most of them.
    """
    values = [override for override in overrides if _sets_a_value(override)]
    cfg: DictConfig = pickle.loads(_composed(tuple(each for each in overrides if each not in values)))
    ConfigLoaderImpl._apply_overrides_to_config(OverridesParser.create().parse_overrides(values), cfg)
    return cfg


def _sets_a_value(override: str) -> bool:
    key = override.partition("=")[0].lstrip("~+")
    return "@" not in key and not (CONF / key).is_dir() and not key.startswith("hydra")


@cache
def _composed(overrides: tuple[str, ...]) -> bytes:
    """Compose once for all processes and runs of the tests, while conf/ stays."""
    file = _kept() / hashlib.sha256(repr(overrides).encode()).hexdigest()
    if not file.exists():
        with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
            content = pickle.dumps(compose("config", overrides=list(overrides)))
        part = file.with_suffix(f".{os.getpid()}")
        part.write_bytes(content)
        part.replace(file)
    return file.read_bytes()


@cache
def _kept() -> Path:
    """Return the folder of what has been composed from these files by this Hydra."""
    source = hashlib.sha256(hydra.__version__.encode())
    for path in sorted(CONF.rglob("*.yaml")):
        source.update(f"{path.relative_to(CONF)} ".encode() + path.read_bytes())
    folder = CONF.parent / ".pytest_cache" / f"composed-{source.hexdigest()[:16]}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def train_in(where: Path, *overrides: str, tiny: bool = True) -> Path:
    """Run a job in this process, in the folder `where`, and return it."""
    from ltl.launch import train

    cfg = composed(*(TINY if tiny else ()), *overrides)
    (where / ".hydra").mkdir(parents=True, exist_ok=True)
    (where / ".hydra" / "config.yaml").write_text(OmegaConf.to_yaml(cfg))
    (where / ".hydra" / "overrides.yaml").write_text(OmegaConf.to_yaml(list(overrides)))
    train(cfg, where, Console(quiet=True))
    return where


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Save figures empty, where a test looks at none of them: drawing is most of a report's time."""
    monkeypatch.setattr(Figure, "savefig", report_rows.save_empty)


@pytest.fixture
def launch(tmp_path: Path) -> Callable[..., Path]:
    """Run a job in this process, in a folder of its own, and return the folder."""

    def run(*overrides: str, folder: str = "run", tiny: bool = True) -> Path:
        return train_in(tmp_path / folder, *overrides, tiny=tiny)

    return run

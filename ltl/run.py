"""`python -m ltl.run`: composes the configuration, builds an experiment from it and runs it."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from ltl import resume, schema
from ltl.errors import LtlError

_PACKAGED = Path(__file__).parent / "conf"  # inside a wheel
_CHECKOUT = Path(__file__).parents[1] / "conf"
CONF = _PACKAGED if _PACKAGED.is_dir() else _CHECKOUT

OmegaConf.register_new_resolver("ltl_unique", lambda: os.urandom(2).hex(), use_cache=True, replace=True)


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def main(cfg: DictConfig) -> None:
    """Run one job in the folder that Hydra made for it."""
    job = HydraConfig.get()
    try:
        run(cfg, Path(job.runtime.output_dir))
    except LtlError as error:
        if job.mode == RunMode.MULTIRUN:
            raise HydraException(str(error)) from None
        sys.exit(f"ltl: {error}")


def run(cfg: DictConfig, folder: Path) -> None:
    """Check `cfg`, then run it in `folder`; LtlError for whatever the user can mend."""
    schema.check(cfg)
    os.environ.setdefault("OMP_WAIT_POLICY", cfg.hardware.wait_policy)  # read once, when PyTorch is imported
    from ltl.launch import launch

    launch(cfg, folder)


def cli(arguments: Sequence[str] | None = None) -> None:
    """Run the command line: a run folder to resume, or a new job or sweep."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        folder = resume.folder_of(arguments)
        if folder is not None:
            run(resume.configuration(folder, arguments, CONF), folder)
            return
        resume.check_overrides(arguments, CONF)
    except LtlError as error:
        sys.exit(f"ltl: {error}")
    main()


if __name__ == "__main__":
    from ltl.run import cli as imported  # under its own name, so that launchers can pickle the task by reference

    imported()

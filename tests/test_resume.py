"""What a resume takes over from its command line, and what of the run stays, by the configuration alone."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from conftest import CONF, composed
from omegaconf import DictConfig, OmegaConf

from ltl import resume
from ltl.errors import LtlError

Resume = Callable[..., DictConfig]


def made(folder: Path, *overrides: str) -> Resume:
    """Return what resumes the run that `overrides` have made in `folder`: each call goes on from the last."""
    (folder / ".hydra").mkdir()
    OmegaConf.save(composed(*overrides), folder / ".hydra/config.yaml")
    OmegaConf.save(OmegaConf.create(list(overrides)), folder / ".hydra/overrides.yaml")

    def again(*arguments: str) -> DictConfig:
        cfg = resume.configuration(folder, arguments, CONF)
        OmegaConf.save(cfg, folder / ".hydra/config.yaml")
        return cfg

    return again


@pytest.mark.parametrize(
    ("overrides", "before", "says", "has"),
    [
        ([], ["hardware.threads=2"], ["hardware.threads=1"], {"hardware.threads": 1}),
        ([], ["hardware.threads=2"], ["hardware=cpu"], {"hardware.threads": 1}),
        (["hardware.threads=2"], ["hardware.threads=3"], ["hardware.threads=2"], {"hardware.threads": 2}),
        (["hardware.threads=2"], [], ["hardware=cpu"], {"hardware.threads": 1}),
        ([], ["hardware=gpu"], ["hardware=cpu"], {"hardware.accelerator": "cpu", "hardware.threads": 1}),
        (["hardware=gpu"], ["hardware=cpu"], ["hardware=gpu"], {"hardware.accelerator": "gpu"}),
        ([], [], ["hardware.threads=5", "hardware=gpu"], {"hardware.threads": 5, "hardware.accelerator": "gpu"}),
        ([], ["report.margin=0.01"], ["report.margin=0.002"], {"report.margin": 0.002}),
        ([], ["tags=[a]"], ["tags=[]"], {"tags": []}),
        ([], ["logger=wandb"], ["logger.wandb.project=mine"], {"logger.wandb.project": "mine"}),
        ([], ["logger=wandb"], ["~logger.wandb"], {"logger.wandb": None}),
        (["logger=wandb"], ["logger=none"], ["logger=csv"], {"logger.wandb": None}),
    ],
)  # fmt: skip
def test_what_a_resume_says_is_what_the_run_has(
    tmp_path: Path, overrides: Sequence[str], before: Sequence[str], says: Sequence[str], has: dict[str, object]
) -> None:
    """Whatever its own command line and an earlier resume said."""
    again = made(tmp_path, *overrides)
    if before:
        again(*before)
    cfg = again(*says)
    assert {key: OmegaConf.select(cfg, key) for key in has} == has


def test_what_a_resume_does_not_say_stays(tmp_path: Path) -> None:
    """Of the same sections too, also where the run's command line says something else."""
    again = made(tmp_path, "hardware.chunk=7", "report.margin=0.02")
    stays = again("hardware.threads=2", "hardware.chunk=9", "report.bars=range", "logger=wandb", "pruner.rounds=20")
    changed = again("hardware.stop_after=9min", "report.margin=0.005")
    stays.hardware.stop_after, stays.report.margin = "9min", 0.005
    assert changed == stays
    with pytest.raises(LtlError, match=r"^pruner.rounds=19 differs from the run in .*, which has 20: "):
        again("pruner.rounds=19")


def test_a_key_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    """As on the command line of a new run."""
    again = made(tmp_path)
    with pytest.raises(LtlError, match=r"^hardware.thread=2 is not possible: .* Did you mean hardware.threads\?$"):
        again("hardware.thread=2")
    with pytest.raises(LtlError, match=r"^hardware.threads=1,2 is several values"):
        again("hardware.threads=1,2")


def test_an_option_that_changes_what_may_not_change_is_refused(tmp_path: Path) -> None:
    """By the first key that differs; the option that the run was made with says nothing new, whatever has grown."""
    again = made(tmp_path, "pruner=imp_late", "pruner.rounds=3")
    again("pruner.rounds=4", "report.margin=0.02")
    assert again("pruner=imp_late").pruner.rounds == 4
    with pytest.raises(LtlError, match=r"^batch=8 differs from the run in .*, which has 60: "):
        again("debug=fast")


def test_controls_grow_from_those_that_the_run_has(tmp_path: Path) -> None:
    """Those that an earlier resume added are there; an option chosen again keeps what a control has to do."""
    again = made(tmp_path, "control=[reinit]", "control.reinit.rounds=[1]")
    again("control=[reinit,random_mask]", "control.random_mask.rounds=[2]")
    assert again("draws=2").control.random_mask.draws == 2
    again("control.reinit.rounds=[1,3]")
    again("control=[random_mask,reinit,small_dense]")
    controls = again("draws=3").control
    assert {arm: (control.rounds, control.draws) for arm, control in controls.items()} == {
        "reinit": ([1, 3], 3), "random_mask": ([2], 3), "small_dense": ("all", 3),
    }  # fmt: skip
    for option in ("control=[reinit]", "control=none", "~control.random_mask"):
        with pytest.raises(LtlError, match=r"^control=\[.*\] leaves out "):
            again(option)


@pytest.mark.parametrize("says", ["hardware.precision=64-true", "hardware=gpu_bf16"])
def test_another_precision_is_refused(tmp_path: Path, says: str) -> None:
    """Checkpoints begin with other weights; other hardware in the run's own precision is taken."""
    again = made(tmp_path)
    with pytest.raises(
        LtlError, match=r"^hardware.precision=\S+ differs from the run in .*, which has 32-true: a resume"
    ):
        again(says)
    assert again(says, "hardware.precision=32-true").hardware.precision == "32-true"

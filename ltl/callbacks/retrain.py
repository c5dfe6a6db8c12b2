"""Training from given starts, one after another in one `Trainer.fit`: the controls of a search, and branches."""

from collections.abc import Callable, Sequence
from typing import Any

import pytorch_lightning as pl
import torch

from ltl.masks import Tensors, tensors_sha256
from ltl.training import optimizer_state
from ltl.training.module import MaskedTraining
from ltl.training.start import Start


class Retrain(pl.Callback):
    """Trains each of `starts` with a fresh optimiser; nothing is pruned on the way.

    Each start is a function, called when its turn comes, so that only one is held at a time.
    """

    def __init__(self, *, starts: Sequence[Callable[[], Start]]) -> None:
        self.starts = starts
        self.current: Start | None = None
        self.fresh: list[optimizer_state.State] = []
        self.module: MaskedTraining | None = None

    @property
    def theta_0(self) -> Tensors:
        """The weights that the current start began from."""
        assert self.current is not None
        return self.current.theta

    @property
    def init_sha256(self) -> str:
        """The hash of `theta_0`."""
        return tensors_sha256(self.theta_0)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Find the module."""
        assert isinstance(pl_module, MaskedTraining)
        self.module = pl_module

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Set the first start, or take up where the checkpoint left off."""
        assert isinstance(pl_module, MaskedTraining)
        if not self.fresh:
            self.fresh = [optimizer_state.saved(optimizer) for optimizer in trainer.optimizers]
            self._set(0, trainer, pl_module)
        else:
            self.current = self.starts[pl_module.position[0]]().on(pl_module.networks()[0])
            pl_module.hold(self.current.masks, self.current.fills)
            pl_module.forget_lr()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Go on to the next start when one has been trained to its end."""
        assert isinstance(pl_module, MaskedTraining)
        turn, step = pl_module.position
        if step == pl_module.timeline.length and turn + 1 < len(self.starts):
            for optimizer, state in zip(trainer.optimizers, self.fresh, strict=True):
                optimizer_state.restore(optimizer, state)
            self._set(turn + 1, trainer, pl_module)

    def state_dict(self) -> dict[str, Any]:
        """Return the whole state as tensors and plain values."""
        assert self.module is not None
        return {"fresh": self.fresh, "position": list(self.module.position)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the state of a checkpoint."""
        assert self.module is not None
        self.fresh = state_dict["fresh"]
        turn, step = state_dict["position"]
        self.module.position = (turn, step)

    def _set(self, turn: int, trainer: pl.Trainer, module: MaskedTraining) -> None:
        now = module.networks()[0]
        self.current = self.starts[turn]().on(now)
        with torch.no_grad():
            for name, tensor in now.items():
                tensor.copy_(self.current.theta[name])
        module.position = (turn, self.current.step)
        module.hold(self.current.masks, self.current.fills)
        module.forget_lr()

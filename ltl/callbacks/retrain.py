"""Training from given starts, one after another in one `Trainer.fit`: the controls of a search, and branches."""

from collections.abc import Callable, Sequence
from typing import Any

import pytorch_lightning as pl
import torch

from ltl.masks import Tensors, tensors_sha256
from ltl.training import optimizer_state
from ltl.training.module import MaskedTraining
from ltl.training.start import Start


class Given:
    """What one network is trained from, at one turn after another; each start is a function, called when it is due."""

    def __init__(self, starts: Sequence[Callable[[], Start]]) -> None:
        self.starts = starts
        self.start: Start | None = None
        self.init_sha256 = ""
        self.lost = False

    @property
    def current(self) -> Start:
        """What is being trained."""
        assert self.start is not None
        return self.start

    @property
    def theta_0(self) -> Tensors:
        """The weights that the current start began from."""
        return self.current.theta

    def take(self, turn: int, like: Tensors) -> None:
        """Take the start of a turn, on the devices of `like`."""
        self.start = self.starts[turn]().on(like)
        self.init_sha256 = tensors_sha256(self.start.theta)


class Retrain(pl.Callback):
    """Trains networks side by side from the starts of `members`, with a fresh optimiser at every turn.

    Nothing is pruned on the way.
    """

    def __init__(self, *, members: Sequence[Given]) -> None:
        self.members = list(members)
        self.fresh: list[optimizer_state.State] = []
        self.module: MaskedTraining | None = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Find the module."""
        assert isinstance(pl_module, MaskedTraining)
        self.module = pl_module

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Set the first starts, or take up where the checkpoint left off."""
        assert isinstance(pl_module, MaskedTraining)
        if not self.fresh:
            self.fresh = [optimizer_state.saved(optimizer) for optimizer in trainer.optimizers]
            self._set(0, pl_module)
            return
        self._take(pl_module.position[0], pl_module)
        pl_module.hold([member.current for member in self.members])
        pl_module.forget_lr()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Go on to the next turn when one has been trained to its end."""
        assert isinstance(pl_module, MaskedTraining)
        turn, step = pl_module.position
        if step == pl_module.timeline.length and turn + 1 < len(pl_module.timeline.first):
            for optimizer, state in zip(trainer.optimizers, self.fresh, strict=True):
                optimizer_state.restore(optimizer, state)
            self._set(turn + 1, pl_module)

    def state_dict(self) -> dict[str, Any]:
        """Return the whole state as tensors and plain values: the starts themselves are made again."""
        assert self.module is not None
        return {"fresh": self.fresh, "position": list(self.module.position)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the state of a checkpoint."""
        assert self.module is not None
        self.fresh = state_dict["fresh"]
        turn, step = state_dict["position"]
        self.module.position = (turn, step)

    def _take(self, turn: int, module: MaskedTraining) -> None:
        for member, now in zip(self.members, module.networks(), strict=True):
            member.take(turn, now)

    def _set(self, turn: int, module: MaskedTraining) -> None:
        self._take(turn, module)
        with torch.no_grad():
            for member, now in zip(self.members, module.networks(), strict=True):
                for name, tensor in now.items():
                    tensor.copy_(member.theta_0[name])
        module.position = (turn, self.members[0].current.step)
        module.hold([member.current for member in self.members])
        module.forget_lr()

"""Training from given starts, side by side in one `Trainer.fit`: the controls of a search, and branches."""

from collections.abc import Callable, Sequence
from typing import Any

import pytorch_lightning as pl
import torch

from ltl.masks import Tensors, tensors_sha256
from ltl.training.module import MaskedTraining
from ltl.training.start import Start


class Given:
    """What one network is trained from: `make` is called when it is due."""

    def __init__(self, make: Callable[[], Start]) -> None:
        self.make = make
        self.start: Start | None = None
        self.init_sha256 = ""
        self.mask_flips: float | None = None  # a mask that is held, or pruned at once
        self.lost = ""

    @property
    def current(self) -> Start:
        """What is being trained."""
        assert self.start is not None
        return self.start

    @property
    def theta_0(self) -> Tensors:
        """The weights that the training began from."""
        return self.current.theta

    def take(self, like: Tensors) -> None:
        """Make the start, on the devices of `like`."""
        self.start = self.make().on(like)
        self.init_sha256 = tensors_sha256(self.start.theta)


class Retrain(pl.Callback):
    """Trains networks side by side from the starts of `members`; nothing is pruned on the way."""

    def __init__(self, *, members: Sequence[Given]) -> None:
        self.members = list(members)
        self.begun = False
        self.module: MaskedTraining | None = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Find the module."""
        assert isinstance(pl_module, MaskedTraining)
        self.module = pl_module

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Set the starts, or take up where the checkpoint left off."""
        assert isinstance(pl_module, MaskedTraining)
        for member, now in zip(self.members, pl_module.networks(), strict=True):
            member.take(now)
            if not self.begun:
                with torch.no_grad():
                    for name, tensor in now.items():
                        tensor.copy_(member.theta_0[name])
        if not self.begun:
            pl_module.position = (0, self.members[0].current.step)
        self.begun = True
        pl_module.hold([member.current for member in self.members])
        pl_module.forget_lr()

    def state_dict(self) -> dict[str, Any]:
        """Return the whole state as plain values: the starts themselves are made again."""
        assert self.module is not None
        return {"position": list(self.module.position)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the state of a checkpoint."""
        assert self.module is not None
        turn, step = state_dict["position"]
        self.module.position = (turn, step)
        self.begun = True

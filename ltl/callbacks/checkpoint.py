"""Checkpoints at round ends and every few minutes, whole or not at all, and checked when read."""

import hashlib
import io
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO

from ltl.errors import LtlError, Stopped
from ltl.results import write_atomic
from ltl.training.module import MaskedTraining

_DIGEST = 32  # bytes of SHA-256, appended: torch.load ignores them


class IntervalCheckpoint(Checkpoint):
    """Writes the Lightning checkpoint `path` when a round ends, and at evaluations at least `every` seconds apart.

    At the first evaluation after `deadline`, on the clock of `time.monotonic`, it writes one and raises Stopped.
    """

    def __init__(self, *, path: Path, every: float, deadline: float) -> None:
        self.path, self.every, self.deadline = path, every, deadline
        self._written = time.monotonic()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the checkpoint if it is time."""
        assert isinstance(pl_module, MaskedTraining)
        ended = pl_module.position[1] == pl_module.timeline.length
        now = time.monotonic()
        # The first process decides: all must take part.
        late, over = trainer.strategy.broadcast((now - self._written >= self.every, now >= self.deadline))
        if ended or late or over:
            for logger in trainer.loggers:
                logger.save()  # a resumed run logs from the checkpoint on
            trainer.save_checkpoint(self.path)
            self._written = time.monotonic()
        if over:
            raise Stopped


class CheckedCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoint files, written atomically, loaded without unpickling code, with a checksum at the end."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write `checkpoint` to `path`."""
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        digest = hashlib.sha256(buffer.getbuffer()).digest()
        buffer.write(digest)
        write_atomic(Path(path), buffer.getbuffer())

    def load_checkpoint(
        self, path: Any, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read `path`; LtlError if it was altered or cut off."""
        content = Path(path).read_bytes()
        if hashlib.sha256(content[:-_DIGEST]).digest() != content[-_DIGEST:]:
            raise LtlError(
                f"{path} is damaged: its checksum does not match. Delete it to train this arm again from its start."
            )
        state: dict[str, Any] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        return state

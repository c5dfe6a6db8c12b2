"""Checkpoints at round ends and every few minutes, whole or not at all, and checked when read."""

import hashlib
import io
import time
from collections.abc import Mapping
from contextlib import suppress
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
_SETTINGS = "ltl"  # beside Lightning's own entries


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
    """Lightning's checkpoint files, written atomically, loaded without unpickling code, with a checksum at the end.

    They hold `settings`, plain values by key, and are taken up under the same ones only.
    """

    def __init__(self, *, settings: Mapping[str, Any]) -> None:
        super().__init__()
        self.settings = dict(settings)

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write `checkpoint` to `path`."""
        buffer = io.BytesIO()
        torch.save({**checkpoint, _SETTINGS: self.settings}, buffer)
        digest = hashlib.sha256(buffer.getvalue()).digest()  # no copy, nor is it below
        buffer.write(digest)
        write_atomic(Path(path), buffer.getvalue())  # a view in a full disk's traceback crashed Python 3.12.1

    def load_checkpoint(
        self, path: Any, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read `path`; LtlError if it was altered or cut off, or is another run's."""
        content = Path(path).read_bytes()
        if hashlib.sha256(content[:-_DIGEST]).digest() != content[-_DIGEST:]:
            raise LtlError(
                f"{path} is damaged: its checksum does not match. Delete it to train this arm again from its start."
            )
        state = _loaded(content)
        if state is None:
            raise LtlError(
                f"{path} is no checkpoint of ltl, and nothing in it was run. Delete it to train this arm again from "
                "its start."
            )
        theirs = state.pop(_SETTINGS, {})  # the first ones had none
        for key, mine in self.settings.items():
            if theirs.get(key, mine) != mine:
                raise LtlError(
                    f"{path} is of another run: {key}={theirs[key]} there and {mine} here. Put back this run's own "
                    "checkpoint or configuration, or delete it to train this arm again from its start."
                )
        return state


def _loaded(content: bytes) -> dict[str, Any] | None:
    """Return a Lightning checkpoint of tensors and plain values; None for anything else, of which nothing is run."""
    with suppress(Exception):  # torch.load documents none: a file that is none of ours raises what it likes
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        return state if "callbacks" in state and isinstance(state, dict) else None
    return None

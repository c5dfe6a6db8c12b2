"""Independent random streams: initialisation, data order, augmentation and masks (never the global generator)."""

import hashlib
from dataclasses import dataclass
from typing import Literal

import torch

Stream = Literal["init", "order", "augmentation", "mask"]


def stream_seed(stream: Stream, seed: int, *keys: int | str) -> int:
    """Return the 63-bit seed of `stream` for `seed`, told apart further by `keys` (an epoch, a round, a draw …)."""
    text = "/".join([stream, str(seed), *map(str, keys)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def generator(stream: Stream, seed: int, *keys: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a fresh generator of `stream`; the same arguments always give the same draws."""
    return torch.Generator(device=device).manual_seed(stream_seed(stream, seed, *keys))


@dataclass(frozen=True)
class Seeds:
    """The seed of each stream in trial 0; trial i adds i to those that are not pinned."""

    seed: int
    init: int | None
    order: int | None
    augmentation: int | None
    mask: int | None
    order_by_round: Literal["same", "fresh"]

    def of(self, stream: Stream, trial: int) -> int:
        """Return the seed of `stream` in `trial`."""
        pinned: int | None = getattr(self, stream)
        return self.seed + trial if pinned is None else pinned

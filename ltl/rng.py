"""Independent random streams: initialisation, data order, augmentation and masks (never the global generator)."""

import hashlib
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

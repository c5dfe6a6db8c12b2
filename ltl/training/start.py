"""What a round of training begins from."""

from dataclasses import dataclass, field, replace
from typing import Any

from ltl.masks import Masks, Tensors, pack, unpack

Quartiles = tuple[float, float, float]


@dataclass(frozen=True)
class Scored:
    """What training its scores has found besides a supermask; `search_steps` are then the steps of this training.

    `gains` by layer multiply the weights kept, `probabilities` by name are those of keeping each weight, `sampled` is
    what masks drawn by them have shown, by column of `rounds.csv`.
    """

    gains: Tensors
    probabilities: Tensors
    sampled: dict[str, float]


@dataclass(frozen=True)
class Start:
    """A mask, a rewind point and where they came from: the seed of one row of `rounds.csv`."""

    arm: str  # "ticket", or one of its controls
    draw: int
    round: int
    masks: Masks
    theta: Tensors  # parameters and buffers at the rewind point, not masked
    fills: Tensors  # what pruned entries are held at, if not 0
    step: int  # of the learning-rate schedule and the data order
    search_steps: int  # training steps whose outcome the mask rests on
    gone: dict[str, Quartiles | None] = field(default_factory=dict)  # of |w| by layer: what the last pruning took
    scored: Scored | None = None  # of a supermask
    mask_step: int | None = None  # at which the mask last changed while this round trained, if it did
    density_step: int = 0  # from which on it keeps as many weights as now

    def state(self) -> dict[str, Any]:
        """Return the start as tensors (masks as bits) and plain values, for a checkpoint."""
        return {**vars(self), "masks": {name: pack(mask) for name, mask in self.masks.items()}}

    def on(self, like: Tensors) -> "Start":
        """Return the start with its tensors on the devices of their namesakes in `like`."""
        masks, theta, fills = (moved(tensors, like) for tensors in (self.masks, self.theta, self.fills))
        return replace(self, masks=masks, theta=theta, fills=fills)

    @staticmethod
    def from_state(state: dict[str, Any]) -> "Start":
        """Return the start that `state` describes."""
        theta: Tensors = state["theta"]
        masks = {name: unpack(bits, theta[name].shape) for name, bits in state["masks"].items()}
        return Start(**{**state, "masks": masks})


def cloned(tensors: Tensors) -> Tensors:
    """Return copies that share no storage with `tensors`."""
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def moved(tensors: Tensors, like: Tensors) -> Tensors:
    """Return `tensors` on the devices of their namesakes in `like`."""
    return {name: tensor.to(like[name].device) for name, tensor in tensors.items()}

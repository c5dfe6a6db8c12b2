"""How much error rises on the line between two networks that began alike (Frankle et al. 2020)."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import torch
from torch.optim.swa_utils import update_bn

from ltl import rebuild
from ltl.datasets.dataset import Dataset
from ltl.errors import LtlError
from ltl.masks import Tensors
from ltl.models.dropout import Dropout
from ltl.report.words import count, percent
from ltl.tickets import Ticket, effective, load
from ltl.training.evaluation import evaluate


@dataclass(frozen=True)
class End:
    """A network as its training left it, and the file that holds it."""

    path: Path
    ticket: Ticket  # of what it was trained to: `state` is the trained weights

    @property
    def began(self) -> tuple[str, str, str]:
        """What it was trained from: the hashes of its start and of its mask, and the step of the start."""
        metadata = self.ticket.metadata
        return metadata["init_sha256"], metadata["mask_sha256"], metadata["rewind_step"]

    @property
    def kind(self) -> "Kind":
        """What it is a copy of, but for the draw."""
        metadata = self.ticket.metadata
        return Kind(self.path.name.split("-")[0], float(metadata["density"]), int(metadata["rewind_step"]))


class Kind(NamedTuple):
    """What networks have in common whose instabilities are averaged."""

    arm: str
    density: float
    step: int  # k: that of the start

    def __str__(self) -> str:
        return f"{self.arm.replace('_', ' ')}, density {percent(self.density)}%, k = {count(self.step)}"


@dataclass(frozen=True)
class Line:
    """Errors (fractions) along the line between two ends, at `alphas` from 0 to 1."""

    alphas: Sequence[float]
    train: Sequence[float]
    test: Sequence[float]
    distance: float  # ‖W_a − W_b‖ over all kept weights


def ends_below(folders: Sequence[Path], arms: Sequence[str]) -> list[End]:
    """Return the trained networks of some arms below `folders`; LtlError if one has none, or for several data sets."""
    where, found = ", ".join(map(str, folders)), []
    for arm in arms:
        paths = {path for folder in folders for path in folder.rglob(f"ends/trial-*/{arm}-*.safetensors")}
        if not paths:
            raise LtlError(
                f"{where}: no trained weights of {arm} here (ends/trial-*/{arm}-*.safetensors); run with ends=true."
            )
        found += sorted(paths)
    ends = [End(path, load(path)) for path in found]
    if len({end.ticket.metadata.get("dataset") for end in ends}) > 1:
        raise LtlError(f"{where}: networks of several data sets or settings of one; give the folders of one.")
    return ends


def pairs(ends: Sequence[End]) -> list[tuple[End, End]]:
    """Return every two ends of one kind that began from the same weights with the same mask and differ at all."""
    groups: dict[tuple[Kind, tuple[str, ...]], list[End]] = {}
    for end in ends:
        groups.setdefault((end.kind, end.began), []).append(end)
    return [pair for group in groups.values() for pair in combinations(group, 2) if not _same(*pair)]


def line(a: End, b: End, dataset: Dataset, *, points: int, batch: int, recompute: bool) -> Line:
    """Return the errors at `points` evenly spaced places from `a` to `b`, on the training and the test set.

    BatchNorm's statistics are interpolated like the weights, or with `recompute` taken anew from the training set,
    without dropout.
    """
    network = rebuild.network(a.ticket, dataset)
    for module in network.modules():
        if isinstance(module, Dropout):
            module.p = 0.0  # statistics are those of the network that is evaluated
    states = effective(a.ticket), effective(b.ticket)
    alphas = torch.linspace(0, 1, points, dtype=torch.float64).tolist()
    errors: dict[str, list[float]] = {"train": [], "test": []}
    for alpha in alphas:
        network.load_state_dict(between(*states, alpha))
        if recompute:
            with torch.no_grad():
                update_bn(torch.split(dataset.train.inputs, batch), network)
        for name, split in (("train", dataset.train), ("test", dataset.test)):
            ((_, accuracy),) = evaluate(lambda inputs: network(inputs).unsqueeze(0), dataset, split, batch, form="rows")
            errors[name].append(1 - accuracy)
    names = list(a.ticket.masks)
    distance = torch.cat([(states[0][name] - states[1][name]).flatten() for name in names]).norm()
    return Line(alphas, errors["train"], errors["test"], float(distance))


def between(a: Tensors, b: Tensors, alpha: float) -> Tensors:
    """Return (1 − α)·a + α·b of every parameter and buffer that is a real number; counts are those of `a`."""
    return {name: torch.lerp(one, b[name], alpha) if one.is_floating_point() else one for name, one in a.items()}


def instability(errors: Sequence[float]) -> float:
    """Return the highest error on the line less the mean of its two ends (Frankle et al. 2020, §2)."""
    return max(errors) - (errors[0] + errors[-1]) / 2


def _same(a: End, b: End) -> bool:
    return all(torch.equal(one, b.ticket.state[name]) for name, one in a.ticket.state.items())

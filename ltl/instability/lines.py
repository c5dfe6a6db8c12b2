"""How much error rises on the line between two networks that began alike (Frankle et al. 2020)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ltl import rebuild
from ltl.datasets.dataset import Dataset, Split
from ltl.errors import LtlError
from ltl.masks import Tensors
from ltl.tickets import Ticket, effective, load

_NORMALISING = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@dataclass(frozen=True)
class End:
    """A network as its training left it, and the file that holds it."""

    path: Path
    ticket: Ticket  # of what it was trained to: `state` is the trained weights

    @property
    def began(self) -> tuple[str, str]:
        """What it was trained from: the hashes of its start and of its mask."""
        return self.ticket.metadata["init_sha256"], self.ticket.metadata["mask_sha256"]


@dataclass(frozen=True)
class Line:
    """Errors (fractions) along the line between two ends, at `alphas` from 0 to 1."""

    a: End
    b: End
    alphas: Sequence[float]
    train: Sequence[float]
    test: Sequence[float]
    distance: float  # ‖W_a − W_b‖ over all kept weights


def ends_below(folders: Sequence[Path]) -> list[End]:
    """Return the trained networks that `folders` keep; LtlError if there are none."""
    paths = sorted({path for folder in folders for path in folder.rglob("ends/trial-*/*.safetensors")})
    if not paths:
        raise LtlError(
            f"{', '.join(map(str, folders))}: no trained weights here (ends/trial-*/*.safetensors); run with ends=true."
        )
    return [End(path, load(path)) for path in paths]


def pairs(ends: Sequence[End]) -> list[tuple[End, End]]:
    """Return every two ends that began from the same weights with the same mask and differ at all."""
    groups: dict[tuple[str, str], list[End]] = {}
    for end in ends:
        groups.setdefault(end.began, []).append(end)
    return [pair for group in groups.values() for pair in combinations(group, 2) if not _same(*pair)]


def line(a: End, b: End, dataset: Dataset, *, points: int, batch: int, recompute: bool) -> Line:
    """Return the errors at `points` evenly spaced places from `a` to `b`, on the training and the test set.

    BatchNorm's statistics are interpolated like the weights, or with `recompute` taken anew from the training set.
    """
    network = rebuild.network(a.ticket, dataset)
    states = effective(a.ticket), effective(b.ticket)
    alphas = torch.linspace(0, 1, points, dtype=torch.float64).tolist()
    train, test = [], []
    for alpha in alphas:
        state = between(*states, alpha)
        if recompute:
            state |= _statistics(network, state, dataset.train.inputs, batch)
        train.append(_error(network, state, dataset.train, batch))
        test.append(_error(network, state, dataset.test, batch))
    names = list(a.ticket.masks)
    distance = torch.cat([(states[0][name] - states[1][name]).flatten() for name in names]).norm()
    return Line(a, b, alphas, train, test, float(distance))


def between(a: Tensors, b: Tensors, alpha: float) -> Tensors:
    """Return (1 − α)·a + α·b of every parameter and buffer that is a real number; counts are those of `a`."""
    return {name: torch.lerp(one, b[name], alpha) if one.is_floating_point() else one for name, one in a.items()}


def instability(errors: Sequence[float]) -> float:
    """Return the highest error on the line less the mean of its two ends (Frankle et al. 2020, §2)."""
    return max(errors) - (errors[0] + errors[-1]) / 2


def _same(a: End, b: End) -> bool:
    return all(torch.equal(one, b.ticket.state[name]) for name, one in a.ticket.state.items())


@torch.no_grad()
def _error(network: nn.Module, state: Tensors, split: Split, batch: int) -> float:
    network.eval()
    wrong = 0
    for inputs, targets in zip(torch.split(split.inputs, batch), torch.split(split.targets, batch), strict=True):
        wrong += int((functional_call(network, state, (inputs,)).argmax(1) != targets).sum())
    return wrong / len(split)


@torch.no_grad()
def _statistics(network: nn.Module, state: Tensors, inputs: Tensor, batch: int) -> Tensors:
    """Return BatchNorm's statistics of the network with `state`: means over batches of `inputs`."""
    modules = {name: module for name, module in network.named_modules() if isinstance(module, _NORMALISING)}
    if not modules:
        return {}
    anew = {f"{name}.{kind}": torch.zeros_like(state[f"{name}.{kind}"]) for name in modules for kind in _KINDS}
    hooks, seen = [], 0

    def watch(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def take(module: nn.Module, given: tuple[Tensor, ...]) -> None:
            axes = [axis for axis in range(given[0].dim()) if axis != 1]
            anew[f"{name}.running_mean"] += given[0].mean(axes)
            anew[f"{name}.running_var"] += given[0].var(axes)

        return take

    network.eval()
    for name, module in modules.items():
        module.training = True  # the next layers see what training would show them
        hooks.append(module.register_forward_pre_hook(watch(name)))
    try:
        for part in torch.split(inputs, batch):
            functional_call(network, {name: tensor.clone() for name, tensor in state.items()}, (part,))
            seen += 1
    finally:
        for hook in hooks:
            hook.remove()
        network.eval()
    return {name: total / seen for name, total in anew.items()}


_KINDS = ("running_mean", "running_var")

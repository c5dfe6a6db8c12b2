"""An optimiser step recorded as a CUDA graph and played back: one launch in place of hundreds."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from ltl.streams import STREAMS, beside

Step = Callable[[Sequence[Tensor], Any], Tensor]  # what it is given, optimiser -> losses

_EAGER = 3  # steps before the recording: libraries and optimiser allocate what they keep
_PIECE = 8192  # entries of a parameter that a fused optimiser is to take as one tensor
_LAUNCH = 36  # tensors that one kernel of a fused Adam takes


class StepGraph:
    """Runs `step` as it is a few times, then records and plays it back, reading what it is given from fixed memory.

    Everything that the step reads or writes must stay where it is: whoever replaces masks or optimiser state makes a
    new graph. On a processor, where nothing can be recorded, playing back is running the step.
    """

    def __init__(self, step: Step, optimizer: Optimizer, device: torch.device) -> None:
        self._step, self._optimizer, self._device = step, optimizer, device
        self._eager = 0
        self._play: Callable[[], Tensor] | None = None
        self._given: list[Tensor] = []
        self._pieces: InPieces | None = None

    def __call__(self, given: Sequence[Tensor]) -> Tensor:
        """Do one step on what is given, tensors of the same shapes every time; the next call overwrites the losses."""
        if self._eager < _EAGER:
            self._eager += 1
            return self._aside(partial(self._step, given, self._optimizer))
        if self._play is None:
            self._given = [tensor.clone() for tensor in given]
            self._play = self._recorded()
        else:
            for mine, tensor in zip(self._given, given, strict=True):
                mine.copy_(tensor)
        return self._play()

    def _recorded(self) -> Callable[[], Tensor]:
        if self._device.type != "cuda":
            return partial(self._step, self._given, self._optimizer)
        graph, pieces = torch.cuda.CUDAGraph(), InPieces(self._optimizer, self._device)
        _set_capturable(self._optimizer, True)
        with torch.cuda.graph(graph):
            losses = self._step(self._given, pieces)
        _set_capturable(self._optimizer, False)

        self._pieces = pieces  # its counters of steps are read when the graph is played back

        def play() -> Tensor:
            graph.replay()
            return losses

        return play

    def _aside(self, step: Callable[[], Tensor]) -> Tensor:
        """Run `step` on a stream of its own, as what is to be recorded must have been."""
        return beside([step], self._device, [])[0]


class InPieces:
    """Steps of a fused optimiser that has taken one already, with its large parameters in pieces beside one another.

    A fused kernel gives one block of a GPU 65,536 entries: a few large parameters leave most of the card idle. Each
    entry is treated as before. The first piece counts the steps in the optimiser's own state, the others on their own.
    """

    def __init__(self, optimizer: Optimizer, device: torch.device) -> None:
        self._optimizer, self._device = optimizer, device
        groups = [group["params"] for group in optimizer.param_groups]
        entries = sum(parameter.numel() for group in groups for parameter in group)
        size = max(_PIECE, -(-entries // (_LAUNCH * STREAMS)))
        self._whole: list[tuple[Tensor, list[Tensor]]] = []  # parameters, their pieces
        self._state: defaultdict[Tensor, dict[str, Any]] = defaultdict(dict, optimizer.state)
        self._launches: list[tuple[int, list[Tensor]]] = []  # number of a group, what is to be stepped at once
        for number, group in enumerate(groups):
            stepped: list[Tensor] = []
            for parameter in group:
                pieces = _cut(parameter.detach(), size) if parameter.numel() > size else [parameter]
                if len(pieces) > 1:
                    self._whole.append((parameter, pieces))
                    self._share(optimizer.state.get(parameter, {}), parameter, pieces, size)
                stepped += pieces
            self._launches += [(number, stepped[first : first + _LAUNCH]) for first in range(0, len(stepped), _LAUNCH)]

    def step(self) -> None:
        """Step every parameter by its gradient."""
        for parameter, pieces in self._whole:
            gradient = parameter.grad
            if gradient is None:
                continue
            if gradient.stride() != parameter.stride():
                gradient = torch.empty_like(parameter).copy_(gradient)
            for piece, part in zip(pieces, _cut(gradient, pieces[0].numel()), strict=True):
                piece.grad = part
        with self._lent():
            beside([partial(self._launch, *launch) for launch in self._launches], self._device, [])
        for _, pieces in self._whole:
            for piece in pieces:
                piece.grad = None

    def zero_grad(self) -> None:
        """Forget the gradients."""
        self._optimizer.zero_grad()

    def _share(self, slots: dict[str, Any], parameter: Tensor, pieces: list[Tensor], size: int) -> None:
        """Give the pieces their parts of the parameter's state, and counters of steps that are their own."""
        for name, slot in slots.items():
            if isinstance(slot, Tensor):
                entries = slot.shape == parameter.shape
                parts = _cut(slot, size) if entries else [slot, *(slot.clone() for _ in pieces[1:])]
                for piece, part in zip(pieces, parts, strict=True):
                    self._state[piece][name] = part

    @contextmanager
    def _lent(self) -> Iterator[None]:
        """Have the optimiser hold the pieces."""
        state, groups = self._optimizer.state, [group["params"] for group in self._optimizer.param_groups]
        self._optimizer.state = self._state
        try:
            yield
        finally:
            self._optimizer.state = state
            for group, parameters in zip(self._optimizer.param_groups, groups, strict=True):
                group["params"] = parameters

    def _launch(self, number: int, stepped: list[Tensor]) -> Tensor:
        for other, group in enumerate(self._optimizer.param_groups):
            group["params"] = stepped if other == number else []
        self._optimizer.step()
        return stepped[0]


def _cut(tensor: Tensor, size: int) -> list[Tensor]:
    """Return views of `size` entries each on a tensor without gaps, in the order of its memory."""
    return list(torch.split(tensor.as_strided((tensor.numel(),), (1,)), size))


def recordable(optimizer: Optimizer) -> bool:
    """Return whether the optimiser keeps all its state on the device, as the fused ones do."""
    return all(group.get("fused") for group in optimizer.param_groups)


def _set_capturable(optimizer: Optimizer, value: bool) -> None:
    for group in optimizer.param_groups:
        if "capturable" in group:
            group["capturable"] = value

"""An optimiser step recorded as a CUDA graph and played back: one launch in place of hundreds."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from ltl.streams import beside

Step = Callable[[Sequence[Tensor], Any], Tensor]  # what it is given, optimiser -> losses

_EAGER = 3  # steps before the recording: libraries and optimiser allocate what they keep


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

    def __call__(self, given: Sequence[Tensor]) -> Tensor:
        """Do one step on what is given, tensors of the same shapes every time; the next call overwrites the losses."""
        if self._eager < _EAGER:
            self._eager += 1
            return self._aside(partial(self._step, given, self._optimizer))
        if self._play is None:
            self._given = [tensor.clone() for tensor in given]
            self._play = self._recorded(partial(self._step, self._given, self._optimizer))
        else:
            for mine, tensor in zip(self._given, given, strict=True):
                mine.copy_(tensor)
        return self._play()

    def _recorded(self, step: Callable[[], Tensor]) -> Callable[[], Tensor]:
        if self._device.type != "cuda":
            return step
        graph = torch.cuda.CUDAGraph()
        _set_capturable(self._optimizer, True)
        with torch.cuda.graph(graph):
            losses = step()
        _set_capturable(self._optimizer, False)

        def play() -> Tensor:
            graph.replay()
            return losses

        return play

    def _aside(self, step: Callable[[], Tensor]) -> Tensor:
        """Run `step` on a stream of its own, as what is to be recorded must have been."""
        return beside([step], self._device, [])[0]


def recordable(optimizer: Optimizer) -> bool:
    """Return whether the optimiser keeps all its state on the device, as the fused ones do."""
    return all(group.get("fused") for group in optimizer.param_groups)


def _set_capturable(optimizer: Optimizer, value: bool) -> None:
    for group in optimizer.param_groups:
        if "capturable" in group:
            group["capturable"] = value

"""An optimiser step recorded as a CUDA graph and played back: one launch in place of hundreds."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

Step = Callable[[Tensor, Tensor, Any], Tensor]  # inputs, targets, optimiser -> losses

_EAGER = 3  # steps before the recording: libraries and optimiser allocate what they keep


class StepGraph:
    """Runs `step` as it is a few times, then records and plays it back, reading its batch from fixed memory.

    Everything that the step reads or writes must stay where it is: whoever replaces masks or optimiser state makes a
    new graph. On a processor, where nothing can be recorded, playing back is running the step.
    """

    def __init__(self, step: Step, optimizer: Optimizer, device: torch.device) -> None:
        self._step, self._optimizer, self._device = step, optimizer, device
        self._eager = 0
        self._play: Callable[[], Tensor] | None = None
        self._inputs, self._targets = torch.empty(0), torch.empty(0)

    def __call__(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Do one step on a batch; return its losses, which the next call overwrites."""
        if self._eager < _EAGER:
            self._eager += 1
            return self._aside(partial(self._step, inputs, targets, self._optimizer))
        if self._play is None:
            self._inputs, self._targets = inputs.clone(), targets.clone()
            self._play = self._recorded(partial(self._step, self._inputs, self._targets, self._optimizer))
        else:
            self._inputs.copy_(inputs)
            self._targets.copy_(targets)
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
        if self._device.type != "cuda":
            return step()
        stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(stream):
            losses = step()
        torch.cuda.current_stream(self._device).wait_stream(stream)
        return losses


def recordable(optimizer: Optimizer) -> bool:
    """Return whether the optimiser keeps all its state on the device, as the fused ones do."""
    return all(group.get("fused") for group in optimizer.param_groups)


def _set_capturable(optimizer: Optimizer, value: bool) -> None:
    for group in optimizer.param_groups:
        if "capturable" in group:
            group["capturable"] = value

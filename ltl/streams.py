"""Small computations side by side on a GPU: each on a CUDA stream of its own, so that their kernels overlap."""

from collections.abc import Callable, Sequence
from functools import cache

import torch
from torch import Tensor

STREAMS = 16  # most of them; more gained nothing (docs/performance.md)


def beside(calls: Sequence[Callable[[], Tensor]], device: torch.device, read: Sequence[Tensor]) -> list[Tensor]:
    """Return what each of `calls` returns: one after another on a processor, beside one another on a GPU.

    `read` are the tensors that they read and that may be freed, and their memory used again, before all have done so.
    """
    if device.type != "cuda":
        return [call() for call in calls]
    here, streams = torch.cuda.current_stream(device), _streams(device)[: len(calls)]
    results = []
    for number, call in enumerate(calls):
        stream = streams[number % len(streams)]
        stream.wait_stream(here)
        for tensor in read:
            tensor.record_stream(stream)
        with torch.cuda.stream(stream):
            results.append(call())
    for stream in streams:
        here.wait_stream(stream)
    return results


@cache
def _streams(device: torch.device) -> list[torch.cuda.Stream]:
    return [torch.cuda.Stream(device) for _ in range(STREAMS)]  # type: ignore[no-untyped-call]

"""How the machine is used by a run."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Hardware:
    """How the machine is used; docs/configuration.md says what of it can change a result."""

    accelerator: Literal["cpu", "gpu"]
    devices: int
    strategy: str
    precision: Literal["32-true", "64-true", "bf16-mixed"]
    memory_format: Literal["contiguous", "channels_last"]
    deterministic: bool | Literal["warn"]
    chunk: int
    eval_batch: int
    checkpoint_every: float
    stack: Literal["together", "in_turn", "auto"]
    stack_size: int
    sparse_below: float
    sparse_inputs_below: float
    graph: bool
    compile: bool
    merge: bool
    stop_after: float  # seconds

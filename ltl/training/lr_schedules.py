"""Learning-rate schedules: functions from the optimiser step t = 0, 1, … to the multiple of optimizer.lr at that step.

Warm-up is linear and multiplies the schedule: step t of the first k has the factor (t + 1)/k, so that no step has a
rate of 0 and step k − 1 has the full rate. Milestones are counted from step 0; the cosine starts when the warm-up ends.
"""

import math
from collections.abc import Callable, Sequence

from ltl.errors import LtlError

LrSchedule = Callable[[int], float]


def constant(*, warmup: str, length: int, steps: Callable[[str], int]) -> LrSchedule:
    """Keep the rate; `length` in steps plays no part, and `steps` turns `500it` or `2ep` into steps."""
    return _warmed_up(steps(warmup), lambda step: 1.0)


def milestones(
    *, milestones: Sequence[str], factor: float, warmup: str, length: int, steps: Callable[[str], int]
) -> LrSchedule:
    """Multiply the rate by `factor` from each milestone on; a milestone beyond `length` is never reached."""
    if factor <= 0:
        raise LtlError(f"lr_schedule.factor multiplies the learning rate at a milestone and must be > 0, got {factor}.")
    reached_at = [steps(milestone) for milestone in milestones]
    return _warmed_up(steps(warmup), lambda step: factor ** sum(step >= start for start in reached_at))


def cosine(*, warmup: str, length: int, steps: Callable[[str], int]) -> LrSchedule:
    """Fall to 0 at step `length` along half a cosine, from the end of the warm-up on (Loshchilov & Hutter 2017)."""
    start = steps(warmup)
    if start >= length:
        raise LtlError(
            f"lr_schedule.warmup={warmup} is {start} steps and leaves nothing of the {length} steps of a round for the "
            "cosine: shorten it, or lengthen `length`."
        )

    def multiple(step: int) -> float:
        progress = min(1.0, max(0.0, (step - start) / (length - start)))
        return (1 + math.cos(math.pi * progress)) / 2

    return _warmed_up(start, multiple)


def _warmed_up(warmup: int, schedule: LrSchedule) -> LrSchedule:
    return lambda step: schedule(step) * (min(1.0, (step + 1) / warmup) if warmup else 1.0)

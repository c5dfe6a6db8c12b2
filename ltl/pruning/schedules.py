"""Schedules: settings -> ordered events, when and how much is pruned."""

from dataclasses import dataclass

from ltl.pruning.allocation import Target


@dataclass(frozen=True)
class Event:
    """One pruning: at optimiser step `step` of round `round` (its length = after its training), towards `target`."""

    round: int
    step: int
    target: Target
    search_steps: int  # training steps whose outcome the new mask rests on
    of_dense: bool = False  # the weights judged are those at the end of round 0, of the dense network


def after_training(*, rounds: int, rate: float, length: int, rewind_step: int) -> list[Event]:
    """Prune `rate` of what remains after each round's training (Frankle & Carbin 2019, App. B, strategy 1)."""
    return [Event(turn, length, Target(rate=rate), length + turn * (length - rewind_step)) for turn in range(rounds)]


def after_dense(*, rounds: int, rate: float, length: int, rewind_step: int) -> list[Event]:
    """Prune further after each round, by what the dense network's training alone has shown (one-shot pruning)."""
    return [Event(turn, length, Target(rate=rate), length, of_dense=True) for turn in range(rounds)]


def before_training(*, rounds: int, rate: float, length: int, rewind_step: int) -> list[Event]:
    """Prune `rate` of what remains before each round's training, which no training has informed."""
    return [Event(turn + 1, rewind_step, Target(rate=rate), rewind_step) for turn in range(rounds)]

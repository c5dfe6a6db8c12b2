"""Schedules: settings -> ordered events, when and how much is pruned."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ltl.errors import LtlError
from ltl.masks import Masks, distance
from ltl.pruning.allocation import Target


@dataclass(frozen=True)
class Settled:
    """Whether a mask has settled: each of the `looks` − 1 drawn before it is nearer to it than `distance`.

    That is the fraction of entries that differ (You et al. 2020, §3, eq. 1). The earlier masks are each compared with
    the newest, as in the official code.
    """

    looks: int
    distance: float

    def after(self, drawn: Sequence[Masks]) -> bool:
        """Return whether the last of the masks `drawn` has settled."""
        *earlier, newest = drawn[-self.looks :]
        return len(earlier) == self.looks - 1 and all(distance(newest, one) < self.distance for one in earlier)


@dataclass(frozen=True)
class Event:
    """One pruning: at optimiser step `step` of round `round` (its length = after its training), towards `target`.

    Where `replaces`, as many weights grow as are dropped, a rate of those that each layer has, and the optimiser does
    not step at that step. Where `settled`, the event is a look: a dense network is pruned only if its mask has settled,
    and one that has been pruned stays as it is. Where `untrained`, the round that follows is evaluated at its start.
    """

    round: int
    step: int
    target: Target
    search_steps: int  # training steps whose outcome the new mask rests on
    of_dense: bool = False  # the weights judged are those at the end of round 0, of the dense network
    anew: bool = False  # from the dense network's mask, not from the one before
    replaces: bool = False
    settled: Settled | None = None
    untrained: bool = False


def planned(
    schedule: Callable[..., list[Event]], *, rounds: int, rate: float, length: int, rewind_step: int
) -> list[Event]:
    """Return the events of `schedule`; LtlError for anything else, and for an event that no training reaches."""
    events = schedule(rounds=rounds, rate=rate, length=length, rewind_step=rewind_step)
    if not isinstance(events, list) or not all(isinstance(event, Event) for event in events):
        raise LtlError("pruner.schedule must return a list of ltl.pruning.schedules.Event, one for each pruning.")
    for event in events:
        first = rewind_step if event.round else 0
        reached = event.round in range(rounds + 1) and event.step in range(first, length + 1)
        if not reached or (event.round, event.step) == (rounds, length):
            raise LtlError(
                f"pruner.schedule prunes at step {event.step} of round {event.round}, which no training reaches: "
                f"rounds are 0 to {rounds}, steps {first} to {length}, and none at the end of the last round."
            )
    return events


def after_training(*, rounds: int, rate: float, length: int, rewind_step: int) -> list[Event]:
    """Prune `rate` of what remains after each round's training (Frankle & Carbin 2019, App. B, strategy 1)."""
    return [Event(turn, length, Target(rate=rate), length + turn * (length - rewind_step)) for turn in range(rounds)]


def after_dense(*, rounds: int, rate: float, length: int, rewind_step: int) -> list[Event]:
    """Prune further after each round, by what the dense network's training alone has shown (one-shot pruning)."""
    return [Event(turn, length, Target(rate=rate), length, of_dense=True) for turn in range(rounds)]


def dense_alone(*, rounds: int, rate: float, length: int, rewind_step: int) -> list[Event]:
    """Prune as `after_dense`, and train nothing else: tickets are heuristic supermasks (Zhou et al. 2019, §5)."""
    events = after_dense(rounds=rounds, rate=rate, length=length, rewind_step=rewind_step)
    return [replace(event, untrained=True) for event in events]


def before_training(*, rounds: int, rate: float, length: int, rewind_step: int) -> list[Event]:
    """Prune `rate` of what remains before each round's training, which no training has informed."""
    return [Event(turn + 1, rewind_step, Target(rate=rate), rewind_step) for turn in range(rounds)]


def at_init(*, rounds: int, rate: float, length: int, rewind_step: int, prunings: int) -> list[Event]:
    """Prune the dense network anew for each round's density, before that round's training (SNIP, GraSP, SynFlow).

    Round r has density ρ = (1 − rate)^r, reached in `prunings` steps of densities ρ^(t / prunings), scores taken anew
    at each (Tanaka et al. 2020, Alg. 1). With a rewind step above 0 this is pruning early in training.
    """
    return [
        Event(
            turn,
            rewind_step,
            Target(density=(1 - rate) ** (turn * number / prunings)),
            rewind_step,
            anew=number == 1,
        )
        for turn in range(1, rounds + 1)
        for number in range(1, prunings + 1)
    ]


def gradual(
    *, rounds: int, rate: float, length: int, rewind_step: int, start: float, begin: float, end: float, prunings: int
) -> list[Event]:
    """Prune while a round trains, from density `start` to its own, ρ = (1 − rate)^r (Zhu & Gupta 2017, eq. 1).

    Between the fractions `begin` and `end` of the round's training there are `prunings`, the density falling as
    ρ + (start − ρ)(1 − t)³ with t from 0 to 1; the last a step before the end of training at the latest, for a mask
    is to be trained with. LtlError for a `start` below the density of a round.
    """
    if rounds and start < 1 - rate:
        raise LtlError(
            f"pruner.schedule.start={start} is below the density {1 - rate:g} of the first round: raise it, or choose "
            "a larger pruner.rate."
        )
    events = []
    for turn in range(1, rounds + 1):
        final = (1 - rate) ** turn
        events.append(Event(turn, rewind_step, Target(density=start), rewind_step, anew=True))
        for number in range(1, prunings + 1):
            progress = number / prunings
            step = rewind_step + round((begin + (end - begin) * progress) * (length - rewind_step))
            step = min(step, length - 1)
            target = Target(density=final + (start - final) * (1 - progress) ** 3)
            events.append(Event(turn, step, target, rewind_step))
    return events


def early_bird(
    *,
    rounds: int,
    rate: float,
    length: int,
    rewind_step: int,
    every: int,
    until: float,
    looks: int,
    distance: float,
) -> list[Event]:
    """Prune once while a round trains, to (1 − rate)^r, when the mask has settled (You et al. 2020, Alg. 1).

    Every `every` optimiser steps a mask is drawn, until one has settled; then the weights left train on. At the
    fraction `until` of the round's training, and a step before its end at the latest, it is pruned in any case. Masks
    of density ρ differ in 2ρ of their entries at most, so below half of `distance` the first `looks` always settle.
    """
    last = min(rewind_step + round(until * (length - rewind_step)), length - 1)
    events = []
    for turn in range(1, rounds + 1):
        target = Target(density=(1 - rate) ** turn)
        events.append(Event(turn, rewind_step, Target(density=1.0), rewind_step, anew=True))
        for step in range(rewind_step + every, last, every):
            events.append(Event(turn, step, target, rewind_step, settled=Settled(looks, distance)))
        events.append(Event(turn, last, target, rewind_step, settled=Settled(1, distance)))
    return events


def dynamic(
    *, rounds: int, rate: float, length: int, rewind_step: int, every: int, until: float, fraction: float
) -> list[Event]:
    """Begin each round sparse, at density (1 − rate)^r, and replace weights while it trains (RigL: Evci et al. 2020).

    Every `every` optimiser steps up to the fraction `until` of a round's schedule, each layer replaces
    `fraction`/2 · (1 + cos(π t / T_end)) of its weights (§3, eq. 1).
    """
    last = until * length
    events = []
    for turn in range(1, rounds + 1):
        events.append(Event(turn, rewind_step, Target(density=(1 - rate) ** turn), rewind_step, anew=True))
        for step in range(every, length, every):
            if rewind_step < step < last:
                share = fraction / 2 * (1 + math.cos(math.pi * step / last))
                events.append(Event(turn, step, Target(rate=share), rewind_step, replaces=True))
    return events

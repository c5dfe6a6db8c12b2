"""When things happen: the optimiser steps of every round, cut at evaluations, mask changes and rewind points."""

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field

Position = tuple[int, int]  # round, optimiser step within the round's schedule


@dataclass(frozen=True)
class Timeline:
    """Rounds of training; round r runs the optimiser steps first[r] … length − 1 of one learning-rate schedule."""

    length: int
    eval_every: int
    first: tuple[int, ...]
    chunk: int  # most optimiser steps in one Lightning batch
    marks: frozenset[Position] = field(default_factory=frozenset)  # a chunk ends where something happens
    idle: frozenset[Position] = field(default_factory=frozenset)  # the optimiser does not step at these steps

    def stops(self, turn: int) -> list[int]:
        """Return the steps at which round `turn` is evaluated: every `eval_every` steps and at its end."""
        begin = self.first[turn] // self.eval_every * self.eval_every + self.eval_every
        return [*range(begin, self.length, self.eval_every), self.length]

    def epochs(self) -> int:
        """Return the number of evaluation intervals, each of which is one Lightning epoch."""
        return sum(len(self.stops(turn)) for turn in range(len(self.first)))

    def steps(self) -> int:
        """Return the number of optimiser steps of all rounds."""
        return sum(self.length - first for first in self.first)

    def trains(self, turn: int) -> bool:
        """Return whether the optimiser steps at all in round `turn`."""
        return sum(at == turn for at, _ in self.idle) < self.length - self.first[turn]

    def next_interval(self, position: Position) -> Position:
        """Return where the interval after `position` begins: there, or at the start of the next round."""
        turn, step = position
        return (turn, step) if step < self.length else (turn + 1, self.first[turn + 1])

    def chunks(self, position: Position) -> Iterable[tuple[int, int, int]]:
        """Yield (round, start, stop) chunks from `position` to the end of its interval; none after the last round."""
        if position == (len(self.first) - 1, self.length):
            return
        turn, start = self.next_interval(position)
        stops = self.stops(turn)
        end = stops[bisect_right(stops, start)]
        cuts = sorted({step for at, step in self.marks if at == turn and start < step < end} | {end})
        for cut in cuts:
            while start < cut:
                stop = min(start + self.chunk, cut)
                yield turn, start, stop
                start = stop

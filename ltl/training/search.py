"""The search for one network's tickets: what is kept of it from round to round, and how its next mask is made."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from ltl.errors import LtlError
from ltl.masks import Masks, Tensors, dense, kept, pack, tensors_sha256, total, unpack
from ltl.pruning.evidence import Evidence, Task
from ltl.pruning.pruner import Pruner
from ltl.pruning.schedules import Event, Settled
from ltl.rng import generator
from ltl.training.layers import quartiles
from ltl.training.start import Start, cloned, moved
from ltl.training.timeline import Position


def _cannot_initialise(source: torch.Generator) -> Tensors:
    raise LtlError(
        "survivors: PruneRewind.by_epochs cannot draw a fresh initialisation, which only ltl's own networks have: "
        "choose rewound, or other survivors that need none."
    )


class Search:
    """One network's initialisation, rewind point and current start; weights in, starts out.

    LtlError for events that the pruner cannot follow.
    """

    def __init__(
        self,
        *,
        pruner: Pruner,
        events: Sequence[Event],
        seed: int,
        initialise: Callable[[torch.Generator], Tensors] = _cannot_initialise,
    ) -> None:
        pruner.check(events)
        self.pruner, self.events, self.seed, self.initialise = pruner, list(events), seed, initialise
        self.start: Start | None = None
        self.mask_flips: float | None = None  # a mask that is held, or pruned at once
        self.lost = ""  # why nothing more is learned from it
        self.theta_0: Tensors = {}
        self.init_sha256 = ""
        self.theta_k: Tensors | None = None  # as long as it is None, the rewind point is θ₀
        self.theta_dense: Tensors = {}  # at the end of round 0, if any event looks at it
        self.drawn: list[Tensors] = []  # masks of this round's last looks, as bits
        self.task: Task | None = None  # where it is known

    @property
    def current(self) -> Start:
        """What is being trained."""
        assert self.start is not None
        return self.start

    @property
    def rewind_point(self) -> Tensors:
        """The weights that survivors go back to: θ₀ or θ_k."""
        return self.theta_0 if self.theta_k is None else self.theta_k

    def take_theta_0(self, theta_0: Tensors) -> None:
        """Take the initialisation."""
        self.theta_0, self.init_sha256 = theta_0, tensors_sha256(theta_0)

    def begin(self, names: Sequence[str]) -> None:
        """Start from the dense network, whose prunable weights are `names`."""
        masks = dense({name: self.theta_0[name] for name in names})
        self.start = Start("ticket", 0, 0, masks, self.theta_0, {}, 0, 0)

    def try_out(self) -> None:
        """LtlError if the method's functions, of which some look at all examples, would end the search."""
        if self.events:
            self.pruner.try_out(self._evidence(self.theta_0, self.current))

    def prune_in_place(self, position: Position, now: Tensors) -> bool:
        """Prune at the events of this very step and go on with the weights `now`; return whether there were any."""
        if self.lost:  # nothing can be learned from its weights
            return False
        start = self._pruned(self.current, position, now)
        if start is self.start:
            return False
        step, before = position[1], self.current
        since = before.density_step if kept(start.masks) == kept(before.masks) else step
        mask_step = step if step > start.step else None
        self.start = self._filled(replace(start, mask_step=mask_step, density_step=since), now)
        return True

    def next_round(self, trained: Tensors, *, length: int, first: int) -> None:
        """Prune by the weights at a round's end, and start the next round, at step `first`."""
        start = self.current
        if self.lost:  # nothing can be learned from its weights
            self.start = replace(start, round=start.round + 1, step=first)
            return
        if start.round == 0 and any(event.of_dense for event in self.events):
            self.theta_dense = trained
        end = (start.round, length)
        start = self._pruned(replace(start, gone={}, mask_step=None, density_step=0), end, trained)
        of_dense = any(event.of_dense for event in self.events if (event.round, event.step) == end)
        seen = self.theta_dense if of_dense else trained
        begin = (start.round + 1, first)
        if any(event.anew for event in self.events if (event.round, event.step) == begin):
            start, self.drawn = replace(start, masks=dense(start.masks)), []

        def survivors(masks: Masks) -> Tensors:
            return self.pruner.survive(self._evidence(seen, start, *end, len(self.events)), masks)

        theta = survivors(start.masks)
        pruned = self._pruned(replace(start, round=start.round + 1, theta=theta, step=first), begin, theta)
        if pruned.masks is not start.masks:
            pruned = replace(pruned, theta=survivors(pruned.masks))  # some depend on the mask that is trained
        self.start = self._filled(pruned, pruned.theta)

    def state(self) -> dict[str, Any]:
        """Return everything but θ₀ as tensors and plain values."""
        start = self.current.state()
        start["theta"] = self._name(self.current.theta) or self.current.theta
        return {**{name: getattr(self, name) for name in self._KEPT}, "start": start}

    def load(self, state: dict[str, Any]) -> None:
        """Take up a state; θ₀ is there already. LtlError if it is another than the state's."""
        if self.init_sha256 != state["init_sha256"]:
            raise LtlError(
                "resume: the initialisation drawn from seeds.init is not the one that this run began with: resume with "
                "the torch version and the code that status.json names."
            )
        for name in self._KEPT:
            setattr(self, name, state.get(name, getattr(self, name)))  # older checkpoints hold no looks
        theta = state["start"]["theta"]
        theta = getattr(self, theta) if isinstance(theta, str) else theta
        self.start = Start.from_state({**state["start"], "theta": theta})

    def move(self, like: Tensors) -> None:
        """Move everything to the devices of `like`."""
        name = None if self.start is None else self._name(self.start.theta)
        self.theta_0, self.theta_dense = moved(self.theta_0, like), moved(self.theta_dense, like)
        self.theta_k = None if self.theta_k is None else moved(self.theta_k, like)
        if self.start is not None:
            self.start = self.start.on(like)
            if name:
                self.start = replace(self.start, theta=getattr(self, name))

    def keep_rewind_point(self, now: Tensors) -> None:
        """Take θ_k."""
        self.theta_k = cloned(now)

    _KEPT = ("init_sha256", "theta_k", "theta_dense", "drawn")

    def _name(self, theta: Tensors) -> str | None:
        """Return which of the states kept anyway `theta` is, if any: a checkpoint then holds it once."""
        return next((name for name in ("theta_0", "theta_k", "theta_dense") if theta is getattr(self, name)), None)

    def _evidence(self, weights: Tensors, start: Start, *keys: int) -> Evidence:
        source = generator("mask", self.seed, *keys)
        return Evidence(weights, self.theta_0, self.rewind_point, start.masks, source, self._fresh, self.task)

    def _fresh(self, source: torch.Generator) -> Tensors:
        """Return a fresh initialisation, which is drawn on the processor, where θ₀ and the masks are."""
        return moved(self.initialise(source), self.theta_0)

    def _pruned(self, start: Start, position: Position, weights: Tensors) -> Start:
        """Return `start` after the events at `position`, with the masks and search steps that they leave."""
        due = [event for event in self.events if (event.round, event.step) == position]
        if not due:
            return start
        pruned = start
        for number, event in enumerate(due):
            if event.settled and kept(pruned.masks) < total(pruned.masks):
                continue  # the round has its mask
            seen = self.theta_dense if event.of_dense else weights
            evidence = self._evidence(seen, pruned, *position, number)
            if event.replaces:
                masks = self.pruner.replace(evidence, event.target.rate or 0.0)
            else:
                masks = self.pruner.prune(evidence, event.target)
            if event.settled and not self._settled(masks, event.settled):
                continue
            pruned = replace(pruned, masks=masks, search_steps=event.search_steps)
        if pruned is start:
            return start
        gone = {name: quartiles(weights[name], mask & ~pruned.masks[name]) for name, mask in start.masks.items()}
        return replace(pruned, gone=gone)

    def _settled(self, masks: Masks, rule: Settled) -> bool:
        """Note the mask that a look has drawn, and return whether it has settled."""
        self.drawn = [*self.drawn, {name: pack(mask) for name, mask in masks.items()}][-rule.looks :]
        shapes = {name: mask.shape for name, mask in masks.items()}
        return rule.after([{name: unpack(bits[name], shape) for name, shape in shapes.items()} for bits in self.drawn])

    def _filled(self, start: Start, weights: Tensors) -> Start:
        """Return `start` with the filler's tensors, of the layers where any pruned entry is not 0."""
        fills = self.pruner.fill(self._evidence(weights, start), start.masks)
        nonzero = {name: fills[name] for name, mask in start.masks.items() if bool((fills[name][~mask] != 0).any())}
        return replace(start, fills=nonzero)

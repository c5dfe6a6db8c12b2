"""The prune-rewind cycle in one `Trainer.fit`: train, prune, rewind, go on (DESIGN §5)."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytorch_lightning as pl
import torch
from torch.optim import Optimizer

from ltl.callbacks.hosts import ForeignModule, Host
from ltl.errors import LtlError
from ltl.masks import Masks, Tensors, dense, density, kept, mask_sha256, prunable, tensors_sha256
from ltl.pruning.evidence import Evidence
from ltl.pruning.pruner import Pruner
from ltl.pruning.schedules import Event
from ltl.rng import generator
from ltl.training import optimizer_state
from ltl.training.layers import quartiles
from ltl.training.module import MaskedTraining
from ltl.training.start import Start, cloned, moved
from ltl.training.timeline import Position, Timeline


def _cannot_initialise(source: torch.Generator) -> Tensors:
    raise LtlError("survivors: a fresh initialisation needs PruneRewind(initialise=…), a function of a generator.")


class PruneRewind(pl.Callback):
    """Prunes a network after each round of training and sets it back to the rewind point, within one `Trainer.fit`.

    Works on ltl's MaskedTraining, and on any LightningModule with a plain Trainer (`by_epochs`). Weights, buffers,
    optimiser and learning-rate schedule are set back through public state_dicts alone, so the second rewind is as exact
    as the first. All state is tensors and plain values in the Lightning checkpoint; the initialisation of ltl's own
    module is not among them, because it is drawn again from its seed.
    """

    def __init__(
        self,
        *,
        pruner: Pruner,
        events: Sequence[Event],
        rewind_step: int,
        seed: int,
        initialise: Callable[[torch.Generator], Tensors] = _cannot_initialise,
        timeline: Timeline | None = None,
    ) -> None:
        self.pruner, self.events, self.rewind_step = pruner, list(events), rewind_step
        self.seed, self.initialise, self.timeline = seed, initialise, timeline
        self.host: Host | None = None
        self.names: list[str] = []
        self.current: Start | None = None
        self.theta_0: Tensors = {}
        self.init_sha256 = ""
        self.theta_k: Tensors | None = None  # as long as it is None, the rewind point is θ₀
        self.theta_dense: Tensors = {}  # at the end of round 0, if any event looks at it
        self.optimizers_k: list[optimizer_state.State] = []
        self.schedulers_k: list[dict[str, Any]] = []
        self.rows: list[dict[str, Any]] = []

    @classmethod
    def by_epochs(
        cls,
        *,
        pruner: Pruner,
        schedule: Callable[..., list[Event]],
        rounds: int,
        rate: float,
        epochs_per_round: int,
        rewind_epoch: int,
        seed: int,
    ) -> "PruneRewind":
        """Return the callback for a plain Trainer: `rounds` prunings, hence `.epochs` epochs in all.

        LtlError for values that leave nothing to train or to prune.
        """
        if rounds < 0 or not 0 < rate < 1:
            raise LtlError(f"rounds={rounds}, rate={rate}: PruneRewind needs rounds ≥ 0 and a rate between 0 and 1.")
        if not 0 <= rewind_epoch < epochs_per_round:
            raise LtlError(
                f"rewind_epoch={rewind_epoch} must be at least 0 and before the end of a round, which has "
                f"epochs_per_round={epochs_per_round}."
            )
        first = (0,) + (rewind_epoch,) * rounds
        timeline = Timeline(length=epochs_per_round, eval_every=1, first=first, chunk=1)
        events = schedule(rounds=rounds, rate=rate, length=epochs_per_round, rewind_step=rewind_epoch)
        return cls(pruner=pruner, events=events, rewind_step=rewind_epoch, seed=seed, timeline=timeline)

    @property
    def epochs(self) -> int:
        """The number of epochs that all rounds take together: the Trainer's max_epochs."""
        assert self.timeline is not None
        return self.timeline.steps()

    @property
    def masks(self) -> Masks:
        """The masks of the current round."""
        assert self.current is not None
        return self.current.masks

    @property
    def rewind_point(self) -> Tensors:
        """The weights that survivors go back to: θ₀ or θ_k."""
        return self.theta_0 if self.theta_k is None else self.theta_k

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Find the prunable weights; LtlError if there are none, or not as parameters of their own."""
        if self.host is not None:
            if (self.host.module if isinstance(self.host, ForeignModule) else self.host) is not pl_module:
                raise LtlError("PruneRewind holds the masks of another module: make a new one for each module.")
            return
        if isinstance(pl_module, MaskedTraining):
            self.host = pl_module
            self.names = prunable(pl_module.network)
        else:
            if self.timeline is None:
                raise LtlError("PruneRewind on a module that is not ltl's is made by PruneRewind.by_epochs(…).")
            self.host = ForeignModule(pl_module, self.timeline)
            self.names = prunable(pl_module)
        if not self.names:
            raise LtlError(f"{type(pl_module).__name__} has no linear or convolution layer to prune.")
        shared = [name for name in self.names if name not in self.host.networks()[0]]
        if shared:
            raise LtlError(
                f"{type(pl_module).__name__}: {shared[0]} is tied to another weight or parametrised, and PruneRewind "
                "masks parameters of their own only: untie it."
            )
        if isinstance(pl_module, MaskedTraining):
            self._set_theta_0(cloned(pl_module.networks()[0]))

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take θ₀ and the fresh optimiser, or take up where the checkpoint left off."""
        host = self._host()
        if isinstance(host, ForeignModule) and not 1 <= (trainer.max_epochs or 0) <= self.epochs:
            raise LtlError(
                f"Trainer(max_epochs={trainer.max_epochs}) does not end with the last round: set it to the callback's "
                f"`epochs`, here {self.epochs}."
            )
        now = host.networks()[0]
        if self.current is None:
            self._set_theta_0(moved(self.theta_0, now) if self.theta_0 else cloned(now))
            self._capture(trainer)
            masks = dense({name: now[name] for name in self.names})
            self.current = Start("ticket", 0, 0, masks, self.theta_0, {}, 0, 0)
            self._prune_in_place(trainer)
        else:
            name = self._name(self.current.theta)
            self.theta_0, self.theta_dense = moved(self.theta_0, now), moved(self.theta_dense, now)
            self.theta_k = None if self.theta_k is None else moved(self.theta_k, now)
            self.current = self.current.on(now)
            if name:
                self.current = replace(self.current, theta=getattr(self, name))
            host.lr_held = self.pruner.lr == "last" and self.current.round > 0
            host.hold(self.current.masks, self.current.fills)
        host.forget_lr()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Between two rounds: prune by what the training showed, and set everything back to the rewind point."""
        host = self._host()
        turn, step = host.position
        if step == host.timeline.length and turn + 1 < len(host.timeline.first):
            self._next_round(trainer)
        elif isinstance(host, ForeignModule):
            self._marks(trainer)  # only now: a scheduler that follows a metric steps after on_train_epoch_end

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Watch a foreign module's first steps."""
        if isinstance(self.host, ForeignModule):
            self.host.watch(self.names)

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        """Mask a foreign module's gradients; ltl's own masks them itself."""
        if isinstance(self.host, ForeignModule):
            self.host.before_step(trainer.optimizers.index(optimizer), optimizer)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Take θ_k when its step is reached, and prune where the schedule has an event within a round."""
        if isinstance(self.host, ForeignModule):
            self.host.check_hook(self.names)
            self.host.write_fills()
        else:
            self._marks(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Count a foreign module's epoch and keep a row of its metrics at the end of a round."""
        if not isinstance(self.host, ForeignModule):
            return
        self.host.check_pruned()
        turn, step = self.host.position
        if step == self.host.timeline.length:  # the row before belongs to the round before
            turn, step = turn + 1, self.host.timeline.first[turn + 1]
        self.host.position = (turn, step + 1)
        if step + 1 == self.host.timeline.length:
            metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
            self.rows.append(
                {"round": turn, "density": density(self.masks), "weights_left": kept(self.masks)}
                | {"mask_sha256": mask_sha256(self.masks), **metrics}
            )

    def state_dict(self) -> dict[str, Any]:
        """Return the whole state as tensors and plain values."""
        state = {name: getattr(self, name) for name in self._KEPT}
        assert self.current is not None
        start = self.current.state()
        if isinstance(self.host, ForeignModule):
            state |= {"theta_0": self.theta_0, "lrs": self.host.lrs}
        start["theta"] = self._name(self.current.theta) or self.current.theta
        return {**state, "current": start, "position": list(self._host().position)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the state of a checkpoint."""
        if isinstance(self.host, ForeignModule):
            self._set_theta_0(state_dict["theta_0"])
            self.host.lrs = state_dict["lrs"]
        if self.init_sha256 != state_dict["init_sha256"]:
            raise LtlError(
                "resume: the initialisation drawn from seeds.init is not the one that this run began with: resume with "
                "the torch version and the code that status.json names."
            )
        for name in self._KEPT:
            setattr(self, name, state_dict[name])
        start = state_dict["current"]
        theta = getattr(self, start["theta"]) if isinstance(start["theta"], str) else start["theta"]
        self.current = Start.from_state({**start, "theta": theta})
        turn, step = state_dict["position"]
        self._host().position = (turn, step)

    _KEPT = ("init_sha256", "theta_k", "theta_dense", "optimizers_k", "schedulers_k", "rows")

    def _name(self, theta: Tensors) -> str | None:
        """Return which of the states kept anyway `theta` is, if any: a checkpoint then holds it once."""
        return next((name for name in ("theta_0", "theta_k") if theta is getattr(self, name)), None)

    def _set_theta_0(self, theta_0: Tensors) -> None:
        self.theta_0, self.init_sha256 = theta_0, tensors_sha256(theta_0)

    def _host(self) -> Host:
        if self.host is None:
            raise LtlError("PruneRewind works within Trainer.fit only.")
        return self.host

    def _marks(self, trainer: pl.Trainer) -> None:
        host = self._host()
        if host.position == (0, self.rewind_step):
            self._capture(trainer)
        turn, step = host.position
        if host.timeline.first[turn] < step < host.timeline.length:
            self._prune_in_place(trainer)

    def _capture(self, trainer: pl.Trainer) -> None:
        """Take the rewind point θ_k, if this is its step, with optimiser and learning-rate schedulers."""
        host = self._host()
        if host.position == (0, self.rewind_step):
            if self.rewind_step > 0:
                self.theta_k = cloned(host.networks()[0])
            self.optimizers_k = [optimizer_state.saved(optimizer) for optimizer in trainer.optimizers]
            if self.pruner.momentum != "saved":
                self.optimizers_k = [{**state, "state": {}} for state in self.optimizers_k]
            self.schedulers_k = [deepcopy(config.scheduler.state_dict()) for config in trainer.lr_scheduler_configs]

    def _evidence(self, weights: Tensors, masks: Masks, *keys: int) -> Evidence:
        source = generator("mask", self.seed, *keys)
        return Evidence(weights, self.theta_0, self.rewind_point, masks, source, self.initialise)

    def _pruned(self, start: Start, position: Position, weights: Tensors) -> Start:
        """Return `start` after the events at `position`, with the masks and search steps that they leave."""
        masks, search_steps = start.masks, start.search_steps
        due = [event for event in self.events if (event.round, event.step) == position]
        for number, event in enumerate(due):
            seen = self.theta_dense if event.of_dense else weights
            masks = self.pruner.prune(self._evidence(seen, masks, *position, number), event.target)
            search_steps = event.search_steps
        if not due:
            return start
        gone = {name: quartiles(weights[name], mask & ~masks[name]) for name, mask in start.masks.items()}
        return replace(start, masks=masks, search_steps=search_steps, gone=gone)

    def _filled(self, start: Start, weights: Tensors) -> Start:
        """Return `start` with the filler's tensors, of the layers where any pruned entry is not 0."""
        fills = self.pruner.filler(self._evidence(weights, start.masks), start.masks)
        nonzero = {name: fills[name] for name, mask in start.masks.items() if bool((fills[name][~mask] != 0).any())}
        return replace(start, fills=nonzero)

    def _prune_in_place(self, trainer: pl.Trainer) -> None:
        """Prune at the events of this very step and train on: survivors stay, their optimiser slots too."""
        host, now = self._host(), self._host().networks()[0]
        assert self.current is not None
        pruned = self._pruned(self.current, host.position, now)
        if pruned.masks is not self.current.masks:
            self.current = self._filled(pruned, now)
            host.hold(self.current.masks, self.current.fills)
            self._zero_pruned(trainer)

    def _next_round(self, trainer: pl.Trainer) -> None:
        """Prune, and set weights, buffers, optimiser and learning rate to where the next round begins."""
        host, start = self._host(), self.current
        assert start is not None
        now = host.networks()[0]
        trained = cloned(now)
        if start.round == 0 and any(event.of_dense for event in self.events):
            self.theta_dense = trained
        turn, first = start.round + 1, host.timeline.first[start.round + 1]
        end = (start.round, host.timeline.length)
        start = self._pruned(replace(start, gone={}), end, trained)
        theta = self.pruner.survivors(self._evidence(trained, start.masks, *end, len(self.events)), start.masks)
        start = self._pruned(replace(start, round=turn, theta=theta, step=first), (turn, first), theta)
        self.current = self._filled(start, theta)
        with torch.no_grad():
            for name, tensor in now.items():
                tensor.copy_(theta[name])
        self._set_optimizers(trainer)
        host.position = (turn, first)
        host.lr_held = self.pruner.lr == "last"
        host.hold(self.current.masks, self.current.fills)
        host.forget_lr()

    def _set_optimizers(self, trainer: pl.Trainer) -> None:
        for optimizer, before in zip(trainer.optimizers, self.optimizers_k, strict=True):
            now = optimizer.state_dict()
            slots = now["state"] if self.pruner.momentum == "kept" else before["state"]
            groups = before["param_groups"] if self.pruner.lr == "rewound" else now["param_groups"]
            optimizer_state.restore(optimizer, {"state": slots, "param_groups": groups})
        self._zero_pruned(trainer)
        if self.pruner.lr == "rewound":
            for config, state in zip(trainer.lr_scheduler_configs, self.schedulers_k, strict=True):
                config.scheduler.load_state_dict(deepcopy(state))

    def _zero_pruned(self, trainer: pl.Trainer) -> None:
        names = {id(parameter): name for name, parameter in self._host().networks()[0].items()}
        for optimizer in trainer.optimizers:
            optimizer_state.zero_pruned(optimizer, names, self.masks)

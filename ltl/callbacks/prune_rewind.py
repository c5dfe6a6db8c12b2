"""The prune-rewind cycle in one `Trainer.fit`: train, prune, rewind, go on (docs/concepts.md)."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import pytorch_lightning as pl
import torch
from torch.optim import Optimizer

from ltl.callbacks.hosts import ForeignModule, Host
from ltl.errors import LtlError
from ltl.masks import Masks, Tensors, density, kept, mask_sha256, prunable
from ltl.pruning.pruner import Pruner
from ltl.pruning.schedules import Event
from ltl.training import optimizer_state
from ltl.training.module import MaskedTraining
from ltl.training.search import Search
from ltl.training.start import cloned
from ltl.training.timeline import Timeline


class PruneRewind(pl.Callback):
    """Prunes networks after each round of training and sets them back to the rewind point, within one `Trainer.fit`.

    Works on ltl's MaskedTraining, and on any LightningModule with a plain Trainer (`by_epochs`). Weights, buffers,
    optimiser and learning-rate schedule are set back through public state_dicts alone, so the second rewind is as exact
    as the first. All state is tensors and plain values in the Lightning checkpoint; the initialisation of ltl's own
    networks is not among them, because it is drawn again from its seed. `members` are the searches of networks that
    train side by side, by one pruner and schedule.
    """

    def __init__(
        self, *, members: Sequence[Search], pruner: Pruner, rewind_step: int, timeline: Timeline | None = None
    ) -> None:
        self.members, self.pruner, self.rewind_step, self.timeline = list(members), pruner, rewind_step, timeline
        self.host: Host | None = None
        self.names: list[str] = []
        self.begun = False
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
        if any(event.untrained for event in events):
            raise LtlError("schedule: PruneRewind.by_epochs trains every round; take after_dense for dense_alone.")
        search = Search(pruner=pruner, events=events, seed=seed)
        return cls(members=[search], pruner=pruner, rewind_step=rewind_epoch, timeline=timeline)

    @property
    def epochs(self) -> int:
        """The number of epochs that all rounds take together: the Trainer's max_epochs."""
        assert self.timeline is not None
        return self.timeline.steps()

    @property
    def masks(self) -> Masks:
        """The masks of the current round, of the first network."""
        return self.members[0].current.masks

    @property
    def rewind_point(self) -> Tensors:
        """The weights that survivors of the first network go back to: θ₀ or θ_k."""
        return self.members[0].rewind_point

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Find the prunable weights; LtlError if there are none, or not as parameters of their own."""
        if self.host is not None:
            if (self.host.module if isinstance(self.host, ForeignModule) else self.host) is not pl_module:
                raise LtlError("PruneRewind holds the masks of another module: make a new one for each module.")
            return
        if isinstance(pl_module, MaskedTraining):
            self.host = pl_module
            self.names = prunable(pl_module.stack.skeleton)
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
            for member, network in zip(self.members, pl_module.networks(), strict=True):
                member.take_theta_0(cloned(network))

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take θ₀ and the fresh optimiser, or take up where the checkpoint left off."""
        host = self._host()
        if isinstance(host, ForeignModule) and not 1 <= (trainer.max_epochs or 0) <= self.epochs:
            raise LtlError(
                f"Trainer(max_epochs={trainer.max_epochs}) does not end with the last round: set it to the callback's "
                f"`epochs`, here {self.epochs}."
            )
        for number, (member, now) in enumerate(zip(self.members, host.networks(), strict=True)):
            member.task = host.task(number)
            if not member.theta_0:
                member.take_theta_0(cloned(now))
            member.move(now)
            if not self.begun:
                member.begin(self.names)
        if not self.begun:
            for member in {id(member.pruner): member for member in self.members}.values():
                member.try_out()
            self.begun = True
            self._capture(trainer)
            self._prune_in_place(trainer)
        else:
            host.lr_held = self.pruner.lr == "last" and self.members[0].current.round > 0
            self._hold()
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
        if isinstance(self.host, ForeignModule):
            state |= {"theta_0": self.members[0].theta_0, "lrs": self.host.lrs}
        members = [member.state() for member in self.members]
        return {**state, "members": members, "position": list(self._host().position)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the state of a checkpoint."""
        if isinstance(self.host, ForeignModule):
            self.members[0].take_theta_0(state_dict["theta_0"])
            self.host.lrs = state_dict["lrs"]
        for name in self._KEPT:
            setattr(self, name, state_dict[name])
        for member, state in zip(self.members, state_dict["members"], strict=True):
            member.load(state)
        self.begun = True
        turn, step = state_dict["position"]
        self._host().position = (turn, step)

    _KEPT = ("optimizers_k", "schedulers_k", "rows")

    def _host(self) -> Host:
        if self.host is None:
            raise LtlError("PruneRewind works within Trainer.fit only.")
        return self.host

    def _marks(self, trainer: pl.Trainer) -> None:
        self._capture(trainer)
        host = self._host()
        turn, step = host.position
        if host.timeline.first[turn] < step < host.timeline.length:
            self._prune_in_place(trainer)

    def _capture(self, trainer: pl.Trainer) -> None:
        """Take the rewind point θ_k, if this is its step, with optimiser and learning-rate schedulers."""
        host = self._host()
        if host.position != (0, self.rewind_step):
            return
        if self.rewind_step > 0:
            for member, now in zip(self.members, host.networks(), strict=True):
                member.keep_rewind_point(now)
        self.optimizers_k = [optimizer_state.saved(optimizer) for optimizer in trainer.optimizers]
        if self.pruner.momentum != "saved":
            self.optimizers_k = [{**state, "state": {}} for state in self.optimizers_k]
        self.schedulers_k = [deepcopy(config.scheduler.state_dict()) for config in trainer.lr_scheduler_configs]

    @contextmanager
    def _spared(self, member: Search) -> Iterator[None]:
        """Lose `member` alone to what cannot be pruned, as long as others are left."""
        try:
            yield
        except LtlError as error:
            if all(other.lost for other in self.members if other is not member):
                raise
            member.lost = str(error)

    def _hold(self) -> None:
        self._host().hold([member.current for member in self.members])

    def _prune_in_place(self, trainer: pl.Trainer) -> None:
        """Prune at the events of this very step and train on: survivors stay, their optimiser slots too."""
        host = self._host()
        pruned = []
        for member, now in zip(self.members, host.networks(), strict=True):
            with self._spared(member):
                pruned.append(member.prune_in_place(host.position, now))
        if any(pruned):
            self._hold()
            self._zero_pruned(trainer)

    def _next_round(self, trainer: pl.Trainer) -> None:
        """Prune, and set weights, buffers, optimiser and learning rate to where the next round begins."""
        host = self._host()
        turn = host.position[0] + 1
        for member, now in zip(self.members, host.networks(), strict=True):
            with self._spared(member):
                member.next_round(cloned(now), length=host.timeline.length, first=self.rewind_step)
            if member.current.round < turn:  # it was lost just now
                member.next_round(now, length=host.timeline.length, first=self.rewind_step)
            with torch.no_grad():
                for name, tensor in now.items():
                    tensor.copy_(member.current.theta[name])
        self._set_optimizers(trainer)
        host.position = (turn, host.timeline.first[turn])
        host.lr_held = self.pruner.lr == "last"
        self._hold()
        self._zero_pruned(trainer)
        host.forget_lr()

    def _set_optimizers(self, trainer: pl.Trainer) -> None:
        for optimizer, before in zip(trainer.optimizers, self.optimizers_k, strict=True):
            now = optimizer.state_dict()
            slots = now["state"] if self.pruner.momentum == "kept" else before["state"]
            groups = before["param_groups"] if self.pruner.lr == "rewound" else now["param_groups"]
            optimizer_state.restore(optimizer, {"state": slots, "param_groups": groups})
        if self.pruner.lr == "rewound":
            for config, state in zip(trainer.lr_scheduler_configs, self.schedulers_k, strict=True):
                config.scheduler.load_state_dict(deepcopy(state))

    def _zero_pruned(self, trainer: pl.Trainer) -> None:
        for optimizer in trainer.optimizers:
            optimizer_state.zero_pruned(optimizer, self._host().pruned())

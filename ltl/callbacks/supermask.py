"""Supermasks in one `Trainer.fit`: scores are trained, weights stay, and the mask that they leave is the ticket's."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytorch_lightning as pl
import torch

from ltl.masks import Masks, Tensors, dense, distance, prunable, tensors_sha256
from ltl.pruning.evidence import Evidence
from ltl.pruning.pruner import Pruner
from ltl.pruning.schedules import Event
from ltl.rng import generator, stream_seed
from ltl.supermasks import Found
from ltl.training.evaluation import evaluate
from ltl.training.layers import quartiles
from ltl.training.module import MaskedTraining
from ltl.training.scoring import Scores, Scoring, even, pool_of
from ltl.training.start import Scored, Start, cloned


class Supermask:
    """One network whose mask is looked for: the weights that stay, scores to begin with, and what they have found.

    `events` of its round say how much is to be kept and from which step on; each is of a density.
    """

    def __init__(
        self,
        *,
        pruner: Pruner,
        scoring: Scoring,
        events: Sequence[Event],
        turn: int,
        seed: int,
        initialise: Callable[[torch.Generator], Tensors],
    ) -> None:
        self.pruner, self.scoring, self.turn, self.seed, self.initialise = pruner, scoring, turn, seed, initialise
        self.events = [event for event in events if event.round == turn]
        self.theta_0: Tensors = {}
        self.init_sha256 = ""
        self.mask_flips: float | None = None
        self.lost = ""
        self.start: Start | None = None
        self.fresh: Tensors = {}
        self.seen: Masks = {}  # that would be kept, at the last look
        self._counts: list[tuple[int, dict[str, int]]] = []  # weights to keep by layer, from a step on

    @property
    def current(self) -> Start:
        """What is being trained, and in the end what was found."""
        assert self.start is not None
        return self.start

    def begin(self, theta_0: Tensors, names: Sequence[str]) -> None:
        """Take the initialisation, set the weights that stay, and draw scores for those called `names`."""
        self.theta_0, self.init_sha256 = theta_0, tensors_sha256(theta_0)
        source = generator("mask", self.seed, "scores", self.turn)
        masks = dense({name: theta_0[name] for name in names})
        evidence = Evidence(theta_0, theta_0, theta_0, masks, source, self.initialise)
        layers, pruner = masks, even(self.pruner)
        for event in self.events:
            layers = pruner.prune(evidence, event.target)
            self._counts.append((event.step, {name: int(mask.sum()) for name, mask in layers.items()}))
        for name, count in self.counts(0).items():
            initial = theta_0[name]
            scores = self.scoring.estimator.fresh(initial, count / initial.numel(), source)
            self.fresh[name] = scores.to(initial.dtype)
        theta = self.pruner.survive(evidence, layers)
        self.start = Start("ticket", 0, self.turn, masks, theta, {}, 0, self.scoring.length)

    def counts(self, step: int) -> dict[str, int]:
        """Return how many weights of each layer are to be kept at optimiser step `step`."""
        return [counts for since, counts in self._counts if since <= step][-1]

    def reach(self, step: int) -> None:
        """Note from which step on it is to keep as many weights as at optimiser step `step`."""
        self.start = replace(self.current, density_step=[since for since, _ in self._counts if since <= step][-1])

    def look(self, masks: Masks) -> None:
        """Look at the masks that the scores give, and how many entries have changed since the last look."""
        self.mask_flips = distance(masks, self.seen) if self.seen else None
        self.seen = masks

    def take(self, found: dict[str, Found], now: Tensors, sampled: dict[str, float]) -> None:
        """Take what the scores have found; what is no masked weight is as it is `now`."""
        theta = cloned(now) | {name: one.theta.clone() for name, one in found.items()}
        masks = {name: one.mask.contiguous() for name, one in found.items()}
        gains = {
            name.removesuffix(".weight"): one.gain.reshape(()) for name, one in found.items() if one.gain is not None
        }
        probabilities = {name: one.probability for name, one in found.items() if one.probability is not None}
        self.start = replace(
            self.current,
            masks=masks,
            theta=theta,
            gone={name: quartiles(theta[name], ~mask) for name, mask in masks.items()},
            scored=Scored(gains, probabilities, sampled),
        )


class TrainScores(pl.Callback):
    """Trains the scores of networks side by side, each from its own θ₀; the weights are not touched.

    Every evaluation is of the masks that would be kept. State is where the training is: scores are among the parameters
    of the module, and everything else is made again from seeds.
    """

    def __init__(self, *, members: Sequence[Supermask], scoring: Scoring, eval_batch: int) -> None:
        self.members, self.scoring, self.eval_batch = list(members), scoring, eval_batch
        self.module: MaskedTraining | None = None
        self.scores: Scores | None = None
        self.begun = False

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Set the weights that stay, and give them scores."""
        assert isinstance(pl_module, MaskedTraining)
        names = prunable(pl_module.stack.skeleton)
        for member, now in zip(self.members, pl_module.networks(), strict=True):
            member.begin(cloned(now), names)
            with torch.no_grad():
                for name, tensor in now.items():
                    tensor.copy_(member.current.theta[name])
        fresh = [member.fresh for member in self.members]
        self.module = pl_module
        shared = pool_of(self.members[0].pruner, self.members[0].current.masks)
        pl_module.graph = pl_module.graph and shared is None  # sharing out waits for the device after every step
        self.scores = Scores(pl_module.stack, self.scoring, fresh, self._counts(0), shared)
        if self.scores.draws:
            pl_module.before_step = self._draw

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin, or take up where the checkpoint left off."""
        assert isinstance(pl_module, MaskedTraining)
        for member, now in zip(self.members, pl_module.networks(), strict=True):
            member.start = member.current.on(now)
            member.theta_0 = {name: tensor.to(now[name].device) for name, tensor in member.theta_0.items()}
        if not self.begun:
            pl_module.position = (0, 0)
        self.begun = True
        self._keep()
        self._look()
        pl_module.forget_lr()
        for optimizer in trainer.optimizers:
            optimizer.register_step_post_hook(self._share)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep more or fewer weights where the schedule says so."""
        assert self.module is not None
        step = self.module.position[1]
        if any(event.step == step for member in self.members for event in member.events):
            self._keep()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """See how masks have changed, and take what was found when the training has ended."""
        self._look()
        module, scores = self.module, self.scores
        assert module is not None
        assert scores is not None
        if module.position[1] < module.timeline.length:
            return
        module.stack.eval()
        with trainer.precision_plugin.forward_context():
            sampled = self._sampled(module, scores)
        for member, found, now, mine in zip(self.members, scores.found(), module.networks(), sampled, strict=True):
            member.take(found, now, mine)
        module.stack.train()

    def state_dict(self) -> dict[str, Any]:
        """Return where the training is."""
        assert self.module is not None
        return {"position": list(self.module.position)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the state of a checkpoint."""
        assert self.module is not None
        turn, step = state_dict["position"]
        self.module.position = (turn, step)
        self.begun = True

    def _counts(self, step: int) -> list[dict[str, int]]:
        return [member.counts(step) for member in self.members]

    def _keep(self) -> None:
        assert self.module is not None
        assert self.scores is not None
        self.scores.keep(self._counts(self.module.position[1]))
        for member in self.members:
            member.reach(self.module.position[1])
        self.module.hold([member.current for member in self.members])

    def _share(self, *step: Any) -> None:
        assert self.scores is not None
        self.scores.share()

    def _look(self) -> None:
        assert self.scores is not None
        for member, found in zip(self.members, self.scores.found(), strict=True):
            member.look({name: one.mask for name, one in found.items()})

    def _draw(self, *keys: int | str) -> None:
        assert self.scores is not None
        self.scores.draw([stream_seed("mask", member.seed, "masks", member.turn, *keys) for member in self.members])

    def _sampled(self, module: MaskedTraining, scores: Scores) -> list[dict[str, float]]:
        """Return mean and standard deviation of each network's test accuracy over masks that are drawn."""
        accuracies: list[list[float]] = [[] for _ in self.members]
        scores.sample(True)
        for draw in range(self.scoring.samples if scores.draws else 0):
            self._draw("sample", draw)
            for numbers, networks, form in module.judged():
                results = evaluate(networks, module.dataset, module.dataset.test, self.eval_batch, form=form)
                for number, (_, accuracy) in zip(numbers, results, strict=True):
                    accuracies[number].append(accuracy)
        scores.sample(False)
        return [_mean_and_deviation(mine) for mine in accuracies]


def _mean_and_deviation(accuracies: Sequence[float]) -> dict[str, float]:
    if not accuracies:
        return {}
    values = torch.tensor(accuracies, dtype=torch.float64)
    mean = {"sampled_test_accuracy": float(values.mean())}
    return mean if len(accuracies) < 2 else {**mean, "sampled_test_accuracy_sd": float(values.std())}

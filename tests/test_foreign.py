"""PruneRewind on somebody else's LightningModule with a plain Trainer, against a loop written by hand."""

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau, StepLR
from torch.utils.data import DataLoader, TensorDataset

from ltl.callbacks import PruneRewind
from ltl.errors import LtlError
from ltl.pruning import allocation, criteria, fillers, schedules, survivors
from ltl.pruning.pruner import Pruner

EPOCHS, ROUNDS, RATE, CLIP = 3, 3, 0.3, 0.2
_source = torch.Generator().manual_seed(4)
INPUTS = torch.randn(36, 6, generator=_source)
TARGETS = torch.randint(0, 3, (36,), generator=_source)
BATCHES = [slice(start, start + 9) for start in range(0, 36, 9)]


def sgd(parameters: Any) -> SGD:
    return SGD(parameters, lr=0.2, momentum=0.9, weight_decay=1e-2)


def step_lr(optimizer: Optimizer) -> StepLR:
    return StepLR(optimizer, step_size=1, gamma=0.5)


class Owner(pl.LightningModule):
    """As people write them: automatic optimisation, its own optimiser and scheduler, a hyperparameter."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.network = nn.Sequential(
            nn.Linear(6, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(),
            nn.Linear(width, 3),
        )  # fmt: skip

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        loss = F.cross_entropy(self.network(batch[0]), batch[1])
        self.log("loss", loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("val_loss", F.cross_entropy(self.network(batch[0]), batch[1]))

    def configure_optimizers(self) -> Any:
        optimizer = sgd(self.parameters())
        return {"optimizer": optimizer, "lr_scheduler": step_lr(optimizer)}


def owner() -> Owner:
    with torch.random.fork_rng():
        torch.manual_seed(2)
        return Owner(width=8)


def cycle(
    *,
    rewind_epoch: int = 0,
    rounds: int = ROUNDS,
    rate: float = RATE,
    schedule: Callable[..., list[schedules.Event]] = schedules.after_training,
    **parts: Any,
) -> PruneRewind:
    allocate = partial(allocation.per_layer, conv=1.0, linear=1.0, output=0.5, layers={}, exclude=[], allow_empty=False)
    method = {
        "criterion": criteria.final_magnitude,
        "allocation": allocate,
        "survivors": survivors.rewound,
        "filler": fillers.zero,
        "momentum": "zero",
        "lr": "rewound",
    }
    return PruneRewind.by_epochs(
        pruner=Pruner(**{**method, **parts}),
        schedule=schedule,
        rounds=rounds,
        rate=rate,
        epochs_per_round=EPOCHS,
        rewind_epoch=rewind_epoch,
        seed=0,
    )


def fit(
    module: pl.LightningModule,
    callback: PruneRewind,
    *others: pl.Callback,
    resume: Path | None = None,
    validate: bool = False,
    **options: Any,
) -> pl.Trainer:
    options.setdefault("max_epochs", callback.epochs if callback.timeline else 1)
    trainer = pl.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=any(isinstance(one, ModelCheckpoint) for one in others), callbacks=[callback, *others],
        **{"gradient_clip_val": CLIP, **options},
    )  # fmt: skip
    data = TensorDataset(INPUTS, TARGETS)
    trainer.fit(
        module,
        DataLoader(data, batch_size=9, shuffle=False),
        DataLoader(data, batch_size=18) if validate else None,
        ckpt_path=resume,
        weights_only=True if resume else None,
    )
    return trainer


class Spy(pl.Callback):
    """Keeps what each epoch begins with, and looks at pruned weights and their momentum after every batch."""

    def __init__(self, callback: PruneRewind) -> None:
        self.callback = callback
        self.begun: list[dict[str, Any]] = []
        self.rates: list[float] = []
        self.batches = 0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        schedulers = [copy.deepcopy(config.scheduler.state_dict()) for config in trainer.lr_scheduler_configs]
        optimizer = copy.deepcopy(trainer.optimizers[0].state_dict())
        state = {name: value.clone() for name, value in pl_module.state_dict().items()}
        masks = {name: mask.clone() for name, mask in self.callback.masks.items()}
        self.begun.append({"state": state, "optimizer": optimizer, "schedulers": schedulers, "masks": masks})

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        trainer.optimizers[0].register_step_post_hook(lambda one, *_: self.rates.append(one.param_groups[0]["lr"]))

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: object) -> None:
        for name, mask in self.callback.masks.items():
            fills = self.callback.members[0].current.fills
            weight, fill = pl_module.get_parameter(name), fills.get(name, torch.zeros(()))
            assert torch.equal(weight[~mask], fill.expand(mask.shape)[~mask])
            if name not in fills:
                for slot in trainer.optimizers[0].state[weight].values():
                    assert bool((slot[~mask] == 0).all())
        self.batches += 1


def reference(rewind_epoch: int) -> tuple[dict[str, Tensor], list[dict[str, Tensor]]]:
    """Train and prune by hand: weights times mask in the forward pass, the smallest by a stable sort."""
    network = owner().network
    names = ["0.weight", "3.weight", "5.weight"]
    masks = {name: torch.ones_like(network.get_parameter(name)) for name in names}
    history, point, lr = [], copy.deepcopy(network.state_dict()), 0.2
    for turn in range(ROUNDS + 1):
        optimizer = sgd(network.parameters())
        optimizer.param_groups[0]["lr"] = lr if turn else 0.2
        for epoch in range(rewind_epoch if turn else 0, EPOCHS):
            for batch in BATCHES:
                effective = {
                    name: value * masks[name] if name in masks else value for name, value in network.named_parameters()
                }
                optimizer.zero_grad()
                inputs = INPUTS[batch].clone()  # laid out as a loader does: some processors add in another order if not
                F.cross_entropy(functional_call(network, effective, (inputs,)), TARGETS[batch]).backward()
                nn.utils.clip_grad_norm_(network.parameters(), CLIP)
                optimizer.step()
            optimizer.param_groups[0]["lr"] *= 0.5
            if (turn, epoch + 1) == (0, rewind_epoch):
                point, lr = copy.deepcopy(network.state_dict()), optimizer.param_groups[0]["lr"]
        trained = {name: value * masks.get(name, torch.ones(())) for name, value in network.state_dict().items()}
        history.append(dict(masks))
        if turn == ROUNDS:
            return trained, history
        for name, mask in masks.items():
            magnitude = trained[name].abs().flatten()
            magnitude[mask.flatten() == 0] = torch.inf
            remaining = int(mask.sum())
            gone = magnitude.sort(stable=True).indices[: int(RATE * (0.5 if name == names[-1] else 1) * remaining)]
            masks[name] = mask.flatten().index_fill(0, gone, 0).view_as(mask)
        network.load_state_dict(point)
    raise AssertionError


@pytest.mark.parametrize("rewind_epoch", [0, 1])
def test_equals_a_loop_written_by_hand_bit_for_bit(rewind_epoch: int) -> None:
    """Four trainings and three rewinds with momentum, weight decay, BatchNorm, clipping and a scheduler."""
    module, callback = owner(), cycle(rewind_epoch=rewind_epoch)
    spy = Spy(callback)
    fit(module, callback, spy)
    state, history = reference(rewind_epoch)
    assert {name.removeprefix("network.") for name in module.state_dict()} == set(state)
    for name, value in module.state_dict().items():
        assert torch.equal(value, state[name.removeprefix("network.")]), name
    firsts = [0, *range(EPOCHS, callback.epochs, EPOCHS - rewind_epoch)]
    for first, masks in zip(firsts, history, strict=True):
        for name, mask in spy.begun[first]["masks"].items():
            assert torch.equal(mask, masks[name.removeprefix("network.")].bool())
    counts = [int(sum(mask.sum() for mask in masks.values())) for masks in history]
    assert [row["weights_left"] for row in callback.rows] == counts
    assert counts[-1] < counts[0] * 0.45


@pytest.mark.parametrize("rewind_epoch", [0, 1])
def test_every_rewind_is_exact(rewind_epoch: int) -> None:
    """Weights, buffers, learning rate and scheduler are those of the rewind point each time, and momentum is fresh."""
    callback = cycle(rewind_epoch=rewind_epoch)
    spy = Spy(callback)
    fit(owner(), callback, spy)
    point = spy.begun[rewind_epoch]
    assert point["optimizer"]["param_groups"][0]["lr"] == 0.2 * 0.5**rewind_epoch
    rewinds = [spy.begun[epoch] for epoch in range(EPOCHS, callback.epochs, EPOCHS - rewind_epoch)]
    assert len(rewinds) == ROUNDS
    for begun in rewinds:
        for name, value in begun["state"].items():
            expected = point["state"][name]
            mask = begun["masks"].get(name, torch.ones_like(expected, dtype=torch.bool))
            assert torch.equal(value, torch.where(mask, expected, 0)), name
        assert begun["schedulers"] == point["schedulers"]
        assert begun["optimizer"]["param_groups"] == point["optimizer"]["param_groups"]
        assert begun["optimizer"]["state"] == {}
    later = spy.begun[-1]["state"]
    assert not torch.equal(later["network.1.running_mean"], point["state"]["network.1.running_mean"])


@pytest.mark.parametrize(
    "parts",
    [
        {},
        {"momentum": "saved"},
        {"momentum": "kept", "lr": "last", "survivors": survivors.trained},
        {"survivors": survivors.trained},
        {"filler": fillers.initial},
    ],
)
def test_pruned_weights_are_exactly_their_fill_after_every_batch(parts: dict[str, Any]) -> None:
    """0, with a momentum of 0 whichever state the optimiser goes back to; or the frozen initial value."""
    callback = cycle(rewind_epoch=1, **parts)
    spy = Spy(callback)
    fit(owner(), callback, spy)
    assert spy.batches == callback.epochs * len(BATCHES)
    assert bool(callback.members[0].current.fills) == ("filler" in parts)


@pytest.mark.parametrize("momentum", ["zero", "kept"])
def test_the_last_learning_rate_is_held_when_the_method_says_so(momentum: str, tmp_path: Path) -> None:
    """Fine-tuning goes on at the rate of the dense network's last step, whatever the owner's scheduler does."""
    parts = {"momentum": momentum, "lr": "last", "survivors": survivors.trained}
    callback = cycle(**parts)
    spy, saver = Spy(callback), ModelCheckpoint(dirpath=tmp_path, filename="{epoch}", save_top_k=-1)
    fit(owner(), callback, spy, saver)
    dense = [rate for rate in (0.2, 0.1, 0.05) for _ in BATCHES]
    assert spy.rates == dense + [0.05] * ROUNDS * EPOCHS * len(BATCHES)

    again = cycle(**parts)
    resumed = Spy(again)
    fit(owner(), again, resumed, resume=tmp_path / "epoch=4.ckpt")
    assert set(resumed.rates) == {0.05}


def test_a_scheduler_that_follows_a_metric_goes_back_to_the_end_of_the_rewind_epoch() -> None:
    """ReduceLROnPlateau steps after on_train_epoch_end: its step of the rewind epoch belongs to the rewind point."""

    class Plateau(Owner):
        def configure_optimizers(self) -> Any:
            optimizer = sgd(self.parameters())
            plateau = ReduceLROnPlateau(optimizer, patience=0, factor=0.5, threshold=9.0, threshold_mode="abs")
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": plateau, "monitor": "loss"}}

    callback = cycle(rewind_epoch=2)
    spy = Spy(callback)
    fit(Plateau(width=8), callback, spy)
    rates = [begun["optimizer"]["param_groups"][0]["lr"] for begun in spy.begun]
    assert rates == [0.2, 0.2, 0.1, 0.1, 0.1, 0.1]


@pytest.mark.parametrize("validate", [False, True])
@pytest.mark.parametrize("rewind_epoch", [0, 1])
def test_stopped_anywhere_and_resumed_it_ends_with_the_same_bits(
    tmp_path: Path, rewind_epoch: int, validate: bool
) -> None:
    """A plain ModelCheckpoint at every epoch, Lightning's own resume, and nothing unpickled but tensors."""
    saver = ModelCheckpoint(dirpath=tmp_path, filename="{epoch}", save_top_k=-1)
    whole, callback = owner(), cycle(rewind_epoch=rewind_epoch, momentum="saved")
    fit(whole, callback, saver, validate=validate)
    checkpoints = sorted(tmp_path.iterdir())
    assert len(checkpoints) == callback.epochs
    for checkpoint in checkpoints[:-1]:
        torch.manual_seed(99)
        module, resumed = Owner(width=8), cycle(rewind_epoch=rewind_epoch, momentum="saved")
        fit(module, resumed, resume=checkpoint, validate=validate)
        for name, value in whole.state_dict().items():
            assert torch.equal(module.state_dict()[name], value), (checkpoint.name, name)
        assert resumed.rows == callback.rows


def test_the_owner_loads_such_a_checkpoint_as_ever(tmp_path: Path) -> None:
    """Nothing of ours is in the module's state dict, and the weights there are masked."""
    module, callback = owner(), cycle()
    trainer = fit(module, callback)
    trainer.save_checkpoint(tmp_path / "owner.ckpt")
    loaded = Owner.load_from_checkpoint(tmp_path / "owner.ckpt", weights_only=True)
    assert list(loaded.state_dict()) == list(owner().state_dict())
    for name, value in module.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)
    for name, mask in callback.masks.items():
        assert bool((loaded.get_parameter(name)[~mask] == 0).all())


class Manual(Owner):
    """Manual optimisation, through Lightning's optimiser or past it."""

    def __init__(self, width: int, bare: bool) -> None:
        super().__init__(width)
        self.automatic_optimization = False
        self.bare = bare

    def training_step(self, batch: list[Tensor], batch_idx: int) -> None:  # type: ignore[override]
        optimizer: Any = self.optimizers()
        optimizer = optimizer.optimizer if self.bare else optimizer
        optimizer.zero_grad()
        self.manual_backward(F.cross_entropy(self.network(batch[0]), batch[1]))
        optimizer.step()


def test_a_module_that_steps_past_the_hook_is_refused_in_one_line() -> None:
    """It would train pruned weights: refused at the first step that moves a weight, not when it shows."""
    with pytest.raises(
        LtlError, match=r"Manual steps its optimiser without.*call self.optimizers\(\).step\(\)"
    ) as info:
        fit(Manual(8, bare=True), cycle(), gradient_clip_val=None)
    assert "\n" not in str(info.value)


def test_manual_optimisation_through_lightning_is_masked() -> None:
    """`self.optimizers().step()` passes through the hook."""
    callback = cycle()
    spy = Spy(callback)
    fit(Manual(8, bare=False), callback, spy, gradient_clip_val=None)
    assert spy.batches == callback.epochs * len(BATCHES)


def test_accumulated_gradients_are_masked_and_nothing_is_refused() -> None:
    """The first batches step no optimiser, which is not the same as stepping past the hook."""
    callback = cycle()
    fit(owner(), callback, Spy(callback), accumulate_grad_batches=3)


class Restless(Owner):
    """Moves weights outside its optimiser's step."""

    def on_train_epoch_end(self) -> None:
        with torch.no_grad():
            self.network[0].weight.add_(0.1)


class Tied(Owner):
    """Two layers share one weight."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.other = nn.Linear(6, width)
        self.other.weight = self.network[0].weight


class Bare(pl.LightningModule):
    """Has nothing to prune."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(6)

    training_step, configure_optimizers = Owner.training_step, Owner.configure_optimizers


def another_module() -> None:
    callback = cycle(rounds=0)
    fit(owner(), callback)
    fit(owner(), callback)


MISTAKES: dict[str, tuple[Callable[[], object], str]] = {
    "weights move": (lambda: fit(Restless(8), cycle()), r"changed pruned entries of network.0.weight outside"),
    "tied": (lambda: fit(Tied(8), cycle()), r"other.weight is tied"),
    "nothing to prune": (lambda: fit(Bare(), cycle()), r"Bare has no linear or convolution layer"),
    "too many epochs": (lambda: fit(owner(), cycle(), max_epochs=13), r"max_epochs=13.*epochs.*12"),
    "endless": (lambda: fit(owner(), cycle(), max_epochs=-1), r"max_epochs=-1"),
    "another module": (another_module, r"another module"),
    "made without by_epochs": (
        lambda: fit(owner(), PruneRewind(members=cycle().members, pruner=cycle().pruner, rewind_step=0)),
        r"by_epochs",
    ),
    "rate": (lambda: cycle(rate=1.0), r"rate=1.0"),
    "rounds": (lambda: cycle(rounds=-1), r"rounds=-1"),
    "rounds without training": (lambda: cycle(schedule=schedules.dense_alone), r"trains every round.*dense_alone"),
    "rewinding past the end": (lambda: cycle(rewind_epoch=3), r"rewind_epoch=3.*epochs_per_round=3"),
    "fresh weights": (
        lambda: fit(owner(), cycle(survivors=survivors.reinitialised)), r"cannot draw a fresh initialisation",
    ),
}  # fmt: skip


@pytest.mark.parametrize("mistake", list(MISTAKES))
def test_mistakes_are_one_line(mistake: str) -> None:
    """Before the first step where it can be known."""
    make, match = MISTAKES[mistake]
    with pytest.raises(LtlError, match=match) as info:
        make()
    assert "\n" not in str(info.value)

"""Networks that train side by side are what each is alone: the same masks, and weights equal up to reassociation."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import CONF, TIME_COLUMNS, composed, train_in
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from torch import Tensor, nn
from torch.nn import functional as F

from ltl import build, fit
from ltl.callbacks.progress import RunProgress
from ltl.errors import Stopped
from ltl.masks import Masks
from ltl.models.stack import Stack
from ltl.results import read_status, read_table
from ltl.sparse_inputs import SparseInputs
from ltl.tickets import load
from ltl.training.sparse import SparseChain

Trained = Callable[..., Path]

PRUNERS = sorted(path.stem for path in (CONF / "pruner").glob("*.yaml"))
FAMILIES = {
    "perceptron": ("model=lenet_300_100", "model.widths=[12,8]"),
    "dropout": ("model=lenet_300_100", "model.widths=[12,8]", "model.dropout=0.3"),
    # BatchNorm before each sign: the gradient of a bias before it is rounding alone, which Adam makes steps of
    "signs": ("model=lenet_300_100", "model.widths=[12,8]", "model.activation=sign", "model.bias=false"),
    "convolution": ("model=conv2", "model.blocks=[3]", "model.widths=[8]", "model.dropout=0.3", "batch=20"),
    "batch_norm": ("model=resnet20", "model.width=2", "model.blocks=[1,1]", "batch=20", "dataset.augment=true"),
    "attention": (
        "model=lenet_300_100",
        "~model.widths",
        "~model.dropout",
        "~model.activation",
        "~model.bias",
        "model._target_=test_stack.Attention",
    ),
}
OPTIMIZERS = {
    "sgd": ("optimizer=sgd", "optimizer.momentum=0.9", "optimizer.weight_decay=0.001", "optimizer.lr=0.05"),
    "adam": ("optimizer=adam",),
    "adamw": ("optimizer=adamw", "optimizer.weight_decay=0.1"),
}


class Attention(nn.Module):
    """One block of self-attention over the rows of an image."""

    def __init__(self, *, input_shape: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        width = input_shape[-1]
        self.query, self.key, self.value = (nn.Linear(width, 6, bias=False) for _ in range(3))
        self.output = nn.Linear(6, outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        rows = inputs.flatten(1, 2)
        mixed = F.scaled_dot_product_attention(self.query(rows), self.key(rows), self.value(rows))
        outputs: Tensor = self.output(mixed.mean(1))
        return outputs


@pytest.fixture
def trained(tmp_path: Path) -> Trained:
    """Run an experiment in float64, which keeps the weights that every training ends with; return its folder."""

    def run(*overrides: str, folder: str) -> Path:
        cfg = composed(
            "trials=2", "pruner.rounds=2", "dataset.limit=200", "eval_every=30it", "length=60it", "batch=20",
            "logger=none", "hardware.precision=64-true", "ends=true", *overrides,
        )  # fmt: skip
        built = build.experiment(cfg, tmp_path / folder, hardware_number=0)
        fit.run(built, lambda steps: RunProgress(total_steps=steps, console=Console(quiet=True)))
        return tmp_path / folder

    return run


def assert_alike(alone: Path, stacked: Path) -> None:
    """The same rows and masks, and weights and losses within 1e-9, of every training of every arm."""
    tables = [read_table(folder / "rounds.csv") for folder in (alone, stacked)]
    keys = [[(row["trial"], row["arm"], row["draw"], row["round"]) for row in table] for table in tables]
    assert sorted(keys[0]) == sorted(keys[1])
    for one, two in zip(*(sorted(table, key=lambda row: str(list(row.values())[:4])) for table in tables), strict=True):
        for name in ("mask_sha256", "weights_left", "steps", "total_steps", "early_stop_step"):
            assert one[name] == two[name], name
        assert one["arm"] == "random_mask" or one["init_sha256"] == two["init_sha256"]  # that one starts from θ_k
        for name in ("train_loss", "val_loss", "test_loss", "test_accuracy"):
            assert float(one[name]) == pytest.approx(float(two[name]), abs=1e-9, rel=0), name
    ends = sorted(alone.glob("ends/*/*"))
    assert len(ends) == len(keys[0])
    for path in [*sorted(alone.glob("tickets/*/*")), *ends]:
        ours, theirs = load(path), load(stacked / path.relative_to(alone))
        for held in ("state", "gains", "fills", "probabilities"):
            mine, other = getattr(ours, held), getattr(theirs, held)
            assert mine.keys() == other.keys()
            for name, value in mine.items():
                assert torch.allclose(value, other[name], rtol=0, atol=1e-9), (path.name, held, name)


@pytest.mark.parametrize("long", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("pruner", PRUNERS)
def test_every_pruner_side_by_side_and_cut_is_as_alone_and_whole(trained: Trained, pruner: str, long: bool) -> None:
    """Two prunings, two trials, a control at the last: the same tickets in turn, and to the byte if cut at every
    evaluation and gone on with, masks that change in training too; the weights that each training ends with agree.
    In turn a trial is to the bit the one of its seed."""
    fixed = [*FAMILIES["perceptron"], f"pruner={pruner}", "recipe.rewind_to=3it", "length=24it", "eval_every=13it"]
    fixed += ["pruner.rounds=0", "control=none"] if pruner == "dense" else ["control.reinit.rounds=[2]"]
    if pruner in ("hybrid", "random_ticket"):
        fixed.append("pruner.rate=0.2")  # its own leaves fewer weights than the last layer is to keep
    if pruner in ("zhou_constant", "zhou_signed_constant", "zhou_heuristic", "quantised"):
        # Sums of few magnitudes and no bias are often exactly 0, and rounding then decides on ReLU's gradient; weights
        # of pixels that are alike are moved alike, and rounding then decides which is larger, unless it is for long.
        fixed += ["pruner.rewind_to=10it", "length=60it", "eval_every=30it"]
    if long:
        fixed += ["length=200it", "eval_every=100it"]
    cfg = composed("logger=none", *fixed)
    schedule = cfg.pruner.schedule
    if "every" in schedule:
        fixed.append("pruner.schedule.every=4")
    if schedule.get("prunings", 1) > 10:
        fixed.append("pruner.schedule.prunings=10")
    if pruner == "early_bird":  # the third look, at step 12, rests on that of step 4, before the first cut
        fixed += ["pruner.schedule.looks=3", "pruner.schedule.distance=1.0", "pruner.schedule.until=0.9"]
    alone, whole = (trained(*fixed, f"hardware.stack={way}", folder=way) for way in ("in_turn", "together"))
    assert_alike(alone, whole)
    assert_last_trial_is(alone, trained(*fixed, "hardware.stack=in_turn", "seed=1", "trials=1", folder="second"))

    cut, pieces = None, 0
    while cut is None:
        try:
            cut = trained(*fixed, "hardware.stack=together", "hardware.stop_after=0s", folder="cut")
        except Stopped:
            pieces += 1
    assert pieces >= 2
    folders = (whole, cut)
    flips = [[row["mask_flips"] for row in read_table(where / "metrics.csv")] for where in folders]
    assert flips[0] == flips[1]
    rows = [[{**row, **dict.fromkeys(TIME_COLUMNS)} for row in read_table(where / "rounds.csv")] for where in folders]
    assert rows[0] == rows[1]
    rounds = ["0"] if pruner == "dense" else ["0", "1", "2"]
    assert [(row["trial"], row["round"]) for row in rows[0] if row["arm"] == "ticket"] == [
        (trial, turn) for trial in "01" for turn in rounds
    ]
    for path in sorted(folders[0].glob("tickets/*/*")):
        assert path.read_bytes() == (folders[1] / path.relative_to(folders[0])).read_bytes()
    for trial in folders[0].glob("tickets/*"):
        assert_counts(pruner, cfg.pruner, [load(path).masks for path in sorted(trial.glob("*"))])


def assert_last_trial_is(whole: Path, alone: Path) -> None:
    """Trial 1 of two, in turn, is to the last bit the one trial of a run with its seed."""
    apart = dict.fromkeys((*TIME_COLUMNS, "trial"))
    tables = [(read_table(whole / "rounds.csv"), "1"), (read_table(alone / "rounds.csv"), "0")]
    expected, found = ([{**row, **apart} for row in table if row["trial"] == trial] for table, trial in tables)
    assert found == expected
    paths = sorted(path for kind in ("tickets", "ends") for path in whole.glob(f"{kind}/trial-1/*"))
    assert len(paths) > len(expected)
    for path in paths:
        ours = load(path)
        theirs = load(alone / path.parents[1].name / "trial-0" / path.name)
        for held in ("masks", "state", "gains", "fills", "probabilities"):
            mine, other = getattr(ours, held), getattr(theirs, held)
            assert mine.keys() == other.keys()
            assert all(torch.equal(value, other[name]) for name, value in mine.items()), (path.name, held)


def assert_counts(pruner: str, cfg: DictConfig, found: list[Masks]) -> None:
    """As many weights as the rate says: of each layer of what the round before left, or of the whole network."""
    sizes = [{name: int(mask.sum()) for name, mask in masks.items()} for masks in found]
    allocation = cfg.allocation._target_.rpartition(".")[2]
    for turn, (before, after) in enumerate(itertools.pairwise(sizes), start=1):
        if allocation == "per_layer":  # the output layer pays half
            rates = {name: cfg.rate / 2 if name.startswith("output") else cfg.rate for name in before}
            assert after == {name: size - int(size * rates[name] + 1e-9) for name, size in before.items()}
        elif allocation == "positive":  # as the criterion says
            assert all(after[name] <= before[name] for name in before)
        elif pruner in ("hybrid", "optimal_brain_damage", "random_ticket"):  # a rate of the whole network
            assert sum(after.values()) == sum(before.values()) - int(cfg.rate * sum(before.values()) + 1e-9)
        elif not pruner.startswith("zhou_supermask"):  # whose masks are drawn
            assert sum(after.values()) == round((1 - cfg.rate) ** turn * sum(sizes[0].values()))


class Trebled(nn.Linear):
    """A linear layer that does something else than its type."""

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = super().forward(3 * inputs)
        return outputs


def shared() -> nn.Module:
    relu = nn.ReLU()
    return nn.Sequential(nn.Linear(4, 5), relu, nn.Linear(5, 5), relu, nn.Linear(5, 3))


@pytest.mark.parametrize("make", [shared, lambda: nn.Sequential(nn.Linear(4, 5), nn.ReLU(), Trebled(5, 3))])
def test_a_sequence_that_is_no_plain_chain_is_computed_as_it_is(make: Callable[[], nn.Module]) -> None:
    """A module that is there twice, or a subclass with a `forward` of its own."""
    networks = [make().double() for _ in range(3)]
    inputs = torch.randn(3, 6, 4, dtype=torch.float64)
    alone = torch.stack([network(one) for network, one in zip(networks, inputs, strict=True)])
    stack = Stack(networks, stacked=True, compiled=False, merge=False).train()
    torch.testing.assert_close(stack(inputs), alone, rtol=0, atol=1e-12)
    assert not stack.chain


@pytest.mark.parametrize("optimizer", list(OPTIMIZERS))
@pytest.mark.parametrize("family", list(FAMILIES))
def test_every_family_trains_the_same_side_by_side(trained: Trained, family: str, optimizer: str) -> None:
    """Convolution, BatchNorm, dropout, augmentation and attention; clipping by each network's own norm."""
    fixed = (*FAMILIES[family], *OPTIMIZERS[optimizer], "pruner=imp_late", "pruner.rewind_to=20it", "pruner.rounds=1")
    fixed += (
        "pruner.momentum=saved",
        "clip=0.5",
        "control=[random_mask]",
        "seeds.order_by_round=fresh",
    )
    runs = [trained(*fixed, f"hardware.stack={way}", folder=way) for way in ("in_turn", "together")]
    assert_alike(*runs)


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", list(OPTIMIZERS))
@pytest.mark.parametrize("family", list(FAMILIES))
def test_every_family_trains_the_same_for_hundreds_of_steps(trained: Trained, family: str, optimizer: str) -> None:
    fixed = (*FAMILIES[family], *OPTIMIZERS[optimizer], "length=200it", "eval_every=100it", "pruner.rounds=2")
    runs = [trained(*fixed, f"hardware.stack={way}", folder=way) for way in ("in_turn", "together")]
    assert_alike(*runs)


@pytest.mark.parametrize(
    ("model", "way"), [("lenet_300_100", "together"), ("conv2", "in_turn"), ("resnet20", "in_turn")]
)
def test_on_a_processor_perceptrons_alone_train_side_by_side(tmp_path: Path, model: str, way: str) -> None:
    """As measured to pay (docs/performance.md); the folder says how it went, whatever was left open."""
    narrow = {"lenet_300_100": "model.widths=[8]", "conv2": "model.widths=[8]", "resnet20": "model.width=2"}
    short = ("dataset.limit=100", "length=2it", "eval_every=2it", "batch=20", "trials=2", "pruner.rounds=0")
    folder = train_in(tmp_path, f"model={model}", narrow[model], *short, "control=none", tiny=False)
    assert [used["stack"] for used in read_status(folder)["hardware"]] == [way]
    assert OmegaConf.load(folder / ".hydra" / "config.yaml").hardware.stack == way


def test_on_a_gpu_all_networks_train_side_by_side(tmp_path: Path) -> None:
    """Unless the rule is overruled, which a processor obeys as well."""
    built = build.experiment(composed("model=conv2", "model.widths=[8]"), tmp_path, hardware_number=0)
    for accelerator, stack, together in (
        ("cpu", "auto", False),
        ("gpu", "auto", True),
        ("cpu", "together", True),
        ("gpu", "in_turn", False),
    ):
        hardware = replace(built.hardware, accelerator=accelerator, stack=stack)  # type: ignore[arg-type]
        assert replace(built, hardware=hardware).together() is together


@pytest.mark.parametrize(
    ("family", "way"),
    [(family, way) for family in ("perceptron", "dropout", "signs") for way in ("in_turn", "together")],
)
@pytest.mark.parametrize("optimizer", list(OPTIMIZERS))
def test_sparse_products_train_what_masked_dense_ones_do(
    trained: Trained, monkeypatch: pytest.MonkeyPatch, family: str, optimizer: str, way: str
) -> None:
    """The same survivors and the same weights, with carried momentum and clipping; chunks end within a round."""
    products: list[int] = []
    compute = SparseChain.__call__
    monkeypatch.setattr(SparseChain, "__call__", lambda self, inputs: products.append(1) or compute(self, inputs))
    fixed = (*FAMILIES[family], *OPTIMIZERS[optimizer], "pruner=imp_late", "pruner.rewind_to=20it", "clip=0.5")
    fixed += ("pruner.momentum=saved", "pruner.rate=0.6", f"hardware.stack={way}", "hardware.chunk=7")
    dense = trained(*fixed, "hardware.sparse_below=0", folder="dense")
    assert not products
    assert_alike(dense, trained(*fixed, "hardware.sparse_below=0.5", folder="sparse"))
    assert len(products) >= 40  # of a round at least


@pytest.mark.parametrize("optimizer", list(OPTIMIZERS))
@pytest.mark.parametrize("family", ["perceptron", "dropout", "signs"])
def test_leaving_out_inputs_that_are_0_trains_the_same(
    trained: Trained, monkeypatch: pytest.MonkeyPatch, family: str, optimizer: str
) -> None:
    """The same rows, masks and weights, where sparse products take over in the second round as well."""
    taken: list[int] = []
    make = SparseInputs.batches
    monkeypatch.setattr(SparseInputs, "batches", lambda self, indices: taken.append(1) or make(self, indices))
    fixed = (*FAMILIES[family], *OPTIMIZERS[optimizer], "pruner.rate=0.6", "hardware.sparse_below=0.2", "clip=0.5")
    runs = []
    for below in (0, 1):
        assert not taken
        runs.append(trained(*fixed, f"hardware.sparse_inputs_below={below}", folder=f"below-{below}"))
    assert_alike(*runs)
    assert len(taken) >= 2 * 60  # of both rounds above a density of 0.2

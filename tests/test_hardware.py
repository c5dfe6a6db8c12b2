"""Precision, memory format and several processes: the same science on other hardware, and the same files."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from test_command_line import FAST, typed
from test_cycle import rows, tickets

from ltl import build
from ltl.errors import Stopped
from ltl.results import read_status, read_table
from ltl.tickets import load
from ltl.training.module import MaskedTraining

Launch = Callable[..., Path]

RESNET = (
    "model=resnet20", "model.width=4", "model.blocks=[1,1]", "length=6it", "eval_every=3it", "batch=20", "trials=1",
    "pruner=imp_late", "pruner.rounds=2", "recipe.rewind_to=2it", "dataset.limit=100", "control=[random_mask]",
)  # fmt: skip


def test_bf16_with_channels_last_gives_the_same_hashes_twice(launch: Launch) -> None:
    """Autocast computes in bfloat16; parameters, masks and tickets stay float32, and pruned entries exactly 0."""
    low = ("hardware.precision=bf16-mixed", "hardware.memory_format=channels_last")
    once, twice = (launch(*RESNET, *low, folder=name, tiny=False) for name in ("once", "twice"))
    assert rows(once) == rows(twice)
    assert tickets(once) == tickets(twice)
    assert len(tickets(once)) == 3
    for path in once.glob("tickets/*/*"):
        ticket = load(path)
        assert all(tensor.dtype in (torch.float32, torch.int64) for tensor in ticket.state.values())
    full = launch(*RESNET, folder="full", tiny=False)
    assert rows(full)[0]["init_sha256"] == rows(once)[0]["init_sha256"]
    assert rows(full)[0]["test_loss"] != rows(once)[0]["test_loss"]
    assert float(rows(full)[0]["test_loss"]) == pytest.approx(float(rows(once)[0]["test_loss"]), rel=0.05)


def test_denormal_numbers_are_flushed_in_training(launch: Launch, monkeypatch: pytest.MonkeyPatch) -> None:
    """Adam's moments of weights without gradients would decay to them, and each costs a hundred operations."""
    products, step = [], MaskedTraining.masked_step

    def watched(self: MaskedTraining, given: Any, optimizer: Any) -> torch.Tensor:
        products.append(float(torch.full((64,), 1e-30).mul(1e-10).sum()))
        return step(self, given, optimizer)

    monkeypatch.setattr(MaskedTraining, "masked_step", watched)
    torch.set_flush_denormal(False)
    assert float(torch.full((64,), 1e-30).mul(1e-10).sum()) > 0
    launch()
    assert products
    assert not any(products)


def test_bf16_leaves_sparse_products_as_they_are(launch: Launch) -> None:
    """Below hardware.sparse_below products stay in float32, also where two trials train side by side."""
    fixed = ("hardware.sparse_below=0.9", "hardware.sparse_inputs_below=1", "trials=2", "pruner.rate=0.5")
    low = launch(*fixed, "hardware.precision=bf16-mixed", folder="low")
    full = launch(*fixed, folder="full")
    for left, right in zip(rows(low), rows(full), strict=True):
        assert float(left["test_loss"]) == pytest.approx(float(right["test_loss"]), rel=0.05)
    assert rows(low)[0]["test_loss"] != rows(full)[0]["test_loss"]


def test_what_is_compiled_trains_the_same(launch: Launch, monkeypatch: pytest.MonkeyPatch) -> None:
    """The step that `torch.compile` is given, by its backend that writes no kernels, in masked rounds as well."""
    graphs: list[int] = []

    def counted(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Callable[..., Any]:
        graphs.append(len(inputs))
        return graph.forward

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=counted))
    plain = launch(*RESNET, folder="plain", tiny=False)
    assert not graphs
    compiled = launch(*RESNET, "hardware.compile=true", folder="compiled", tiny=False)
    assert graphs
    assert rows(compiled) == rows(plain)
    assert tickets(compiled) == tickets(plain)


def test_channels_last_changes_no_draw(launch: Launch) -> None:
    """θ₀ and the random masks do not depend on how weights lie in memory; results agree up to rounding."""
    plain, last = (
        launch(*RESNET, "pruner=random", f"hardware.memory_format={name}", folder=name, tiny=False)
        for name in ("contiguous", "channels_last")
    )
    for left, right in zip(rows(plain), rows(last), strict=True):
        assert (left["init_sha256"], left["mask_sha256"]) == (right["init_sha256"], right["mask_sha256"])
        assert float(left["test_loss"]) == pytest.approx(float(right["test_loss"]), rel=1e-4)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_resume_may_change_the_memory_format(launch: Launch, optimizer: str) -> None:
    """What the optimiser keeps is laid out anew with the weights: a fused step takes both in the order of memory."""
    job = (*RESNET, f"optimizer={optimizer}", "optimizer.lr=0.01", "hardware.precision=64-true")
    whole = launch(*job, folder="whole", tiny=False)
    with pytest.raises(Stopped):
        launch(*job, "hardware.stop_after=0s", folder="pieces", tiny=False)
    pieces = launch(*job, "hardware.memory_format=channels_last", folder="pieces", tiny=False)
    for left, right in zip(rows(whole), rows(pieces), strict=True):
        assert left["mask_sha256"] == right["mask_sha256"]
        assert float(left["test_loss"]) == pytest.approx(float(right["test_loss"]), rel=1e-9)


# Several processes


def test_every_process_has_its_data_on_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """That is where Lightning puts its network; on the first GPU, the others would find none of their batches."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for number in (0, 1):
        monkeypatch.setenv("LOCAL_RANK", str(number))
        assert build._device("gpu") == torch.device("cuda", number)
        assert build._device("cpu") == torch.device("cpu")


# In float64, where the order of additions decides nothing.
PAIR = (
    "debug=fast", "eval_every=1it", "optimizer=sgd", "clip=1.0", "hardware.checkpoint_every=0",
    "hardware.precision=64-true",
)  # fmt: skip


@pytest.fixture(scope="module")
def ddp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run twice on two processes each, in `once` and `twice` of the folder that is returned."""
    folder = tmp_path_factory.mktemp("ddp")
    for name in ("once", "twice"):
        done = typed(folder, *PAIR, "hardware=ddp", f"hydra.run.dir={name}")
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        assert done.stdout.count("LeNet-300-100 on digits") == 1  # the first process alone reports
    return folder


def contents(folder: Path) -> list[dict[str, str]]:
    """What the tickets of a run say of themselves, hashes included; the checkout may have moved on between two runs."""
    metadata = [load(path).metadata for path in sorted(folder.glob("tickets/*/*"))]
    return [{name: text for name, text in one.items() if name not in ("revision", "sha256")} for one in metadata]


def test_two_processes_write_one_run_folder(ddp: Path) -> None:
    assert sorted(path.name for path in ddp.iterdir()) == ["once", "twice"]
    assert read_status(ddp / "once")["state"] == "done"
    table = [(row["arm"], row["round"]) for row in read_table(ddp / "once/rounds.csv")]
    assert table == [("ticket", "0"), ("ticket", "1"), ("ticket", "2"), ("reinit", "1"), ("reinit", "2")]
    assert len(contents(ddp / "once")) == 3
    assert len(read_table(ddp / "once/metrics.csv")) == 6 * 5
    assert not list((ddp / "once").glob("*.log"))


def test_two_processes_give_the_same_hashes_twice(ddp: Path) -> None:
    assert rows(ddp / "once") == rows(ddp / "twice")
    assert contents(ddp / "once") == contents(ddp / "twice")


def test_two_processes_do_the_steps_of_one(ddp: Path, launch: Launch) -> None:
    """Averaged gradients are those of the whole batch: the same masks, losses and accuracies.

    Without BatchNorm, whose statistics are those of a share.
    """
    alone = launch(*PAIR, tiny=False)
    one, two = (read_table(folder / "metrics.csv") for folder in (alone, ddp / "once"))
    for left, right in zip(one, two, strict=True):
        assert [left[name] for name in ("arm", "round", "step")] == [right[name] for name in ("arm", "round", "step")]
        for name in ("train_loss", "val_loss"):
            assert float(left[name]) == pytest.approx(float(right[name]), rel=1e-9)
    for left, right in zip(rows(alone), rows(ddp / "once"), strict=True):
        for name in ("arm", "round", "mask_sha256", "init_sha256", "weights_left"):
            assert left[name] == right[name]
        for name in ("train_accuracy", "val_accuracy", "test_accuracy", "early_stop_test_accuracy"):
            assert float(left[name]) == pytest.approx(float(right[name]), abs=1e-6)


@pytest.mark.parametrize("pruner", ["rigl", "optimal_brain_damage"])
def test_two_processes_choose_the_same_weights(tmp_path: Path, pruner: str) -> None:
    """By gradients of augmented batches, or by running statistics: each sees what the other sees; else they say so."""
    job = (*RESNET[:-3], "length=8it", "control=none", "dataset.augment=true", "dataset.limit=100", f"pruner={pruner}")
    own = ("pruner.rounds=1", "pruner.schedule.every=2") if pruner == "rigl" else ()
    done = typed(tmp_path, *job, *own, "hardware=ddp", "hydra.run.dir=run")
    assert (done.returncode, done.stderr) == (0, "")
    before, *_, after = (load(path).masks for path in sorted((tmp_path / "run").glob("tickets/*/*")))
    assert all(mask.all() for mask in before.values())
    assert not all(mask.all() for mask in after.values())


def test_two_processes_draw_the_same_masks(tmp_path: Path, launch: Launch) -> None:
    """Scores of drawn masks are those that one process finds: the same θ₀ and mask, and losses within 1e-9."""
    job = (*PAIR, "optimizer=adam", "clip=null", "control=none", "pruner=zhou_supermask", "pruner.rounds=1")
    done = typed(tmp_path, *job, "hardware=ddp", "hydra.run.dir=two")
    assert (done.returncode, done.stderr) == (0, "")
    alone = launch(*job, folder="one", tiny=False)
    for left, right in zip(rows(alone), rows(tmp_path / "two"), strict=True):
        assert (left["init_sha256"], left["mask_sha256"]) == (right["init_sha256"], right["mask_sha256"])
        assert float(left["test_loss"]) == pytest.approx(float(right["test_loss"]), rel=1e-9)
        assert left["sampled_test_accuracy"] == right["sampled_test_accuracy"]


@pytest.mark.slow
def test_processes_that_hold_different_masks_are_refused(tmp_path: Path) -> None:
    """By a criterion that sees which process it is in: averaged gradients would drift apart without a word."""
    (tmp_path / "mine.py").write_text(
        "import os\n\n\n"
        "def by_process(evidence):\n"
        "    sign = 1 - 2 * int(os.environ.get('LOCAL_RANK', '0'))\n"
        "    return {name: sign * evidence.weights[name].abs() for name in evidence.masks}\n"
    )
    own = ("pruner.criterion._target_=mine.by_process", "control=none")
    done = typed(tmp_path, *PAIR, *own, "hardware=ddp", "hydra.run.dir=run")
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert "the processes of hardware=ddp hold different masks" in done.stderr
    assert [row["round"] for row in read_table(tmp_path / "run/rounds.csv")] == ["0"]


@pytest.mark.slow
def test_two_processes_go_on_where_they_were(tmp_path: Path, ddp: Path) -> None:
    """Extending equals having asked at once."""
    assert typed(tmp_path, *PAIR, "hardware=ddp", "pruner.rounds=1", "hydra.run.dir=run").returncode == 0
    done = typed(tmp_path, "resume=run", "pruner.rounds=2")
    assert (done.returncode, done.stderr) == (0, "")
    assert rows(tmp_path / "run") == rows(ddp / "once")
    assert contents(tmp_path / "run") == contents(ddp / "once")


@pytest.mark.slow
def test_a_loss_that_is_no_number_ends_all_processes(tmp_path: Path) -> None:
    """Neither process waits for the other for ever."""
    done = typed(tmp_path, "hardware=ddp", *FAST, "optimizer=sgd", "optimizer.lr=1e30", "hydra.run.dir=run")
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert "lower optimizer.lr" in done.stderr
    assert read_status(tmp_path / "run")["state"] == "failed"

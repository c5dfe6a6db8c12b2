"""MaskedTraining against an independent loop that multiplies by the mask in the forward pass, bit for bit."""

from collections.abc import Callable, Sequence
from functools import partial

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from ltl.datasets.dataset import Dataset, Split
from ltl.models.dropout import Dropout
from ltl.training import graph as training_graph
from ltl.training.graph import InPieces, StepGraph
from ltl.training.module import MaskedTraining, Streams
from ltl.training.order import DataOrder
from ltl.training.start import Start
from ltl.training.timeline import Timeline

STEPS, BATCH, EXAMPLES = 30, 16, 100


def problem() -> Dataset:
    source = torch.Generator().manual_seed(1)
    split = Split(torch.randn(EXAMPLES, 1, 6, 6, generator=source), torch.randint(0, 3, (EXAMPLES,), generator=source))
    return Dataset("noise", True, split, split, split, (1, 6, 6), 3, None)


def convolutional() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10), nn.ReLU(),
        nn.Linear(10, 3),
    )  # fmt: skip


OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=1e-2),
    "nesterov": partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=1e-2, nesterov=True),
    "adam": partial(torch.optim.Adam, lr=1e-2, weight_decay=1e-2),
    "adamw": partial(torch.optim.AdamW, lr=1e-2, weight_decay=1e-1),
}


def order_of(batch: int) -> DataOrder:
    return DataOrder(examples=EXAMPLES, batch=batch, seed=5, by_round="same", device=torch.device("cpu"))


def trained(network: nn.Module, masks: dict[str, Tensor], **options: object) -> MaskedTraining:
    """Train with ltl: one round, held at `masks`."""
    dataset = problem()
    chunk = int(options.pop("chunk", 7))  # type: ignore[call-overload]
    precision = options.pop("precision", "32-true")
    fills = options.pop("fills", {})
    module = MaskedTraining(
        networks=[network],
        streams=[Streams(order_of(BATCH), augmentation_seed=0)],
        dataset=dataset,
        timeline=Timeline(length=STEPS, eval_every=11, first=(0,), chunk=chunk),
        **{
            "clip": None,
            "stacked": False,
            "sparse_below": 0,
            "sparse_inputs_below": 0,
            "graph": False,
            "compiled": False,
            "merge": False,
            "lr_schedule": lambda step: 0.5 if step > 20 else 1.0,
            **options,
        },  # type: ignore[arg-type]
    )

    class Hold(pl.Callback):
        def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            module.hold([Start("ticket", 0, 0, masks, {}, fills, 0, 0)])  # type: ignore[arg-type]

    trainer = pl.Trainer(
        max_epochs=module.timeline.epochs(), accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, callbacks=[Hold()], precision=precision,  # type: ignore[arg-type]
    )  # fmt: skip
    trainer.fit(module)
    assert module.position == (0, STEPS)
    return module


def half_masks(network: nn.Module) -> dict[str, Tensor]:
    source = torch.Generator().manual_seed(3)
    return {
        name: torch.rand(weight.shape, generator=source) < 0.4
        for name, weight in network.named_parameters()
        if weight.dim() > 1
    }


def test_sparse_products_that_are_off_are_off_for_nothing_too() -> None:
    """hardware.sparse_below=0 means never, on a GPU also where no weight is kept."""
    chain = nn.Sequential(nn.Flatten(), nn.Linear(36, 4), nn.ReLU(), nn.Linear(4, 3))
    none = {f"{name}.weight": torch.zeros_like(chain[int(name)].weight, dtype=torch.bool) for name in "13"}
    for below, sparse in ((0.0, False), (0.1, True)):
        module = trained(chain, none, optimizer=OPTIMIZERS["sgd"], sparse_below=below)
        assert (module._sparse is not None) is sparse


@pytest.mark.parametrize("clip", [None, 0.05])
@pytest.mark.parametrize("name", list(OPTIMIZERS))
def test_equals_the_mask_in_the_forward_pass_bit_for_bit(name: str, clip: float | None) -> None:
    """m ⊙ θ, trained by gradients through the product, is what ltl trains with masked gradients."""
    torch.manual_seed(0)
    ours, reference = convolutional(), convolutional()
    reference.load_state_dict(ours.state_dict())
    masks, dataset = half_masks(ours), problem()
    trained(ours, masks, optimizer=OPTIMIZERS[name], clip=clip)

    optimizer = OPTIMIZERS[name](reference.parameters())
    position, order = 0, torch.empty(0, dtype=torch.long)
    permutations = order_of(EXAMPLES)
    stream = torch.cat([permutations.indices((0, 0), epoch) for epoch in range(STEPS * BATCH // EXAMPLES + 1)])
    for step in range(STEPS):
        order = stream[position : position + BATCH]
        position += BATCH
        for group in optimizer.param_groups:
            group["lr"] = OPTIMIZERS[name].keywords["lr"] * (0.5 if step > 20 else 1.0)  # type: ignore[attr-defined]
        effective = {key: value * masks[key] if key in masks else value for key, value in reference.named_parameters()}
        outputs = functional_call(reference, effective, (dataset.train.inputs[order],))
        optimizer.zero_grad()
        F.cross_entropy(outputs, dataset.train.targets[order]).backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(reference.parameters(), clip)
        optimizer.step()
    theirs = dict(reference.named_parameters()) | dict(reference.named_buffers())
    for key, value in (dict(ours.named_parameters()) | dict(ours.named_buffers())).items():
        expected = theirs[key] * masks[key] if key in masks else theirs[key]
        assert torch.equal(value, expected), key


def test_the_mask_makes_a_difference() -> None:
    """The comparison above would notice a mask that is not applied."""
    torch.manual_seed(0)
    one, two = convolutional(), convolutional()
    two.load_state_dict(one.state_dict())
    trained(one, half_masks(one), optimizer=OPTIMIZERS["sgd"])
    trained(two, {}, optimizer=OPTIMIZERS["sgd"])
    assert not torch.equal(one[4].weight, two[4].weight)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_chunks_of_any_length_give_the_same_bits(precision: str) -> None:
    """With autocast too, whose cache of low-precision weights must not outlive an optimiser step."""
    states = []
    for chunk in (1, 4, 100):
        torch.manual_seed(0)
        network = convolutional()
        trained(network, half_masks(network), optimizer=OPTIMIZERS["adam"], chunk=chunk, precision=precision)
        states.append(network.state_dict())
    for state in states[1:]:
        assert all(torch.equal(state[name], states[0][name]) for name in state)


def test_a_fill_is_written_back_after_every_step() -> None:
    """Pruned weights held at another value than 0 are exactly that value, against momentum and weight decay."""
    torch.manual_seed(0)
    network = convolutional()
    masks = half_masks(network)
    fills = {name: torch.full(mask.shape, 0.25) for name, mask in masks.items()}
    trained(network, masks, optimizer=OPTIMIZERS["adamw"], fills=fills)
    for name, mask in masks.items():
        assert bool((network.get_parameter(name)[~mask] == 0.25).all())
        assert bool((network.get_parameter(name)[mask] != 0.25).all())


def test_dropout_draws_from_its_own_stream() -> None:
    """The global generator neither drives dropout nor is touched by training."""
    states, after = [], []
    for seed, chunk in ((0, 3), (1, 8)):
        torch.manual_seed(7)
        network = nn.Sequential(nn.Flatten(), nn.Linear(36, 20), nn.ReLU(), Dropout(0.5), nn.Linear(20, 3))
        torch.manual_seed(seed)
        trained(network, {}, optimizer=OPTIMIZERS["sgd"], chunk=chunk)
        after.append((torch.rand(1), torch.Generator().manual_seed(seed)))
        states.append(network.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert all(torch.equal(draw, torch.rand(1, generator=source)) for draw, source in after)


@pytest.mark.parametrize("clip", [None, 0.1])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_step_that_is_played_back_is_the_step(optimizer: str, clip: float | None) -> None:
    """Batches are read from fixed memory and the learning rate from a tensor; the rate is one that float32 holds."""
    masks = {name: torch.rand(weight.shape, generator=torch.Generator().manual_seed(9)) < 0.5
             for name, weight in convolutional().named_parameters() if weight.dim() > 1}  # fmt: skip
    fills = {name: torch.full_like(mask, 0.25, dtype=torch.float32) for name, mask in list(masks.items())[:1]}
    played = []
    step = StepGraph.__call__

    def counted(self: StepGraph, given: Sequence[Tensor]) -> Tensor:
        played.append(self)
        return step(self, given)

    ends = []
    for graph in (False, True):
        network = convolutional()
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.normal_(0, 0.3, generator=torch.Generator().manual_seed(3))
        fused = partial(OPTIMIZERS[optimizer], lr=2**-7, fused=True)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(StepGraph, "__call__", counted)
            module = trained(network, masks, optimizer=fused, clip=clip, fills=fills, graph=graph)
        ends.append({name: tensor.clone() for name, tensor in module.networks()[0].items()})
        assert bool(played) is graph
    assert len(set(map(id, played))) == 1
    assert len(played) == STEPS
    for name, tensor in ends[0].items():
        assert torch.equal(tensor, ends[1][name]), name


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_a_step_in_pieces_is_the_step(
    optimizer: str, memory_format: torch.memory_format, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parameters, slots and counts of steps, of two groups with a parameter of less than a piece in each."""
    monkeypatch.setattr(training_graph, "_PIECE", 50)
    source = torch.Generator().manual_seed(0)
    shapes = [(3, 7, 5), (3, 7), (4, 16, 3, 3), (2,)]
    ends: list[list[Tensor]] = []
    slots = []
    for in_pieces in (False, True):
        source.manual_seed(0)
        parameters = [nn.Parameter(torch.randn(shape, generator=source, dtype=torch.float64)) for shape in shapes]
        parameters[2].data = parameters[2].data.contiguous(memory_format=memory_format)
        whole = partial(OPTIMIZERS[optimizer], fused=True)([{"params": parameters[:2]}, {"params": parameters[2:]}])
        stepped: torch.optim.Optimizer | InPieces = whole
        for step in range(6):
            if in_pieces and step == 2:
                stepped = InPieces(whole, torch.device("cpu"))
            for parameter in parameters:
                gradient = torch.randn(parameter.shape, generator=source, dtype=torch.float64)
                # Autograd lays a gradient out as its parameter is; the pieces are to bear another layout too.
                parameter.grad = gradient if stepped is not whole else torch.empty_like(parameter).copy_(gradient)
            stepped.step()
            stepped.zero_grad()
            assert all(parameter.grad is None for parameter in parameters)
        assert [len(group["params"]) for group in whole.param_groups] == [2, 2]
        ends.append([parameter.detach() for parameter in parameters])
        slots.append(whole.state_dict()["state"])
    torch.testing.assert_close(ends[1], ends[0], rtol=0, atol=1e-14)
    torch.testing.assert_close(slots[1], slots[0], rtol=1e-14, atol=0)


def test_only_fused_optimisers_are_played_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others keep their count of steps in the processor's memory, where a recording does not see it."""
    monkeypatch.setattr(StepGraph, "__call__", lambda self, given: pytest.fail("played back"))
    for fused, dropout in ((False, 0.0), (True, 0.5)):
        network = nn.Sequential(nn.Flatten(), Dropout(dropout), nn.Linear(36, 3)) if dropout else convolutional()
        trained(network, {}, optimizer=partial(torch.optim.Adam, lr=1e-2, fused=fused), graph=True)

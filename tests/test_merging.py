"""Networks that pass as one are what each is alone, and which networks may."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import partial
from pathlib import Path

import pytest
import torch
from test_cycle import rows
from test_hardware import RESNET
from torch import Tensor, nn

from ltl.errors import Diverged
from ltl.models.conv import ConvNet
from ltl.models.lenet import LeNet
from ltl.models.merging import mergeable, merged, merged_inputs, separated
from ltl.models.resnet import ResNet
from ltl.models.stack import Stack
from ltl.models.wide_resnet import WideResNet
from ltl.results import read_status, read_table
from ltl.training.module import MaskedTraining
from ltl.training.start import Start

IMAGES = {"input_shape": (3, 8, 8), "outputs": 5}
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "resnet": partial(ResNet, **IMAGES, blocks=[1, 1], width=16, activation="relu"),
    "sign": partial(ResNet, **IMAGES, blocks=[1, 1], width=16, activation="sign"),
    "bottleneck": partial(WideResNet, **IMAGES, blocks=[1, 1], width=8, widening=2, activation="relu"),
    "conv": partial(ConvNet, **IMAGES, blocks=[16], widths=[12], dropout=0.0, activation="sign", batch_norm=True),
}  # fmt: skip


def images(count: int, memory_format: torch.memory_format) -> Tensor:
    """Return (count, 6, 3, 8, 8), each network's in `memory_format`."""
    plain = torch.randn(count, 6, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    if memory_format == torch.contiguous_format:
        return plain
    return plain.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", list(NETWORKS))
def test_networks_that_pass_as_one_are_what_each_is(
    name: str, training: bool, memory_format: torch.memory_format, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Outputs, gradients and running statistics in float64: of five networks in fours, so of one left over too."""
    torch.manual_seed(0)
    networks = [NETWORKS[name]().double().to(memory_format=memory_format) for _ in range(5)]  # type: ignore[call-overload]
    inputs, passes = images(5, memory_format), []
    slopes = torch.randn(5, 6, 5, dtype=torch.float64)
    stacks = []
    for size in (1, 4):
        monkeypatch.setattr(Stack, "at_once", lambda self, device, size=size: size)
        stack = Stack(deepcopy(networks), stacked=True, compiled=False, merge=True).train(training)
        outputs = stack(inputs)
        (outputs * slopes).sum().backward()
        passes.append(outputs)
        stacks.append(stack)
    one, other = stacks
    torch.testing.assert_close(passes[1], passes[0], rtol=0, atol=1e-12)
    for (key, mine), (_, theirs) in zip(one.named_parameters(), other.named_parameters(), strict=True):
        assert mine.grad is not None
        assert theirs.grad is not None
        torch.testing.assert_close(theirs.grad, mine.grad, rtol=0, atol=1e-11, msg=key)
    for (key, mine), (_, theirs) in zip(one.named_buffers(), other.named_buffers(), strict=True):
        torch.testing.assert_close(theirs, mine, rtol=0, atol=1e-12, msg=key)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_kernels_are_block_diagonal_and_keep_their_layout(memory_format: torch.memory_format) -> None:
    """Against what PyTorch makes of grouped convolutions."""
    source = torch.Generator().manual_seed(0)
    kernels = torch.randn(3, 5, 2, 3, 3, generator=source, dtype=torch.float64)
    laid = kernels.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
    whole = merged(kernels if memory_format == torch.contiguous_format else laid, product=True)
    assert whole.shape == (15, 6, 3, 3)
    assert whole.is_contiguous(memory_format=memory_format)
    batch = torch.randn(3, 4, 2, 7, 7, generator=source, dtype=torch.float64)
    joined = merged_inputs(batch)
    grouped = nn.functional.conv2d(joined, kernels.flatten(0, 1), groups=3)
    torch.testing.assert_close(nn.functional.conv2d(joined, whole), grouped, rtol=0, atol=1e-12)
    apart = torch.stack([nn.functional.conv2d(x, k).sum((2, 3)) for x, k in zip(batch, kernels, strict=True)])
    torch.testing.assert_close(separated(grouped.sum((2, 3)), 3), apart, rtol=0, atol=1e-12)


class Own(nn.Sequential):
    """A network with a `forward` of its own, which mixes channels."""

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = super().forward(inputs.flip(1))
        return outputs


class Halved(nn.Conv2d):
    """A convolution that does something else than its type."""

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = super().forward(inputs) / 2
        return outputs


@pytest.mark.parametrize(
    ("network", "several"),
    [
        (LeNet(input_shape=(1, 8, 8), outputs=5, widths=[9], dropout=0.0, activation="relu", bias=True), 1),
        (ResNet(**IMAGES, blocks=[1], width=64, activation="relu"), 1),
        (ResNet(**IMAGES, blocks=[1], width=24, activation="relu"), 2),
        (ResNet(**IMAGES, blocks=[1], width=4, activation="relu"), 16),
        (ConvNet(**IMAGES, blocks=[16], widths=[12], dropout=0.5, activation="relu", batch_norm=True), 1),
        (Own(nn.Conv2d(3, 16, 3), nn.Flatten(), nn.Linear(576, 5)), 1),
        (nn.Sequential(nn.Conv2d(3, 16, 3), nn.Flatten(), nn.Linear(576, 5)), 4),
        (nn.Sequential(Halved(3, 16, 3), nn.Flatten(), nn.Linear(576, 5)), 1),
        (nn.Sequential(nn.Conv2d(4, 16, 3, groups=2), nn.Flatten(), nn.Linear(576, 5)), 1),
        (nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16, momentum=None), nn.Flatten(), nn.Linear(576, 5)), 1),
        (nn.Sequential(nn.Conv2d(3, 16, 3), nn.Linear(6, 5)), 1),
        (nn.Sequential(nn.Conv2d(3, 16, 3), nn.Softmax(1), nn.Flatten(), nn.Linear(576, 5)), 1),
    ],
)
def test_only_networks_whose_channels_keep_apart_pass_as_one(network: nn.Module, several: int) -> None:
    """And only where one has fewer channels than a GPU is filled by."""
    assert mergeable(network) == several


@pytest.fixture
def merging(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have networks pass as one on a processor too."""
    monkeypatch.setattr(Stack, "at_once", lambda self, device: min(self.size, self._mergeable))


KEYS = ("trial", "arm", "draw", "round")
# What is summed in another order as long as networks pass as one: a control's start is the state after two steps.
SUMMED = ("train_loss", "val_loss", "test_loss", "init_sha256")
FIXED = (*RESNET, "trials=3", "hardware.precision=64-true", "hardware.stack=together")


def test_a_run_of_networks_that_pass_as_one_is_that_of_each(
    launch: Callable[..., Path], request: pytest.FixtureRequest
) -> None:
    """Late rewinding, two prunings and a control: in float64 the same masks, and losses within 1e-9."""
    apart = launch(*FIXED, folder="apart", tiny=False)
    request.getfixturevalue("merging")
    together = launch(*FIXED, folder="together", tiny=False)
    pairs = list(zip(rows(apart), rows(together), strict=True))
    assert len(pairs) == 15
    for one, other in pairs:
        assert one["mask_sha256"] == other["mask_sha256"]
        assert float(one["test_loss"]) == pytest.approx(float(other["test_loss"]), abs=1e-9)


def test_a_loss_that_is_no_number_spreads_to_no_other_trial(
    launch: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, merging: None
) -> None:
    """0 times it is none either: from its last checkpoint the run goes on apart, as one that never merged would."""
    hold = MaskedTraining.hold

    def spoilt(self: MaskedTraining, starts: Sequence[Start]) -> None:
        hold(self, starts)
        if starts[0].arm == "ticket" and starts[0].round == 1:
            with torch.no_grad():
                self.stack.stacked("output.weight")[1].fill_(1e308)

    monkeypatch.setattr(MaskedTraining, "hold", spoilt)
    for folder, more in (("run", ()), ("never", ("hardware.merge=false",))):
        with pytest.raises(Diverged, match=r"training loss is (nan|inf).*trial 1"):
            launch(*FIXED, *more, folder=folder, tiny=False)
    assert [one["merge"] for one in read_status(tmp_path / "run")["hardware"]] == [True, False]
    found, expected = (rows(tmp_path / folder, "hardware", *SUMMED) for folder in ("run", "never"))
    assert found == expected
    assert {row["trial"] for row in found if int(row["round"]) >= 1} == {"0", "2"}
    points = [(*(row[key] for key in KEYS), row["step"]) for row in read_table(tmp_path / "run" / "metrics.csv")]
    assert len(points) == len(set(points))

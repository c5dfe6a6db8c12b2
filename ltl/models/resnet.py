"""Residual networks for small images: the CIFAR family (ResNet-20 …) and ResNet-18 (He et al. 2016)."""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from torch import Tensor, nn

from ltl.models.activations import activation as activated
from ltl.models.images import image_shape


class ResNet(nn.Sequential):
    """A 3x3 stem, stages of residual blocks with BatchNorm, global average pooling and one linear layer.

    Inputs (n, channels, height, width), outputs (n, outputs). `blocks` are the residual blocks of each stage; the first
    stage has `width` channels, every later one halves the image and doubles them. Shortcuts that change the shape are
    1x1 convolutions with BatchNorm, as in Frankle & Carbin (2019), not the parameter-free ones of He et al. (2016).
    After every BatchNorm but the last of a branch, and after every sum, comes `activation` (relu | sign): as in the
    code of Diffenderfer & Kailkhura (2021), a sign takes the place of each ReLU.
    """

    WIDTHS = ("width",)

    def __init__(
        self, *, input_shape: Sequence[int], outputs: int, blocks: Sequence[int], width: int, activation: str
    ) -> None:
        super().__init__()
        # A 3x3 convolution with stride 2 rounds up: even one pixel survives, so the size of the images is no limit.
        channels, _, _ = image_shape(input_shape, model=f"ResNet-{2 * sum(blocks) + 2}", halvings=0)
        self.add_module("stem", convolution(channels, width, kernel=3, stride=1))
        self.add_module(f"stem_{activation}", activated(activation))
        block = partial(_Residual, activation=activation)
        for name, module in stages(blocks, width, expansion=1, outputs=outputs, block=block):
            self.add_module(name, module)


class _Residual(nn.Module):
    CHANNELWISE = True

    def __init__(self, inputs: int, outputs: int, *, stride: int, activation: str) -> None:
        super().__init__()
        self.first = convolution(inputs, outputs, kernel=3, stride=stride)
        self.first_activation = activated(activation)
        self.second = convolution(outputs, outputs, kernel=3, stride=1)
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else convolution(inputs, outputs, kernel=1, stride=stride)
        self.activation = activated(activation)

    def forward(self, inputs: Tensor) -> Tensor:
        residual = self.second(self.first_activation(self.first(inputs)))
        outputs: Tensor = self.activation(residual + self.shortcut(inputs))
        return outputs


def stages(
    blocks: Sequence[int], width: int, *, expansion: int, outputs: int, block: Callable[..., nn.Module]
) -> Iterator[tuple[str, nn.Module]]:
    """Yield by name the stages of `block`s after a stem of `width` channels, average pooling and the linear layer.

    `block(inputs, channels, stride=…)` is to return `expansion` times as many channels as it is given. These begin at
    `width`; every stage but the first halves the image and doubles them.
    """
    inputs = width
    for stage, count in enumerate(blocks):
        channels, residuals = width * 2**stage, nn.Sequential()
        for number in range(count):
            residuals.append(block(inputs, channels, stride=2 if stage > 0 and number == 0 else 1))
            inputs = channels * expansion
        yield f"stage{stage + 1}", residuals
    yield "pool", nn.AdaptiveAvgPool2d(1)
    yield "flatten", nn.Flatten()
    yield "output", nn.Linear(inputs, outputs)


def convolution(inputs: int, outputs: int, *, kernel: int, stride: int) -> nn.Sequential:
    """Return a convolution that keeps the size but for its stride, with BatchNorm after it."""
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False),
            norm=nn.BatchNorm2d(outputs),
        )
    )

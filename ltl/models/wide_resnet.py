"""Wide ResNet-50-2 (Zagoruyko & Komodakis 2016): residual blocks of three convolutions."""

from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn

from ltl.models.activations import activation as activated
from ltl.models.images import image_shape
from ltl.models.resnet import convolution, stages

_EXPANSION = 4  # of the channels between blocks


class WideResNet(nn.Sequential):
    """A 7x7 stem, 3x3 max pooling, stages of bottleneck blocks, global average pooling, one linear layer.

    Inputs (n, channels, height, width), outputs (n, outputs). Stem and pooling each halve the image. `blocks` are the
    bottlenecks of each stage; the first stage has `width` channels, every later one halves the image and doubles them.
    Within a block these are multiplied by `widening`, between blocks by 4. With 3, 4, 6 and 3 blocks, width 64 and
    widening 2 it is torchvision's wide_resnet50_2, which halves the image in the 3x3 convolutions. `activation` (relu |
    sign) comes after BatchNorm and after sums, as in `ResNet`.
    """

    WIDTHS = ("width",)

    def __init__(
        self,
        *,
        input_shape: Sequence[int],
        outputs: int,
        blocks: Sequence[int],
        width: int,
        widening: int,
        activation: str,
    ) -> None:
        super().__init__()
        # Convolutions and the padded pooling round up: even one pixel survives, so the size of the images is no limit.
        channels, _, _ = image_shape(input_shape, model=f"Wide ResNet-{3 * sum(blocks) + 2}", halvings=0)
        self.add_module("stem", convolution(channels, width, kernel=7, stride=2))
        self.add_module(f"stem_{activation}", activated(activation))
        self.add_module("stem_pool", nn.MaxPool2d(3, stride=2, padding=1))
        block = partial(_Bottleneck, widening=widening, activation=activation)
        for name, module in stages(blocks, width, expansion=_EXPANSION, outputs=outputs, block=block):
            self.add_module(name, module)


class _Bottleneck(nn.Module):
    CHANNELWISE = True

    def __init__(self, inputs: int, channels: int, *, widening: int, stride: int, activation: str) -> None:
        super().__init__()
        inner, outputs = channels * widening, channels * _EXPANSION
        self.first = convolution(inputs, inner, kernel=1, stride=1)
        self.first_activation = activated(activation)
        self.second = convolution(inner, inner, kernel=3, stride=stride)
        self.second_activation = activated(activation)
        self.third = convolution(inner, outputs, kernel=1, stride=1)
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else convolution(inputs, outputs, kernel=1, stride=stride)
        self.activation = activated(activation)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.second_activation(self.second(self.first_activation(self.first(inputs))))
        outputs: Tensor = self.activation(self.third(hidden) + self.shortcut(inputs))
        return outputs

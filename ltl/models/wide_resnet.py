"""Wide ResNet-50-2 (Zagoruyko & Komodakis 2016): residual blocks of three convolutions."""

from collections.abc import Sequence

from torch import Tensor, nn

from ltl.models.images import image_shape
from ltl.models.resnet import convolution


class WideResNet(nn.Sequential):
    """A 7x7 stem, 3x3 max pooling, stages of bottleneck blocks, global average pooling, one linear layer; ReLU.

    Inputs (n, channels, height, width), outputs (n, outputs). Stem and pooling each halve the image. `blocks` are the
    bottlenecks of each stage; the first stage has `width` channels, every later one halves the image and doubles them.
    Within a block these are multiplied by `widening`, between blocks by 4. With 3, 4, 6 and 3 blocks, width 64 and
    widening 2 it is torchvision's wide_resnet50_2, which halves the image in the 3x3 convolutions.
    """

    WIDTHS = ("width",)

    def __init__(
        self, *, input_shape: Sequence[int], outputs: int, blocks: Sequence[int], width: int, widening: int
    ) -> None:
        super().__init__()
        # Convolutions and the padded pooling round up: even one pixel survives, so the size of the images is no limit.
        channels, _, _ = image_shape(input_shape, model=f"Wide ResNet-{3 * sum(blocks) + 2}", halvings=0)
        self.add_module("stem", convolution(channels, width, kernel=7, stride=2))
        self.add_module("stem_relu", nn.ReLU())
        self.add_module("stem_pool", nn.MaxPool2d(3, stride=2, padding=1))
        channels = width
        for stage, count in enumerate(blocks):
            inner = width * 2**stage
            bottlenecks = nn.Sequential()
            for number in range(count):
                stride = 2 if stage > 0 and number == 0 else 1
                bottlenecks.append(_Bottleneck(channels, inner * widening, inner * 4, stride=stride))
                channels = inner * 4
            self.add_module(f"stage{stage + 1}", bottlenecks)
        self.add_module("pool", nn.AdaptiveAvgPool2d(1))
        self.add_module("flatten", nn.Flatten())
        self.add_module("output", nn.Linear(channels, outputs))


class _Bottleneck(nn.Module):
    def __init__(self, inputs: int, inner: int, outputs: int, *, stride: int) -> None:
        super().__init__()
        self.first = convolution(inputs, inner, kernel=1, stride=1)
        self.first_relu = nn.ReLU()
        self.second = convolution(inner, inner, kernel=3, stride=stride)
        self.second_relu = nn.ReLU()
        self.third = convolution(inner, outputs, kernel=1, stride=1)
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else convolution(inputs, outputs, kernel=1, stride=stride)
        self.relu = nn.ReLU()

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.second_relu(self.second(self.first_relu(self.first(inputs))))
        outputs: Tensor = self.relu(self.third(hidden) + self.shortcut(inputs))
        return outputs

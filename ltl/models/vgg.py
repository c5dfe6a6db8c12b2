"""VGG-11, -13, -16 and -19 for small images, with BatchNorm and one linear layer (Simonyan & Zisserman 2015)."""

from collections.abc import Sequence

from torch import nn

from ltl.models.activations import activation as activated
from ltl.models.images import image_shape


class VGG(nn.Sequential):
    """Blocks of 3x3 convolutions with BatchNorm; 2x2 max pooling between, global average pooling after them.

    Inputs (n, channels, height, width), outputs (n, outputs). `blocks` are the channels of each block's convolutions,
    which are followed by `activation` (relu | sign).
    As in Frankle & Carbin (2019) one linear layer replaces the three of the original. LtlError for images too small for
    the poolings.
    """

    WIDTHS = ("blocks",)

    def __init__(
        self, *, input_shape: Sequence[int], outputs: int, blocks: Sequence[Sequence[int]], activation: str
    ) -> None:
        super().__init__()
        convolutions = sum(len(block) for block in blocks)
        channels, _, _ = image_shape(input_shape, model=f"VGG-{convolutions + 3}", halvings=len(blocks) - 1)
        number = 0
        for position, block in enumerate(blocks):
            if position > 0:
                self.add_module(f"pool{position}", nn.MaxPool2d(2))
            for block_channels in block:
                number += 1
                self.add_module(f"conv{number}", nn.Conv2d(channels, block_channels, 3, padding=1))
                self.add_module(f"norm{number}", nn.BatchNorm2d(block_channels))
                self.add_module(f"{activation}{number}", activated(activation))
                channels = block_channels
        self.add_module("pool", nn.AdaptiveAvgPool2d(1))
        self.add_module("flatten", nn.Flatten())
        self.add_module("output", nn.Linear(channels, outputs))

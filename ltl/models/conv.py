"""Conv-2, -4, -6 and -8: VGG-like networks for small images without BatchNorm (Frankle & Carbin 2019, Fig. 2)."""

from collections.abc import Sequence

from torch import nn

from ltl.models.dropout import Dropout
from ltl.models.images import image_shape


class ConvNet(nn.Sequential):
    """Pairs of 3x3 convolutions, each pair followed by 2x2 max pooling, then linear layers; ReLU throughout.

    Inputs (n, channels, height, width), outputs (n, outputs). `blocks` are the channels of each pair, `widths` the
    units of the hidden linear layers, `dropout` the fraction of these units that is dropped. Convolutions keep the
    size (padding 1). LtlError for images too small for the poolings.
    """

    WIDTHS = ("blocks", "widths")

    def __init__(
        self,
        *,
        input_shape: Sequence[int],
        outputs: int,
        blocks: Sequence[int],
        widths: Sequence[int],
        dropout: float,
    ) -> None:
        super().__init__()
        channels, height, width = image_shape(input_shape, model=f"Conv-{2 * len(blocks)}", halvings=len(blocks))
        for block, block_channels in enumerate(blocks, 1):
            for number in (2 * block - 1, 2 * block):
                self.add_module(f"conv{number}", nn.Conv2d(channels, block_channels, 3, padding=1))
                self.add_module(f"relu{number}", nn.ReLU())
                channels = block_channels
            self.add_module(f"pool{block}", nn.MaxPool2d(2))
            height, width = height // 2, width // 2
        self.add_module("flatten", nn.Flatten())
        features = channels * height * width
        for number, units in enumerate(widths, 1):
            self.add_module(f"fc{number}", nn.Linear(features, units))
            self.add_module(f"fc_relu{number}", nn.ReLU())
            if dropout:
                self.add_module(f"dropout{number}", Dropout(dropout))
            features = units
        self.add_module("output", nn.Linear(features, outputs))

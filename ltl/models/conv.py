"""Conv-2, -4, -6 and -8 (Frankle & Carbin 2019, Fig. 2) and VGG-small: VGG-like networks for small images."""

from collections.abc import Sequence

from torch import nn

from ltl.models.activations import activation as activated
from ltl.models.dropout import Dropout
from ltl.models.images import image_shape


class ConvNet(nn.Sequential):
    """Pairs of 3x3 convolutions, each pair followed by 2x2 max pooling, then linear layers.

    Inputs (n, channels, height, width), outputs (n, outputs). `blocks` are the channels of each pair, `widths` the
    units of the hidden linear layers, `dropout` the fraction of these units that is dropped. Convolutions keep the
    size (padding 1). Hidden layers are layer, pooling, BatchNorm, `activation` (relu | sign) in this order; BatchNorm
    where `batch_norm`, and before every sign (Diffenderfer & Kailkhura 2021). LtlError for images too small for the
    poolings.
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
        activation: str,
        batch_norm: bool,
    ) -> None:
        super().__init__()
        normed = batch_norm or activation == "sign"
        channels, height, width = image_shape(input_shape, model=f"Conv-{2 * len(blocks)}", halvings=len(blocks))
        for block, block_channels in enumerate(blocks, 1):
            for number in (2 * block - 1, 2 * block):
                self.add_module(f"conv{number}", nn.Conv2d(channels, block_channels, 3, padding=1))
                if number == 2 * block:
                    self.add_module(f"pool{block}", nn.MaxPool2d(2))
                if normed:
                    self.add_module(f"norm{number}", nn.BatchNorm2d(block_channels))
                self.add_module(f"{activation}{number}", activated(activation))
                channels = block_channels
            height, width = height // 2, width // 2
        self.add_module("flatten", nn.Flatten())
        features = channels * height * width
        for number, units in enumerate(widths, 1):
            self.add_module(f"fc{number}", nn.Linear(features, units))
            if normed:
                self.add_module(f"fc_norm{number}", nn.BatchNorm1d(units))
            self.add_module(f"fc_{activation}{number}", activated(activation))
            if dropout:
                self.add_module(f"dropout{number}", Dropout(dropout))
            features = units
        self.add_module("output", nn.Linear(features, outputs))

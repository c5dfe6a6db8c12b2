"""LeNet: fully connected layers of any widths; LeNet-300-100 of LeCun et al. (1998) by its widths."""

import math
from collections.abc import Sequence

from torch import nn

from ltl.models.activations import activation as activated
from ltl.models.dropout import Dropout


class LeNet(nn.Sequential):
    """A multilayer perceptron on flattened inputs (n, *input_shape), with outputs (n, outputs).

    `widths` are the units of the hidden layers; `dropout` is the fraction of each layer's units that is dropped.
    `activation` is relu or sign; before every sign there is BatchNorm (Diffenderfer & Kailkhura 2021). `bias` says
    whether layers have one.
    """

    WIDTHS = ("widths",)

    def __init__(
        self,
        *,
        input_shape: Sequence[int],
        outputs: int,
        widths: Sequence[int],
        dropout: float,
        activation: str,
        bias: bool,
    ) -> None:
        super().__init__()
        self.add_module("flatten", nn.Flatten())
        features = math.prod(input_shape)
        for number, width in enumerate(widths, 1):
            self.add_module(f"fc{number}", nn.Linear(features, width, bias=bias))
            if activation == "sign":
                self.add_module(f"norm{number}", nn.BatchNorm1d(width))
            self.add_module(f"{activation}{number}", activated(activation))
            if dropout:
                self.add_module(f"dropout{number}", Dropout(dropout))
            features = width
        self.add_module("output", nn.Linear(features, outputs, bias=bias))

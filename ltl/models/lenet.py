"""LeNet: fully connected layers with ReLU, of any widths; LeNet-300-100 of LeCun et al. (1998) by its widths."""

import math
from collections.abc import Sequence

from torch import nn

from ltl.models.dropout import Dropout


class LeNet(nn.Sequential):
    """A multilayer perceptron on flattened inputs (n, *input_shape), with outputs (n, outputs).

    `widths` are the units of the hidden layers; `dropout` is the fraction of each layer's units that is dropped.
    `bias` has a default because tickets from before it do not name it.
    """

    WIDTHS = ("widths",)

    def __init__(
        self, *, input_shape: Sequence[int], outputs: int, widths: Sequence[int], dropout: float, bias: bool = True
    ) -> None:
        super().__init__()
        self.add_module("flatten", nn.Flatten())
        features = math.prod(input_shape)
        for number, width in enumerate(widths, 1):
            self.add_module(f"fc{number}", nn.Linear(features, width, bias=bias))
            self.add_module(f"relu{number}", nn.ReLU())
            if dropout:
                self.add_module(f"dropout{number}", Dropout(dropout))
            features = width
        self.add_module("output", nn.Linear(features, outputs, bias=bias))

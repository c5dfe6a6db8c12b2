"""Lengths of training, written `500it` (optimiser steps) or `2ep` (passes over the training examples)."""

import re
from dataclasses import dataclass
from typing import Literal

from ltl.errors import LtlError

_PATTERN = re.compile(r"(\d+(?:\.\d+)?)(it|ep)")


@dataclass(frozen=True)
class Length:
    """A number of optimiser steps or of data epochs."""

    value: float
    unit: Literal["it", "ep"]

    def steps(self, *, examples: int, batch: int) -> int:
        """Return the length in optimiser steps, for `examples` training examples in batches of `batch`."""
        if self.unit == "it":
            return int(self.value)
        return round(self.value * examples / batch)


def parse(text: str, key: str) -> Length:
    """Read `500it` or `2ep`; LtlError names `key` if it is neither."""
    match = _PATTERN.fullmatch(str(text))
    if match is None or (match[2] == "it" and "." in match[1]):
        raise LtlError(f"{key}={text} is not a length: write optimiser steps as 500it or data epochs as 2ep.")
    return Length(float(match[1]), "it" if match[2] == "it" else "ep")

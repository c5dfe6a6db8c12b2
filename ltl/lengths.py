"""Lengths of training, written `500it` (optimiser steps) or `2ep` (data epochs), and durations, written `9min`."""

import re
from dataclasses import dataclass
from typing import Literal

from ltl.errors import LtlError

_PATTERN = re.compile(r"(\d{1,12}(?:\.\d+)?)(it|ep)")
_DURATION = re.compile(r"(\d{1,12}(?:\.\d+)?)(s|min|h)")


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


def seconds(text: str, key: str) -> float:
    """Read a duration such as `90s`, `9min` or `2h`, in seconds; LtlError names `key` if it is none."""
    match = _DURATION.fullmatch(str(text))
    if match is None:
        raise LtlError(f"{key}={text} is not a duration: write 90s, 9min or 2h.")
    return float(match[1]) * {"s": 1, "min": 60, "h": 3600}[match[2]]


def beyond_the_end(rewind_to: str, length: str) -> LtlError:
    """Return the error for a rewind point at or past the end of a round."""
    return LtlError(
        f"pruner.rewind_to={rewind_to} is at or past the end of a round (length={length}): later rounds would train "
        "nothing; choose an earlier step."
    )

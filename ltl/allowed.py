"""What a value may be: tests of one value, each with the words that an error says it in."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ltl import lengths
from ltl.errors import LtlError


@dataclass(frozen=True)
class Allowed:
    """What a value may be, as a test and in words."""

    test: Callable[[Any], bool]
    words: str


def number(test: Callable[[float], bool], words: str) -> Allowed:
    return Allowed(lambda value: is_number(value) and test(value), words)


def whole(least: int, of: str = "", *, most: int | None = None) -> Allowed:
    words = f"a whole number ≥ {least}{of}" if most is None else f"a whole number from {least} to {most}{of}"
    return Allowed(lambda value: is_whole(value) and least <= value and (most is None or value <= most), words)


def choice(*choices: Any) -> Allowed:
    return Allowed(
        lambda value: any(value is one if isinstance(one, bool) else value == one for one in choices),
        " or ".join(str(one).lower() if isinstance(one, bool) else str(one) for one in choices),
    )


def list_of(each: Callable[[Any], bool], words: str, *, least: int = 0) -> Allowed:
    return Allowed(
        lambda value: isinstance(value, list) and len(value) >= least and all(map(each, value)), f"a list of {words}"
    )


def either(one: Allowed, other: Allowed) -> Allowed:
    return Allowed(lambda value: one.test(value) or other.test(value), f"{one.words}, or {other.words}")


def or_null(allowed: Allowed, meaning: str) -> Allowed:
    return Allowed(lambda value: value is None or allowed.test(value), f"{allowed.words}, or null {meaning}")


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**62


def is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def is_density(value: Any) -> bool:
    """Whether `value` is a fraction between 0 and 1, or a pair of them."""
    pair = value if isinstance(value, list) and len(value) == 2 else [value]
    return all(is_number(each) and 0 < each < 1 for each in pair)


def is_sizes(value: Any) -> bool:
    """Whether `value` is a number of units or channels, or a list of such."""
    return bool(value) and all(map(is_sizes, value)) if isinstance(value, list) else is_whole(value) and value >= 1


def is_duration(value: Any) -> bool:
    try:
        return lengths.seconds(value, "") >= 0
    except LtlError:
        return False


def is_length(value: Any) -> bool:
    try:
        return lengths.parse(value, "").value >= 0
    except LtlError:
        return False

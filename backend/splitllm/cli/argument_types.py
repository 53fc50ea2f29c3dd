"""Types of arguments: numbers within bounds, refused in words that name the bounds."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable
from typing import Final, TypeVar

_T = TypeVar("_T")


def whole(low: int = 0, high: int = 2**31 - 1) -> Callable[[str], int]:
    """Type of a whole number from `low` to `high`."""

    def read(text: str) -> int:
        # No number within bounds is longer, and Python refuses to read numbers of thousands of digits.
        if text.isdecimal() and len(text) < 20 and low <= int(text) <= high:
            return int(text)
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {low} to {high}")

    return read


def number(low: float = 0, high: float = sys.float_info.max, *, above: bool = False) -> Callable[[str], float]:
    """Type of a finite number from `low`, or `above` it, to `high`."""
    if high == sys.float_info.max:
        bounds = f"above {low:g}" if above else f"from {low:g}"
    else:
        bounds = f"above {low:g}, at most {high:g}" if above else f"from {low:g} to {high:g}"

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if low <= value <= high and not (above and value == low):
            return value
        raise argparse.ArgumentTypeError(f"{text!r} is not a number {bounds}")

    return read


def several(one: Callable[[str], _T]) -> Callable[[str], tuple[_T, ...]]:
    """Type of a list with commas between its members."""
    return lambda text: tuple(one(piece) for piece in text.split(","))


count: Final = whole(1)
positive: Final = number(above=True)
not_negative: Final = number()
share: Final = number(high=1)
share_above_0: Final = number(high=1, above=True)

"""Numbers given as arguments: what lies outside their bounds is refused in words that name them."""

from __future__ import annotations

import argparse
from collections.abc import Callable

import pytest

from splitllm.cli.argument_types import count, not_negative, number, positive, several, share, share_above_0, whole


@pytest.mark.parametrize(
    ("read", "text", "value"),
    [
        (whole(), "0", 0),
        (whole(high=65535), "65535", 65535),
        (count, "007", 7),
        (positive, "1e-9", 1e-9),
        (not_negative, "0", 0.0),
        (share, "1", 1.0),
        (share_above_0, "0.25", 0.25),
        (several(number(high=9, above=True)), "1,2.5", (1.0, 2.5)),
    ],
)
def test_what_lies_within_the_bounds_is_read(read: Callable[[str], object], text: str, value: object) -> None:
    assert read(text) == value


@pytest.mark.parametrize(
    ("read", "bounds"),
    [
        (whole(), "a whole number from 0 to 2147483647"),
        (whole(1, 100), "a whole number from 1 to 100"),
        (positive, "a number above 0"),
        (not_negative, "a number from 0"),
        (share, "a number from 0 to 1"),
        (share_above_0, "a number above 0, at most 1"),
        (several(positive), "a number above 0"),
    ],
)
@pytest.mark.parametrize("text", ["", "-1", "nan", "inf", "1e999", "seven", "9" * 5000 + ".", "1,"])
def test_what_lies_outside_is_refused_by_name(read: Callable[[str], object], bounds: str, text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=f"is not {bounds}$"):
        read(text)


@pytest.mark.parametrize("text", ["0", "101", "1.5", "9" * 5000, "²"])
def test_whole_numbers_end_where_they_say(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=r"from 1 to 100$"):
        whole(1, 100)(text)

"""What comes from elsewhere, for a terminal to show."""

from __future__ import annotations

from typing import Final

#: Control characters (C0 but for tab and line feed, DEL, C1; ECMA-48) make a terminal do what whoever sent them wants.
_CONTROL: Final = dict.fromkeys((*range(9), *range(11, 32), *range(127, 160)), "\N{REPLACEMENT CHARACTER}")


def printable(text: str) -> str:
    """A text of a model or a server without what would steer the terminal."""
    return text.translate(_CONTROL)

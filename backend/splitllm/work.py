"""Pieces of work between scheduler and engine. Frozen values; their meaning is the contract of `engines.base`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Work:
    """Consecutive positions of one session, to be run from block `split` to the last.

    values: int32[T] token ids if split = 0, else float16 or float32 [T, hidden_size], the input of block `split`.
    position: that of the first of the T rows; keys and values of all positions before it are in the row already.
    wants_logits: whether the caller needs the logits of the last position.
    """

    row: int
    split: int
    position: int
    values: NDArray[Any]
    wants_logits: bool

    @property
    def tokens(self) -> int:
        """T, the number of positions."""
        return int(self.values.shape[0])


@dataclass(frozen=True, slots=True)
class Batch:
    """What one tick computes: prefill pieces, each run alone, and single positions that are run together."""

    prefill: tuple[Work, ...] = ()
    decode: tuple[Work, ...] = ()

    @property
    def works(self) -> tuple[Work, ...]:
        """All pieces, in the order of their results."""
        return self.prefill + self.decode

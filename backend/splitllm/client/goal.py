"""What an answer is to be, whatever turns and sessions it takes."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from ..protocol import Message, TurnRequest, TurnStats, done_message
from ..types import FinishReason, SamplingParams

#: Whole numbers that a double holds exactly, which is what a seed may be.
_SEEDS: Final = 2**53


@dataclass(frozen=True, slots=True)
class Goal:
    """`end` is the position after its last token at most; `stop` are strings that end it."""

    end: int
    sampling: SamplingParams
    stop: tuple[str, ...]

    @classmethod
    def of(cls, end: int, sampling: SamplingParams, stop: Sequence[str]) -> Goal:
        """With a seed chosen here where nobody did, so that another session can go on with the draws."""
        if sampling.temperature > 0 and sampling.seed is None:
            sampling = replace(sampling, seed=secrets.randbelow(_SEEDS))
        return cls(end, sampling, tuple(stop))

    def request(self, turn: int, ids: Sequence[int], start: int) -> TurnRequest:
        """The turn that answers `ids`, of which the server holds those before `start`."""
        seen = tuple(sorted(set(ids))) if self.sampling.repetition_penalty != 1 else ()
        return TurnRequest(turn, start, len(ids) - start, self.end - len(ids), self.sampling, self.stop, seen)

    def complete(self, turn: int) -> Message:
        """The end of an answer that had all its tokens when its session was lost; what it cost is not known."""
        stats = TurnStats(None, None, 0.0, 0, 0, 0.0)
        return done_message(turn, FinishReason.LENGTH, stop_string=None, tokens=0, position=0, stats=stats)

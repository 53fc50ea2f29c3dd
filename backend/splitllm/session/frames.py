"""Which frames of a turn are run, answered again, ignored or refused (PROTOCOL.md, section 5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import TurnError
from ..protocol import DType, Frame, Kind
from .actions import Action, Feed, Greeting, SendToken
from .turn import Turn


@dataclass(frozen=True, slots=True)
class Agreed:
    """What frames have to be like under the plan in force."""

    greeting: Greeting
    split: int
    hidden_dtype: DType


def accept(turn: Turn, frame: Frame, agreed: Agreed) -> Sequence[Action]:
    """What follows from a frame of the turn in work; the turn waits for the next position if its rows are to run.

    Raises:
        TurnError: the frame cannot be run; the turn is as it was.
    """
    if turn.pending is not None or turn.unadopted or turn.queued:
        return []  # sent under the former plan
    _check_shape(frame, agreed)
    if frame.position > turn.expected:
        raise TurnError(
            f"The frame begins at position {frame.position}; continue at {turn.expected}.", code="position_gap"
        )
    if frame.end <= turn.expected:
        token = turn.answers.get(frame.end)
        return [] if token is None else [SendToken(frame.turn, frame.end, token)]
    if frame.position < turn.expected:
        raise TurnError(
            f"The frame repeats positions and adds new ones; continue at {turn.expected}.", code="position_overlap"
        )
    if not turn.waiting:
        raise TurnError("The server waits for no frame now; wait for its token.", code="unexpected_frame")
    limit = max(1, turn.prompt_end - turn.expected)
    if frame.rows > limit:
        raise TurnError(f"The frame has {frame.rows} rows where at most {limit} can follow.", code="wrong_shape")
    _check_values(frame, agreed)
    turn.expected = frame.end
    turn.waiting = frame.end < turn.prompt_end
    return [Feed(frame.turn, frame.position, frame.values[:, 0] if frame.kind is Kind.IDS else frame.values)]


def _check_shape(frame: Frame, agreed: Agreed) -> None:
    spec, limits = agreed.greeting.spec, agreed.greeting.limits
    kind = Kind.IDS if agreed.split == 0 else Kind.HIDDEN
    dtype = DType.INT32 if agreed.split == 0 else agreed.hidden_dtype
    if frame.kind is not kind or frame.dtype is not dtype:
        raise TurnError(
            f"With split {agreed.split} frames are {kind.name.lower()} of {dtype.name.lower()}, not "
            f"{frame.kind.name.lower()} of {frame.dtype.name.lower()}.",
            code="wrong_dtype",
        )
    columns = 1 if kind is Kind.IDS else spec.hidden_size
    if frame.values.shape[1] != columns or frame.rows > limits.max_rows:
        raise TurnError(
            f"A frame here has at most {limits.max_rows} rows of {columns} columns, not {frame.values.shape}.",
            code="wrong_shape",
        )


def _check_values(frame: Frame, agreed: Agreed) -> None:
    if frame.kind is Kind.HIDDEN:
        if not np.isfinite(frame.values).all():
            raise TurnError("The hidden states hold NaN or infinity; compute them again.", code="not_finite")
    elif frame.values.min() < 0 or frame.values.max() >= agreed.greeting.spec.vocab_size:
        raise TurnError("A token id is outside the vocabulary; encode the text again.", code="unknown_token")

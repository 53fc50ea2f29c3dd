"""Which work runs next: continuous batching over sessions with different splits. A pure state machine.

A tick is schedule, run, complete: `schedule` picks one decode step of every session that has one ready and at most one
prefill chunk, round robin, so that no decode waits longer than one chunk; the engine runs it; `complete` turns
logits into tokens, and for split 0 queues the next step at once.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .generation import Event, Generation, TokenDrawn, TurnEnded
from .slots import Move, SlotTable
from .types import PREFILL_CHUNK, FinishReason, Float32Array
from .work import Batch, Work


@dataclass(slots=True)
class _Stream:
    """One session's work."""

    split: int
    length: int = 0
    turn: int = 0
    prompt_end: int = 0
    generation: Generation | None = None
    waiting: deque[tuple[int, NDArray[Any]]] = field(default_factory=deque)  # (position, values), in order
    cancelled: bool = False
    began_ms: float = 0.0
    first_run_ms: float | None = None


class Scheduler:
    """Sessions, their rows, and the work they wait for."""

    def __init__(self, rows: int, blocks: int, *, chunk: int = PREFILL_CHUNK) -> None:
        self._slots = SlotTable(rows)
        self._blocks = blocks
        self._chunk = chunk
        self._streams: OrderedDict[str, _Stream] = OrderedDict()  # in round-robin order

    # -- sessions -----------------------------------------------------------------------------------------------------

    def can_open(self) -> bool:
        """Whether a row is free. One row stays spare, so that an open session can always move to another split."""
        return len(self._slots) + 1 < self._slots.rows

    def open(self, session: str, split: int) -> list[Move]:
        """Seat a session; the moves must be carried out before the next batch runs."""
        moves = self._slots.insert(session, split)
        self._streams[session] = _Stream(split)
        return moves

    def resplit(self, session: str, split: int) -> list[Move]:
        """Seat a session anew for another split, between turns; its row keeps what a larger split still needs."""
        stream = self._streams[session]
        old_name = f"{session} (old row)"
        self._slots.rename(session, old_name)
        moves = self._slots.insert(session, split)
        if split >= stream.split:
            moves.append(Move(self._slots.row(old_name), self._slots.row(session), split))
        else:
            stream.length = 0
        moves += self._slots.remove(old_name)
        stream.split = split
        return moves

    def close(self, session: str) -> list[Move]:
        """Forget a session and its work."""
        del self._streams[session]
        return self._slots.remove(session)

    def row(self, session: str) -> int:
        """Row of a session."""
        return self._slots.row(session)

    @property
    def occupied(self) -> int:
        """Rows in use; they are the first ones."""
        return len(self._slots)

    # -- turns --------------------------------------------------------------------------------------------------------

    def begin(
        self, session: str, turn: int, *, start: int, prompt_end: int, generation: Generation, now_ms: float
    ) -> None:
        """Begin a turn; positions from `start` on are forgotten."""
        stream = self._streams[session]
        stream.length = min(stream.length, start)
        stream.turn, stream.prompt_end, stream.generation = turn, prompt_end, generation
        stream.cancelled, stream.began_ms, stream.first_run_ms = False, now_ms, None
        stream.waiting.clear()

    def feed(self, session: str, turn: int, position: int, values: NDArray[Any]) -> None:
        """Queue rows that arrived; rows of a turn that has ended are dropped."""
        stream = self._streams[session]
        if stream.generation is not None and turn == stream.turn:
            for offset in range(0, len(values), self._chunk):
                stream.waiting.append((position + offset, values[offset : offset + self._chunk]))

    def cancel(self, session: str, turn: int) -> None:
        """End a turn at the next tick; no error if it has ended already."""
        stream = self._streams[session]
        if turn == stream.turn:
            stream.cancelled = True

    # -- ticks --------------------------------------------------------------------------------------------------------

    def end_cancelled(self) -> list[Event]:
        """Ends of the turns that were cancelled since the last tick."""
        return [
            self._end(session, stream, FinishReason.CANCELLED)
            for session, stream in self._streams.items()
            if stream.cancelled and stream.generation is not None
        ]

    def schedule(self, now_ms: float) -> tuple[Batch, list[str]]:
        """The next batch, and the session of each of its works. Empty when nothing is ready."""
        prefill: list[tuple[str, Work]] = []
        decode: list[tuple[str, Work]] = []
        for session, stream in self._streams.items():
            if not stream.waiting:
                continue
            position, values = stream.waiting[0]
            is_prompt = position < stream.prompt_end
            if is_prompt and len(values) > 1 and prefill:
                continue
            stream.waiting.popleft()
            end = position + len(values)
            work = Work(self._slots.row(session), stream.split, position, values, wants_logits=end >= stream.prompt_end)
            (decode if len(values) == 1 else prefill).append((session, work))
            if stream.first_run_ms is None:
                stream.first_run_ms = now_ms
        if prefill:
            self._streams.move_to_end(prefill[0][0])
        decode.sort(key=lambda item: item[1].row)
        works = prefill + decode
        batch = Batch(tuple(work for _, work in prefill), tuple(work for _, work in decode))
        return batch, [session for session, _ in works]

    def complete(self, batch: Batch, sessions: Sequence[str], logits: Float32Array) -> list[Event]:
        """Take the results of a batch, as the engine gave them: tokens drawn and turns ended."""
        events: list[Event] = []
        scores = iter(logits)
        for session, work in zip(sessions, batch.works, strict=True):
            stream = self._streams[session]
            stream.length = work.position + work.tokens
            if work.wants_logits:
                row = next(scores)
                if stream.generation is not None:
                    events += self._draw(session, stream, row)
        return events

    def _draw(self, session: str, stream: _Stream, scores: Float32Array) -> list[Event]:
        generation = stream.generation
        assert generation is not None  # noqa: S101  # the caller looked
        drawn = generation.draw(scores)
        if drawn.ends_silently:
            return [self._end(session, stream, FinishReason.STOP)]
        events: list[Event] = [TokenDrawn(session, stream.turn, stream.length, drawn.token, drawn.logprobs)]
        if drawn.finish is not None:
            events.append(self._end(session, stream, drawn.finish, drawn.stop_string))
        elif stream.split == 0:
            stream.waiting.append((stream.length, np.array([drawn.token], np.int32)))
        return events

    def _end(self, session: str, stream: _Stream, reason: FinishReason, stop_string: str | None = None) -> TurnEnded:
        stream.generation = None
        stream.cancelled = False
        stream.waiting.clear()
        queue_ms = 0.0 if stream.first_run_ms is None else max(0.0, stream.first_run_ms - stream.began_ms)
        return TurnEnded(session, stream.turn, reason, stop_string, stream.length, queue_ms)

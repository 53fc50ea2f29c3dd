"""Which work runs next: continuous batching over sessions with different splits. A pure state machine.

A tick is schedule, run, complete: `schedule` picks one decode step of every session that has one ready and at most one
chunk of prompt rows (`policy.share_prefill` says whose), so that no decode waits longer than one chunk; the engine
runs it; `complete` draws the tokens of the whole batch, and for split 0 queues the next step at once.

Who decodes has a seat among the first rows of the batch; `schedule` seats whoever has a token to decode, and parks
behind the seats who stood idle there for too long (`policy.parked`). What moves for all that comes before the batch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from .generation import Drawn, Event, Generation, Resplitted, TokenDrawn, TurnEnded, draw_all
from .policy import IdleSeat, WaitingPrompt, company_ms, parked, share_prefill
from .sampler import Sampler
from .slots import Seating, SlotTable
from .types import PREFILL_CHUNK, FinishReason, Float32Array, Sla
from .work import Batch, Work

#: Weight of one tick in what a tick usually takes.
_GAIN: Final = 0.05


@dataclass(slots=True)
class _Stream:
    """One session's work."""

    split: int
    length: int = 0
    turn: int = 0
    prompt_end: int = 0  # position after the rows that come before the next token is drawn
    answer_start: int = 0  # position of the answer's first token
    generation: Generation | None = None
    waiting: deque[tuple[int, NDArray[Any]]] = field(default_factory=deque)  # (position, values), in order
    cancelled: bool = False
    began_ms: float = 0.0
    first_run_ms: float | None = None
    drawn_ms: float | None = None  # when the turn's last token was drawn
    last_served: int = 0  # number of the tick of prefill that last computed rows of it
    last_decoded: int = 0  # number of the tick of decode that last ran it


class Scheduler:
    """Sessions, their rows, and the work they wait for."""

    def __init__(self, rows: int, *, chunk: int = PREFILL_CHUNK, sla: Sla | None = None) -> None:
        """`rows`: those of the engine. `chunk`: prompt rows per tick. `sla`: what deadlines are counted from."""
        self._slots = SlotTable(rows)
        self._chunk = chunk
        self._sla = sla or Sla()
        self._streams: dict[str, _Stream] = {}
        self._prefill_ticks = self._decode_ticks = 0
        self._tick_ms = 0.0  # usual duration of a tick that decodes
        self._tick_began_ms = 0.0
        self._waiting_since_ms: float | None = None  # for company
        self._sampler = Sampler()

    # -- sessions -----------------------------------------------------------------------------------------------------

    def open(self, session: str, split: int) -> None:
        """Give a session a row; it is seated when it has a token to decode.

        Raises:
            ValueError: no row is free (a fault of the caller).
        """
        self._slots.open(session, split)
        self._streams[session] = _Stream(split)

    def resplit(self, session: str, split: int) -> None:
        """Change a session's split between turns; its row keeps what a larger split still needs."""
        stream = self._streams[session]
        if split < stream.split:
            stream.length = 0
        stream.split = split
        self._slots.resplit(session, split)

    def resplit_turn(self, session: str, turn: int, split: int) -> Resplitted:
        """The same within a turn: what waited is dropped, and rows are awaited anew (PROTOCOL.md, section 4)."""
        stream = self._streams[session]
        if stream.generation is None or stream.turn != turn or stream.cancelled:
            return Resplitted(session, turn, done=False)
        ran_to = stream.length
        self.resplit(session, split)
        stream.waiting.clear()
        stream.prompt_end = stream.answer_start + len(stream.generation.tokens)
        return Resplitted(session, turn, done=True, ran_to=ran_to, length=stream.length, end=stream.prompt_end)

    def close(self, session: str) -> None:
        """Forget a session and its work; the next `schedule` gives its row back."""
        del self._streams[session]
        self._slots.close(session)

    # -- turns --------------------------------------------------------------------------------------------------------

    def begin(
        self, session: str, turn: int, *, start: int, prompt_end: int, generation: Generation, now_ms: float
    ) -> None:
        """Begin a turn; positions from `start` on are forgotten."""
        stream = self._streams[session]
        stream.length = min(stream.length, start)
        stream.turn, stream.prompt_end, stream.generation = turn, prompt_end, generation
        stream.answer_start = prompt_end
        stream.cancelled, stream.began_ms, stream.first_run_ms, stream.drawn_ms = False, now_ms, None, None
        stream.waiting.clear()

    def feed(self, session: str, turn: int, position: int, values: NDArray[Any]) -> None:
        """Queue rows that arrived; rows of a turn that has ended are dropped."""
        stream = self._streams[session]
        if stream.generation is not None and turn == stream.turn:
            stream.waiting.append((position, values))

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

    def company_ms(self, now_ms: float) -> float:
        """How long the next tick had better wait for rows that are under way; 0: not at all.

        Only decoding waits, and only for sessions whose clients answer a token that is not overdue.
        """
        due: list[float] = []
        others = False
        for stream in self._streams.values():
            if stream.generation is None:
                continue
            if stream.waiting and len(stream.waiting[0][1]) > 1:
                return 0.0
            if stream.waiting:
                due.append(self._due_ms(stream))
            else:
                others |= stream.drawn_ms is not None and now_ms < self._due_ms(stream)
        if not due or not others:
            return 0.0
        if self._waiting_since_ms is None:
            self._waiting_since_ms = now_ms
        return company_ms(due, since_ms=self._waiting_since_ms, now_ms=now_ms, tick_ms=self._tick_ms)

    def _due_ms(self, stream: _Stream) -> float:
        """When the next token is."""
        if stream.drawn_ms is None:
            return stream.began_ms + self._sla.ttft_ms
        return stream.drawn_ms + self._sla.tpot_ms

    def schedule(self, now_ms: float) -> tuple[Seating, Batch, list[str]]:
        """The next batch, what is to be moved before it, and the session of each of its works.

        The batch is empty when nothing is ready.
        """
        self._tick_began_ms, self._waiting_since_ms = now_ms, None
        single = [name for name, s in self._streams.items() if s.waiting and len(s.waiting[0][1]) == 1]
        if single:
            self._arrange(single)
        seating = self._slots.settle()
        decode = [(name, self._take(name, 1, now_ms)) for name in single]
        prefill = [(name, self._take(name, rows, now_ms)) for name, rows in self._share_prefill(set(single), now_ms)]
        decode.sort(key=lambda item: item[1].row)
        batch = Batch(tuple(work for _, work in prefill), tuple(work for _, work in decode))
        return seating, batch, [session for session, _ in prefill + decode]

    def _arrange(self, decoding: Sequence[str]) -> None:
        """Seat those that decode in this tick, and park who has been in their way for too long."""
        self._decode_ticks += 1
        for name in decoding:
            self._slots.seat(name)
            self._streams[name].last_decoded = self._decode_ticks
        in_the_way = self._slots.in_the_way(set(decoding))
        for name in parked([self._idle_seat(name) for name in in_the_way]):
            self._slots.park(name)

    def _idle_seat(self, session: str) -> IdleSeat:
        stream = self._streams[session]
        return IdleSeat(session, self._decode_ticks - stream.last_decoded, stream.generation is not None)

    def _share_prefill(self, others: Collection[str], now_ms: float) -> list[tuple[str, int]]:
        """Sessions with several rows waiting that run in this tick, and how many rows; `others` run a single one."""
        prompts = [
            WaitingPrompt(name, len(stream.waiting[0][1]), stream.began_ms + self._sla.ttft_ms, stream.last_served)
            for name, stream in self._streams.items()
            if stream.waiting and name not in others
        ]
        if not prompts:
            return []
        self._prefill_ticks += 1
        shares = share_prefill(prompts, tick=self._prefill_ticks, now_ms=now_ms, rows=self._chunk)
        for name, _ in shares:
            self._streams[name].last_served = self._prefill_ticks
        return shares

    def _take(self, session: str, rows: int, now_ms: float) -> Work:
        """The first `rows` rows that wait, as work."""
        stream = self._streams[session]
        position, values = stream.waiting.popleft()
        if rows < len(values):
            stream.waiting.appendleft((position + rows, values[rows:]))
            values = values[:rows]
        if stream.first_run_ms is None:
            stream.first_run_ms = now_ms
        wants_logits = position + rows >= stream.prompt_end
        return Work(self._slots.row(session), stream.split, position, values, wants_logits)

    def complete(self, batch: Batch, sessions: Sequence[str], logits: Float32Array, *, now_ms: float) -> list[Event]:
        """Take the results of a batch, as the engine gave them: tokens drawn and turns ended."""
        if batch.decode and not batch.prefill:
            took = now_ms - self._tick_began_ms
            self._tick_ms += _GAIN * (took - self._tick_ms) if self._tick_ms else took
        drawing: list[tuple[str, Generation]] = []
        rows: list[int] = []
        wanted = 0
        for session, work in zip(sessions, batch.works, strict=True):
            stream = self._streams[session]
            stream.length = work.position + work.tokens
            if work.wants_logits:
                if stream.generation is not None:
                    stream.drawn_ms = now_ms
                    drawing.append((session, stream.generation))
                    rows.append(wanted)
                wanted += 1
        scores = logits if len(rows) == wanted else logits[rows]
        drawn = draw_all(self._sampler, [generation for _, generation in drawing], scores)
        return [event for (session, _), one in zip(drawing, drawn, strict=True) for event in self._note(session, one)]

    def _note(self, session: str, drawn: Drawn) -> list[Event]:
        stream = self._streams[session]
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

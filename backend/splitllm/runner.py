"""One model's engine at work: schedule, run, complete, again and again, on the engine's thread.

The event loop never touches scheduler or engine; it sends commands, and gets events back on the loop. That keeps the
loop free while the runtime computes (it releases the GIL), and leaves the state machines to one thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from .engine_thread import Command, EngineThread
from .engines.base import Engine
from .generation import Event, Generation, Resplitted
from .scheduler import Scheduler
from .slots import Seating
from .types import Sla
from .work import Batch

log = logging.getLogger(__name__)

EventHandler = Callable[[Event], None]


@dataclass(frozen=True, slots=True, eq=False)
class Tick:
    """What one tick ran, for those who watch: `sessions` names the session of each of `batch.works`.

    engine_s: seconds in the engine's `run`. total_s: with scheduling before and sampling after it.
    """

    batch: Batch
    sessions: list[str]
    engine_s: float
    total_s: float


class Runner:
    """Owns one engine and its scheduler."""

    def __init__(
        self,
        engine: Engine,
        *,
        sla: Sla | None = None,
        on_fault: Callable[[BaseException], None] | None = None,
        on_tick: Callable[[Tick], None] | None = None,
        thread: EngineThread | None = None,
    ) -> None:
        """`sla` sets the deadlines that prompts are ordered by; the functions are called on the loop.

        `thread` is one that computes for other models too; None is one for this model alone. `on_fault` is called when
        the engine fails; sessions can then not go on. `on_tick` is called after each
        tick that ran something, before that tick's events are delivered.
        """
        self.engine = engine
        self._scheduler = Scheduler(engine.rows, sla=sla)
        self._handlers: dict[str, EventHandler] = {}
        self._on_fault, self._on_tick = on_fault, on_tick
        self._thread = thread or EngineThread()
        self._thread.add(self)
        self.fault: BaseException | None = None

    # -- on the event loop --------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the thread, if another model has not; call it on the event loop that is to get the events."""
        self._thread.start()

    async def stop(self) -> None:
        """Finish the tick in work and end the thread, for other models too."""
        await self._thread.stop()

    @property
    def ready(self) -> bool:
        """Whether the thread runs and has met no fault here."""
        return self._thread.alive and self.fault is None

    def open(self, session: str, split: int, handler: EventHandler) -> None:
        """Seat a session; the caller has made sure that a row is free. `handler` gets its events, on the loop."""
        self._handlers[session] = handler
        self._ask(session, lambda: self._scheduler.open(session, split))

    async def resplit(self, session: str, split: int) -> None:
        """Change a session's split between two turns; returns once the engine's thread knows.

        Whoever changes splits in a hurry thus waits for a tick each time.
        """
        changed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def settle() -> None:
            if not changed.done():
                changed.set_result(None)

        def change() -> None:
            self._scheduler.resplit(session, split)
            self._thread.later(settle)

        if self._ask(session, change):
            await changed

    def resplit_turn(self, session: str, turn: int, split: int, on_done: Callable[[Resplitted], None]) -> None:
        """Change a session's split within a turn.

        `on_done` is called on the loop, in order with the session's events, when that is done or comes too late.
        """

        def settle(event: Resplitted) -> None:
            if session in self._handlers:
                on_done(event)

        def change() -> None:
            event = self._scheduler.resplit_turn(session, turn, split)
            self._thread.later(lambda: settle(event))

        self._ask(session, change)

    def begin(self, session: str, turn: int, *, start: int, prompt_end: int, generation: Generation) -> None:
        """Begin a turn."""
        now_ms = _now_ms()
        self._ask(
            session,
            lambda: self._scheduler.begin(
                session, turn, start=start, prompt_end=prompt_end, generation=generation, now_ms=now_ms
            ),
        )

    def feed(self, session: str, turn: int, position: int, values: NDArray[Any]) -> None:
        """Hand over rows of a turn: int32[T] ids, or hidden states [T, hidden_size]."""
        self._ask(session, lambda: self._scheduler.feed(session, turn, position, values))

    def cancel(self, session: str, turn: int) -> None:
        """End a turn at the next tick."""
        self._ask(session, lambda: self._scheduler.cancel(session, turn))

    def close(self, session: str, on_closed: Callable[[], None] | None = None) -> None:
        """Forget a session; no event of it comes after this call.

        `on_closed` is called on the loop behind `on_tick` of the last tick that ran it; never if the thread ends first.
        """

        def close() -> None:
            self._scheduler.close(session)
            if on_closed is not None:
                self._thread.later(on_closed)

        self._ask(session, close)
        self._handlers.pop(session, None)

    def _ask(self, session: str, command: Command) -> bool:
        """Queue a command, unless the session is closed or there is nobody left to carry it out."""
        if session not in self._handlers or self.fault is not None:
            return False
        self._thread.ask(self, command)
        return True

    # -- on the engine's thread ---------------------------------------------------------------------------------------

    def tick(self) -> float | None:
        """See Computing."""
        begun = time.perf_counter()
        self._deliver(self._scheduler.end_cancelled())
        company_ms = self._scheduler.company_ms(_now_ms())
        if company_ms > 0:
            return company_ms / 1000
        seating, batch, sessions = self._scheduler.schedule(_now_ms())
        self._carry_out(seating)
        if not sessions:
            return None
        # The last tick's events are the loop's work while the engine computes outside of Python. Told any sooner, it
        # would hold the interpreter while this thread needs it to get there: 4 ms of 80 with 32 sessions.
        self._thread.tell()
        run_begun = time.perf_counter()
        logits = self.engine.run(batch)
        run_ended = time.perf_counter()
        events = self._scheduler.complete(batch, sessions, logits, now_ms=_now_ms())
        self._report(Tick(batch, sessions, run_ended - run_begun, time.perf_counter() - begun))
        self._deliver(events)
        return 0.0

    def finish(self) -> None:
        """See Computing: rows of sessions that closed last are overwritten too."""
        seating, _, _ = self._scheduler.schedule(_now_ms())
        self._carry_out(seating)

    def fail(self, error: BaseException) -> None:
        """See Computing."""
        self.fault = error
        log.error("the engine stops", exc_info=error)
        on_fault = self._on_fault
        if on_fault is not None:
            with contextlib.suppress(RuntimeError):  # nobody is left to hear it, which may be the fault
                self._thread.later(lambda: on_fault(error))
                self._thread.tell()

    def _report(self, tick: Tick) -> None:
        on_tick = self._on_tick
        if on_tick is not None:
            self._thread.later(lambda: on_tick(tick))

    def _carry_out(self, seating: Seating) -> None:
        if seating.moves:
            self.engine.move(seating.moves)
        for row in seating.freed:
            self.engine.clear(row)

    def _deliver(self, events: list[Event]) -> None:
        if events:
            self._thread.later(lambda: self._dispatch(events))

    def _dispatch(self, events: list[Event]) -> None:
        for event in events:
            handler = self._handlers.get(event.session)
            try:
                if handler is not None:
                    handler(event)
            except Exception:  # whatever it is, the other sessions' events must not be lost with it
                log.exception("session %s cannot take %s", event.session[:8], type(event).__name__)


def _now_ms() -> float:
    return 1000 * time.monotonic()

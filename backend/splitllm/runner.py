"""The engine's thread: schedule, run, complete, again and again.

The event loop never touches scheduler or engine; it sends commands, and gets events back on the loop. That keeps the
loop free while the runtime computes (it releases the GIL), and leaves the state machines to one thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from .engines.base import Engine
from .generation import Event, Generation, Resplitted
from .scheduler import Scheduler
from .slots import Seating
from .types import Sla
from .work import Batch

log = logging.getLogger(__name__)

EventHandler = Callable[[Event], None]
_Command = Callable[[], None]


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
    """Owns one engine, its scheduler and its thread."""

    def __init__(
        self,
        engine: Engine,
        *,
        sla: Sla | None = None,
        on_fault: Callable[[BaseException], None] | None = None,
        on_tick: Callable[[Tick], None] | None = None,
    ) -> None:
        """`sla` sets the deadlines that prompts are ordered by; the functions are called on the loop.

        `on_fault` is called when the engine's thread dies; sessions can then not go on. `on_tick` is called after each
        tick that ran something, before that tick's events are delivered.
        """
        self.engine = engine
        self._scheduler = Scheduler(engine.rows, sla=sla)
        self._commands: queue.SimpleQueue[_Command | None] = queue.SimpleQueue()
        self._handlers: dict[str, EventHandler] = {}
        self._on_fault, self._on_tick = on_fault, on_tick
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self.fault: BaseException | None = None

    # -- on the event loop --------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the thread; call it on the event loop that is to get the events."""
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._main, name="splitllm-engine", daemon=True)
        self._thread.start()

    async def stop(self) -> None:
        """Finish the tick in work and end the thread."""
        self._commands.put(None)
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)

    @property
    def ready(self) -> bool:
        """Whether the thread runs and has met no fault."""
        return self._thread is not None and self._thread.is_alive() and self.fault is None

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
            self._call(settle)

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
            self._call(lambda: settle(event))

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
                self._call(on_closed)

        self._ask(session, close)
        self._handlers.pop(session, None)

    def _ask(self, session: str, command: _Command) -> bool:
        """Queue a command, unless the session is closed or there is nobody left to carry it out."""
        if session not in self._handlers or self.fault is not None:
            return False
        self._commands.put(command)
        return True

    # -- on the engine's thread ---------------------------------------------------------------------------------------

    def _main(self) -> None:
        try:
            patience_s: float | None = None
            while self._take_commands(patience_s):
                patience_s = self._tick()
            seating, _, _ = self._scheduler.schedule(_now_ms())
            self._carry_out(seating)  # rows of sessions that closed last are overwritten too
        except BaseException as error:
            self.fault = fault = error  # `error` is unbound when the except clause ends, before the loop gets to it
            log.exception("the engine's thread ends")
            if self._on_fault is not None:
                on_fault = self._on_fault
                self._call(lambda: on_fault(fault))

    def _take_commands(self, patience_s: float | None) -> bool:
        """Carry out what the loop has asked for by now; wait for something for `patience_s`, None: until it comes.

        What is asked for meanwhile comes after the next tick, so that no flood of commands holds it up. False: stop.
        """
        with contextlib.suppress(queue.Empty):
            for number in range(max(self._commands.qsize(), 1)):
                command = self._commands.get(timeout=0 if number else patience_s)
                if command is None:
                    return False
                command()
        return True

    def _tick(self) -> float | None:
        """One tick; returns how long to wait for commands before the next, None: there is nothing else to do."""
        begun = time.perf_counter()
        self._deliver(self._scheduler.end_cancelled())
        company_ms = self._scheduler.company_ms(_now_ms())
        if company_ms > 0:
            return company_ms / 1000
        seating, batch, sessions = self._scheduler.schedule(_now_ms())
        self._carry_out(seating)
        if not sessions:
            return None
        run_begun = time.perf_counter()
        logits = self.engine.run(batch)
        run_ended = time.perf_counter()
        events = self._scheduler.complete(batch, sessions, logits, now_ms=_now_ms())
        self._report(Tick(batch, sessions, run_ended - run_begun, time.perf_counter() - begun))
        self._deliver(events)
        return 0.0

    def _report(self, tick: Tick) -> None:
        on_tick = self._on_tick
        if on_tick is not None:
            self._call(lambda: on_tick(tick))

    def _carry_out(self, seating: Seating) -> None:
        if seating.moves:
            self.engine.move(seating.moves)
        for row in seating.freed:
            self.engine.clear(row)

    def _deliver(self, events: list[Event]) -> None:
        if events:
            self._call(lambda: self._dispatch(events))

    def _call(self, function: Callable[[], None]) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function)

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

"""The thread that computes, for all models of a server: one tick of one model at a time (`policy.in_turn` says whose).

Two engines that compute at once would share the cores or the card that each of them fills alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from typing import Protocol

from .policy import in_turn

Command = Callable[[], None]


class Computing(Protocol):
    """One model's work, as the thread sees it."""

    fault: BaseException | None

    def tick(self) -> float | None:
        """One tick, if there is work: 0; else for how many seconds to wait for more, None: as long as it takes."""

    def finish(self) -> None:
        """Clear up; no tick follows."""

    def fail(self, error: BaseException) -> None:
        """A command, a tick or the clearing up raised this; nothing of this model is called any more."""


class EngineThread:
    """Carries out commands and runs ticks; a model whose engine fails stops, and the others go on."""

    def __init__(self) -> None:
        self._models: list[Computing] = []
        self._last = 0  # index of the model that ran the last tick
        self._loop: asyncio.AbstractEventLoop | None = None
        self._untold: list[Command] = []  # what the loop is to do, in order
        self._commands: queue.SimpleQueue[tuple[Computing, Command] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._main, name="splitllm-engine", daemon=True)

    def add(self, model: Computing) -> None:
        """Compute for another model; before the start."""
        self._models.append(model)

    def start(self) -> None:
        """Begin, if that was not done yet; call it on the event loop that is to hear of what is computed."""
        self._loop = asyncio.get_running_loop()
        if not self._thread.ident:
            self._thread.start()

    async def stop(self) -> None:
        """Finish the tick in work and end."""
        self._commands.put(None)
        if self._thread.ident:
            await asyncio.to_thread(self._thread.join)

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._thread.is_alive()

    def ask(self, model: Computing, command: Command) -> None:
        """Have something done on the thread before one of the next ticks."""
        self._commands.put((model, command))

    # -- on the thread ------------------------------------------------------------------------------------------------

    def later(self, command: Command) -> None:
        """Have the loop do something once it is told: at the latest before this thread waits for commands.

        Raises:
            RuntimeError: there is no loop; nobody would hear of what is computed.
        """
        if self._loop is None:
            raise RuntimeError("the thread was not started")
        self._untold.append(command)

    def tell(self) -> None:
        """Tell the loop all that it is to do. To be called when what follows leaves it the interpreter.

        Raises:
            RuntimeError: there is no loop any more.
        """
        if self._untold and self._loop is not None:
            untold, self._untold = self._untold, []
            self._loop.call_soon_threadsafe(_each_soon, self._loop, untold)

    def _main(self) -> None:
        patience_s: float | None = None
        while self._take_commands(patience_s):
            patience_s = self._tick()
        for model in self._models:
            _attempt(model, model.finish)
        self._tell_or_fail()

    def _tell_or_fail(self) -> None:
        try:
            self.tell()
        except RuntimeError as error:  # nobody is left to hear any model
            for model in self._models:
                if model.fault is None:
                    model.fail(error)

    def _take_commands(self, patience_s: float | None) -> bool:
        """Carry out what the loop has asked for by now; wait for something for `patience_s`, None: until it comes.

        What is asked for meanwhile comes after the next tick, so that no flood of commands holds it up. False: stop.
        """
        if patience_s != 0:
            self._tell_or_fail()
        with contextlib.suppress(queue.Empty):
            for number in range(max(self._commands.qsize(), 1)):
                asked = self._commands.get(timeout=0 if number else patience_s)
                if asked is None:
                    return False
                _attempt(*asked)
                del asked  # what it holds must not live until the next command comes
        return True

    def _tick(self) -> float | None:
        """A tick of the next model that has work; returns how long to wait for commands before the next."""
        waits: list[float] = []
        for index in in_turn(len(self._models), self._last):
            model = self._models[index]
            wait_s = _attempt(model, model.tick)
            if wait_s == 0:
                self._last = index
                return 0.0
            if wait_s is not None:
                waits.append(wait_s)
        return min(waits, default=None)


def _each_soon(loop: asyncio.AbstractEventLoop, commands: list[Command]) -> None:
    """On the loop: what fails among them takes no other with it."""
    for command in commands:
        loop.call_soon(command)


def _attempt(model: Computing, step: Callable[[], float | None]) -> float | None:
    """Do something for a model, unless it has failed before."""
    if model.fault is None:
        try:
            return step()
        except BaseException as error:  # whatever it is, the other models go on
            model.fail(error)
    return None

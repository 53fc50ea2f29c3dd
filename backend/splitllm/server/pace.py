"""How fast peers may talk: what one of them says must not keep event loop and GIL from the sessions of others."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator


class Pace:
    """A token bucket: who comes faster is not refused, but waits, and TCP makes it wait with what it sends."""

    def __init__(self, now: float, *, burst: float, per_s: float) -> None:
        """`now` and what follows are seconds of one clock."""
        self._burst, self._per_s = burst, per_s
        self._left, self._seen = burst, now

    def delay(self, now: float, count: int = 1) -> float:
        """Count so many; returns the seconds that they have to wait."""
        self._left = min(self._burst, self._left + self._per_s * (now - self._seen)) - count
        self._seen = now
        return max(0.0, -self._left / self._per_s)

    def wait(self, now: float) -> float:
        """Seconds until one more would not have to wait; it is not counted."""
        self.delay(now, 0)
        return max(0.0, (1 - self._left) / self._per_s)


class Lane:
    """All connections' text goes through one lane: the event loop reads one message, then sees to everything else."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for one's turn, in the order of arrival: a later round of the event loop than the last one's."""
        async with self._lock:
            await asyncio.sleep(0)
            yield

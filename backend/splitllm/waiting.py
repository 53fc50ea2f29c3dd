"""Who waits for room, in which order, and whose room may be taken meanwhile. Pure: times come in, in seconds.

Somebody who waits holds nothing that others wait for, so nobody can wait for somebody who waits for them.
"""

from __future__ import annotations

from .errors import CapacityError


class WaitingLine:
    """First come, first served; bounded in length and in time. Places count from 1, who is next."""

    def __init__(self, length: int, longest_wait_s: float) -> None:
        self._length, self._longest_wait_s = length, longest_wait_s
        self._since_s: dict[str, float] = {}  # in the order of arrival

    def __len__(self) -> int:
        return len(self._since_s)

    @property
    def first(self) -> str | None:
        """Whose turn it is; None if nobody waits."""
        return next(iter(self._since_s), None)

    @property
    def is_full(self) -> bool:
        """Whether whoever comes is refused, because so many wait that nobody else may."""
        return bool(self._since_s) and len(self._since_s) >= self._length

    def waited_s(self, name: str, now_s: float) -> float:
        """For how long `name` has stood in the line."""
        return now_s - self._since_s[name]

    def join(self, name: str, now_s: float) -> None:
        """Stand at the end.

        Raises:
            CapacityError: the line is full.
        """
        if len(self._since_s) >= self._length:
            raise CapacityError(
                f"The server is full, and {len(self._since_s)} wait for it already; try again in a few minutes."
            )
        self._since_s[name] = now_s

    def leave(self, name: str) -> bool:
        """Those behind move up. Returns whether `name` stood in the line."""
        return self._since_s.pop(name, None) is not None

    def places(self) -> dict[str, int]:
        """The place of everybody who waits."""
        return {name: place for place, name in enumerate(self._since_s, start=1)}

    def overdue(self, now_s: float) -> list[str]:
        """Who has waited for the longest time that anybody may."""
        return [name for name, since_s in self._since_s.items() if now_s >= since_s + self._longest_wait_s]

    @property
    def next_overdue_s(self) -> float:
        """When the first will have; infinite if nobody waits."""
        return next(iter(self._since_s.values()), float("inf")) + self._longest_wait_s


class IdleRoom:
    """Sessions that hold room while their person thinks, and may lose it to who waits: the longest idle first."""

    def __init__(self, evict_after_s: float) -> None:
        """`evict_after_s`: for so long nobody loses anything; 0: never."""
        self._after_s = evict_after_s or float("inf")
        self._since_s: dict[str, float] = {}  # the longest idle first

    def idle(self, name: str, now_s: float) -> None:
        """From now on `name` does nothing with its room."""
        self._since_s.pop(name, None)
        self._since_s[name] = now_s

    def busy(self, name: str) -> None:
        """It does, or has none; no error if that was known."""
        self._since_s.pop(name, None)

    def evictable(self, now_s: float) -> list[str]:
        """Whose room may be taken, the longest idle first."""
        return [name for name, since_s in self._since_s.items() if now_s >= since_s + self._after_s]

    @property
    def next_evictable_s(self) -> float:
        """When the first may be; infinite if nobody is idle."""
        return next(iter(self._since_s.values()), float("inf")) + self._after_s

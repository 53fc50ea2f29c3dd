"""Who waits for room, in which order, and whose room may be taken meanwhile. Pure: times come in, in seconds.

Somebody who waits holds nothing that others wait for, so nobody can wait for somebody who waits for them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from .errors import CapacityError

#: So many may go in before somebody who came sooner.
MOST_OVERTAKEN: Final = 8


@dataclass(slots=True)
class _Waiting:
    since_s: float
    model: str
    overtaken: int = 0  # by so many


class WaitingLine:
    """First come, first served; bounded in length and in time. Places count from 1, who is next.

    Who finds room may overtake others for whom there is too little, if these are of other models; but nobody is
    overtaken more than MOST_OVERTAKEN times, so that no stream of small sessions keeps a large one out.
    """

    def __init__(self, length: int, longest_wait_s: float) -> None:
        self._length, self._longest_wait_s = length, longest_wait_s
        self._waiting: dict[str, _Waiting] = {}  # in the order of arrival

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def in_turn(self) -> list[str]:
        """Who may go in now, in the order in which they may look for room: the first, then those who may overtake."""
        names: dict[str, str] = {}  # the first of each model
        for name, each in self._waiting.items():
            names.setdefault(each.model, name)
            if each.overtaken >= MOST_OVERTAKEN:
                break
        return list(names.values())

    def may_overtake(self, model: str) -> bool:
        """Whether somebody of `model` who comes now may look for room before all who wait."""
        return all(each.model != model and each.overtaken < MOST_OVERTAKEN for each in self._waiting.values())

    def goes_in(self, name: str) -> None:
        """`name` has found room, whether it stood in the line or not, and has overtaken those before it."""
        for other, each in self._waiting.items():
            if other == name:
                break
            each.overtaken += 1
        self.leave(name)

    def is_full(self, models: Iterable[str]) -> bool:
        """Whether whoever comes for one of these models is refused: nobody else may wait, nor overtake."""
        return len(self._waiting) >= self._length and not any(self.may_overtake(model) for model in models)

    def waited_s(self, name: str, now_s: float) -> float:
        """For how long `name` has stood in the line."""
        return now_s - self._waiting[name].since_s

    def join(self, name: str, now_s: float, model: str = "") -> None:
        """Stand at the end.

        Raises:
            CapacityError: the line is full.
        """
        if len(self._waiting) >= self._length:
            raise CapacityError(
                f"The server is full, and {len(self._waiting)} wait for it already; try again in a few minutes."
            )
        self._waiting[name] = _Waiting(now_s, model)

    def leave(self, name: str) -> bool:
        """Those behind move up. Returns whether `name` stood in the line."""
        return self._waiting.pop(name, None) is not None

    def places(self) -> dict[str, int]:
        """The place of everybody who waits."""
        return {name: place for place, name in enumerate(self._waiting, start=1)}

    def overdue(self, now_s: float) -> list[str]:
        """Who has waited for the longest time that anybody may."""
        return [name for name, each in self._waiting.items() if now_s >= each.since_s + self._longest_wait_s]

    @property
    def next_overdue_s(self) -> float:
        """When the first will have; infinite if nobody waits."""
        return next((each.since_s for each in self._waiting.values()), float("inf")) + self._longest_wait_s


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

    def next_evictable_s(self, now_s: float = -math.inf) -> float:
        """When the first may be, of those who may not at `now_s`; infinite if there is nobody."""
        times = (since_s + self._after_s for since_s in self._since_s.values())
        return next((time_s for time_s in times if time_s > now_s), math.inf)

"""The queue for room: sessions and API requests that find none wait here, in the order in which they came.

Nothing here knows what room is: who comes tries to take it (`Guest.enter`), and whoever gives some back calls `wake`.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from ..errors import CapacityError, NeverFitsError
from ..waiting import IdleRoom, WaitingLine

#: Who waits is told its place again after so long, so that it knows that the server still stands.
TELL_EVERY_S: Final = 20.0
#: A change of places is told no more often: with people coming and going, each would be news to all who wait.
CHANGES_EVERY_S: Final = 1.0
#: A session that may be evicted, but not in this moment, is asked again after so long.
_RETRY_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class Guest:
    """Somebody who wants room.

    enter: takes it and goes on with it; raises CapacityError while there is none, and tells anything else itself.
    would_fit: whether `enter` may succeed if these gave theirs; False if it surely would not.
    placed: hears its place in the queue, at first, within CHANGES_EVERY_S when it changes, and every TELL_EVERY_S.
    refused: hears that it has waited for too long; it stands in the queue no more.
    model: what it wants a session of; within a model nobody overtakes who waits.
    """

    enter: Callable[[], None]
    would_fit: Callable[[Sequence[str]], bool]
    placed: Callable[[int], object]
    refused: Callable[[CapacityError], object]
    model: str = ""


class AdmissionQueue:
    """Lets in who comes, as long as there is room; then makes them wait. Used on the event loop only."""

    def __init__(self, length: int, longest_wait_s: float, evict_after_s: float) -> None:
        """At most `length` wait, for `longest_wait_s` each; who is idle for `evict_after_s` gives way to them."""
        self._line = WaitingLine(length, longest_wait_s)
        self._longest_wait_s = longest_wait_s
        self._idle = IdleRoom(evict_after_s)
        self._guests: dict[str, Guest] = {}
        self._evict: dict[str, Callable[[], bool]] = {}
        self._short = False  # who is first would not fit even if all idle ones gave way
        self._told: dict[str, int] = {}
        self._told_s = 0.0  # when all were told last
        self._changes_s = 0.0  # when changes were told last
        self._owed = False  # whether somebody's place has changed since
        self._next: asyncio.TimerHandle | None = None  # the next look at the line
        self._latest_wait_s = longest_wait_s  # of who was let in last from the line

    def __len__(self) -> int:
        """How many wait."""
        return len(self._line)

    def full_error(self, models: Iterable[str]) -> CapacityError | None:
        """What whoever comes now for one of these models hears; None where it could at least wait."""
        if not self._line.is_full(models):
            return None
        after_s = self.retry_after_s
        return CapacityError(f"The server is full, and {len(self)} wait for it already; try again in {after_s} s.")

    @property
    def retry_after_s(self) -> int:
        """Who is refused may come again after so long: as long as who was let in last had waited."""
        return max(1, math.ceil(self._latest_wait_s))

    def ask(self, name: str, guest: Guest, *, may_wait: bool = True) -> None:
        """Let somebody in, or in line: before those who wait already only if the line allows it and there is room.

        Raises:
            CapacityError: there is no room and it may not wait, or too many do.
        """
        full = CapacityError(f"The server is full, and {len(self)} wait for it; try again in a few minutes.")
        if self._next is not None and self._next.when() <= _now_s():
            self._next.cancel()  # room has just come: it belongs to those who wait
            self._look()
        if self._line.may_overtake(guest.model):
            try:
                self._let_in(guest, may_evict=not len(self))
                self._line.goes_in(name)
                return
            except NeverFitsError:
                raise
            except CapacityError as error:
                full = error
        if not may_wait or self._longest_wait_s <= 0:
            raise full
        self._line.join(name, _now_s(), guest.model)
        self._guests[name] = guest
        self._tell()
        self._look_later()

    def leave(self, name: str) -> None:
        """`name` waits no more; no error if it did not."""
        if self._forget(name):
            self.wake()

    def idle(self, name: str, evict: Callable[[], bool]) -> None:
        """`name` does nothing with its room; `evict` takes it, or returns False if that cannot be now."""
        self._evict[name] = evict
        self._idle.idle(name, _now_s())
        self.wake()

    def busy(self, name: str) -> None:
        """It does, or holds none."""
        self._evict.pop(name, None)
        self._idle.busy(name)

    def wake(self) -> None:
        """Room may have come: look soon, and not from here, where something is only half given back."""
        if len(self):
            self._look_at(0.0)

    # -- the line -----------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Let in who is next, as long as there is room; send away who has waited for too long."""
        self._next = None
        while self._let_one_in():
            pass
        for name in self._line.overdue(_now_s()):
            self._refuse(
                name,
                CapacityError(
                    f"You have waited for {self._longest_wait_s:g} s and the server is still full; try again in a few "
                    "minutes."
                ),
            )
        self._tell()
        self._look_later()

    def _let_one_in(self) -> bool:
        """Let in who is next and finds room, or refuse who never will; False: neither."""
        for place, name in enumerate(self._line.in_turn):
            try:
                self._let_in(self._guests[name], may_evict=place == 0)
            except NeverFitsError as error:
                self._refuse(name, error)
            except CapacityError:
                continue
            else:
                self._latest_wait_s = self._line.waited_s(name, _now_s())
                self._line.goes_in(name)
                self._forget(name)
            return True
        return False

    def _let_in(self, guest: Guest, *, may_evict: bool) -> None:
        """Who overtakes may evict nobody: what that gives belongs to the first."""
        while True:
            try:
                guest.enter()
                return
            except NeverFitsError:
                raise
            except CapacityError:
                if not may_evict:
                    raise
                idle = self._idle.evictable(_now_s())
                self._short = not guest.would_fit(idle)  # then nobody would gain by what they lose
                if self._short or not self._evict_one(idle):
                    raise

    def _evict_one(self, idle: Sequence[str]) -> bool:
        for name in idle:
            evict = self._evict[name]
            if evict():
                self.busy(name)
                return True
        return False

    def _refuse(self, name: str, error: CapacityError) -> None:
        guest = self._guests[name]
        self._forget(name)
        guest.refused(error)

    def _forget(self, name: str) -> bool:
        self._guests.pop(name, None)
        self._told.pop(name, None)
        return self._line.leave(name)

    def _tell(self) -> None:
        """Tell newcomers their place, the others theirs when it changes, and now and then all."""
        now_s = _now_s()
        if now_s >= self._told_s + TELL_EVERY_S:
            self._told.clear()
            self._told_s = now_s
        changed = {name: place for name, place in self._line.places().items() if self._told.get(name) != place}
        self._owed = now_s < self._changes_s + CHANGES_EVERY_S and any(name in self._told for name in changed)
        for name, place in changed.items():
            if name in self._told:
                if self._owed:
                    continue
                self._changes_s = now_s
            self._told[name] = place
            self._guests[name].placed(place)

    def _look_later(self) -> None:
        """Look again when somebody becomes overdue or evictable, or wants to hear from the server."""
        if len(self):
            now_s = _now_s()
            evictable_s = self._idle.next_evictable_s(now_s)
            if not self._short:
                evictable_s = max(self._idle.next_evictable_s(), now_s + _RETRY_S)
            changes_s = self._changes_s + CHANGES_EVERY_S if self._owed else math.inf
            self._look_at(min(self._line.next_overdue_s, self._told_s + TELL_EVERY_S, evictable_s, changes_s))

    def _look_at(self, time_s: float) -> None:
        if self._next is not None:
            if self._next.when() <= time_s:
                return
            self._next.cancel()
        self._next = asyncio.get_running_loop().call_at(time_s, self._look)


def _now_s() -> float:
    return asyncio.get_running_loop().time()

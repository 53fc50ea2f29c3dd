"""Rows of the batch: seats sorted by split in front, sessions that have nothing to decode behind them.

Layer l serves the seated sessions whose split is at most l. With seats sorted by split these are the rows `[0, n_l)`,
so one run of a layer binds one contiguous piece of its KV buffer, whatever mix of splits the batch holds. A session
that has no token to decode is parked behind the seats, where no run comes by; a prompt runs alone, so it needs no seat.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Move:
    """`target` is to hold what `source` holds in the blocks `[split, blocks)`, and nothing else."""

    source: int
    target: int
    split: int


@dataclass(frozen=True, slots=True)
class Seating:
    """What is to be done before the next batch: moves, all at once; then `freed` rows hold nothing and are cleared."""

    moves: tuple[Move, ...] = ()
    freed: tuple[int, ...] = ()


@dataclass(slots=True)
class _Place:
    """`row` and `held_from` (lowest block that the row holds) as the engine has them; None: the row holds nothing."""

    split: int
    seated: bool = False
    row: int | None = None
    held_from: int = 0


class SlotTable:
    """Which session sits in which row. Pure bookkeeping: changes are noted, and `settle` says what rows they move.

    Sessions fill the first rows without gaps. In between two calls of `settle` any number of changes may come; a row
    is moved once at most for all of them.
    """

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self._places: dict[str, _Place] = {}
        self._used: set[int] = set()  # rows that hold something, as the engine has them
        self._changed = False

    def __len__(self) -> int:
        return len(self._places)

    def row(self, session: str) -> int:
        """Row of a session, as of the last `settle`; one that opened later has none (KeyError)."""
        row = self._places[session].row
        if row is None:
            raise KeyError(session)
        return row

    def can_open(self) -> bool:
        """Whether a row is free."""
        return len(self) < self.rows

    def open(self, session: str, split: int) -> None:
        """Give a session a row, parked.

        Raises:
            ValueError: no row is free.
        """
        if not self.can_open():
            raise ValueError(f"all {self.rows} rows are taken")
        self._places[session] = _Place(split)
        self._changed = True

    def close(self, session: str) -> None:
        """Forget a session."""
        del self._places[session]
        self._changed = True

    def seat(self, session: str) -> None:
        """Give a session a seat among those of its split; nothing if it has one."""
        self._set_seated(session, seated=True)

    def park(self, session: str) -> None:
        """Take its seat, if it has one."""
        self._set_seated(session, seated=False)

    def resplit(self, session: str, split: int) -> None:
        """Change a session's split. Its row keeps what a larger split still needs, and nothing for a smaller one."""
        place = self._places[session]
        if split < place.split:
            place.row = None
        place.split = split
        self._changed = True

    def in_the_way(self, busy: Collection[str]) -> list[str]:
        """Sessions that have a seat, are not busy, and have a busy one behind them."""
        last = max((self._order(self._places[name]) for name in busy), default=(0, 0))
        return [
            name
            for name, place in self._places.items()
            if place.seated and name not in busy and self._order(place) < last
        ]

    def _order(self, place: _Place) -> tuple[int, int]:
        """By this seats are sorted; who has just been seated comes from a row behind all seats."""
        return (place.split, self.rows if place.row is None else place.row)

    def settle(self) -> Seating:
        """Give every session a row where it belongs, with as few moves as can be."""
        if not self._changed:
            return Seating()
        self._changed = False
        vacant: dict[tuple[bool, int], list[int]] = {}
        first = 0
        for group, count in sorted(Counter(map(_group, self._places.values())).items()):
            vacant[group] = list(range(first, first + count))
            first += count
        rows: dict[str, int] = {}
        for name, place in self._places.items():
            if place.row is not None and place.row in vacant[_group(place)]:
                vacant[_group(place)].remove(place.row)
                rows[name] = place.row
        kept = set(rows.values())
        for name, place in self._places.items():
            if name not in rows:
                rows[name] = vacant[_group(place)].pop(0)
        moves = tuple(
            Move(place.row, rows[name], place.split)
            for name, place in self._places.items()
            if place.row is not None and (place.row, place.held_from) != (rows[name], place.split)
        )
        freed = self._used - kept - {move.target for move in moves}
        self._used = set(rows.values())
        for name, place in self._places.items():
            place.row, place.held_from = rows[name], place.split
        return Seating(moves, tuple(sorted(freed)))

    def _set_seated(self, session: str, *, seated: bool) -> None:
        place = self._places[session]
        if place.seated != seated:
            place.seated = seated
            self._changed = True


def _group(place: _Place) -> tuple[bool, int]:
    """Where it sits: groups are in the order of these."""
    return (not place.seated, place.split if place.seated else 0)

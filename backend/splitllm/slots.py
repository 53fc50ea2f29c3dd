"""Rows of the batch, kept sorted by split.

Layer l serves the sessions whose split is at most l. With rows sorted by split these are the rows `[0, n_l)`, so one
run of a layer binds one contiguous piece of its KV buffer, whatever mix of splits the batch holds. Opening and closing
a session moves at most one row per distinct split.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Move:
    """Copy the keys and values of one row to another, in the blocks `[split, blocks)`."""

    source: int
    target: int
    split: int


class SlotTable:
    """Which session sits in which row. Pure bookkeeping: the moves it returns are carried out by the engine."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self._sessions: list[str] = []  # by row
        self._splits: list[int] = []  # by row, ascending

    def __len__(self) -> int:
        return len(self._sessions)

    def row(self, session: str) -> int:
        """Row of a session."""
        return self._sessions.index(session)

    def rename(self, session: str, name: str) -> None:
        """Call a session by another name; it keeps its row."""
        self._sessions[self.row(session)] = name

    def can_insert(self) -> bool:
        """Whether a row is free."""
        return len(self) < self.rows

    def insert(self, session: str, split: int) -> list[Move]:
        """Seat a session behind the last one of its split; returns the moves, to be done in order, that make room.

        Raises:
            ValueError: no row is free.
        """
        if not self.can_insert():
            raise ValueError(f"all {self.rows} rows are taken")
        target = bisect_right(self._splits, split)
        moves = []
        hole = len(self)
        while hole > target:  # the first row of each later group goes to that group's end
            first = self._splits.index(self._splits[hole - 1])
            moves.append(Move(first, hole, self._splits[first]))
            self._put(hole, first)
            hole = first
        self._put(target, None, session, split)
        return moves

    def remove(self, session: str) -> list[Move]:
        """Take a session out; returns the moves, to be done in order, that close the gap."""
        hole = self.row(session)
        moves = []
        last = len(self) - 1
        while hole < last:  # the last row of this group, then of each later group, fills the hole before it
            source = bisect_right(self._splits, self._splits[hole + 1]) - 1
            moves.append(Move(source, hole, self._splits[source]))
            self._put(hole, source)
            hole = source
        del self._sessions[last], self._splits[last]
        return moves

    def _put(self, row: int, source: int | None, session: str = "", split: int = 0) -> None:
        if source is not None:
            session, split = self._sessions[source], self._splits[source]
        if row == len(self):
            self._sessions.append(session)
            self._splits.append(split)
        else:
            self._sessions[row], self._splits[row] = session, split

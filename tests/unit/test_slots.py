"""Rows of the batch: whatever comes and goes, each session finds its own keys and values in its own row."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from splitllm.slots import Move, SlotTable

ROWS, BLOCKS = 7, 4


class Cells:
    """What an engine's memory holds: for each row and block the name of whose keys and values lie there."""

    def __init__(self) -> None:
        self.rows: list[list[str | None]] = [[None] * BLOCKS for _ in range(ROWS)]

    def move(self, moves: Sequence[Move]) -> None:
        for move in moves:
            self.rows[move.target][move.split :] = self.rows[move.source][move.split :]

    def fill(self, row: int, split: int, name: str) -> None:
        self.rows[row][split:] = [name] * (BLOCKS - split)

    def holds(self, row: int, split: int, name: str) -> bool:
        return self.rows[row][split:] == [name] * (BLOCKS - split)


class SlotTableRules(RuleBasedStateMachine):
    """Any mix of sessions coming, going and changing names."""

    def __init__(self) -> None:
        super().__init__()
        self.table = SlotTable(ROWS)
        self.cells = Cells()
        self.splits: dict[str, int] = {}
        self.names: dict[str, str] = {}  # session -> what its cells are called
        self.count = 0

    def distinct_splits(self, split: int) -> int:
        return len({other for other in self.splits.values() if other >= split})

    @precondition(lambda self: self.table.can_insert())
    @rule(split=st.integers(0, BLOCKS))
    def insert(self, split: int) -> None:
        self.count += 1
        name = f"session {self.count}"
        moves = self.table.insert(name, split)
        assert len(moves) <= self.distinct_splits(split + 1)
        self.cells.move(moves)
        self.splits[name], self.names[name] = split, name
        self.cells.fill(self.table.row(name), split, name)

    @precondition(lambda self: self.splits)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.splits)))
        moves = self.table.remove(name)
        assert len(moves) <= self.distinct_splits(self.splits[name])
        del self.splits[name], self.names[name]
        self.cells.move(moves)

    @precondition(lambda self: self.splits)
    @rule(data=st.data())
    def rename(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.splits)))
        row = self.table.row(name)
        self.count += 1
        new_name = f"session {self.count}"
        self.table.rename(name, new_name)
        assert self.table.row(new_name) == row
        self.splits[new_name], self.names[new_name] = self.splits.pop(name), self.names.pop(name)

    @invariant()
    def rows_are_the_first_ones_and_sorted_by_split(self) -> None:
        by_row = sorted(self.splits, key=self.table.row)
        assert [self.table.row(name) for name in by_row] == list(range(len(self.splits)))
        assert [self.splits[name] for name in by_row] == sorted(self.splits.values())
        assert len(self.table) == len(self.splits)
        assert self.table.can_insert() == (len(self.splits) < ROWS)

    @invariant()
    def every_session_finds_its_own_data_in_its_row(self) -> None:
        for name, split in self.splits.items():
            assert self.cells.holds(self.table.row(name), split, self.names[name])


TestSlotTable = SlotTableRules.TestCase
TestSlotTable.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_a_session_of_the_highest_split_is_seated_last_without_a_move() -> None:
    table = SlotTable(ROWS)
    assert table.insert("a", 1) == []
    assert table.insert("b", 3) == []
    assert table.insert("c", 3) == []
    assert [table.row(name) for name in "abc"] == [0, 1, 2]


def test_the_first_row_of_each_later_split_makes_room() -> None:
    table = SlotTable(ROWS)
    for name, split in (("a", 0), ("b", 2), ("c", 2), ("d", 3)):
        table.insert(name, split)
    assert table.insert("e", 0) == [Move(3, 4, 3), Move(1, 3, 2)]
    assert [table.row(name) for name in "aecbd"] == [0, 1, 2, 3, 4]


def test_the_last_row_of_each_later_split_closes_the_gap() -> None:
    table = SlotTable(ROWS)
    for name, split in (("a", 0), ("b", 0), ("c", 2), ("d", 2), ("e", 3)):
        table.insert(name, split)
    assert table.remove("a") == [Move(1, 0, 0), Move(3, 1, 2), Move(4, 3, 3)]
    assert [table.row(name) for name in "bdce"] == [0, 1, 2, 3]

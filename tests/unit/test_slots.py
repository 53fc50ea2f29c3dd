"""Rows of the batch: whatever comes and goes, each session finds its own keys and values in its own row."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from splitllm.slots import Move, Seating, SlotTable

ROWS, BLOCKS = 7, 4


class Cells:
    """What an engine's memory holds: for each row and block the name of whose keys and values lie there."""

    def __init__(self) -> None:
        self.rows: list[list[str]] = [[""] * BLOCKS for _ in range(ROWS)]

    def carry_out(self, seating: Seating) -> None:
        before = [list(row) for row in self.rows]
        for move in seating.moves:
            self.rows[move.target] = [""] * move.split + before[move.source][move.split :]
        for row in seating.freed:
            self.rows[row] = [""] * BLOCKS


class SlotTableRules(RuleBasedStateMachine):
    """Any mix of sessions coming, going, decoding, standing idle and changing splits."""

    def __init__(self) -> None:
        super().__init__()
        self.table = SlotTable(ROWS)
        self.cells = Cells()
        self.splits: dict[str, int] = {}
        self.seated: set[str] = set()
        self.holding: dict[str, int] = {}  # session -> lowest block that its row must hold
        self.count = 0
        self.changes = 0

    @precondition(lambda self: self.table.can_open())
    @rule(split=st.integers(0, BLOCKS), again=st.booleans())
    def open(self, split: int, again: bool) -> None:
        gone = sorted({f"session {number}" for number in range(self.count)} - set(self.splits))
        name = gone[0] if gone and again else f"session {self.count}"  # a name may come back
        self.count += name == f"session {self.count}"
        self.table.open(name, split)
        self.splits[name] = split

    @precondition(lambda self: self.splits)
    @rule(data=st.data())
    def close(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.splits)))
        self.table.close(name)
        del self.splits[name]
        self.holding.pop(name, None)
        self.seated.discard(name)

    @precondition(lambda self: self.splits)
    @rule(data=st.data(), seated=st.booleans())
    def seat_or_park(self, data: st.DataObject, seated: bool) -> None:
        name = data.draw(st.sampled_from(sorted(self.splits)))
        (self.table.seat if seated else self.table.park)(name)
        (self.seated.add if seated else self.seated.discard)(name)

    @precondition(lambda self: self.splits)
    @rule(data=st.data(), split=st.integers(0, BLOCKS))
    def resplit(self, data: st.DataObject, split: int) -> None:
        name = data.draw(st.sampled_from(sorted(self.splits)))
        self.table.resplit(name, split)
        if split < self.splits[name]:
            self.holding.pop(name, None)
        elif name in self.holding:
            self.holding[name] = split
        self.splits[name] = split

    @rule()
    def settle(self) -> None:
        seating = self.table.settle()
        assert len({move.target for move in seating.moves}) == len(seating.moves)
        assert not {move.target for move in seating.moves} & set(seating.freed)
        self.cells.carry_out(seating)
        assert self.table.settle() == Seating()
        self.check_layout()
        self.check_memory()
        for name, split in self.splits.items():  # each session runs
            self.cells.rows[self.table.row(name)][split:] = [name] * (BLOCKS - split)
            self.holding[name] = split

    def check_layout(self) -> None:
        by_row = sorted(self.splits, key=self.table.row)
        assert [self.table.row(name) for name in by_row] == list(range(len(self.splits)))
        seats = by_row[: len(self.seated)]
        assert set(seats) == self.seated
        assert [self.splits[name] for name in seats] == sorted(self.splits[name] for name in seats)

    def check_memory(self) -> None:
        """Everybody finds what is theirs and nothing of anybody else; rows without a session are empty."""
        for row, cells in enumerate(self.cells.rows):
            names = [name for name in self.splits if self.table.row(name) == row]
            expected = [""] * BLOCKS
            if names and names[0] in self.holding:
                split = self.holding[names[0]]
                expected[split:] = names * (BLOCKS - split)
            assert cells == expected

    @invariant()
    def no_more_sessions_than_rows(self) -> None:
        assert len(self.table) == len(self.splits)
        assert self.table.can_open() == (len(self.splits) < ROWS)


TestSlotTable = SlotTableRules.TestCase
TestSlotTable.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)


def seated(*splits: int) -> SlotTable:
    """Sessions a, b, c … with seats, settled."""
    table = SlotTable(ROWS)
    for name, split in zip("abcdefg", splits, strict=False):
        table.open(name, split)
        table.seat(name)
    table.settle()
    return table


def rows(table: SlotTable, names: str) -> list[int]:
    return [table.row(name) for name in names]


def test_a_session_opens_behind_all_others_without_a_move() -> None:
    table = seated(0, 2, 3)
    table.open("d", 0)
    assert table.settle() == Seating()
    assert rows(table, "abcd") == [0, 1, 2, 3]


def test_one_row_of_each_later_split_makes_room_for_a_seat() -> None:
    table = seated(0, 2, 2, 3)
    table.open("e", 0)
    table.settle()
    table.seat("e")
    assert sorted(table.settle().moves, key=lambda move: move.target) == [Move(4, 1, 0), Move(1, 3, 2), Move(3, 4, 3)]
    assert rows(table, "aecbd") == [0, 1, 2, 3, 4]


def test_one_row_of_each_later_split_closes_the_gap_of_one_that_is_parked() -> None:
    table = seated(0, 0, 2, 2, 3)
    table.park("a")
    seating = table.settle()
    assert len(seating.moves) == 4
    assert seating.freed == ()
    assert rows(table, "bdcea") == [0, 1, 2, 3, 4]


def test_the_last_seat_is_left_and_taken_again_without_a_move() -> None:
    table = seated(0, 1)
    for change in (table.park, table.seat):
        change("b")
        assert table.settle() == Seating()


def test_a_closed_session_s_row_is_filled_or_freed() -> None:
    table = seated(0, 0, 1)
    table.close("a")
    seating = table.settle()
    assert (set(seating.moves), seating.freed) == ({Move(1, 0, 0), Move(2, 1, 1)}, (2,))
    table.close("c")
    assert table.settle() == Seating((), (1,))


def test_many_changes_move_each_row_once() -> None:
    table = seated(0, 0, 0, 1, 1, 1)
    for name in "abd":
        table.park(name)
    seating = table.settle()
    assert len(seating.moves) <= 5
    assert set(rows(table, "abd")) == {3, 4, 5}


def test_a_smaller_split_keeps_nothing_and_a_larger_one_keeps_what_it_needs() -> None:
    table = seated(2)
    table.resplit("a", 3)
    assert table.settle() == Seating((Move(0, 0, 3),), ())
    table.resplit("a", 1)
    assert table.settle() == Seating((), (0,))


def test_idle_seats_with_busy_ones_behind_are_in_the_way() -> None:
    table = seated(0, 0, 1, 3, 3)
    assert table.in_the_way({"d"}) == ["a", "b", "c"]
    assert table.in_the_way({"b"}) == ["a"]
    assert table.in_the_way({"a"}) == []
    table.park("a")
    assert table.in_the_way({"d"}) == ["b", "c"]
    table.open("f", 1)
    table.seat("f")  # gets a row behind c with the next settle
    assert table.in_the_way({"f"}) == ["b", "c"]

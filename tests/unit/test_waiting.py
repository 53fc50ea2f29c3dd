"""Who waits for room, and whose room may be taken."""

from __future__ import annotations

import pytest

from splitllm.errors import CapacityError
from splitllm.waiting import IdleRoom, WaitingLine


def line(*names: str, length: int = 3, longest_wait_s: float = 10.0) -> WaitingLine:
    made = WaitingLine(length, longest_wait_s)
    for now_s, name in enumerate(names):
        made.join(name, now_s)
    return made


def test_first_come_first_served() -> None:
    waiting = line("a", "b", "c")
    assert (waiting.first, waiting.places()) == ("a", {"a": 1, "b": 2, "c": 3})


def test_who_leaves_lets_those_behind_move_up() -> None:
    waiting = line("a", "b", "c")
    assert waiting.leave("b")
    assert not waiting.leave("b")
    assert (waiting.first, waiting.places()) == ("a", {"a": 1, "c": 2})
    waiting.join("b", 9.0)
    assert waiting.places() == {"a": 1, "c": 2, "b": 3}, "who comes again stands at the end"


def test_a_full_line_refuses_and_stays_as_it_was() -> None:
    waiting = line("a", "b", length=2)
    with pytest.raises(CapacityError, match="2 wait for it already; try again") as refusal:
        waiting.join("c", 2.0)
    assert (refusal.value.code, waiting.places()) == ("server_full", {"a": 1, "b": 2})


def test_a_line_is_full_when_nobody_else_may_stand_in_it() -> None:
    assert [line(*names, length=2).is_full for names in ("", "a", "ab")] == [False, False, True]
    assert not line(length=0).is_full, "where nobody may wait there may be room"
    assert line("a", "b").waited_s("b", 9.0) == 8.0


def test_who_has_waited_long_enough_is_overdue() -> None:
    waiting = line("a", "b", "c")  # since 0, 1 and 2
    assert waiting.next_overdue_s == 10.0
    assert [waiting.overdue(now_s) for now_s in (9.9, 10.0, 11.5, 12.0)] == [[], ["a"], ["a", "b"], ["a", "b", "c"]]


def test_nobody_is_due_where_nobody_waits() -> None:
    assert (line().first, line().places(), line().next_overdue_s) == (None, {}, float("inf"))
    assert (IdleRoom(5.0).evictable(1e9), IdleRoom(5.0).next_evictable_s) == ([], float("inf"))


def test_the_longest_idle_loses_its_room_first() -> None:
    room = IdleRoom(5.0)
    for now_s, name in ((0.0, "a"), (1.0, "b"), (2.0, "c")):
        room.idle(name, now_s)
    room.busy("b")
    room.idle("a", 3.0)  # it was busy meanwhile
    assert room.next_evictable_s == 7.0
    assert [room.evictable(now_s) for now_s in (6.9, 7.0, 8.0)] == [[], ["c"], ["c", "a"]]


def test_a_policy_of_0_takes_nothing_from_anybody() -> None:
    room = IdleRoom(0.0)
    room.idle("a", 0.0)
    assert (room.evictable(1e9), room.next_evictable_s) == ([], float("inf"))

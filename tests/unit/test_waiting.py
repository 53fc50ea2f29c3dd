"""Who waits for room, and whose room may be taken."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitllm.errors import CapacityError
from splitllm.waiting import MOST_OVERTAKEN, IdleRoom, WaitingLine


def line(*names: str, length: int = 3, longest_wait_s: float = 10.0) -> WaitingLine:
    made = WaitingLine(length, longest_wait_s)
    for now_s, name in enumerate(names):
        made.join(name, now_s)
    return made


def test_first_come_first_served() -> None:
    waiting = line("a", "b", "c")
    assert (waiting.in_turn, waiting.places()) == (["a"], {"a": 1, "b": 2, "c": 3})


def test_who_leaves_lets_those_behind_move_up() -> None:
    waiting = line("a", "b", "c")
    assert waiting.leave("b")
    assert not waiting.leave("b")
    assert (waiting.in_turn, waiting.places()) == (["a"], {"a": 1, "c": 2})
    waiting.join("b", 9.0)
    assert waiting.places() == {"a": 1, "c": 2, "b": 3}, "who comes again stands at the end"


def test_a_full_line_refuses_and_stays_as_it_was() -> None:
    waiting = line("a", "b", length=2)
    with pytest.raises(CapacityError, match="2 wait for it already; try again") as refusal:
        waiting.join("c", 2.0)
    assert (refusal.value.code, waiting.places()) == ("server_full", {"a": 1, "b": 2})


def test_a_line_is_full_when_nobody_else_may_stand_in_it_or_overtake() -> None:
    assert [line(*names, length=2).is_full([""]) for names in ("", "a", "ab")] == [False, False, True]
    assert not line(length=0).is_full([""]), "where nobody may wait there may be room"
    assert not line("a", length=1).is_full(["", "another"]), "who wants another model may find room"
    assert line("a", "b").waited_s("b", 9.0) == 8.0


def test_who_has_waited_long_enough_is_overdue() -> None:
    waiting = line("a", "b", "c")  # since 0, 1 and 2
    assert waiting.next_overdue_s == 10.0
    assert [waiting.overdue(now_s) for now_s in (9.9, 10.0, 11.5, 12.0)] == [[], ["a"], ["a", "b"], ["a", "b", "c"]]


def test_nobody_is_due_where_nobody_waits() -> None:
    assert (line().in_turn, line().places(), line().next_overdue_s) == ([], {}, float("inf"))
    assert (IdleRoom(5.0).evictable(1e9), IdleRoom(5.0).next_evictable_s()) == ([], float("inf"))


def test_the_longest_idle_loses_its_room_first() -> None:
    room = IdleRoom(5.0)
    for now_s, name in ((0.0, "a"), (1.0, "b"), (2.0, "c")):
        room.idle(name, now_s)
    room.busy("b")
    room.idle("a", 3.0)  # it was busy meanwhile
    assert room.next_evictable_s() == 7.0
    assert [room.evictable(now_s) for now_s in (6.9, 7.0, 8.0)] == [[], ["c"], ["c", "a"]]
    assert [room.next_evictable_s(now_s) for now_s in (6.9, 7.0, 8.0)] == [7.0, 8.0, float("inf")]


def test_a_policy_of_0_takes_nothing_from_anybody() -> None:
    room = IdleRoom(0.0)
    room.idle("a", 0.0)
    assert (room.evictable(1e9), room.next_evictable_s()) == ([], float("inf"))


def test_who_finds_room_overtakes_others_of_other_models_so_many_times_and_no_more() -> None:
    waiting = WaitingLine(64, 10.0)
    for name, model in (("a1", "a"), ("b1", "b"), ("a2", "a"), ("c1", "c")):
        waiting.join(name, 0.0, model)
    assert waiting.in_turn == ["a1", "b1", "c1"]
    assert [waiting.may_overtake(model) for model in "abcd"] == [False, False, False, True]
    waiting.goes_in("c1")
    for number in range(MOST_OVERTAKEN - 1):
        assert waiting.may_overtake("c")
        waiting.goes_in(f"never stood in line {number}")
    assert waiting.in_turn == ["a1"]
    assert not waiting.may_overtake("c")
    waiting.goes_in("a1")
    assert waiting.in_turn == ["b1"], "it was overtaken as often"
    waiting.goes_in("b1")
    assert waiting.in_turn == ["a2"]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 10), st.booleans()), max_size=60), st.integers(1, 12))
def test_whoever_comes_and_goes_nobody_is_overtaken_within_a_model_nor_for_ever(
    steps: list[tuple[str, int, bool]], room: int
) -> None:
    """People of three models want 1 to 10 of one room; each step somebody comes, and the longest inside may go."""
    waiting, inside = WaitingLine(64, 10.0), dict[str, int]()
    wants: dict[str, tuple[str, int]] = {}
    overtaken: dict[str, int] = {}

    def fits(name: str) -> bool:
        return sum(inside.values()) + wants[name][1] <= room

    def go_in(name: str) -> None:
        inside[name] = wants[name][1]
        before = list(itertools.takewhile(lambda other: other != name, waiting.places()))
        assert all(wants[other][0] != wants[name][0] for other in before)
        for other in before:
            overtaken[other] = overtaken.get(other, 0) + 1
        waiting.goes_in(name)

    for number, (model, size, leaves) in enumerate(steps):
        if leaves and inside:
            inside.pop(next(iter(inside)))
        while name := next(filter(fits, waiting.in_turn), None):
            go_in(name)
        name, wants[name] = f"{number}", (model, min(size, room))
        if waiting.may_overtake(model) and fits(name):
            go_in(name)
        else:
            waiting.join(name, 0.0, model)
    assert max(overtaken.values(), default=0) <= MOST_OVERTAKEN
    while inside:  # all leave, and so all come in
        inside.pop(next(iter(inside)))
        while name := next(filter(fits, waiting.in_turn), None):
            go_in(name)
    assert not len(waiting)


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=20))
def test_there_is_always_one_who_may_go_in_and_first_the_first(models: list[str]) -> None:
    waiting = WaitingLine(64, 10.0)
    for number, model in enumerate(models):
        waiting.join(f"{number}", 0.0, model)
    for _ in models:
        assert waiting.in_turn[0] == next(iter(waiting.places()))
        waiting.goes_in(waiting.in_turn[-1])
    assert waiting.in_turn == []

"""The scheduler's choices, by themselves."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from splitllm.policy import (
    COMPANY_LEAVES,
    COMPANY_TICKS,
    PARKED_AT_ONCE,
    PIECE_ROWS,
    SILENT_TICKS,
    TURN_ENDED_TICKS,
    IdleSeat,
    WaitingPrompt,
    company_ms,
    parked,
    share_prefill,
)

prompts = st.lists(
    st.builds(
        WaitingPrompt,
        session=st.uuids().map(str),
        rows=st.integers(2, 300),
        deadline_ms=st.floats(0, 1000),
        last_served=st.integers(0, 50),
    ),
    min_size=1,
    max_size=12,
    unique_by=lambda prompt: prompt.session,
)


@given(prompts, st.integers(51, 100), st.floats(0, 1000), st.integers(1, 128))
@settings(deadline=None)
def test_a_tick_computes_at_least_one_row_and_never_more_than_it_may(
    waiting: list[WaitingPrompt], tick: int, now_ms: float, rows: int
) -> None:
    shares = share_prefill(waiting, tick=tick, now_ms=now_ms, rows=rows)
    by_name = {prompt.session: prompt for prompt in waiting}
    assert len({session for session, _ in shares}) == len(shares) >= 1
    assert all(1 <= share <= by_name[session].rows for session, share in shares)
    assert sum(share for _, share in shares) + PIECE_ROWS * (len(shares) - 1) <= rows
    # Only the first may be cut short: a piece that leaves rows over is paid for twice.
    assert all(share == by_name[session].rows for session, share in shares[1:])


@given(prompts, st.floats(0, 1000))
@settings(deadline=None)
def test_nobody_waits_longer_than_two_ticks_for_each_prompt_there_is(
    waiting: list[WaitingPrompt], now_ms: float
) -> None:
    last = {prompt.session: 50 for prompt in waiting}
    for tick in range(51, 51 + 6 * len(waiting)):
        now = [WaitingPrompt(p.session, p.rows, p.deadline_ms, last[p.session]) for p in waiting]
        for session, _ in share_prefill(now, tick=tick, now_ms=now_ms, rows=64):
            last[session] = tick
        assert all(tick - served <= 2 * len(waiting) for served in last.values())


def test_a_tick_by_deadline_serves_the_earliest_that_can_still_be_met() -> None:
    waiting = [WaitingPrompt("overdue", 64, 10.0), WaitingPrompt("far", 64, 900.0), WaitingPrompt("near", 64, 300.0)]
    assert share_prefill(waiting, tick=1, now_ms=50.0, rows=64) == [("near", 64)]


def test_a_tick_by_turn_serves_who_has_waited_longest() -> None:
    waiting = [WaitingPrompt("a", 64, 10.0, last_served=8), WaitingPrompt("b", 64, 900.0, last_served=3)]
    assert share_prefill(waiting, tick=10, now_ms=50.0, rows=64) == [("b", 64)]


idle_seats = st.lists(
    st.builds(IdleSeat, session=st.uuids().map(str), ticks=st.integers(1, 80), in_turn=st.booleans()),
    max_size=12,
    unique_by=lambda seat: seat.session,
)


@given(idle_seats)
@settings(deadline=None)
def test_seats_are_given_up_after_their_time_and_a_few_at_once_longest_idle_first(seats: list[IdleSeat]) -> None:
    by_name = {seat.session: seat for seat in seats}
    overdue = [seat for seat in seats if seat.ticks >= (SILENT_TICKS if seat.in_turn else TURN_ENDED_TICKS)]
    chosen = [by_name[session] for session in parked(seats)]
    assert len(chosen) == min(PARKED_AT_ONCE, len(overdue))
    assert all(seat in overdue for seat in chosen)
    left = [seat.ticks for seat in overdue if seat not in chosen]
    assert all(seat.ticks >= max(left, default=0) for seat in chosen)


def test_a_turn_that_ended_leaves_its_seat_long_before_one_whose_client_is_slow() -> None:
    assert parked([IdleSeat("slow", TURN_ENDED_TICKS, in_turn=True)]) == []
    assert parked([IdleSeat("over", TURN_ENDED_TICKS, in_turn=False)]) == ["over"]
    assert parked([IdleSeat("silent", SILENT_TICKS, in_turn=True)]) == ["silent"]


times = st.floats(0, 1000)


@given(st.lists(times, min_size=1, max_size=5), times, times, st.floats(0, 200))
@settings(deadline=None)
def test_nobody_waits_for_company_for_longer_than_a_part_of_a_tick_or_into_a_deadline(
    due: list[float], since: float, waited: float, tick: float
) -> None:
    now = since + waited
    wait = company_ms(due, since_ms=since, now_ms=now, tick_ms=tick)
    assert wait >= 0
    if wait:
        assert waited + wait <= COMPANY_TICKS * tick + 1e-6
        assert now + wait + COMPANY_LEAVES * tick <= min(due) + 1e-6


def test_rows_wait_for_half_a_tick_where_their_deadlines_are_far() -> None:
    assert company_ms([500.0, 900.0], since_ms=100.0, now_ms=104.0, tick_ms=20.0) == 6.0
    assert company_ms([205.0, 900.0], since_ms=100.0, now_ms=104.0, tick_ms=20.0) == 1.0
    assert company_ms([200.0, 900.0], since_ms=100.0, now_ms=104.0, tick_ms=20.0) == 0.0

"""What a session costs a server that is at work already, and how long it waits there."""

from __future__ import annotations

from dataclasses import replace

import pytest

from splitllm.planner.marginal import Load, SessionCosts, headroom, kv_price
from splitllm.planner.profile import EngineProfile, Grid
from splitllm.planner.session_plan import Held, KvMemory, plan_session
from splitllm.types import ClientReport, Link, ModelSpec, SessionPlan, Sla

# A block: 2 ms for one row, half a millisecond for each more; 40 ms for a chunk of 64. The head: 1 ms and a quarter.
PROFILE = EngineProfile(
    decode=Grid((1, 9), (0,), ((2.0,), (6.0,))),
    prefill=Grid((32, 64), (0,), ((20.0,), (40.0,))),
    head=Grid((1, 5), (0,), ((1.0,), (2.0,))),
    kv_block_bytes=1000,
)
SPEC = ModelSpec("model", 8, 576, 9, 3, 64, 49152, 2048, (0,))
REPORT = ClientReport("webgpu", "float32", 8, decode_ms=10.0, prefill_ms=64.0, prefill_rows=64)
LINK = Link(10, 10, 1250, 6250)


def plan(report: ClientReport = REPORT, sla: Sla | None = None, **more: object) -> SessionPlan:
    arguments: dict[str, object] = {"prompt_tokens": 64, "expected_tokens": 100, "wire_bytes": 2, "block_bytes": 1}
    arguments |= {"requested": None} | more
    return plan_session(SPEC, report, PROFILE, LINK, sla or Sla(2000, 100), **arguments)  # type: ignore[arg-type]


def test_load_counts_the_rows_of_each_block() -> None:
    load = Load.of([0, 0, 2, 3], 3, context=50)
    assert (load.rows, load.head_rows, load.context) == ((2, 2, 3), 4, 50)
    assert Load.idle(2) == Load((0.0, 0.0))


def test_the_costs_of_a_session_that_joins_others_by_hand() -> None:
    costs = SessionCosts.of(PROFILE, Load.of([0, 0, 2], 3), prompt_tokens=96, answer_tokens=10)
    assert costs.prompt_ms == 60  # alone in the batch: all of it is this session's
    assert costs.step_cost_ms == (0.5, 0.5, 0.5)
    assert costs.others_ms == (2.5, 2.5, 3.0)
    assert costs.tick_ms == (3.0, 3.0, 3.5)
    assert (costs.head_cost_ms, costs.others_head_ms, costs.tick_head_ms) == (0.25, 1.5, 1.75)
    assert costs.chunk_wait_ms == 2 * (8 + 1.5)
    assert costs.step_wait_ms == (8 + 1.5) / 2
    # Split 1: two blocks of prompt, the head, and ten steps of two blocks and the head.
    assert costs.server_ms(10)[1] == 2 * 60 + 1 + 10 * (2 * 0.5 + 0.25)


def test_ticks_of_other_models_are_waited_for_and_cost_nothing() -> None:
    """Whole ones at split 0, where the row is there when its tick ends; half of one where it comes at any time."""
    before, after = plan(), plan(load=Load.idle(8, other_models_ms=40))
    alone, beside = (each.details["candidates"] for each in (before, after))
    for split in range(9):
        assert beside["tpot_ms"][split] - alone["tpot_ms"][split] == pytest.approx(20 if split else 40)
        assert beside["ttft_ms"][split] - alone["ttft_ms"][split] == pytest.approx(40)  # one chunk
    assert beside["server_ms"] == alone["server_ms"]
    assert (before.split, before.feasible) == (7, True)
    assert plan(sla=Sla(2000, 50), load=Load.idle(8, other_models_ms=80)).feasible is False
    # Headroom is for sessions of this model; the others' ticks come on top of it.
    crowd = Load.of([0] * 8, 8, other_models_ms=40)
    assert (
        plan(load=crowd, headroom=0.9).predicted_tpot_ms
        == plan(load=Load.idle(8, other_models_ms=40), headroom=0.9).predicted_tpot_ms
    )


def test_cost_falls_and_latency_rises_with_the_load() -> None:
    alone, crowd = plan(), plan(load=Load.of([0] * 16, 8))
    tables = alone.details["candidates"], crowd.details["candidates"]
    for split in range(8):
        assert tables[1]["server_ms"][split] < tables[0]["server_ms"][split]
        assert tables[1]["tpot_ms"][split] > tables[0]["tpot_ms"][split]
    # A step at split 0 alone: 8 · 2 + 1; with 16 others: 17 rows cost 8 · 10 and the head 5.
    assert tables[0]["tpot_ms"][0] == pytest.approx(17)
    assert tables[1]["tpot_ms"][0] == pytest.approx(85)


def test_a_tick_and_a_half_of_a_full_server_is_kept_for_others_but_no_more_than_a_part() -> None:
    tick = 8 * PROFILE.decode_ms(4, 300) + PROFILE.head_ms(4)
    assert headroom(PROFILE, 8, 4, 1000.0) == pytest.approx(1 - 1.5 * tick / 1000)
    assert headroom(PROFILE, 8, 1000, 1000.0) == pytest.approx(0.7)
    assert headroom(PROFILE, 8, 4, float("inf")) == 1


def test_a_split_leaves_headroom_and_the_server_alone_needs_none() -> None:
    assert plan(sla=Sla(2000, 85)).split == 5
    roomy = plan(sla=Sla(2000, 85), headroom=0.8)
    assert roomy.split < 5
    assert (roomy.feasible, roomy.bound) == (True, "tpot")
    assert roomy.predicted_tpot_ms <= 0.8 * 85 < roomy.details["candidates"]["tpot_ms"][roomy.split + 1] <= 85
    assert "too near the promised 85 ms" in roomy.reason
    # 17 ms a token at split 0: within 20, though not within 14.
    alone = plan(sla=Sla(2000, 20), headroom=0.7)
    assert (alone.split, alone.feasible) == (0, True)
    # Who asks for a split by number is told of the promise itself.
    assert plan(sla=Sla(2000, 85), headroom=0.8, requested=5).feasible


@pytest.mark.parametrize("held", [None, Held(8, 0)])
def test_where_only_a_split_keeps_the_promise_it_may_use_all_of_it(held: Held | None) -> None:
    quick = replace(REPORT, decode_ms=0.1, prefill_ms=1.0)
    ttft = plan(quick, requested=8).predicted_ttft_ms
    assert ttft < plan(quick, requested=7).predicted_ttft_ms
    chosen = plan(quick, Sla(1.01 * ttft, 100), headroom=0.7, held=held)
    assert (chosen.split, chosen.feasible) == (8, True)


def test_both_savings_stand_under_their_own_names() -> None:
    chosen = plan(load=Load.of([0] * 8, 8), requested=4)
    assert chosen.saved_block_steps == 0.5
    # Prompt 8 · 40 + 1 and 100 · (8 · 0.5 + 0.25) alone; half the blocks' share without the head's.
    alone, here = 321 + 100 * 4.25, 161 + 100 * 2.25
    assert chosen.server_ms == pytest.approx(here)
    assert chosen.saved_server_time == pytest.approx(1 - here / alone)


def test_memory_costs_nothing_when_empty_and_its_share_of_the_time_when_full() -> None:
    assert kv_price(100, 5000, limit_bytes=1000, others_bytes=0) == 0
    assert kv_price(100, 5000, limit_bytes=1000, others_bytes=1000) == 500
    assert kv_price(100, 5000, limit_bytes=1000, others_bytes=500) == 250
    assert kv_price(5000, 5000, limit_bytes=1000, others_bytes=9000) == 5000  # never more than all of it
    assert kv_price(100, 5000, limit_bytes=0, others_bytes=0) == 0


def test_the_price_of_memory_enters_the_cost_but_not_the_seconds_that_are_reported() -> None:
    memory = KvMemory(limit_bytes=1e9, others_bytes=1e9, session_tokens=2048)
    dear, free = plan(kv_memory=memory), plan()
    assert dear.details["candidates"]["cost_ms"][0] > free.details["candidates"]["cost_ms"][0]
    assert dear.server_ms == free.server_ms
    # 1000 bytes · 2048 tokens are 0.2048 % of the memory; the answer takes 8 · 40 + 100 · 17 ms at least.
    price = 8 * 0.002048 * (320 + 1700)
    extra = dear.details["candidates"]["cost_ms"][0] - free.details["candidates"]["cost_ms"][0]
    assert extra == pytest.approx(price, rel=1e-3)


@pytest.mark.parametrize(("effort", "split"), [(None, 5), (1.0, 5), (0.5, 4), (0.3, 2), (0.124, 0), (0.0, 0)])
def test_a_persons_own_cap_is_kept(effort: float | None, split: int) -> None:
    chosen = plan(replace(REPORT, effort=effort), Sla(2000, 85))
    assert chosen.split == split
    if split < 5:
        assert chosen.bound == "effort"
        assert "you let your browser do no more" in chosen.reason


@pytest.mark.parametrize("effort", [-1.0, float("nan"), float("inf"), 7.0])
def test_a_cap_that_is_no_share_is_none(effort: float) -> None:
    assert plan(replace(REPORT, effort=effort), Sla(2000, 85)).split == 5


def test_a_split_asked_for_by_number_goes_before_the_cap() -> None:
    assert plan(replace(REPORT, effort=0.0), requested=5).split == 5


def test_staying_costs_nothing_falling_computes_the_history_again() -> None:
    base, held = plan(), plan(held=Held(4, 640))
    assert held.details["candidates"]["ttft_ms"][4] == base.details["candidates"]["ttft_ms"][4]
    # To 2: 6 blocks over ten chunks of 40 ms here, 2 blocks of 64 ms a chunk there, and 640 rows of 1152 bytes.
    more = held.details["candidates"]["ttft_ms"][2] - base.details["candidates"]["ttft_ms"][2]
    assert more == pytest.approx(6 * 400 + 2 * 640 + 640 * 1152 / 1250, rel=1e-6)
    # To 6: the client alone, 6 blocks of 640 ms.
    more = held.details["candidates"]["ttft_ms"][6] - base.details["candidates"]["ttft_ms"][6]
    assert more == pytest.approx(6 * 640, rel=1e-6)
    assert held.details["candidates"]["cost_ms"][6] == pytest.approx(base.details["candidates"]["cost_ms"][6])


def test_a_session_that_has_missed_its_promise_rises_only_with_room_to_spare() -> None:
    # Without a margin one block more would be taken: 84.x ms of 85.
    assert plan(sla=Sla(2000, 85)).split == 5
    careful = plan(sla=Sla(2000, 85), held=Held(4, 0, margin=0.8))
    assert (careful.split, careful.bound) == (4, "tpot")
    assert "too near the promised 85 ms" in careful.reason
    # It may stay where it is, or fall, without any margin.
    assert plan(sla=Sla(2000, 85), held=Held(5, 0, margin=0.8)).split == 5

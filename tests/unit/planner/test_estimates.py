"""What is seen of links and clients, and what sessions do about it."""

from __future__ import annotations

import random
import statistics
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitllm.planner.client_estimate import ClientEstimate
from splitllm.planner.hysteresis import (
    LATE_TOKENS,
    MOST_CHANGES,
    Patience,
    forecast_ms,
    is_worth_changing,
    look_again_ms,
)
from splitllm.planner.link_estimate import BandwidthEstimate, RoundTripEstimate
from splitllm.types import ClientReport, SessionPlan

REPORT = ClientReport("webgpu", "float32", 8, decode_ms=2.0, prefill_ms=20.0, prefill_rows=64)


def round_trips(*samples: float) -> RoundTripEstimate:
    estimate = RoundTripEstimate()
    for sample in samples:
        estimate.add(sample)
    return estimate


def test_the_first_round_trip_is_taken_as_rfc_6298_says() -> None:
    estimate = round_trips(100)
    assert (estimate.srtt_ms, estimate.deviation_ms) == (100, 50)


def test_a_steady_link_needs_no_margin() -> None:
    assert round_trips(*[40.0] * 30).p95_ms == pytest.approx(40, abs=0.1)
    assert round_trips(40, 40, 40).p95_ms == 40


def test_the_margin_covers_nineteen_round_trips_of_twenty() -> None:
    chance = random.Random(3)
    samples = [max(0.0, chance.gauss(80, 15)) for _ in range(400)]
    estimate = round_trips(*samples)
    below = statistics.fmean(sample <= estimate.p95_ms for sample in samples)
    assert 0.85 <= below <= 1
    assert estimate.srtt_ms < estimate.p95_ms < 160


def test_a_link_that_worsens_is_noticed_within_a_few_pings() -> None:
    estimate = round_trips(*[10.0] * 20)
    for _ in range(3):
        estimate.add(400)
    assert estimate.p95_ms > 300


@pytest.mark.parametrize("sample", [-1.0, float("nan"), float("inf"), float("-inf")])
def test_a_round_trip_that_is_none_changes_nothing(sample: float) -> None:
    assert round_trips(20, sample, 20) == round_trips(20, 20)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=50))
def test_the_estimate_stays_within_what_was_seen(samples: list[float]) -> None:
    estimate = round_trips(*samples)
    seen = [min(sample, 60_000.0) for sample in samples]
    assert min(seen) - 1e-6 <= estimate.srtt_ms <= max(seen) + 1e-6
    assert estimate.p95_ms >= estimate.srtt_ms


def test_chunks_that_the_link_holds_up_tell_its_rate() -> None:
    link = BandwidthEstimate(1250.0)
    link.chunk(73_728, 590.0, compute_ms=50.0)
    assert link.bytes_per_ms == pytest.approx(73_728 / 590)
    for _ in range(20):
        link.chunk(73_728, 295.0, compute_ms=50.0)
    assert link.bytes_per_ms == pytest.approx(73_728 / 295, rel=0.01)


def test_a_bandwidth_is_planned_with_what_nearly_all_chunks_keep() -> None:
    chance = random.Random(5)
    link = BandwidthEstimate(1250.0)
    kept = []
    for _ in range(400):
        rate = max(20.0, chance.gauss(100, 20))
        kept.append(rate >= link.p95_bytes_per_ms)
        link.chunk(73_728, 73_728 / rate, compute_ms=0.0)
    assert 0.85 <= statistics.fmean(kept) < 1
    assert 40 < link.p95_bytes_per_ms < link.bytes_per_ms


def test_a_steady_bandwidth_and_one_chunk_alone_need_no_margin() -> None:
    link = BandwidthEstimate(1250.0)
    for _ in range(3):
        assert link.p95_bytes_per_ms == pytest.approx(link.bytes_per_ms)
        link.chunk(73_728, 590.0, compute_ms=50.0)


def test_chunks_that_come_as_they_are_computed_only_show_that_the_link_is_no_slower() -> None:
    link = BandwidthEstimate(1250.0)
    link.chunk(73_728, 590.0, compute_ms=580.0)
    assert link.bytes_per_ms == 1250
    link.chunk(73_728, 20.0, compute_ms=19.0)
    assert link.bytes_per_ms == pytest.approx(73_728 / 20)


@pytest.mark.parametrize("gap", [0.0, -5.0, float("nan"), float("inf")])
def test_a_gap_that_is_none_changes_nothing(gap: float) -> None:
    link = BandwidthEstimate(1250.0)
    link.chunk(1000, gap, compute_ms=0.0)
    assert link == BandwidthEstimate(1250.0)


def seen(estimate: ClientEstimate, elapsed: float, count: int = 20, *, split: int = 4, rtt: float = 10.0) -> None:
    for _ in range(count):
        estimate.step(elapsed, split=split, rtt_ms=rtt, travel_ms=1.0, now_s=0.0)


def test_a_client_that_is_as_quick_as_it_says_is_believed() -> None:
    estimate = ClientEstimate()
    seen(estimate, 10 + 1 + 4 * 2.0)
    assert estimate.corrected(REPORT, 0.0) == REPORT
    assert not estimate.is_slower_than(REPORT)


def test_a_client_that_is_slower_than_it_says_is_planned_with_what_was_seen() -> None:
    estimate = ClientEstimate()
    seen(estimate, 10 + 1 + 4 * 30.0)
    corrected = estimate.corrected(REPORT, 0.0)
    assert corrected.decode_ms == pytest.approx(30)
    assert corrected.prefill_ms == pytest.approx(20 * 15)
    assert estimate.is_slower_than(REPORT)


def test_a_client_that_claims_no_time_at_all_is_capped_too() -> None:
    liar = ClientReport("webgpu", "float32", 8, decode_ms=0.0, prefill_ms=0.0)
    estimate = ClientEstimate()
    seen(estimate, 10 + 1 + 4 * 30.0)
    corrected = estimate.corrected(liar, 0.0)
    assert (corrected.decode_ms, corrected.prefill_ms) == (pytest.approx(30), pytest.approx(30))


def test_a_client_that_is_quicker_than_it_says_gains_nothing_by_that() -> None:
    estimate = ClientEstimate()
    seen(estimate, 12.0)
    assert estimate.corrected(REPORT, 0.0) == REPORT


def test_what_was_seen_is_forgotten_in_time() -> None:
    estimate = ClientEstimate()
    seen(estimate, 10 + 1 + 4 * 34.0)
    assert estimate.corrected(REPORT, 60.0).decode_ms == pytest.approx(2 + 16)
    assert estimate.corrected(REPORT, 3600.0).decode_ms == pytest.approx(2, abs=1e-3)


@pytest.mark.parametrize("decode", [None, float("nan"), float("inf"), -1.0])
def test_a_report_that_says_nothing_stays_as_it_is(decode: float | None) -> None:
    estimate = ClientEstimate()
    seen(estimate, 100.0)
    report = ClientReport("webgpu", "float32", 8, decode_ms=decode, prefill_ms=1.0)
    assert estimate.corrected(report, 0.0) is report


@given(st.lists(st.tuples(st.floats(), st.integers(-1, 99), st.floats(0, 1e9)), max_size=30), st.floats(0, 1e308))
def test_no_steps_make_a_report_better_or_something_else_than_numbers(steps: Any, said: float) -> None:
    estimate = ClientEstimate()
    for elapsed, split, rtt in steps:
        estimate.step(elapsed, split=split, rtt_ms=rtt, travel_ms=0.0, now_s=0.0)
    report = ClientReport("cpu", "float32", 1, decode_ms=said, prefill_ms=said)
    corrected = estimate.corrected(report, 1.0)
    assert corrected.decode_ms is not None
    assert corrected.prefill_ms is not None
    assert corrected.decode_ms >= said
    assert corrected.prefill_ms >= said


def test_late_tokens_in_a_row_ask_for_a_new_plan_and_single_ones_do_not() -> None:
    patience = Patience(100.0)
    assert not any(patience.token(ms) for ms in [150.0, 50.0] * 20)
    assert [patience.token(150.0) for _ in range(LATE_TOKENS)] == [False] * (LATE_TOKENS - 1) + [True]


def test_a_turn_is_not_planned_anew_without_end() -> None:
    patience = Patience(100.0)
    for _ in range(MOST_CHANGES):
        while not patience.token(500.0):
            pass
        patience.changed()
    assert not any(patience.token(500.0) for _ in range(50))
    patience.turn_began()
    assert any(patience.token(500.0) for _ in range(50))


def test_who_has_missed_its_promise_is_careful_and_then_trusts_again() -> None:
    patience = Patience(100.0)
    assert patience.margin == 1
    patience.changed()
    assert patience.margin == pytest.approx(0.8)
    for _ in range(10):
        patience.changed()
    assert patience.margin == 0.5
    patience = Patience(100.0, misses=1)
    for _ in range(3):
        patience.turn_began()
        patience.turn_ended(80.0)
    assert patience.margin == 1
    patience.turn_ended(None)
    assert patience.margin == 1


def plan_with(split: int, costs: list[float], rejected: list[str | None]) -> SessionPlan:
    table = {"split": list(range(len(costs))), "cost_ms": costs, "rejected_by": rejected}
    return SessionPlan(split, True, "", "tpot", 0.0, 0.0, 0.0, 0.0, 0.0, {"candidates": table})


def test_a_split_that_holds_is_kept_until_another_is_clearly_better() -> None:
    assert not is_worth_changing(plan_with(1, [100, 95], [None, None]), 0)
    assert is_worth_changing(plan_with(1, [100, 60], [None, None]), 0)
    assert is_worth_changing(plan_with(0, [100, 60], [None, "tpot"]), 1)
    assert not is_worth_changing(plan_with(1, [100, 60], [None, None]), 1)
    assert is_worth_changing(plan_with(0, [100], [None]), 5)


def test_a_prompt_is_looked_at_while_the_server_alone_could_still_keep_the_promise() -> None:
    assert look_again_ms(300, 400, 2000) == pytest.approx(1400)


def test_nothing_is_late_before_its_plan_says_so() -> None:
    assert look_again_ms(1700, 400, 2000) == 1700


def test_rows_to_come_are_as_fast_as_those_that_came_and_if_none_came_they_take_as_long_again() -> None:
    assert forecast_ms(600, 128, 512) == pytest.approx(2400)
    assert forecast_ms(600, 0, 512) == pytest.approx(1200)

"""Interpolation between measured costs, and what it refuses."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitllm.errors import ProblemError
from splitllm.planner.profile import EngineProfile, Grid
from splitllm.types import BlockTimes

# One row costs 2 ms at no context and 6 at 100; nine rows cost 10 and 30.
DECODE = Grid((1, 9), (0, 100), ((2.0, 6.0), (10.0, 30.0)))
PROFILE = EngineProfile(
    decode=DECODE,
    prefill=Grid((8, 64), (0, 64), ((4.0, 5.0), (32.0, 40.0))),
    head=Grid((1, 3), (0,), ((1.0,), (2.0,))),
    kv_block_bytes=1024,
    embed_row_ms=0.5,
)


def test_between_and_beyond_the_points_by_hand() -> None:
    assert PROFILE.decode_ms(1, 0) == 2
    assert PROFILE.decode_ms(9, 100) == 30
    assert PROFILE.decode_ms(5, 50) == pytest.approx((2 + 6 + 10 + 30) / 4)
    assert PROFILE.decode_ms(17, 0) == pytest.approx(18)  # one more row is 1 ms
    assert PROFILE.decode_ms(1, 200) == pytest.approx(10)
    assert PROFILE.prefill_ms(36, 32) == pytest.approx((4 + 5 + 32 + 40) / 4)
    assert PROFILE.head_ms(2) == pytest.approx(1.5)
    assert PROFILE.head_ms(5) == pytest.approx(3)


def test_nothing_runs_without_rows_and_less_than_one_row_costs_a_row() -> None:
    assert PROFILE.decode_ms(0, 50) == 0
    assert PROFILE.decode_ms(0.5, 0) == 2


def test_joining_others_costs_less_than_running_alone() -> None:
    assert PROFILE.marginal_decode_ms(0, 0) == pytest.approx(2)
    assert PROFILE.marginal_decode_ms(4, 0) == pytest.approx(1)
    assert PROFILE.marginal_head_ms(0) == 1
    assert PROFILE.marginal_head_ms(2) == pytest.approx(0.5)


def test_a_long_conversation_joining_short_ones_pays_for_its_own_length() -> None:
    short = PROFILE.marginal_decode_ms(4, 0, others_context=0)
    long = PROFILE.marginal_decode_ms(4, 100, others_context=0)
    # The mean context of five rows rises to 20: 5 rows cost 6 + 0.2 · 12 in place of 5.
    assert (short, long) == (pytest.approx(1), pytest.approx(6 + 0.2 * 12 - 5))


def test_a_prompt_is_the_sum_of_its_chunks() -> None:
    assert PROFILE.prompt_ms(64) == pytest.approx(PROFILE.prefill_ms(64, 0))
    assert PROFILE.prompt_ms(72, 10) == pytest.approx(PROFILE.prefill_ms(64, 10) + PROFILE.prefill_ms(8, 74))
    assert PROFILE.prompt_ms(0) == 0
    # Beyond the grid times are linear, so looking up every other chunk changes nothing.
    by_hand = sum(PROFILE.prefill_ms(64, 64 * n) for n in range(300))
    assert PROFILE.prompt_ms(64 * 300) == pytest.approx(by_hand, rel=1e-3)


def test_a_slower_machine_is_slower_everywhere() -> None:
    slow = PROFILE.scaled(3)
    assert slow.decode_ms(5, 50) == pytest.approx(3 * PROFILE.decode_ms(5, 50))
    assert slow.head_ms(2) == pytest.approx(4.5)
    assert slow.kv_block_bytes == 1024
    for factor in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ProblemError):
            PROFILE.scaled(factor)


def test_block_times_are_the_profile_at_a_point_and_the_other_way_round() -> None:
    times = PROFILE.times(rows=9, context=100)
    assert (times.block_decode_ms, times.block_prefill_ms, times.prefill_rows) == (30, 32 + 8 * 100 / 64, 64)
    flat = EngineProfile.of_times(BlockTimes(3, 30, 64, 8, 1))
    assert flat.times() == BlockTimes(3, 30, 64, 8, 1)
    assert flat.marginal_decode_ms(5, 1000) == pytest.approx(3)  # without a fixed part all rows cost alike
    assert flat.prompt_ms(96) == pytest.approx(45)


def test_values_survive_json() -> None:
    text = json.dumps(PROFILE.as_json(), allow_nan=False)
    assert EngineProfile.from_json(json.loads(text)) == PROFILE


def _damaged() -> list[tuple[str, Any]]:
    good = PROFILE.as_json()

    def change(*path: Any, value: Any) -> Any:
        copied = copy.deepcopy(good)
        place = copied
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = value
        return copied

    return [
        ("not an object", []),
        ("another version", change("version", value=2)),
        ("no grid", change("decode", value=None)),
        ("a grid without rows", change("decode", "rows", value=[])),
        ("rows that fall", change("decode", "rows", value=[9, 1])),
        ("rows that are no numbers", change("decode", "rows", value=["1", "9"])),
        ("true as a number", change("decode", "rows", value=[True, 9])),
        ("a context below 0", change("decode", "contexts", value=[-1, 100])),
        ("a line too few", change("decode", "block_ms", value=[[1.0, 2.0]])),
        ("a ragged line", change("decode", "block_ms", value=[[1.0, 2.0], [3.0]])),
        ("NaN", change("decode", "block_ms", 0, 0, value=float("nan"))),
        ("infinity", change("decode", "block_ms", 1, 1, value=float("inf"))),
        ("negative", change("decode", "block_ms", 0, 0, value=-1.0)),
        ("text for a time", change("decode", "block_ms", 0, 0, value="2")),
        ("times that fall", change("decode", "block_ms", 1, 1, value=1.0)),
        ("a huge integer", change("kv_block_bytes", value=10**400)),
        ("negative bytes", change("kv_block_bytes", value=-1)),
        ("no embed", change("embed_row_ms", value=None)),
    ]


@pytest.mark.parametrize(("what", "obj"), _damaged(), ids=lambda value: value if isinstance(value, str) else "")
def test_a_damaged_profile_is_refused(what: str, obj: Any) -> None:
    with pytest.raises(ProblemError):
        EngineProfile.from_json(obj)


_times = st.floats(1e-3, 1e3)


@st.composite
def _noisy(draw: st.DrawFn) -> tuple[list[int], list[int], list[list[float]]]:
    rows = sorted(draw(st.sets(st.integers(1, 64), min_size=1, max_size=5)))
    contexts = sorted(draw(st.sets(st.integers(0, 4096), min_size=1, max_size=4)))
    return rows, contexts, [[draw(_times) for _ in contexts] for _ in rows]


@given(_noisy())
def test_smoothing_gives_a_monotone_grid_within_the_measurements(noisy: Any) -> None:
    rows, contexts, ms = noisy
    grid = Grid.smoothed(rows, contexts, ms)
    values = [value for line in ms for value in line]
    assert all(min(values) <= value <= max(values) for line in grid.ms for value in line)


@given(_noisy())
def test_smoothing_leaves_a_monotone_grid_alone(noisy: Any) -> None:
    rows, contexts, ms = noisy
    once = Grid.smoothed(rows, contexts, ms)
    assert Grid.smoothed(rows, contexts, once.ms) == once


@given(_noisy(), st.floats(0, 200), st.floats(0, 10_000), st.floats(0, 50), st.floats(0, 500))
def test_more_rows_and_longer_contexts_never_cost_less(
    noisy: Any, rows: float, context: float, more_rows: float, more_context: float
) -> None:
    grid = Grid.smoothed(*noisy)
    here = grid.at(rows, context)
    assert grid.at(rows + more_rows, context) >= here * (1 - 1e-9)
    assert grid.at(rows, context + more_context) >= here * (1 - 1e-9)
    assert here >= 0


@given(_noisy(), st.integers(0, 70), st.floats(0, 9000), st.floats(0, 9000))
def test_joining_is_never_a_gain(noisy: Any, rows: int, context: float, others: float) -> None:
    profile = EngineProfile(Grid.smoothed(*noisy), Grid.smoothed(*noisy), Grid((1,), (0,), ((1.0,),)), 1)
    assert profile.marginal_decode_ms(rows, context, others) >= 0
    if rows == 0:
        assert profile.marginal_decode_ms(0, context, others) == profile.decode_ms(1, context)


@given(_noisy())
def test_a_measured_point_is_met_exactly(noisy: Any) -> None:
    grid = Grid.smoothed(*noisy)
    for rows, line in zip(grid.rows, grid.ms, strict=True):
        for context, value in zip(grid.contexts, line, strict=True):
            assert grid.at(rows, context) == pytest.approx(value)

"""The split of one session, from measurements and reports of every sort."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace
from typing import Any

import pytest

from splitllm.errors import ProblemError, TurnError
from splitllm.planner.dp import solve_dp
from splitllm.planner.marginal import Load, SessionCosts
from splitllm.planner.problem import Side
from splitllm.planner.profile import EngineProfile
from splitllm.planner.session_plan import plan_session
from splitllm.planner.session_problem import Session, split_problem
from splitllm.types import BlockTimes, ClientReport, Link, ModelSpec, SessionPlan, Sla

SPEC = ModelSpec("model", 8, 576, 9, 3, 64, 49152, 2048, (0,))
REPORT = ClientReport("webgpu", "float32", 8, decode_ms=20.0, prefill_ms=200.0, prefill_rows=64)
TIMES = BlockTimes(block_decode_ms=3, block_prefill_ms=30, prefill_rows=64, head_ms=8, embed_ms=1)
LINK = Link(20, 20, 1250, 6250)
PROMISE = Sla(ttft_ms=2000, tpot_ms=150)


def plan(
    report: ClientReport = REPORT,
    *,
    spec: ModelSpec = SPEC,
    times: BlockTimes = TIMES,
    link: Link = LINK,
    sla: Sla = PROMISE,
    prompt: int = 64,
    tokens: int = 200,
    block_bytes: int | None = 12_000_000,
    requested: int | None = None,
) -> SessionPlan:
    return plan_session(
        spec,
        report,
        times,
        link,
        sla,
        prompt_tokens=prompt,
        expected_tokens=tokens,
        wire_bytes=2,
        block_bytes=block_bytes,
        requested=requested,
    )


def test_a_plan_by_hand() -> None:
    chosen = plan()
    # TPOT of k blocks: up 20 + 576 · 2 / 1250 = 20.9216, k · 20, (8 - k) · 3 + 8, down 20 + 8 / 6250 = 20.00128,
    # so 72.92 + 17 k: 140.9 at k = 4 and 157.9 at k = 5. TTFT at 4: 800 + up 20 + 73728 / 1250 + 120 + 8 + down.
    assert (chosen.split, chosen.feasible, chosen.bound) == (4, True, "tpot")
    assert chosen.predicted_tpot_ms == pytest.approx(72.92288 + 17 * 4)
    assert chosen.predicted_ttft_ms == pytest.approx(800 + 78.9824 + 120 + 8 + 20.00128)
    # Server's milliseconds: prefill 4 · 30 + 8, decode 200 · (4 · 3 + 8), of 8 · 30 + 9 and 200 · (8 · 3 + 9).
    assert chosen.server_ms == pytest.approx(128 + 200 * 20)
    assert chosen.saved_server_time == pytest.approx(1 - (128 + 200 * 20) / (249 + 200 * 33))
    assert chosen.saved_block_steps == 4 / 8
    assert chosen.reason == (
        "4 of 8 blocks run in your browser: one more would make each token take 158 ms, over the promised 150 ms."
    )


def test_without_a_block_at_home_no_token_pays_a_round_trip() -> None:
    far = replace(LINK, up_ms=400, down_ms=400)
    chosen = plan(link=far)
    assert (chosen.split, chosen.feasible, chosen.bound) == (0, True, "tpot")
    # The server alone: 1 + 8 · 3 + 8 per token; the first one pays the link once, and sends ids of 4 bytes.
    assert chosen.predicted_tpot_ms == pytest.approx(33)
    assert chosen.predicted_ttft_ms == pytest.approx(400 + 64 * 4 / 1250 + 1 + 240 + 8 + 400 + 8 / 6250)
    assert (chosen.saved_server_time, chosen.saved_block_steps) == (0, 0)
    assert chosen.details["candidates"]["tpot_ms"][1] > 800


def test_before_the_head_only_the_last_row_crosses() -> None:
    table = plan(prompt=1000).details["candidates"]["ttft_ms"]
    # From 7 to 8 blocks: one block more at home instead of on the server, and 999 rows of 1152 bytes less to send.
    assert table[8] - table[7] == pytest.approx((200 - 30) * 1000 / 64 - 999 * 1152 / 1250, abs=0.002)


def test_prefill_scales_with_the_prompt() -> None:
    one, four = (plan(prompt=rows).details["candidates"]["ttft_ms"][8] for rows in (64, 256))
    assert four - one == pytest.approx(3 * 8 * 200, abs=0.002)


def test_a_slow_client_runs_little_and_a_fast_one_everything() -> None:
    splits = [plan(replace(REPORT, decode_ms=ms, prefill_ms=ms * 3)).split for ms in (200, 60, 40, 25, 15, 2)]
    assert splits == sorted(splits)
    assert (splits[0], splits[-1]) == (0, 8)
    fast = plan(replace(REPORT, decode_ms=2, prefill_ms=9))
    assert (fast.bound, fast.feasible) == ("model", True)
    assert "All 8 blocks run in your browser" in fast.reason


def test_ttft_can_be_what_binds() -> None:
    chosen = plan(replace(REPORT, decode_ms=2), sla=Sla(1000, 150))
    assert chosen.bound == "ttft"
    assert chosen.predicted_ttft_ms <= 1000 < chosen.details["candidates"]["ttft_ms"][chosen.split + 1]
    assert "one more would make the first token take" in chosen.reason


def test_memory_can_be_what_binds() -> None:
    chosen = plan(replace(REPORT, memory_bytes=30_000_000))
    assert (chosen.split, chosen.bound) == (2, "memory")
    assert "one more would need 36 MB of memory, over the 30 MB" in chosen.reason
    assert plan(replace(REPORT, memory_bytes=30_000_000), block_bytes=None).split == 4
    assert plan(replace(REPORT, memory_bytes=-1)).split == 0


def test_blocks_that_have_not_arrived_cannot_run() -> None:
    chosen = plan(replace(REPORT, blocks_ready=3))
    assert (chosen.split, chosen.bound) == (3, "blocks_ready")
    assert chosen.details["candidates"]["rejected_by"] == [None] * 4 + ["blocks_ready"] + ["tpot"] * 4
    assert plan(replace(REPORT, blocks_ready=4)).bound == "tpot"
    assert plan(replace(REPORT, blocks_ready=99)).split == 4
    assert "has not arrived yet" in chosen.reason
    last = plan(replace(REPORT, blocks_ready=3, more_blocks=False))
    assert (last.split, last.bound) == (3, "blocks_ready")
    assert (
        last.reason == "3 of 8 blocks run in your browser: your browser holds no more of them, and none is on its way."
    )
    none = plan(replace(REPORT, blocks_ready=0))
    assert (none.split, none.bound, none.feasible) == (0, "blocks_ready", True)
    assert plan(replace(REPORT, blocks_ready=-5)).split == 0


@pytest.mark.parametrize(
    "change",
    [
        {"backend": "none"},
        {"decode_ms": None},
        {"prefill_ms": None},
        {"decode_ms": math.nan},
        {"decode_ms": math.inf},
        {"prefill_ms": -math.inf},
        {"decode_ms": -3.0},
        {"prefill_rows": 0},
        {"prefill_rows": -64},
    ],
    ids=str,
)
def test_a_client_that_is_not_measured_runs_nothing(change: dict[str, Any]) -> None:
    chosen = plan(replace(REPORT, **change))
    assert (chosen.split, chosen.bound, chosen.feasible) == (0, "backend", True)
    assert chosen.reason.startswith("All 8 blocks run on the server: your browser")


@pytest.mark.parametrize(
    "change",
    [
        {"decode_ms": 1e12},
        {"decode_ms": 1e308},
        {"prefill_ms": 1e300},
        {"decode_ms": 10**400},
        {"decode_ms": 0.0, "prefill_ms": 0.0},
        {"decode_ms": 5e-324, "prefill_ms": 5e-324},
        {"prefill_rows": 10**400},
        {"prefill_rows": 1, "prefill_ms": 1e308},
        {"memory_bytes": 10**400},
        {"blocks_ready": 10**400},
    ],
    ids=lambda change: str(change)[:40],
)
def test_absurd_reports_give_a_plan_all_the_same(change: dict[str, Any]) -> None:
    chosen = plan(replace(REPORT, **change))
    assert chosen.feasible
    assert 0 <= chosen.split <= 8
    json.dumps(chosen.details, allow_nan=False)


@pytest.mark.parametrize("requested", [0, 1, 4, 5, 8])
def test_a_forced_split_is_used_and_judged(requested: int) -> None:
    chosen = plan(requested=requested)
    assert (chosen.split, chosen.bound) == (requested, "forced")
    assert chosen.feasible is (requested <= 4)
    assert "as you asked" in chosen.reason
    assert ("over the promised 150 ms" in chosen.reason) is (requested > 4)


@pytest.mark.parametrize("requested", [-1, 9, True, 10**30])
def test_a_split_that_the_model_does_not_have_is_refused(requested: int) -> None:
    with pytest.raises(TurnError) as caught:
        plan(requested=requested)
    assert caught.value.code == "split_unavailable"


def test_a_split_beyond_the_blocks_at_hand_is_refused() -> None:
    with pytest.raises(TurnError, match="holds 3 of the 4 blocks") as caught:
        plan(replace(REPORT, blocks_ready=3), requested=4)
    assert caught.value.code == "split_unavailable"
    assert plan(replace(REPORT, blocks_ready=3), requested=3).split == 3


def test_a_forced_split_needs_no_measurement() -> None:
    chosen = plan(replace(REPORT, decode_ms=None, backend="none"), requested=8)
    assert (chosen.split, chosen.feasible) == (8, True)
    assert "not measured yet" in chosen.reason
    over = plan(replace(REPORT, memory_bytes=10), requested=2)
    assert "24 MB of memory" in over.reason


def test_where_no_split_keeps_the_promise_the_fastest_is_taken() -> None:
    chosen = plan(sla=Sla(100, 10))
    assert (chosen.split, chosen.feasible, chosen.bound) == (0, False, "tpot")
    assert chosen.reason.startswith("No split keeps the promise. All 8 blocks run on the server, the fastest choice:")
    near = replace(LINK, up_ms=0.1, down_ms=0.1)
    slow_server = replace(TIMES, block_decode_ms=50, block_prefill_ms=500)
    quick = plan(replace(REPORT, decode_ms=1, prefill_ms=10), sla=Sla(20, 5), link=near, times=slow_server)
    assert (quick.split, quick.feasible, quick.bound) == (8, False, "model")
    alone = plan(replace(REPORT, backend="none"), sla=Sla(100, 10))
    assert (alone.split, alone.feasible) == (0, False)
    assert "the promise does not hold: the first token takes" in alone.reason


def test_a_client_can_save_a_promise_that_the_server_alone_would_break() -> None:
    chosen = plan(
        replace(REPORT, decode_ms=1, prefill_ms=10),
        times=replace(TIMES, block_decode_ms=50),
        sla=Sla(5000, 150),
    )
    assert chosen.split > 0
    assert chosen.feasible
    assert chosen.details["candidates"]["rejected_by"][0] == "tpot"


@pytest.mark.parametrize("seed", range(4))
def test_every_plan_obeys_its_own_table(seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(60):
        spec = replace(SPEC, blocks=chance.randint(1, 12))
        report = ClientReport(
            chance.choice(["webgpu", "wasm", "none"]),
            "int4",
            chance.randint(0, 12),
            chance.choice([None, chance.uniform(0, 40)]) if chance.random() < 0.2 else chance.uniform(0, 40),
            chance.uniform(0, 300),
            chance.choice([1, 32, 64]),
            chance.choice([None, chance.randint(0, 100)]),
        )
        times = BlockTimes(chance.uniform(0, 15), chance.uniform(0, 60), 64, chance.uniform(0, 9))
        link = Link(chance.uniform(0, 60), chance.uniform(0, 60), chance.uniform(1, 5000), chance.uniform(1, 5000))
        sla = Sla(chance.uniform(10, 3000), chance.uniform(5, 250))
        chosen = plan(report, spec=spec, times=times, link=link, sla=sla, prompt=chance.randint(1, 300), block_bytes=10)
        table = chosen.details["candidates"]
        rejected = table["rejected_by"]
        kept = [split for split, why in zip(table["split"], rejected, strict=True) if why is None]
        assert chosen.feasible is bool(kept)
        if kept:
            assert chosen.split == max(kept)
        if chosen.split == spec.blocks:
            assert chosen.bound == "model"
        elif len(rejected) > 1:
            assert chosen.bound == rejected[chosen.split + 1]
        assert chosen.predicted_ttft_ms == pytest.approx(table["ttft_ms"][chosen.split], abs=1e-3)
        assert chosen.feasible is (chosen.predicted_ttft_ms <= sla.ttft_ms and chosen.predicted_tpot_ms <= sla.tpot_ms)
        assert 0 <= chosen.saved_server_time <= 1
        assert chosen.saved_block_steps == chosen.split / spec.blocks


def test_the_split_is_the_placement_that_the_exact_planner_finds() -> None:
    chance = random.Random(9)
    for _ in range(40):
        report = replace(REPORT, decode_ms=chance.uniform(1, 30), blocks_ready=chance.randint(1, 8))
        session = Session.of(SPEC, report, Sla(), 64, 12_000_000)
        engine = EngineProfile.of_times(TIMES)
        costs = SessionCosts.of(engine, Load.idle(SPEC.blocks), prompt_tokens=64, answer_tokens=200)
        problem = split_problem(SPEC, session, costs, LINK, rows=64, tokens=200, wire_bytes=2)
        found = solve_dp(problem, shortcuts=False)
        if found.feasible:
            assert plan(report).split == found.placement.count(Side.CLIENT) - 1


@pytest.mark.parametrize(
    "change",
    [
        {"times": replace(TIMES, block_decode_ms=math.nan)},
        {"times": replace(TIMES, head_ms=-1)},
        {"times": replace(TIMES, prefill_rows=0)},
        {"link": replace(LINK, up_ms=math.inf)},
        {"link": replace(LINK, up_bytes_per_ms=0)},
        {"link": replace(LINK, down_bytes_per_ms=math.nan)},
        {"sla": Sla(math.nan, 1)},
        {"sla": Sla(1, -1)},
        {"spec": replace(SPEC, blocks=0)},
    ],
    ids=str,
)
def test_figures_of_the_server_that_make_no_sense_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ProblemError):
        plan(**change)


def test_a_promise_without_end_is_none() -> None:
    assert plan(replace(REPORT, decode_ms=9000, prefill_ms=9000), sla=Sla(math.inf, math.inf)).split == 8


def test_unmeasured_server_times_of_zero_still_prefer_the_client() -> None:
    chosen = plan(times=BlockTimes(0, 0, 64, 0), sla=Sla(10**6, 10**6))
    assert chosen.split == 8


def test_a_client_that_is_no_browser_is_not_called_one() -> None:
    chosen = plan(replace(REPORT, backend="cpu"))
    assert "your machine" in chosen.reason
    assert "browser" not in chosen.reason

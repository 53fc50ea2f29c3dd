"""What `splitllm serve` plans with."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitllm.bench.capacity import Scenario
from splitllm.bench.simulator_engine import ServerModel
from splitllm.bundle import Bundle
from splitllm.errors import CapacityError
from splitllm.kv_budget import KvPool
from splitllm.planner.marginal import headroom
from splitllm.planner.profile import EngineProfile, Grid
from splitllm.protocol import OpenRequest
from splitllm.resources import demo_bundle
from splitllm.server import planning
from splitllm.server.config import ServerConfig
from splitllm.server.planning import Admission
from splitllm.types import ClientReport, Link, Sla

PROFILE = EngineProfile(
    decode=Grid((1, 32), (0,), ((1.0,), (4.0,))),
    prefill=Grid((64,), (0,), ((10.0,),)),
    head=Grid((1, 32), (0,), ((1.0,), (4.0,))),
    kv_block_bytes=1000,
)
LINK = Link(15, 15, 1250, 6250)
CLIENT = ClientReport("webgpu", "float32", 8, decode_ms=10.0, prefill_ms=20.0)


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return Bundle.open(demo_bundle())


def admission(bundle: Bundle, *, sessions: int = 32, tpot_ms: float = 100.0) -> Admission:
    return Admission(bundle, ServerConfig(sla=Sla(2000, tpot_ms), max_sessions=sessions), PROFILE)


def test_who_is_there_takes_no_block_from_who_comes(bundle: Bundle) -> None:
    """Ticks that grow would take blocks back from clients, and grow by that."""
    server = admission(bundle)
    request = OpenRequest(CLIENT, None, 64)
    alone = server.plan(request, LINK)
    assert 0 < alone.split < bundle.spec.blocks
    for number in range(31):
        server.turn_began(str(number), 0, 100)
    crowded = server.plan(request, LINK)
    assert (crowded.split, crowded.predicted_tpot_ms) == (alone.split, alone.predicted_tpot_ms)
    assert crowded.server_ms < alone.server_ms  # it adds to a batch that reads the weights anyway


def test_no_plan_is_made_for_whom_there_is_no_place(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    server = admission(bundle, sessions=1)
    server.admit("inside", 0, 64)
    request = OpenRequest(CLIENT, None, 64)
    assert server.plan(request, LINK, session="inside").split
    monkeypatch.setattr(planning, "plan_session", None)
    with pytest.raises(CapacityError, match="All 1 sessions"):
        server.plan(request, LINK, session="outside")


def test_a_server_for_few_sessions_keeps_little_of_the_promise_for_others(bundle: Bundle) -> None:
    request = OpenRequest(CLIENT, None, 64)
    few, many = (admission(bundle, sessions=count).plan(request, LINK) for count in (1, 32))
    assert few.split > many.split
    assert few.feasible
    assert many.feasible
    assert many.predicted_tpot_ms <= 0.7 * 100 < few.predicted_tpot_ms


def test_the_simulated_server_keeps_as_much_for_others_as_a_real_one_would() -> None:
    path = Path(__file__).parents[2] / "bench/results/capacity-profile.json"
    scenario = Scenario(ServerModel.from_json(json.loads(path.read_text("utf-8"))))
    profile = scenario.server.profile.scaled(1 / scenario.speed)
    share = headroom(profile, scenario.server.blocks, scenario.max_sessions, scenario.sla.tpot_ms)
    assert share == pytest.approx(scenario.headroom)


@given(
    st.lists(
        st.tuples(st.sampled_from((0, 1)), st.sampled_from("abc"), st.integers(0, 8), st.sampled_from((0, 16, 64))),
        max_size=40,
    )
)
def test_two_models_share_places_and_memory_and_leave_nothing_behind(steps: list[tuple[int, str, int, int]]) -> None:
    """Sessions come, change their splits and go (0 tokens) in any order; whoever gives something back says so."""
    bundle = Bundle.open(demo_bundle(), verify=False)
    token = bundle.spec.blocks * bundle.spec.kv_bytes_per_token()
    pool, config = KvPool(100 * token), ServerConfig(max_sessions=4)
    models = [Admission(bundle, config, PROFILE, pool) for _ in range(2)]
    given_back: list[int] = []
    for number, model in enumerate(models):
        model.on_room = partial(given_back.append, number)
    for number, name, split, tokens in [*steps, *((number, name, 0, 0) for number in (0, 1) for name in "abc")]:
        model, session, before = models[number], f"{number}{name}", dict(pool.reserved)
        given_back.clear()
        try:
            if tokens:
                model.admit(session, split, tokens)
            else:
                model.release(session)
        except CapacityError:
            assert pool.reserved == before
        assert set(pool.reserved) == set().union(*(each.sessions for each in models))
        assert model.budget.reserved_bytes == sum(each.budget.reserved_by(each.sessions) for each in models)
        assert model.budget.reserved_bytes <= pool.limit_bytes
        assert len(pool.reserved) <= config.max_sessions
        if len(pool.reserved) < len(before) or sum(pool.reserved.values()) < sum(before.values()):
            assert given_back == [number]
    assert pool.reserved == {}

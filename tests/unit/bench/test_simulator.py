"""The simulator keeps what it must, whatever its figures are."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from splitllm import policy as scheduler_policy
from splitllm.bench.capacity import is_good, percentile
from splitllm.bench.population import KINDS, WEB_WIDE, population
from splitllm.bench.simulator import simulate
from splitllm.bench.simulator_engine import ServerModel, TimedEngine
from splitllm.bench.simulator_policies import POLICIES, fixed, policy
from splitllm.bench.simulator_values import Client, Conversation, Outcome, Policy, Record, Situation, Turn
from splitllm.errors import ProblemError, UsageError
from splitllm.planner.profile import EngineProfile, Grid
from splitllm.slots import Move
from splitllm.types import PREFILL_CHUNK, Link, Sla

BLOCKS = 4
SLA = Sla(2000, 150)


def server(**changes: float) -> ServerModel:
    """A server whose costs are round numbers: a run takes 2 ms and 0.5 ms a row, a prompt's row 0.25 ms."""
    profile = EngineProfile(
        decode=Grid((1, 33), (0,), ((2.5,), (18.5,))),
        prefill=Grid((1, 65), (0,), ((0.25,), (16.25,))),
        head=Grid((1, 33), (0,), ((1.0,), (33.0,))),
        kv_block_bytes=100,
    )
    return replace(ServerModel(profile, BLOCKS, 8, copy_bytes_per_ms=1e12), **changes)


def client(**changes: float) -> Client:
    return replace(Client("laptop", 3.0, 6.4, BLOCKS, Link(10.0, 20.0, 1e12, 1e12)), **changes)


def one(*turns: Turn, who: Client | None = None, at: float = 0.0, name: str = "c") -> Conversation:
    return Conversation(name, at, who or client(), turns, seed=1)


def at_split(split: int, model: ServerModel) -> Policy:
    return fixed(dict.fromkeys(("none", "phone", "laptop", "desktop"), split), model, SLA)


def run(people: list[Conversation], name: str = "dp", *, sessions: int = 64, kv: int | None = None) -> Outcome:
    return simulate(server(), people, policy(name, server(), SLA, 1.0), sla=SLA, max_sessions=sessions, kv_bytes=kv)


@pytest.mark.parametrize("split", range(BLOCKS + 1))
def test_the_latency_of_one_client_is_what_arithmetic_says(split: int) -> None:
    prompt, answer = 2 * PREFILL_CHUNK, 5
    model = server()
    [record] = simulate(model, [one(Turn(prompt, answer))], at_split(split, model), max_sessions=4).records

    on_server = BLOCKS - split
    chunk_ms = on_server * 16.0
    step_ms = on_server * 2.5 + 1.0  # and the head
    if split == 0:
        ttft = 10 + 2 * chunk_ms + 1.0 + 20
        tpot = step_ms
    elif split < BLOCKS:
        # The client's first chunk, then the slower of both machines for the second, then the server's for that one.
        computed = split * 6.4
        ttft = 10 + computed + max(computed, chunk_ms) + chunk_ms + 1.0 + 20
        tpot = 20 + split * 3.0 + 10 + step_ms
    else:
        ttft = 10 + 2 * BLOCKS * 6.4 + 1.0 + 20
        tpot = 20 + BLOCKS * 3.0 + 10 + 1.0
    assert record.split == split
    assert record.ttft_ms == pytest.approx(ttft)
    assert record.gaps == pytest.approx([tpot] * (answer - 1))
    assert record.tpot_ms == pytest.approx(tpot)


def test_two_clients_of_split_zero_share_every_step() -> None:
    model = server()
    people = [one(Turn(1, 10), name="a"), one(Turn(1, 10), name="b")]
    outcome = simulate(model, people, at_split(0, model), max_sessions=4)
    step = BLOCKS * 3.0 + 2.0
    for record in outcome.records:
        assert record.gaps == pytest.approx([step] * 9)
    assert outcome.spent.total_ms == pytest.approx(10 * step)


def test_bandwidth_is_paid_once_per_byte_and_in_order() -> None:
    slow = client(link=Link(0.0, 0.0, 1.0, 1e12), prefill_ms=0.0, decode_ms=0.0)
    model = server()
    [record] = simulate(model, [one(Turn(PREFILL_CHUNK, 1), who=slow)], at_split(1, model), max_sessions=4).records
    sent = 32 + (32 + PREFILL_CHUNK * 8 * 2)  # the turn's message, then the chunk as float16
    assert record.ttft_ms == pytest.approx(sent + 3 * 16.0 + 1.0)


def test_a_server_that_costs_nothing_leaves_only_the_client_and_the_link() -> None:
    free = EngineProfile(*(Grid((1,), (0,), ((0.0,),)) for _ in range(3)), kv_block_bytes=0)
    model = replace(server(), profile=free)
    [record] = simulate(model, [one(Turn(PREFILL_CHUNK, 3))], at_split(2, model), max_sessions=4).records
    assert record.ttft_ms == pytest.approx(10 + 2 * 6.4 + 20)
    assert record.gaps == pytest.approx([30 + 2 * 3.0] * 2)


@pytest.mark.parametrize("name", POLICIES)
def test_every_token_asked_for_arrives_and_every_block_step_is_accounted(name: str) -> None:
    people = population(4, seconds=40, seed=3, blocks=BLOCKS)
    outcome = run(people, name)
    asked = [turn for person in people for turn in person.turns]
    assert len(outcome.records) == len(asked)
    assert all(record.finished for record in outcome.records)
    assert sum(record.tokens for record in outcome.records) == sum(turn.answer_tokens for turn in asked)
    assert all(len(record.gaps) == record.tokens - 1 for record in outcome.records)
    on_server = sum(record.positions * (BLOCKS - record.split) for record in outcome.records)
    # With all blocks at the client nothing but the head runs here.
    assert outcome.spent.block_rows == on_server
    parts = outcome.spent
    assert parts.total_ms == pytest.approx(
        parts.prefill_ms + parts.decode_ms + parts.head_ms + parts.copy_ms + parts.overhead_ms
    )
    assert parts.total_ms <= outcome.end_ms


def test_a_seed_says_everything() -> None:
    def once(seed: int) -> list[Record]:
        return run(population(3, seconds=30, seed=seed, blocks=BLOCKS)).records

    assert once(1) == once(1)
    assert once(1) != once(2)


def test_the_same_people_come_at_every_rate() -> None:
    few, many = (population(rate, seconds=50, seed=1, blocks=BLOCKS) for rate in (1, 2))
    assert len(few) < len(many)
    for a, b in itertools.islice(zip(few, many, strict=False), 5):
        assert (a.client, a.turns) == (b.client, b.turns)
        assert a.arrival_ms == pytest.approx(2 * b.arrival_ms)


def test_the_population_is_what_it_says() -> None:
    people = population(400, seconds=20, seed=1, blocks=BLOCKS)
    turns = [turn for person in people for turn in person.turns]
    assert len(turns) / len(people) == pytest.approx(2.0, rel=0.1)
    assert sum(turn.answer_tokens for turn in turns) / len(turns) == pytest.approx(214.5, rel=0.1)
    for name, kind in KINDS.items():
        own = [person for person in people if person.client.kind == name]
        assert len(own) / len(people) == pytest.approx(kind.share, abs=0.03)
        assert all(kind.rtt_ms[0] <= 2 * person.client.link.up_ms <= kind.rtt_ms[1] + 1e-9 for person in own)
    for kinds in (KINDS, WEB_WIDE):
        assert sum(kind.share for kind in kinds.values()) == pytest.approx(1)


def test_no_turn_that_breaks_a_promise_counts_as_good() -> None:
    good = Record("c", "laptop", 0, 0.0, 1, 3, first_ms=100.0, last_ms=300.0, tokens=3, gaps=[20.0, 180.0])
    assert is_good(good, SLA)
    assert not is_good(good, SLA, tail=True)
    assert not is_good(replace(good, first_ms=2001.0, last_ms=2201.0), SLA)
    assert not is_good(replace(good, last_ms=401.0), SLA)
    assert not is_good(replace(good, tokens=2), SLA)
    assert not is_good(replace(good, refused=True, tokens=0, first_ms=None, last_ms=None), SLA)


def test_percentiles_by_nearest_rank() -> None:
    assert percentile([], 0.5) is None
    assert percentile([3, 1, 2], 0.5) == 2
    assert percentile(list(range(1, 101)), 0.95) == 95
    assert percentile([7], 0.95) == 7


def test_sessions_beyond_the_limit_are_refused_and_run_nothing() -> None:
    people = [one(Turn(8, 50), name=str(number)) for number in range(5)]
    outcome = run(people, sessions=2)
    assert [record.refused for record in outcome.records].count(True) == 3
    assert outcome.most_sessions == 2
    assert all(record.tokens == 0 for record in outcome.records if record.refused)


def test_memory_for_keys_and_values_limits_sessions_too() -> None:
    person = one(Turn(8, 50))
    needs = person.max_tokens * BLOCKS * 100
    people = [replace(person, name=str(number)) for number in range(4)]
    outcome = simulate(server(), people, at_split(0, server()), max_sessions=9, kv_bytes=2 * needs)
    assert [record.refused for record in outcome.records].count(True) == 2


class Script(Policy):
    """Gives the turns of a conversation the splits of a list."""

    def __init__(self, *splits: int) -> None:
        self._splits = list(splits)

    def plan(self, situation: Situation) -> object:
        return at_split(self._splits.pop(0), server()).plan(situation)


@pytest.mark.parametrize(("first", "second"), [(1, 3), (3, 1), (2, 2), (0, 4), (4, 0)])
def test_a_split_may_change_between_turns_and_the_history_is_paid_for(first: int, second: int) -> None:
    turns = (Turn(64, 10), Turn(64, 10, think_ms=100.0))
    before, after = simulate(server(), [one(*turns)], Script(first, second), max_sessions=4).records
    assert (before.split, after.split) == (first, second)
    assert after.finished
    history = 64 + 9
    # The last token of the first answer comes with the second prompt; all of the history if the server lost it.
    assert after.positions == 64 + 1 + 9 + (history if second < first else 0)


def test_plans_that_claim_to_hold_are_predicted_to_hold() -> None:
    people = population(4, seconds=40, seed=5, blocks=BLOCKS)
    for name in ("greedy-prefix", "greedy-ratio", "dp", "dp-load"):
        for record in run(people, name).records:
            if record.feasible:
                assert record.predicted_tpot_ms <= SLA.tpot_ms * (1 + 1e-9)
                assert record.predicted_ttft_ms <= SLA.ttft_ms * (1 + 1e-9)


def test_rows_that_wait_for_company_share_ticks_and_save_the_server_time(monkeypatch: pytest.MonkeyPatch) -> None:
    people = population(4, seconds=20, seed=5, blocks=BLOCKS)
    waiting = run(people, "dp")
    monkeypatch.setattr(scheduler_policy, "COMPANY_TICKS", 0.0)
    at_once = run(people, "dp")
    assert waiting.spent.rows == at_once.spent.rows
    assert waiting.spent.ticks < at_once.spent.ticks
    assert waiting.spent.total_ms < at_once.spent.total_ms


def test_clients_without_webgpu_run_nothing() -> None:
    people = population(4, seconds=40, seed=5, blocks=BLOCKS)
    for name in POLICIES:
        assert all(record.split == 0 for record in run(people, name).records if record.kind == "none")


def test_idle_rows_are_copied_and_cleared_at_the_cost_of_their_bytes() -> None:
    model = server(copy_bytes_per_ms=100.0)
    engine = TimedEngine(model, 4)
    engine._lengths[0] = 10
    assert engine.move([Move(0, 2, 1)]) == pytest.approx(3 * 100 * 10 / 100)
    assert engine.clear(2) == pytest.approx(4 * 100 * 10 / 100)
    assert engine.spent.copy_ms == pytest.approx(30 + 40)


def test_a_profile_survives_its_file() -> None:
    model = server(step_ms=0.5, frame_ms=0.25)
    again = ServerModel.from_json(model.as_json())
    assert again == model


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"blocks": 0},
        {"step_ms": -1},
        {"copy_bytes_per_ms": 0},
        {"tick_ms": float("nan")},
        {"profile": 3},
    ],
)
def test_a_damaged_profile_is_refused_with_the_command_that_mends_it(change: dict[str, object]) -> None:
    with pytest.raises(ProblemError, match=r"again"):
        ServerModel.from_json(server().as_json() | change)
    with pytest.raises(ProblemError):
        ServerModel.from_json(None)


def test_unknown_policies_and_rates_are_refused() -> None:
    with pytest.raises(UsageError, match="choose one of"):
        policy("best", server(), SLA, 1.0)
    with pytest.raises(UsageError, match="above 0"):
        population(0, seconds=1, seed=1, blocks=4)

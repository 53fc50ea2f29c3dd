"""`splitllm bench load` against a real server: replaying clients speak the real protocol, and wait instead of work."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from splitllm.bench.load import (
    LoadTest,
    Measured,
    compare,
    measure_costs,
    people_of,
    pinned_server,
    record_activations,
    run_simulated,
)
from splitllm.bench.load_clients import Replay, replay
from splitllm.bench.simulator_engine import ServerModel
from splitllm.bench.simulator_values import Client, Conversation, Record, Turn
from splitllm.bundle import Bundle
from splitllm.cli.main import main
from splitllm.planner.profile import EngineProfile, Grid
from splitllm.types import Link, Sla
from tests.support import ServerProcess

ROOT = Path(__file__).parents[2]
TURNS = (Turn(70, 6), Turn(3, 5, think_ms=20.0))


def people(bundle: Bundle) -> tuple[list[Conversation], dict[str, int]]:
    blocks = bundle.spec.blocks
    client = Client("laptop", 1.0, 2.0, blocks, Link(5.0, 5.0, 1e6, 1e6))
    splits = {"none": 0, "half": blocks // 2, "all": blocks}
    return [Conversation(name, 0.0, client, TURNS) for name in splits], splits


async def test_replayed_clients_get_every_token_and_never_sooner_than_their_machine_allows(
    server: ServerProcess, bundle: Bundle
) -> None:
    conversations, splits = people(bundle)
    result = await replay(server.url, conversations, splits, record_activations(bundle))
    assert result.failures == []
    assert len(result.records) == 2 * len(conversations)
    for record in result.records:
        turn = TURNS[record.turn]
        assert 1 <= record.tokens <= turn.answer_tokens  # fewer if the model ends its answer
        assert len(record.gaps) == record.tokens - 1
        split = splits[record.conversation]
        assert record.ttft_ms is not None
        assert record.ttft_ms >= 10 + split * 2.0 * min(1, turn.prompt_tokens // 64)
        # Not each gap: what the clock of a busy machine takes from one gap it gives to the next.
        if split and record.gaps:
            assert sum(record.gaps) / len(record.gaps) >= 10 + split * 1.0
    assert result.late_ms


async def test_a_server_that_is_gone_fails_a_conversation_not_the_run(bundle: Bundle) -> None:
    conversations, splits = people(bundle)
    result = await replay("http://127.0.0.1:9", conversations, splits, record_activations(bundle))
    assert result.records == []
    assert len(result.failures) == len(conversations)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="pins processes, which Linux alone can")
def test_a_pinned_server_tells_its_seconds_and_computes_with_the_weights_that_are_measured() -> None:
    core = min(os.sched_getaffinity(0))
    test = LoadTest(ROOT / "demo/bundle", Sla(), 1.0, 1.0, 1, 0.7, variant="int4", rounds=1, server_core=core)
    assert "int4 blocks" in measure_costs(test).made_by
    server = pinned_server(test)
    try:
        assert os.sched_getaffinity(server.process.pid) == {test.server_core}
        cpu, waited = server.usage()
        assert cpu > 0
        assert server.loop_s() > 0
        assert waited >= 0
        assert "int4" in "".join(server.output)
    finally:
        server.stop()
    assert server.process.poll() is not None


def profile(scale: float = 1.0) -> ServerModel:
    flat = EngineProfile(
        decode=Grid((1,), (0,), ((scale,),)),
        prefill=Grid((64,), (0,), ((10 * scale,),)),
        head=Grid((1,), (0,), ((scale,),)),
        kv_block_bytes=0,
    )
    return ServerModel(flat, 4, 8, copy_bytes_per_ms=1e9)


def test_the_simulated_server_is_slowed_by_what_the_real_one_waited_and_pays_no_more() -> None:
    test = LoadTest(Path("unused"), Sla(), 2.0, 10.0, 1, 0.7)
    crowd = people_of(test, 4)
    splits = {one.name: 0 for one in crowd}
    records = [
        Record(one.name, "laptop", i, 0.0, turn.prompt_tokens, turn.answer_tokens, tokens=turn.answer_tokens)
        for one in crowd
        for i, turn in enumerate(one.turns)
    ]
    calm, busy = (Measured(Replay(records=records), 2.0, waited) for waited in (0.0, 2.0))
    assert (calm.slowdown, busy.slowdown) == (1.0, 2.0)
    quick, seconds = run_simulated(profile(), crowd, splits, calm, test)
    slow, same_seconds = run_simulated(profile(), crowd, splits, busy, test)
    assert sum(record.tpot_ms or 0 for record in slow) > 1.5 * sum(record.tpot_ms or 0 for record in quick)
    assert same_seconds == pytest.approx(seconds, rel=0.2)  # batches differ, the cost of a row does not
    report = compare("all-server", splits, replace(calm, cpu_s=seconds), (quick, seconds), Sla())
    assert report["difference"]["server_cpu_s_per_request"] == 0
    assert report["simulated"]["tokens"] == report["real"]["tokens"]


def test_wrong_use_is_said_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["bench", "load", "nowhere", "--rate", "0"])
    assert left.value.code == 2
    assert "--rate: '0' is not a number above 0" in capsys.readouterr().err
    assert main(["bench", "load", "nowhere", "--policies", "best"]) == 2
    assert "all-server" in capsys.readouterr().err
    assert main(["bench", "load", "nowhere"]) == 2

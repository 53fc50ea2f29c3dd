"""/metrics after traffic that is known to the last token."""

from __future__ import annotations

import asyncio
import json
import math
import re
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from splitllm.bundle import Bundle
from splitllm.client.conversation import Answer, Conversation
from splitllm.types import SamplingParams
from tests.integration.test_wire import HELLO, IDS, OPEN, TURN, Kind, peer
from tests.support import ServerProcess, running_server

BLOCKS = 8
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture
def fresh(bundle: Bundle) -> Iterator[ServerProcess]:
    """A server that nobody has used."""
    with running_server(bundle.folder, "--max-sessions", "2", "--sla-tpot-ms", "60000") as process:
        yield process


def exposition(server: ServerProcess, accept: str) -> tuple[str, str]:
    """Content type and text of /metrics."""
    request = urllib.request.Request(f"{server.url}/metrics", headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=20) as response:
        return response.headers["Content-Type"], response.read().decode()


def scrape(server: ServerProcess) -> Samples:
    """Samples of a server of one model, that label left out."""
    content_type, text = exposition(server, "*/*")
    assert content_type.startswith("text/plain; version=")
    samples: Counter[Any] = Counter()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = frozenset((name, value) for name, value in sample.labels.items() if name != "model")
            samples[sample.name, labels] += sample.value  # with and without a model, as refusals are
    return dict(samples)


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples[f"splitllm_{name}", frozenset(labels.items())]


async def until(server: ServerProcess, name: str, wanted: float, **labels: str) -> Samples:
    """The samples once one of them has a value: what ends a session is told a moment after its client hears of it."""
    end = time.monotonic() + 60
    while value(samples := scrape(server), name, **labels) != wanted:
        assert time.monotonic() < end, f"{name} {labels} is {value(samples, name, **labels)}, not {wanted}"
        await asyncio.sleep(0.02)
    return samples


def session_lines(server: ServerProcess) -> list[dict[str, Any]]:
    lines = (re.search(r'\{"event":"session_end".*\}', line) for line in server.output)
    return [json.loads(found[0]) for found in lines if found]


async def test_tokens_block_steps_and_refusals_are_counted_exactly(fresh: ServerProcess, cache: Path) -> None:
    run = saved = tokens = turns = decode_steps = 0
    for split in (0, 3, BLOCKS):
        conversation = await Conversation.open(fresh.url, cache=cache, split=split)
        for prompt in ("What is the capital of France?", "Hello!"):
            async for item in conversation.ask(prompt, max_tokens=20, sampling=SamplingParams()):
                if isinstance(item, Answer):
                    run += item.server_blocks_run
                    saved += item.server_blocks_saved
                    tokens += item.tokens
                    turns += 1
                    # The prompt's step draws the first token, except where its last row comes alone; a silent end
                    # is drawn too.
                    decode_steps += item.tokens - (item.finish_reason == "length") + (split == BLOCKS)
        await conversation.close()
    samples = await until(fresh, "sessions_ended_total", 3, api="websocket")
    assert (run > 0, saved > 0) == (True, True)
    assert value(samples, "block_steps_total", outcome="run") == run
    assert value(samples, "block_steps_total", outcome="saved") == saved
    assert value(samples, "generated_tokens_total", api="websocket") == tokens
    ended = ("stop", "length", "stop_string", "cancelled")
    assert sum(value(samples, "turns_total", api="websocket", finish_reason=reason) for reason in ended) == turns
    for name in ("ttft_seconds", "tpot_seconds", "queue_seconds"):
        assert value(samples, f"{name}_count", api="websocket") == turns
        assert math.isfinite(value(samples, f"{name}_sum", api="websocket"))
    assert value(samples, "sla_total", figure="tpot", outcome="hit") == turns
    assert value(samples, "sla_total", figure="tpot", outcome="miss") == 0
    for split in range(BLOCKS + 1):
        assert value(samples, "plans_total", split=str(split)) == (split in (0, 3, BLOCKS))
    assert value(samples, "plan_bounds_total", bound="forced") == 3
    # One session at a time: each decode step serves one row.
    assert value(samples, "batch_rows_sum") == value(samples, "batch_rows_count") == decode_steps
    for stage in ("blocks 0-1", "blocks 2-3", "blocks 4-5", "blocks 6-7", "head"):
        assert value(samples, "engine_seconds_total", phase="decode", stage=stage) > 0
    assert value(samples, "kv_bytes", kind="reserved") == 0
    assert value(samples, "kv_bytes", kind="limit") > 0
    lines = session_lines(fresh)
    assert [line["split"] for line in lines] == [0, 3, BLOCKS]
    assert sum(line["block_steps_run"] for line in lines) == run
    assert sum(line["block_steps_saved"] for line in lines) == saved
    assert sum(line["tokens"] for line in lines) == tokens
    assert {line["reason"] for line in lines} == {"closed"}
    assert all(line["turns"] == 2 and len(line["session"]) == 8 and line["ttft_ms"] > 0 for line in lines)
    assert "capital" not in "".join(fresh.output), "prompts must not be logged"


async def test_sessions_by_state_and_refusals_by_code(fresh: ServerProcess) -> None:
    before = scrape(fresh)
    async with peer(fresh, HELLO, OPEN) as first, peer(fresh, HELLO, OPEN) as second, peer(fresh, HELLO) as third:
        await third.say(OPEN)
        assert (await third.hear())["code"] == "server_full"
        await first.say({**TURN, "start": 1})
        assert (await first.hear())["code"] == "turn_refused"
        await second.say({**TURN, "turn": 2})
        samples = await until(fresh, "sessions", 1, api="websocket", state="in_turn")
        assert value(samples, "sessions", api="websocket", state="idle") == 1
        assert value(samples, "sessions", api="websocket", state="greeted") == 1
        assert value(samples, "kv_bytes", kind="reserved") == 2 * 128 * BLOCKS * 512
        await second.frame(Kind.IDS, 2, 0, IDS)
        assert (await second.hear())["type"] == "done"
        await third.say("nonsense")
        assert (await third.hear())["code"] == "malformed_message"
    samples = await until(fresh, "sessions_ended_total", 2, api="websocket")
    changed = {
        dict(labels)["code"]: value_
        for (name, labels), value_ in samples.items()
        if name == "splitllm_refusals_total" and value_ != before[name, labels]
    }
    assert changed == {"server_full": 1, "turn_refused": 1, "malformed_message": 1}
    assert value(samples, "sessions", api="websocket", state="idle") == 0
    assert samples.keys() == before.keys(), "no client may make a series"


async def test_lag_process_and_openmetrics(server: ServerProcess) -> None:
    samples = scrape(server)
    while not value(samples, "event_loop_lag_seconds_count"):
        await asyncio.sleep(0.05)
        samples = scrape(server)
    assert samples["process_resident_memory_bytes", frozenset()] > 0
    content_type, text = exposition(server, "application/openmetrics-text")
    assert content_type.startswith("application/openmetrics-text")
    assert text.endswith("# EOF\n")


def test_ready_and_health(server: ServerProcess) -> None:
    for path in ("health", "ready"):
        with urllib.request.urlopen(f"{server.url}/{path}", timeout=20) as response:
            assert response.status == 200
    assert value(scrape(server), "ready") == 1

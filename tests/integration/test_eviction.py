"""Who waits gets the room of sessions whose person thinks; these have it rebuilt, and say what they would have said."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from splitllm.bundle import Bundle
from splitllm.client.conversation import Answer, Conversation
from splitllm.protocol import Kind
from splitllm.server.access import Key
from splitllm.server.app import Server
from splitllm.types import SamplingParams
from tests import support
from tests.chaos.world import PROMPTS, converse, expected, open_session, serving, until
from tests.integration.test_queue import WAITS
from tests.integration.test_resume import again, caller
from tests.integration.test_wire import IDS, OPEN, TURN, Peer
from tests.support import ServerProcess

GREEDY = SamplingParams()
QUESTIONS = ("Hello! My name is Ada.", "Tell me a story.", "What is my name?")
AT_ONCE = {"evict_idle_s": 0.001}
PATIENT: dict[str, Any] = {**OPEN, "queue": False}  # it does not wait to open, and knows what to do when it is evicted


def evictions(server: Server) -> float:
    return server.metrics.evictions.labels(server.first.name)._value.get()


@asynccontextmanager
async def evicted(bundle: Bundle, **settings: Any) -> AsyncIterator[tuple[str, Server, Peer, Peer]]:
    """A server for one session, a peer that had it for one turn, and the one that has it now, in a turn."""
    async with (
        serving(bundle, max_sessions=1, **{**AT_ONCE, **settings}) as (url, server),
        caller(url, {**PATIENT, "resume": None}) as (first, plan),
    ):
        assert plan["type"] == "plan"
        await first.say({**TURN, "max_tokens": 1})
        await first.frame(Kind.IDS, 1, 0, IDS)
        assert (await first.hear())["position"] == 4
        async with caller(url, WAITS) as (second, heard):
            while heard["type"] == "queued":
                heard = await second.hear()
            assert heard["type"] == "plan"
            await second.say(TURN)
            await until(lambda: server.session_states(server.first)["websocket", "in_turn"] == 1)
            assert server.session_states(server.first)["websocket", "evicted"] == 1
            yield url, server, first, second


@pytest.mark.parametrize("splits", [(0, 0, 0), (3, 3, 3), (0, 3, 8)])
async def test_three_chats_share_the_room_of_two(bundle: Bundle, splits: tuple[int, ...]) -> None:
    """In turns and then all at once, each says what it would say alone; nobody waits for ever."""
    alone = expected(bundle.spec.vocab_size)
    async with serving(bundle, max_sessions=2, **AT_ONCE) as (url, server):
        chats = [await open_session(url, bundle, split, in_line=lambda _place: None) for split in splits]
        ids: list[list[int]] = [[] for _ in chats]
        told: list[list[int]] = [[] for _ in chats]
        for prompt in PROMPTS:
            for number, chat in enumerate(chats):
                ids[number] += prompt
                items = [item async for item in chat.answer(ids[number], max_tokens=10, sampling=GREEDY)]
                answer = [item for item in items if isinstance(item, int)]
                ids[number] += answer
                told[number] += answer
        assert told == [alone] * 3
        assert evictions(server) == 10, "the longest idle is always the one who asks next, and one opened late"
        for chat in chats:
            await chat.close()
        others = [await open_session(url, bundle, split, in_line=lambda _place: None) for split in splits]
        async with asyncio.timeout(30):
            assert await asyncio.gather(*(converse(chat, GREEDY) for chat in others)) == [alone] * 3
        for chat in others:
            await chat.close()
        await until(lambda: not server.first.admission.sessions)
        assert server.first.admission.budget.reserved_bytes == 0


async def test_an_evicted_chat_with_the_model_says_the_same_words(
    bundle: Bundle, cache: Path, server: ServerProcess
) -> None:
    async def opened(url: str, split: int) -> Conversation:
        return await Conversation.open(url, cache=cache, split=split, wire="float32", in_line=lambda _place: None)

    async def words(chat: Conversation, question: str) -> str:
        items = [item async for item in chat.ask(question, max_tokens=24, sampling=GREEDY)]
        assert isinstance(items[-1], Answer)
        return items[-1].text

    alone = await opened(server.url, 0)
    whole = [await words(alone, question) for question in QUESTIONS]
    await alone.close()
    async with support.serving(bundle.folder, max_sessions=1, **AT_ONCE) as (url, small):
        chats = [await opened(url, split) for split in (0, 3)]
        both = [[await words(chat, question) for chat in chats] for question in QUESTIONS]
        assert evictions(small) >= 5
        for chat in chats:
            await chat.close()
    assert both == [[text, text] for text in whole]


async def test_nobody_is_evicted_within_a_turn_or_without_knowing_how(bundle: Bundle) -> None:
    async with (
        serving(bundle, max_sessions=2, **AT_ONCE) as (url, server),
        caller(url, OPEN) as (former, _),  # a client of before
        caller(url, PATIENT) as (busy, _),
    ):
        await busy.say(TURN)
        await until(lambda: server.session_states(server.first)["websocket", "in_turn"] == 1)
        async with caller(url, WAITS) as (waiting, heard):
            assert heard["place"] == 1
            await asyncio.sleep(0.05)
            assert (evictions(server), len(server.queue)) == (0, 1)
            await busy.frame(Kind.IDS, 1, 0, IDS)
            assert (await busy.hear())["type"] == "done"
            assert (await waiting.hear())["type"] == "plan"
        assert evictions(server) == 1
        await former.say(TURN)
        await former.frame(Kind.IDS, 1, 0, IDS)
        assert (await former.hear())["type"] == "done"


async def test_nobody_is_evicted_for_somebody_who_would_not_fit_even_then(bundle: Bundle) -> None:
    tokens = OPEN["max_tokens"]
    memory = 2 * tokens * bundle.spec.blocks * bundle.spec.kv_bytes_per_token()
    async with (
        serving(bundle, max_sessions=4, kv_memory_bytes=memory, **AT_ONCE) as (url, server),
        caller(url, PATIENT) as (busy, _),
        caller(url, {**PATIENT, "max_tokens": tokens // 2}) as (_, plan),
    ):
        assert plan["type"] == "plan"
        await busy.say({**TURN, "max_tokens": 1})
        await until(lambda: server.session_states(server.first)["websocket", "in_turn"] == 1)
        async with caller(url, {**WAITS, "max_tokens": tokens + tokens // 4}) as (waiting, heard):
            assert heard["place"] == 1
            await asyncio.sleep(0.05)
            assert (evictions(server), len(server.queue)) == (0, 1)
            await busy.frame(Kind.IDS, 1, 0, IDS)
            while heard["type"] == "queued":
                heard = await waiting.hear()
            assert heard["type"] == "plan"
            assert evictions(server) == 2


@pytest.mark.parametrize("before", [0, 3])
async def test_what_is_rebuilt_after_an_eviction_is_not_paid_for_again(bundle: Bundle, before: int) -> None:
    """But for blocks that were the client's `before`, and are the server's now."""
    blocks, spent = bundle.spec.blocks, list[int]()
    opening = {**PATIENT, "split": before}
    async with (
        serving(bundle, max_sessions=1, **AT_ONCE) as (url, server),
        caller(url, opening) as (peer, plan),
    ):
        key = Key("ann", b"")
        key.spend = spent.append  # type: ignore[method-assign]
        server.first.telemetry.payers[plan["session"]] = key
        await peer.say({**TURN, "max_tokens": 1})
        hidden = np.zeros((4, bundle.spec.hidden_size), np.float16)
        await peer.frame(*(Kind.HIDDEN, 1, 0, hidden) if before else (Kind.IDS, 1, 0, IDS))
        assert (await peer.hear())["type"] == "done"
        assert sum(spent) == 4 * (blocks - before)
        async with caller(url, WAITS) as (other, heard):
            while heard["type"] == "queued":
                heard = await other.hear()
        await until(lambda: not server.first.admission.sessions)
        await peer.say({"type": "report", "client": OPEN["client"], "split": 0, "expected_prompt_tokens": 8})
        assert (await peer.hear())["type"] == "plan"
        await peer.say({**TURN, "turn": 2, "start": 4, "prompt_tokens": 2, "max_tokens": 1})
        assert (await peer.hear())["position"] == 0
        await peer.say({"type": "adopt", "turn": 2})
        await peer.frame(Kind.IDS, 2, 0, np.concatenate([IDS, IDS[:2]]))
        assert (await peer.hear())["type"] == "done"
        assert evictions(server) == 1
    assert sum(spent) == 4 * blocks + 2 * blocks


async def test_nobody_is_evicted_where_nobody_waits_or_the_policy_says_never(bundle: Bundle) -> None:
    async with (
        serving(bundle, max_sessions=1, evict_idle_s=0.0) as (url, server),
        caller(url, PATIENT),
        caller(url, WAITS) as (_, heard),
    ):
        assert heard["place"] == 1
        await asyncio.sleep(0.05)
        assert (evictions(server), len(server.queue)) == (0, 1)
    async with serving(bundle, max_sessions=2, **AT_ONCE) as (url, server), caller(url, PATIENT), caller(url, PATIENT):
        await asyncio.sleep(0.05)
        assert evictions(server) == 0


async def test_a_turn_of_an_evicted_session_waits_and_goes_on_under_a_new_plan(bundle: Bundle) -> None:
    async with evicted(bundle) as (_, server, first, second):
        await first.say({**TURN, "turn": 2, "start": 4, "prompt_tokens": 1, "max_tokens": 1})
        assert await first.hear() == {"type": "queued", "turn": 2, "place": 1}
        await first.frame(Kind.IDS, 2, 4, IDS[:1])  # sent before it heard of it: of no use
        assert server.session_states(server.first)["websocket", "queued"] == 1
        await second.say({"type": "close"})
        plan = await first.hear()
        assert (plan["type"], plan["turn"], plan["position"]) == ("plan", 2, 0)
        await first.say({"type": "adopt", "turn": 2})
        await first.frame(Kind.IDS, 2, 0, IDS)
        await first.frame(Kind.IDS, 2, 4, IDS[:1])
        assert (await first.token())[0] == 5
        done = await first.hear()
        assert (done["type"], done["position"], done["stats"]["server_blocks_run"]) == ("done", 5, 5 * 8)
        assert done["stats"]["queue_ms"] > 0


async def test_a_turn_in_the_queue_can_be_cancelled_and_the_next_one_asks_again(bundle: Bundle) -> None:
    async with evicted(bundle) as (_, server, first, second):
        await first.say({**TURN, "turn": 2, "start": 4, "prompt_tokens": 1})
        assert (await first.hear())["type"] == "queued"
        await first.say({"type": "cancel", "turn": 2})
        done = await first.hear()
        assert (done["finish_reason"], done["tokens"], done["position"]) == ("cancelled", 0, 0)
        assert len(server.queue) == 0
        await first.say({"type": "report", "client": OPEN["client"], "split": 3, "expected_prompt_tokens": 8})
        plan = await first.hear()
        assert (plan["type"], plan["turn"], plan["split"], plan["position"]) == ("plan", None, 3, 0)
        await first.say({**TURN, "turn": 3})
        assert await first.hear() == {"type": "queued", "turn": 3, "place": 1}
        await first.say({"type": "report", "client": OPEN["client"], "split": 0, "expected_prompt_tokens": 8})
        plan = await first.hear()
        assert (plan["turn"], plan["split"]) == (None, 3), "nothing changes before there is room"
        await second.say({"type": "close"})
        plan = await first.hear()
        assert (plan["turn"], plan["split"], plan["position"]) == (3, 0, 0)


async def test_a_turn_that_waited_too_long_is_refused_and_the_session_stays(bundle: Bundle) -> None:
    async with evicted(bundle, queue_s=0.2) as (_, server, first, second):
        await first.say({**TURN, "turn": 2, "start": 4, "prompt_tokens": 1})
        assert (await first.hear())["type"] == "queued"
        refusal = await first.hear()
        assert (refusal["code"], refusal["turn"], refusal["fatal"]) == ("server_full", 2, False)
        await second.say({"type": "close"})
        await until(lambda: not server.first.admission.sessions)
        await first.say({**TURN, "turn": 3, "start": 4, "prompt_tokens": 1})
        assert (await first.hear())["turn"] == 3


async def test_an_evicted_session_is_taken_up_again_and_one_in_the_queue_is_not_held(bundle: Bundle) -> None:
    async with (
        serving(bundle, max_sessions=1, **AT_ONCE) as (url, server),
        caller(url, {**PATIENT, "resume": None}) as (first, plan),
    ):
        await first.say({**TURN, "max_tokens": 1})
        await first.frame(Kind.IDS, 1, 0, IDS)
        assert (await first.hear())["type"] == "done"
        first.socket.transport.abort()
        await until(lambda: len(server.first.held) == 1)
        async with caller(url, WAITS) as (second, heard):
            while heard["type"] == "queued":
                heard = await second.hear()
            await second.say(TURN)
            async with caller(url, again(plan, turn=None, position=4)) as (back, plan):
                assert (plan["type"], plan["position"]) == ("plan", 0)
                await back.say({**TURN, "turn": 2, "start": 0, "prompt_tokens": 5})
                assert (await back.hear())["type"] == "queued"
                back.socket.transport.abort()
                await until(lambda: len(server.queue) == 0)
            assert len(server.first.held) == 0


async def test_a_server_that_stops_tells_a_turn_in_the_queue(bundle: Bundle) -> None:
    async with evicted(bundle) as (_, server, first, second):
        await first.say({**TURN, "turn": 2, "start": 4, "prompt_tokens": 1})
        assert (await first.hear())["type"] == "queued"
        stopping = asyncio.create_task(server.drain(30.0))
        assert (await first.hear())["code"] == "shutting_down"
        await second.say({"type": "cancel", "turn": 1})
        await stopping

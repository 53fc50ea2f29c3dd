"""Who finds the server full waits in line, hears its place, and goes on by itself; beyond the bounds it is refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from splitllm.bundle import Bundle
from splitllm.client import session as client_session
from splitllm.client.conversation import Answer, Conversation
from splitllm.client.link import ConnectionLostError
from splitllm.errors import CapacityError, MachineError, RemoteError
from splitllm.server import admission
from splitllm.server.app import Server
from splitllm.server.openai_answer import Completion
from splitllm.types import SamplingParams
from tests.chaos.world import open_session, serving, until
from tests.integration.test_resume import caller
from tests.integration.test_wire import OPEN, Peer

WAITS = {**OPEN, "queue": True}


@asynccontextmanager
async def full(bundle: Bundle, **settings: Any) -> AsyncIterator[tuple[str, Server, Peer]]:
    """A server for one session, its URL, and the peer that has the session."""
    async with serving(bundle, max_sessions=1, **settings) as (url, server), caller(url, OPEN) as (inside, plan):
        assert plan["type"] == "plan"
        yield url, server, inside


async def places(url: str, stack: AsyncExitStack, count: int) -> list[Peer]:
    """So many peers in line, one behind the other."""
    peers = []
    for place in range(1, count + 1):
        peer, heard = await stack.enter_async_context(caller(url, WAITS))
        assert heard == {"type": "queued", "turn": None, "place": place}
        peers.append(peer)
    return peers


async def test_who_waits_moves_up_as_others_leave_and_goes_on_by_itself(bundle: Bundle) -> None:
    async with AsyncExitStack() as stack, full(bundle) as (url, server, inside):
        first, second, third, fourth = await places(url, stack, 4)
        assert server.session_states(server.first)["websocket", "queued"] == 4
        async with aiohttp.ClientSession() as http, http.get(f"{url}/health") as response:
            health = await response.json()
        assert (health["sessions"], health["queued"]) == (1, 4)
        assert server.snapshot().queued == 4
        budget = server.first.admission.budget
        assert budget.reserved_bytes == budget.cost(0, OPEN["max_tokens"]), "who waits holds nothing"
        second.socket.transport.abort()
        assert [await peer.hear() for peer in (third, fourth)] == [
            {"type": "queued", "turn": None, "place": place} for place in (2, 3)
        ]
        await third.say({"type": "close"})
        assert await third.ends() == 1000
        assert (await fourth.hear())["place"] == 2
        await inside.say({"type": "close"})
        assert (await first.hear())["type"] == "plan"
        assert (await fourth.hear())["place"] == 1
        first.socket.transport.abort()
        assert (await fourth.hear())["type"] == "plan"


async def test_where_the_line_is_full_who_comes_for_a_new_session_is_refused_in_place_of_the_upgrade(
    bundle: Bundle,
) -> None:
    async with AsyncExitStack() as stack, full(bundle, queue_length=2, queue_s=50.0) as (url, server, inside):
        first, second = await places(url, stack, 2)
        connections = len(server.connections)
        with pytest.raises(RemoteError, match=r"full.*try again in 50 s") as refusal:
            await open_session(url, bundle, 0, lambda _: None)
        assert (refusal.value.code, refusal.value.retry_after_s) == ("server_full", 50.0)
        async with aiohttp.ClientSession() as http, http.get(f"{url}/v1/session?new") as response:
            assert (response.status, response.headers["Retry-After"]) == (503, "50")
            assert "2 wait for it already" in await response.text()
            metrics = await (await http.get(f"{url}/metrics")).text()
            async with http.post(f"{url}/v1/chat/completions", data=b"no JSON") as unread:
                assert (unread.status, unread.headers["Retry-After"]) == (429, "50")
        assert 'splitllm_refusals_total{api="websocket",code="server_full",model=""} 2.0' in metrics
        assert len(server.connections) == connections
        async with caller(url, WAITS) as (_, heard):  # it may have come to go on with a session
            assert (heard["type"], heard["code"]) == ("error", "server_full")
        await inside.say({"type": "close"})
        assert (await first.hear())["type"] == "plan"
        assert (await second.hear())["place"] == 1
        third = asyncio.create_task(open_session(url, bundle, 0, lambda _: None))
        await until(lambda: len(server.queue) == 2)
        with pytest.raises(RemoteError) as refusal:
            await open_session(url, bundle, 0)
        assert refusal.value.retry_after_s < 50.0, "it goes by how long others had to wait"
        first.socket.transport.abort()
        second.socket.transport.abort()
        await (await third).close()


async def test_a_full_line_keeps_nobody_from_going_on_with_a_session(bundle: Bundle) -> None:
    async with AsyncExitStack() as stack, serving(bundle, max_sessions=1, queue_length=1) as (url, server):
        ours = await open_session(url, bundle, 0)
        said = [item async for item in ours.answer([1, 2, 3], max_tokens=4, sampling=SamplingParams())]
        (waiting,) = await places(url, stack, 1)
        ours._link.abort()
        await until(lambda: len(server.first.held) == 1)
        again = [item async for item in ours.answer([1, 2, 3], max_tokens=4, sampling=SamplingParams())]
        assert [item for item in again if isinstance(item, int)] == [item for item in said if isinstance(item, int)]
        assert not ours.started_over
        await ours.close()
        assert (await waiting.hear())["type"] == "plan"


async def test_who_is_told_when_to_come_again_comes_no_sooner_and_not_with_all_others(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []

    async def refuse(*_: object) -> None:
        raise RemoteError("full", code="server_full", retry_after_s=3.0 if len(pauses) < 4 else 1e9)

    async def sleep(pause_s: float) -> None:
        pauses.append(pause_s)

    async with serving(bundle) as (url, _):
        ours = await open_session(url, bundle, 0)
        monkeypatch.setattr(ours, "_reconnect", refuse)
        monkeypatch.setattr(client_session.asyncio, "sleep", sleep)
        lost = ConnectionLostError(MachineError("gone"))
        with pytest.raises(RemoteError, match="full"):
            await ours._recover(lost, 1)
    monkeypatch.undo()
    assert pauses[0] == 0
    assert all(3 <= pause_s <= 6 for pause_s in pauses[1:4])
    assert all(pause_s <= 20 for pause_s in pauses)
    assert len(set(pauses[1:4])) == 3


async def test_nobody_overtakes_who_waits(bundle: Bundle) -> None:
    """Not who does not wait, and not who would need no memory at all."""
    tokens = OPEN["max_tokens"]
    memory = tokens * bundle.spec.blocks * bundle.spec.kv_bytes_per_token()
    async with (
        serving(bundle, kv_memory_bytes=memory) as (url, server),
        caller(url, OPEN) as (inside, _),
        caller(url, WAITS) as (waiting, heard),
        caller(url, {**OPEN, "split": 8}) as (hasty, refusal),
    ):
        assert (heard["type"], refusal["code"], refusal["fatal"]) == ("queued", "server_full", False)
        await inside.say({"type": "close"})
        assert (await waiting.hear())["type"] == "plan"
        await hasty.say({**OPEN, "split": 8})
        assert (await hasty.hear())["type"] == "plan"
        assert len(server.first.admission.sessions) == 2


async def test_who_asks_for_more_than_there_is_does_not_wait_for_it(bundle: Bundle) -> None:
    memory = OPEN["max_tokens"] * bundle.spec.blocks * bundle.spec.kv_bytes_per_token()
    async with serving(bundle, kv_memory_bytes=memory - 1) as (url, _), caller(url, WAITS) as (peer, refusal):
        assert refusal["code"] == "kv_exhausted"
        assert "more memory than this server has" in refusal["message"]
        await peer.say({**WAITS, "max_tokens": OPEN["max_tokens"] - 1})
        assert (await peer.hear())["type"] == "plan"


async def test_the_queue_has_a_length(bundle: Bundle) -> None:
    async with AsyncExitStack() as stack, full(bundle, queue_length=2) as (url, server, inside):
        first, _ = await places(url, stack, 2)
        late, refusal = await stack.enter_async_context(caller(url, WAITS))
        assert (refusal["code"], refusal["fatal"]) == ("server_full", False)
        assert "2 wait for it already; try again" in refusal["message"]
        await inside.say({"type": "close"})
        assert (await first.hear())["type"] == "plan"
        await late.say(WAITS)
        assert (await late.hear())["place"] == 2, "who was refused may ask again"
        assert len(server.queue) == 2


async def test_the_queue_has_a_longest_wait(bundle: Bundle) -> None:
    async with full(bundle, queue_s=0.2) as (url, server, inside), caller(url, WAITS) as (peer, heard):
        assert heard["place"] == 1
        refusal = await peer.hear()
        assert (refusal["code"], refusal["fatal"]) == ("server_full", False)
        assert "You have waited for 0.2 s" in refusal["message"]
        assert server.session_states(server.first)["websocket", "queued"] == 0
        await inside.say({"type": "close"})
        await until(lambda: not server.first.admission.sessions)
        await peer.say(WAITS)
        assert (await peer.hear())["type"] == "plan"


@pytest.mark.parametrize("limit", [{"queue_length": 0}, {"queue_s": 0.0}])
async def test_a_server_without_a_queue_refuses_at_once(bundle: Bundle, limit: dict[str, Any]) -> None:
    async with full(bundle, **limit) as (url, _, _), caller(url, WAITS) as (_, refusal):
        assert refusal["code"] == "server_full"


async def test_a_client_of_before_never_hears_of_the_queue(bundle: Bundle) -> None:
    async with full(bundle) as (url, server, _), caller(url, OPEN) as (_, refusal):
        assert refusal["code"] == "server_full"
        assert len(server.queue) == 0


async def test_in_line_nothing_is_said_but_close(bundle: Bundle) -> None:
    async with AsyncExitStack() as stack, full(bundle) as (url, server, _):
        talks, feeds = await places(url, stack, 2)
        await talks.say(WAITS)
        assert (await talks.hear())["code"] == "unexpected_message"
        assert (await feeds.hear())["place"] == 1, "a fatal error leaves the line"
        await feeds.say(b"SPLM")
        assert (await feeds.hear())["code"] == "unexpected_message"
        await until(lambda: len(server.queue) == 0)


async def test_a_server_that_stops_tells_those_in_line(bundle: Bundle) -> None:
    async with AsyncExitStack() as stack, full(bundle) as (url, server, _):
        body = {"model": bundle.spec.name, "messages": [{"role": "user", "content": "Hi"}]}
        peers = await places(url, stack, 2)
        http = await stack.enter_async_context(aiohttp.ClientSession())
        request = asyncio.create_task(http.post(f"{url}/v1/chat/completions", json=body))
        await until(lambda: len(server.queue) == 3)
        await server.drain(10.0)
        for peer in peers:
            assert (await peer.hear())["code"] == "shutting_down"
            assert await peer.ends() == 1001
        assert (await request).status == 503
        assert len(server.queue) == 0


async def test_requests_over_http_stand_in_the_same_line(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "CHANGES_EVERY_S", 0.0)
    async with AsyncExitStack() as stack, full(bundle) as (url, server, inside):
        body = {"model": bundle.spec.name, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
        http = await stack.enter_async_context(aiohttp.ClientSession())
        [before] = await places(url, stack, 1)
        request = asyncio.create_task(http.post(f"{url}/v1/chat/completions", json=body))
        await until(lambda: len(server.queue) == 2)
        behind, heard = await stack.enter_async_context(caller(url, WAITS))
        assert heard["place"] == 3
        await inside.say({"type": "close"})
        assert (await before.hear())["type"] == "plan"
        assert (await behind.hear())["place"] == 2
        assert not request.done()
        await before.say({"type": "close"})
        assert (await request).status == 200
        told = [await behind.hear(), await behind.hear()]
        assert [told[0]["place"], told[1]["type"]] == [1, "plan"]


async def test_a_request_that_fails_as_its_turn_comes_holds_nobody_up(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_completion: Completion) -> None:
        raise MemoryError("no memory")  # a fault that no input can cause

    async with AsyncExitStack() as stack, full(bundle) as (url, server, inside):
        body = {"model": bundle.spec.name, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
        http = await stack.enter_async_context(aiohttp.ClientSession())
        request = asyncio.create_task(http.post(f"{url}/v1/chat/completions", json=body))
        await until(lambda: len(server.queue) == 1)
        monkeypatch.setattr(Completion, "start", fail)
        behind, _ = await stack.enter_async_context(caller(url, WAITS))
        await inside.say({"type": "close"})
        assert (await behind.hear())["type"] == "plan"
        assert (await request).status == 500


async def test_a_conversation_waits_for_its_server_and_is_answered(bundle: Bundle, cache: Path) -> None:
    heard: list[int] = []
    async with full(bundle) as (url, server, inside):
        opening = asyncio.create_task(Conversation.open(url, cache=cache, split=2, in_line=heard.append))
        await until(lambda: heard == [1] and len(server.queue) == 1)
        await inside.say({"type": "close"})
        talk = await opening
        items = [item async for item in talk.ask("Hello!", max_tokens=4, sampling=SamplingParams())]
        assert isinstance(items[-1], Answer)
        assert items[-1].tokens == 4
        await talk.close()


async def test_those_who_come_and_go_are_no_news_to_each_other_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "CHANGES_EVERY_S", 0.2)
    queue = admission.AdmissionQueue(100, 60.0, 0.0)
    heard: dict[str, list[int]] = {}

    def full() -> None:
        raise CapacityError("full")

    def come(name: str) -> None:
        heard[name] = []
        queue.ask(name, admission.Guest(full, lambda _: False, heard[name].append, lambda _: None))

    for number in range(50):
        come(str(number))
    for number in range(40):
        queue.leave(str(number))
        await asyncio.sleep(0)
    await until(lambda: heard["49"][-1] == 10)
    assert heard["49"][0] == 50
    assert sum(map(len, heard.values())) < 50 + 2 * 50  # each change told to all would be more than a thousand
    assert [heard[str(number)][-1] for number in range(40, 50)] == list(range(1, 11))

"""Floods: who talks without end gets one message's worth of the event loop at a time, and not too many a second."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from typing import Any
from urllib.parse import urlsplit

import pytest
import websockets

from splitllm.bundle import Bundle
from splitllm.errors import RemoteError
from splitllm.protocol import Frame, Kind, encode_frame
from splitllm.server import app, connection
from splitllm.session import ServerSession
from tests.chaos.world import open_session
from tests.integration.test_hostile_http import UPGRADE, ServerAt, status_of
from tests.integration.test_rough_peers import AGAIN
from tests.integration.test_wire import HELLO, IDS, OPEN, TURN, is_well, peer
from tests.support import ServerProcess, serving


@pytest.fixture
def read_in(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """What sessions read from now on, and in which round of the event loop."""
    rounds = 0
    read: list[tuple[str, int]] = []

    def count() -> None:
        nonlocal rounds
        rounds += 1
        asyncio.get_running_loop().call_soon(count)

    def watch(name: str) -> None:
        inner = getattr(ServerSession, name)

        def outer(self: ServerSession, *args: Any) -> Any:
            if not rounds:
                count()
            read.append((name, rounds))
            return inner(self, *args)

        monkeypatch.setattr(ServerSession, name, outer)

    watch("receive_text")
    watch("receive_binary")
    return read


async def test_between_two_texts_the_event_loop_sees_to_everything_else(
    bundle: Bundle, read_in: list[tuple[str, int]]
) -> None:
    """Whoever they come from: many connections are as good for a flood as one."""
    async with serving(bundle.folder, max_sessions=4) as (url, _), contextlib.AsyncExitStack() as stack:
        talkers = [await stack.enter_async_context(peer(ServerAt(url))) for _ in range(20)]
        for talker in talkers:
            await talker.say(HELLO)
        for talker in talkers:
            assert (await talker.hear())["type"] == "welcome"
    texts = [number for name, number in read_in if name == "receive_text"]
    assert len(texts) == len(set(texts)) == 20


async def test_between_two_frames_of_one_peer_the_event_loop_sees_to_everything_else(
    bundle: Bundle, read_in: list[tuple[str, int]]
) -> None:
    async with serving(bundle.folder) as (url, _), peer(ServerAt(url), HELLO, OPEN) as talker:
        await talker.say({**TURN, "prompt_tokens": 64})
        for position in range(64):
            await talker.say(encode_frame(Frame(Kind.IDS, 1, position, IDS[:1])))
        assert (await talker.hear())["type"] == "done"
    frames = [number for name, number in read_in if name == "receive_binary"]
    assert len(frames) == len(set(frames)) == 64


async def test_who_asks_without_end_is_answered_at_a_pace(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, read_in: list[tuple[str, int]]
) -> None:
    monkeypatch.setattr(connection, "_TALK_BURST", 8)
    monkeypatch.setattr(connection, "_TALK_PER_S", 1e-6)
    async with serving(bundle.folder) as (url, _), peer(ServerAt(url), HELLO, OPEN) as flood:
        for _ in range(50):
            await flood.say(AGAIN)
        await is_well(ServerAt(url))
        flood.socket.transport.abort()
    assert len(read_in) <= 9 + 4  # what the flood may say, and what the other said


async def test_new_connections_beyond_all_places_come_at_a_pace(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who opens and leaves again and again has to wait, and those who wait count as connections."""
    monkeypatch.setattr(app, "_WAITING_ROOM", 1)
    monkeypatch.setattr(app, "_OPENINGS_PER_S", 1.0)
    async with serving(bundle.folder, max_sessions=1, queue_length=0) as (url, server):
        for _ in range(2):
            async with peer(ServerAt(url), HELLO):
                pass
        waiting = [asyncio.create_task(status_of(url, "/v1/session", UPGRADE)) for _ in range(3)]
        done, pending = await asyncio.wait(waiting, timeout=20, return_when=asyncio.FIRST_COMPLETED)
        assert [task.result()[0] for task in done] == [503]
        with pytest.raises(RemoteError, match="too many connections") as refused:
            await open_session(url, bundle, 0)
        assert refused.value.code == "server_full"
        assert not server.connections  # the others are not served yet, nor sent away
        for task in pending:
            task.cancel()


async def test_connections_of_any_kind_have_an_end_and_who_goes_makes_room(bundle: Bundle) -> None:
    serve = [sys.executable, "-m", "splitllm.cli", "serve", str(bundle.folder), "--port", "0"]
    server = ServerProcess(["bash", "-c", 'ulimit -n 300 && exec "$@"', "--", *serve])
    try:
        parts = urlsplit(server.url)
        server.process.send_signal(signal.SIGSTOP)  # so that all of them wait when it looks again
        held = [await asyncio.open_connection(parts.hostname, parts.port) for _ in range(300 // 2 - 64 + 1)]
        server.process.send_signal(signal.SIGCONT)
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(60):  # those before it are closed for their silence much later
                assert await held[-1][0].read() == b""
        for _, writer in held:
            writer.transport.abort()
        async with asyncio.timeout(60):
            while True:
                with contextlib.suppress(ConnectionError, websockets.InvalidHandshake, EOFError):
                    await is_well(server)
                    break
                await asyncio.sleep(0.1)
    finally:
        server.stop()

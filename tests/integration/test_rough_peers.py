"""Peers that fall silent, do not read, or send too much: each is let go, and told why as far as it can be."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import signal
import socket as sockets
import struct
import subprocess
import sys
from pathlib import Path

import aiohttp
import pytest
import websockets

from splitllm.bundle import Bundle
from splitllm.protocol import Kind
from splitllm.server import connection
from splitllm.server.connection import Connection
from tests.chaos.world import until
from tests.integration.test_wire import HELLO, IDS, OPEN, REPORT, TURN, Peer, is_well, peer
from tests.support import ServerProcess, serving

AGAIN = {"type": "report", "client": REPORT, "split": 0, "expected_prompt_tokens": 8}


async def test_a_message_that_is_too_large_is_refused_by_its_header(server: ServerProcess) -> None:
    """Nothing of its payload is sent, so no reset can overtake the close frame, and the code can be demanded."""
    async with peer(server, HELLO) as bad:
        final_binary, masked_64_bit = 0x82, 0x80 | 127
        bad.socket.transport.write(struct.pack("!BBQ4s", final_binary, masked_64_bit, 2 << 20, b"mask"))
        assert await bad.ends() == 1009
    await is_well(server)


async def test_a_peer_that_answers_no_ping_is_let_go(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_SILENT_S", 0.3)
    monkeypatch.setattr(connection, "_PING_EVERY_S", 0.1)
    async with serving(bundle.folder) as (url, server), aiohttp.ClientSession() as http:
        async with http.ws_connect(f"{url}/v1/session", autoping=False) as silent:
            await silent.send_json(HELLO)
            async for message in silent:
                assert message.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.PING)
            assert silent.close_code in (None, 1006)
        # One that answers stays: it is the silence that ends a session, not its age. A busy machine is silent, too.
        monkeypatch.setattr(connection, "_SILENT_S", 2.0)
        async with websockets.connect(f"ws{url.removeprefix('http')}/v1/session", compression=None) as socket:
            good = Peer(socket)
            await good.say(HELLO)
            assert (await good.hear())["type"] == "welcome"
            await asyncio.sleep(2.5)
            await good.say(OPEN)
            assert (await good.hear())["type"] == "plan"
            assert len(server.first.admission.sessions) == 1


@pytest.mark.parametrize("wakes_up", [True, False])
async def test_a_peer_that_does_not_read_is_let_go(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, wakes_up: bool
) -> None:
    monkeypatch.setattr(connection, "_LAST_WORD_S", 30.0 if wakes_up else 0.1)
    """Nor do answers pile up for it meanwhile: it is not read either."""
    monkeypatch.setattr(connection, "_TALK_BURST", 1 << 20)  # at the usual pace it takes minutes to fill the buffers
    monkeypatch.setattr(connection, "_OUTBOX_LIMIT", 8)
    waiting: list[int] = []
    receive = Connection._receive

    async def watched(self: Connection, data: str | bytes, now: float) -> bool:
        waiting.append(self._outbox.qsize())
        return await receive(self, data, now)

    monkeypatch.setattr(Connection, "_receive", watched)
    async with serving(bundle.folder, send_timeout_s=0.5) as (url, server):
        address = f"ws{url.removeprefix('http')}/v1/session"
        async with websockets.connect(address, compression=None, max_queue=1, ping_interval=None) as socket:
            deaf = Peer(socket)
            for message in (HELLO, OPEN):
                await deaf.say(message)
                await deaf.hear()
            flood = asyncio.create_task(_flood(deaf))
            while server.first.admission.sessions:  # noqa: ASYNC110  # the server tells nobody
                await asyncio.sleep(0.05)
            flood.cancel()
            await asyncio.gather(flood, return_exceptions=True)
            assert max(waiting) <= 8
            if wakes_up:
                codes = []
                with contextlib.suppress(websockets.ConnectionClosed):
                    while True:
                        heard = await deaf.hear()
                        codes += [heard["code"]] if heard["type"] == "error" else []
                assert codes == ["slow_reader"]
            socket.transport.abort()  # a polite close would wait for what this peer has not read


async def _flood(deaf: Peer) -> None:
    """Questions without end, whose answers nobody reads."""
    with contextlib.suppress(websockets.ConnectionClosed):
        while True:
            await deaf.say(AGAIN)


async def test_a_session_whose_client_reads_too_slowly_is_held_for_it(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "_LAST_WORD_S", 0.1)
    monkeypatch.setattr(connection, "_TALK_BURST", 1 << 20)
    async with serving(bundle.folder, send_timeout_s=0.5) as (url, server):
        address = f"ws{url.removeprefix('http')}/v1/session"
        async with websockets.connect(address, compression=None, max_queue=1, ping_interval=None) as socket:
            deaf = Peer(socket)
            for message in (HELLO, {**OPEN, "resume": None}):
                await deaf.say(message)
                plan = await deaf.hear()
            await deaf.say(TURN)
            await deaf.frame(Kind.IDS, 1, 0, IDS)
            done = await deaf.hear()
            flood = asyncio.create_task(_flood(deaf))
            await until(lambda: len(server.first.held) == 1)
            flood.cancel()
            await asyncio.gather(flood, return_exceptions=True)
            socket.transport.abort()
        assert server.metrics.refusals.labels(server.first.name, "websocket", "slow_reader")._value.get() == 1
        resume = {"session": plan["session"], "token": plan["resume"]["token"], "turn": 1, "position": 4}
        async with websockets.connect(address, compression=None) as socket:
            back = Peer(socket)
            for message in (HELLO, {**OPEN, "resume": resume}):
                await back.say(message)
                taken_up = await back.hear()
            assert taken_up["session"] == plan["session"]
            assert await back.hear() == done


async def test_a_peer_that_is_gone_before_its_upgrade_writes_nothing_into_the_log(
    bundle: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(bundle.folder) as (url, server):
        host, port = url.removeprefix("http://").split(":")
        with sockets.create_connection((host, int(port))) as peer_socket:
            upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13"
            key = f"Sec-WebSocket-Key: {'A' * 22}=="
            peer_socket.send(f"GET /v1/session HTTP/1.1\r\nHost: {host}:{port}\r\n{upgrade}\r\n{key}\r\n\r\n".encode())
            # To close is then to reset, behind the request.
            peer_socket.setsockopt(sockets.SOL_SOCKET, sockets.SO_LINGER, struct.pack("ii", 1, 0))
        async with aiohttp.ClientSession() as http, http.get(f"{url}/health") as response:
            assert response.status == 200
        await asyncio.sleep(0.1)  # nobody tells that nothing was written
        assert not server.connections
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


def test_ctrl_c_at_the_prompt_of_chat_ends_it(server: ServerProcess, cache: Path) -> None:
    """On a terminal of its own, as a person has it; the reading thread must not keep the process alive."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "splitllm.cli", "chat", server.url, "--split", "0", "--cache", str(cache)]
    process = subprocess.Popen(
        command,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        # What a shell runs in the background ignores SIGINT, and so would all its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    os.close(theirs)
    try:
        seen = b""
        while b"> " not in seen:
            seen += os.read(ours, 1024)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        with contextlib.suppress(OSError):  # the terminal is gone with its last process
            while piece := os.read(ours, 1024):
                seen += piece
        assert b"splitllm: stopped" in seen
        assert b"Traceback" not in seen
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        os.close(ours)

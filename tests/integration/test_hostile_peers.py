"""A real server process among peers that mean harm: who does not, hears what they hear on a quiet day.

Counts are small enough for every run; `SPLITLLM_FUZZ` multiplies them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import re
import resource
import struct
import sys
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
import websockets

from splitllm.bundle import Bundle
from splitllm.client.conversation import Answer, Conversation
from splitllm.protocol import Frame, Kind, encode_frame
from splitllm.types import SamplingParams
from tests.fuzz.effort import FACTOR
from tests.integration.test_wire import HELLO, IDS, OPEN, TURN, is_well, peer
from tests.support import ServerProcess, running_server

#: By how much the server's memory may differ when all is quiet again: allocators keep some of what they had.
LEVEL_BYTES = 32 << 20
ROUNDS = 40 * FACTOR


@pytest.fixture(scope="module")
def target(bundle: Bundle) -> Iterator[ServerProcess]:
    """A server of its own, because its resources are counted."""
    with running_server(bundle.folder, "--max-sessions", "16") as process:
        yield process


@dataclass(frozen=True)
class Level:
    """What the server holds."""

    sessions: int
    reserved_bytes: int
    open_files: int
    threads: int
    resident_bytes: int

    @classmethod
    def of(cls, server: ServerProcess) -> Level:
        proc = Path("/proc") / str(server.process.pid)
        with urllib.request.urlopen(f"{server.url}/metrics", timeout=30) as response:
            metrics = response.read().decode()
        sessions = sum(float(n) for n in re.findall(r"^splitllm_sessions\{.*\} (\S+)$", metrics, re.MULTILINE))
        [reserved] = re.findall(r'^splitllm_kv_bytes\{kind="reserved",model=".*"\} (\S+)$', metrics, re.MULTILINE)
        return cls(
            int(sessions),
            int(float(reserved)),
            len(list((proc / "fd").iterdir())),
            len(list((proc / "task").iterdir())),
            int((proc / "statm").read_text().split()[1]) * resource.getpagesize(),
        )


@contextlib.asynccontextmanager
async def back_to_level(server: ServerProcess) -> AsyncIterator[None]:
    """Whatever happens inside, afterwards the server holds what it held before."""
    await is_well(server)
    before = await settled(server, lambda level: level.sessions == 0)
    yield
    after = await settled(
        server,
        lambda level: (
            (level.sessions, level.reserved_bytes) == (0, 0)
            and level.open_files <= before.open_files
            and level.threads <= before.threads
        ),
    )
    assert after.resident_bytes - before.resident_bytes < LEVEL_BYTES
    await is_well(server)


async def settled(server: ServerProcess, quiet: Callable[[Level], bool]) -> Level:
    """What the server holds once it is `quiet`."""
    async with asyncio.timeout(60):
        while not quiet(level := await asyncio.to_thread(Level.of, server)):  # noqa: ASYNC110  # it tells nobody
            await asyncio.sleep(0.1)
    return level


async def answers(server: ServerProcess, cache: Path, split: int) -> list[str]:
    """Two greedy turns."""
    talk = await Conversation.open(server.url, cache=cache, split=split, wire="float32")
    try:
        texts = []
        for prompt in ("Tell me a story.", "What is the capital of Japan?"):
            async for item in talk.ask(prompt, max_tokens=40, sampling=SamplingParams()):
                if isinstance(item, Answer):
                    texts.append(item.text)
        return texts
    finally:
        await talk.close()


def mutation(chance: random.Random, hidden_size: int) -> str | bytes:
    """A message that is wrong in some way, or only surprising."""
    frames = [
        encode_frame(Frame(Kind.IDS, 1, 0, IDS)),
        encode_frame(Frame(Kind.HIDDEN, 1, 0, np.ones((4, hidden_size), np.float16))),
        encode_frame(Frame(Kind.HIDDEN, 1, 0, np.full((4, hidden_size), chance.choice([np.nan, np.inf]), np.float32))),
        encode_frame(Frame(Kind.TOKEN, 1, 4, np.array([[7]], np.int32))),
    ]
    texts = [json.dumps(message) for message in (HELLO, OPEN, TURN, {"type": "cancel", "turn": 1})]
    match chance.randrange(6):
        case 0:
            return chance.randbytes(chance.choice([0, 1, 31, 32, 33, 4096]))
        case 1:  # a field of a good header
            data = bytearray(chance.choice(frames))
            struct.pack_into(
                "<I", data, chance.choice([8, 12, 16, 20, 24, 28]), chance.choice([0, 1, 2**31 - 1, 2**32 - 1])
            )
            return bytes(data)
        case 2:
            data = bytearray(chance.choice(frames))
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
            return bytes(data[: chance.choice([len(data), len(data) - 1, 32])])
        case 3:
            return chance.choice(frames)
        case 4:
            text = chance.choice(texts)
            at = chance.randrange(len(text))
            return text[:at] + chance.choice(["", "[" * 9999, "1e999", '"', "\0", "\ud83d\ude00"]) + text[at + 1 :]
        case _:
            return chance.choice(texts)


async def vandal(server: ServerProcess, seed: int, hidden_size: int) -> None:
    """One short connection that begins as others do, says a few things, and leaves in one way or another."""
    chance = random.Random(seed)
    with contextlib.suppress(websockets.WebSocketException, ConnectionError, TimeoutError):
        url = f"ws{server.url.removeprefix('http')}/v1/session"
        async with websockets.connect(url, compression=None, close_timeout=1) as socket:
            for message in [HELLO, {**OPEN, "split": chance.choice([0, 3, 8])}, TURN][: chance.randrange(4)]:
                await socket.send(json.dumps(message))
            for _ in range(chance.randrange(1, 6)):
                await socket.send(mutation(chance, hidden_size))
            if chance.random() < 0.3:
                socket.transport.abort()
            elif chance.random() < 0.5:
                async with asyncio.timeout(1):
                    await socket.recv()


@pytest.mark.parametrize("split", [0, 3])
async def test_a_session_among_vandals_says_what_it_says_alone(
    target: ServerProcess, bundle: Bundle, cache: Path, split: int
) -> None:
    alone = await answers(target, cache, split)
    async with back_to_level(target):
        done = asyncio.Event()

        async def vandals(first: int) -> int:
            """For as long as the answers take, and at least so many."""
            seed = first
            while not done.is_set() or seed < first + ROUNDS // 4:
                await vandal(target, seed, bundle.spec.hidden_size)
                seed += 1
            return seed - first

        gang = [asyncio.create_task(vandals(10_000 * (number + 1))) for number in range(4)]
        among = await answers(target, cache, split)
        done.set()
        rounds = sum(await asyncio.gather(*gang))
        assert rounds >= ROUNDS
        assert among == alone
        assert any(alone)
    assert not any("Traceback" in line for line in target.output)


async def test_64_megabytes_are_refused_by_their_header_and_never_held(target: ServerProcess) -> None:
    size = 64 << 20
    async with back_to_level(target):
        before = Level.of(target).resident_bytes
        for opcode in (0x81, 0x82):  # text, binary; final, unfragmented
            async with peer(target, HELLO) as bad:
                transport = bad.socket.transport
                transport.write(struct.pack("!BBQ4s", opcode, 0x80 | 127, size, b"\0\0\0\0"))
                with contextlib.suppress(websockets.WebSocketException, ConnectionError):
                    for _ in range(64):
                        if transport.is_closing():
                            break
                        transport.write(bytes(1 << 20))
                        await asyncio.sleep(0)
                assert await bad.ends() in (1009, 1006)  # what is under way may reset the connection before it says so
        # In pieces that are each allowed, the whole is still one message.
        async with peer(target, HELLO) as bad:
            piece = struct.pack("!BBQ4s", 0x02, 0x80 | 127, 1 << 19, b"\0\0\0\0") + bytes(1 << 19)
            for number in range(8):
                if bad.socket.transport.is_closing():
                    break
                bad.socket.transport.write((b"\x00" if number else b"\x02") + piece[1:])
                await asyncio.sleep(0.01)
            assert await bad.ends() in (1009, 1006)
        assert Level.of(target).resident_bytes - before < 16 << 20


async def test_thousands_of_connections_that_say_nothing_keep_nobody_out(target: ServerProcess, cache: Path) -> None:
    """Half of them silent, half with a piece of a request; all opened, left, and in the end reset."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    number = min(2000, soft // 2 - 200)
    assert number >= 200, "raise `ulimit -n`"
    parts = urlsplit(target.url)
    alone = await answers(target, cache, 0)
    async with back_to_level(target):
        before = Level.of(target).resident_bytes
        writers = []
        for index in range(number):
            _, writer = await asyncio.open_connection(parts.hostname, parts.port)
            if index % 2:
                writer.write(b"GET /v1/session HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: webso")
            writers.append(writer)
        assert Level.of(target).open_files >= number
        assert await answers(target, cache, 0) == alone
        assert Level.of(target).resident_bytes - before < LEVEL_BYTES + number * (32 << 10)
        for writer in writers:
            writer.transport.abort()


async def upgraded(server: ServerProcess) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A WebSocket without anybody who keeps to its rules."""
    parts = urlsplit(server.url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    writer.write(
        b"GET /v1/session HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
    return reader, writer


def ws_frame(data: bytes, opcode: int, *, claims: int | None = None) -> bytes:
    """A masked frame (RFC 6455, section 5.2), with a mask of zeros; `claims` a length that need not be its own."""
    return struct.pack("!BBQ4s", 0x80 | opcode, 0x80 | 127, len(data) if claims is None else claims, bytes(4)) + data


#: What has been sent when a peer goes away.
TEXTS = [ws_frame(json.dumps(message).encode(), 1) for message in (HELLO, {**OPEN, "split": 1}, TURN)]
STAGES = {
    "upgraded": [],
    "greeted": TEXTS[:1],
    "planning": TEXTS[:2],
    "in turn": TEXTS,
    "in a frame's header": [*TEXTS, b"\x82"],
    "in a frame's length": [*TEXTS, b"\x82\xff\0\0"],
    "in a frame's payload": [*TEXTS, ws_frame(b"SPLM", 2, claims=1000)],
    "in a message": [*TEXTS, b"\x02\x84\0\0\0\0SPLM"],
    "with a reserved opcode": [*TEXTS, ws_frame(b"", 3)],
    "with a long ping": [*TEXTS, ws_frame(bytes(300), 9)],
    "with no mask": [*TEXTS, b"\x82\x04SPLM"],
    "with text that is not UTF-8": [TEXTS[0], ws_frame(b"\xff\xfe{}", 1)],
    "with a close of one byte": [*TEXTS, ws_frame(b"\x03", 8)],
}


@pytest.mark.parametrize("stage", STAGES)
async def test_who_goes_away_at_any_stage_leaves_nothing(target: ServerProcess, stage: str) -> None:
    async with back_to_level(target):
        for how in ("reset", "half closed", "closed"):
            for _ in range(4):
                _, writer = await upgraded(target)
                writer.write(b"".join(STAGES[stage]))
                with contextlib.suppress(ConnectionError):
                    await writer.drain()
                if how == "reset":
                    writer.transport.abort()
                    continue
                with contextlib.suppress(OSError):
                    if how == "half closed":
                        writer.write_eof()
                        await asyncio.sleep(0.02)
                writer.close()
    assert not any("Traceback" in line for line in target.output)


async def test_a_flood_of_pings_and_of_empty_messages_is_no_service(target: ServerProcess, cache: Path) -> None:
    alone = await answers(target, cache, 0)
    async with back_to_level(target):
        _, deaf = await upgraded(target)  # reads nothing of the pongs
        for _ in range(200 * FACTOR):
            deaf.write(ws_frame(bytes(125), 9) * 50 + b"\x00\x80\0\0\0\0")
        assert await answers(target, cache, 0) == alone
        deaf.transport.abort()


async def test_a_low_limit_on_open_files_is_raised_before_strangers_use_it_up(bundle: Bundle) -> None:
    """Beyond the limit nobody is let in any more, and the event loop logs each attempt at length."""
    serve = [sys.executable, "-m", "splitllm.cli", "serve", str(bundle.folder), "--port", "0"]
    server = ServerProcess(["bash", "-c", 'ulimit -Sn 128 && exec "$@"', "--", *serve])
    parts = urlsplit(server.url)
    try:
        opened = [await asyncio.open_connection(parts.hostname, parts.port) for _ in range(200)]
        await is_well(server)
        for _, writer in opened:
            writer.transport.abort()
    finally:
        server.stop()
    assert not any("Too many open files" in line for line in server.output)

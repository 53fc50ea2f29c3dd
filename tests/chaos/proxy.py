"""A proxy on loopback that does to whole WebSocket messages what no network should, at a message that the test names.

It forwards bytes until a connection is upgraded, and from then on messages (RFC 6455, section 5.2; whoever talks here
sends none in pieces). Control frames pass.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Final, Literal
from urllib.parse import urlsplit

Way = Literal["up", "down"]
Action = Literal["cut", "drop", "delay", "duplicate", "truncate", "reorder", "stall", "pause"]
ACTIONS: Final[tuple[Action, ...]] = ("cut", "drop", "delay", "duplicate", "truncate", "reorder", "stall", "pause")
_TEXT, _BINARY = 1, 2
_SLOW_S: Final = 0.03


@dataclass
class Fault:
    """Does `action` to the message that goes `way`, is of this `kind` (see kind_of), and comes after `after` such."""

    action: Action
    way: Way
    kind: str
    after: int = 0
    then: Callable[[], None] | None = None
    done: bool = False

    def hits(self, way: Way, kind: str) -> bool:
        """Whether this is the message."""
        if self.done or way != self.way or kind != self.kind:
            return False
        self.after -= 1
        self.done = self.after < 0
        return self.done


def kind_of(opcode: int, payload: bytes) -> str:
    """`frame`, or the type of a control message; `resume` and `resumed` for those that take a session up again, and
    `replan` for a plan within a turn."""
    if opcode == _BINARY:
        return "frame"
    message = json.loads(payload)
    name: str = message["type"]
    if name == "open" and message.get("resume"):
        return "resume"
    if name == "plan" and message.get("resume", {}).get("turn"):
        return "resumed"
    return "replan" if name == "plan" and message["turn"] else name


@dataclass(eq=False)
class _Connection:
    """Both halves of one."""

    writers: list[asyncio.StreamWriter]
    stalled: bool = False
    held: dict[Way, bytes] = field(default_factory=dict)

    def cut(self) -> None:
        for writer in self.writers:
            writer.transport.abort()


class Proxy:
    """Stands between a client and the server at `target` (a URL, which may change; while it is empty, who connects
    waits)."""

    def __init__(self, target: str) -> None:
        self.target = target
        self.faults: list[Fault] = []
        self.url = ""
        self.upgrades = 0
        self._loop: asyncio.AbstractEventLoop
        self._connections: dict[_Connection, asyncio.Task[None] | None] = {}

    def cut(self) -> None:
        """Cut all connections."""
        for connection in self._connections:
            connection.cut()

    def cut_from_outside(self) -> None:
        """Cut all connections, from another thread."""
        self._loop.call_soon_threadsafe(self.cut)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Proxy]:
        """Listens while the context lasts."""
        self._loop = asyncio.get_running_loop()
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            server.close()
            self.cut()
            tasks = [task for task in self._connections.values() if task is not None]
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while not self.target:  # noqa: ASYNC110  # the test tells nobody
            await asyncio.sleep(0.05)
        address = urlsplit(self.target)
        try:
            upstream, out = await asyncio.open_connection(address.hostname, address.port)
        except OSError:
            writer.transport.abort()
            return
        connection = _Connection([writer, out])
        self._connections[connection] = asyncio.current_task()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump("up", reader, out, connection))
                group.create_task(self._pump("down", upstream, writer, connection))
        finally:
            connection.cut()
            del self._connections[connection]

    async def _pump(
        self, way: Way, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: _Connection
    ) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            if way == "up":  # the server is known by this proxy's name: what it is called is not what is tested
                head = head.replace(urlsplit(self.url).netloc.encode(), urlsplit(self.target).netloc.encode())
            upgraded = b"upgrade: websocket" in head.lower()
            if not upgraded:  # what comes after a file may be an upgrade: it shall have a connection of its own
                head = head.replace(b"onnection: keep-alive", b"onnection: close")
            writer.write(head)
            if upgraded:
                self.upgrades += way == "up"
                while True:
                    await self._forward(way, *await _read_frame(reader), writer, connection)
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        connection.cut()

    async def _forward(
        self, way: Way, first: int, masked: bytes, payload: bytes, writer: asyncio.StreamWriter, connection: _Connection
    ) -> None:
        raw = _frame(first, masked, payload)
        fault = None
        if first & 15 in (_TEXT, _BINARY) and not connection.stalled:
            kind = kind_of(first & 15, _unmasked(masked, payload))
            fault = next((fault for fault in self.faults if fault.hits(way, kind)), None)
        if fault is not None:
            if fault.then is not None:
                fault.then()
            match fault.action:
                case "cut":
                    connection.cut()
                    raise ConnectionResetError
                case "stall":
                    connection.stalled = True
                case "drop":
                    return
                case "reorder":
                    connection.held[way] = raw
                    return
                case "duplicate":
                    raw += raw
                case "truncate":
                    raw = _frame(first, masked, payload[: len(payload) // 2])
                case "delay" | "pause":
                    await asyncio.sleep(_SLOW_S * (1 if fault.action == "delay" else 5))
        if connection.stalled:
            return
        if first & 15 in (_TEXT, _BINARY):
            raw += connection.held.pop(way, b"")
        writer.write(raw)
        await writer.drain()


async def _read_frame(reader: asyncio.StreamReader) -> tuple[int, bytes, bytes]:
    """First byte, mask (or nothing) and payload, as sent."""
    first, second = await reader.readexactly(2)
    length = second & 127
    if length > 125:
        length = int.from_bytes(await reader.readexactly(2 if length == 126 else 8), "big")
    mask = await reader.readexactly(4) if second & 128 else b""
    return first, mask, await reader.readexactly(length)


def _frame(first: int, mask: bytes, payload: bytes) -> bytes:
    length, bit = len(payload), 128 if mask else 0
    if length < 126:
        size = bytes([length | bit])
    elif length < 1 << 16:
        size = bytes([126 | bit]) + length.to_bytes(2, "big")
    else:
        size = bytes([127 | bit]) + length.to_bytes(8, "big")
    return bytes([first]) + size + mask + payload


def _unmasked(mask: bytes, payload: bytes) -> bytes:
    if not mask:
        return payload
    return bytes(byte ^ mask[at & 3] for at, byte in enumerate(payload))

"""Replaying clients: real sessions over the real protocol whose machines and links are only waited for.

A replaying client computes nothing. It sends activations that were recorded beforehand, as late as its machine and its
link would have them arrive, by the same arithmetic as the simulator's clients (`simulator.ClientSide`).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import websockets
from numpy.typing import NDArray
from websockets.asyncio.client import ClientConnection, connect

from .. import __version__
from ..errors import MachineError, RemoteError
from ..protocol import (
    PROTOCOL_VERSION,
    Frame,
    Kind,
    Message,
    TurnRequest,
    decode_frame,
    decode_message,
    encode_frame,
    encode_message,
    report_to,
)
from ..types import PREFILL_CHUNK, ClientReport, SamplingParams
from .simulator_values import HEADER_BYTES, ID_BYTES, VALUE_BYTES, ClientSide, Conversation, Record

_MESSAGE_LIMIT: Final = 1 << 20
_ANSWER_TIMEOUT_S: Final = 120.0


@dataclass(frozen=True, slots=True)
class Recording:
    """Inputs of blocks: `hidden[k]` is float16[PREFILL_CHUNK, hidden_size] before block k; the last is the head's."""

    hidden: Mapping[int, NDArray[np.float16]]

    def rows(self, split: int, count: int, offset: int) -> NDArray[Any]:
        """`count` rows from `offset` on, again from the beginning where the recording ends."""
        recorded = self.hidden[split]
        return recorded[np.arange(offset, offset + count) % len(recorded)]


@dataclass(slots=True)
class Replay:
    """What came of all conversations: turns as the simulator's records have them, and why others failed.

    late_ms: by how much each message left later than it should have, because the clients' process had to wait.
    """

    records: list[Record] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    late_ms: list[float] = field(default_factory=list)


async def replay(
    url: str, conversations: Sequence[Conversation], splits: Mapping[str, int], recording: Recording, blocks: int
) -> Replay:
    """Let all conversations happen on the server at `url` (`http://…`), each with its split, in real time."""
    result = Replay()
    begun = time.monotonic()
    tasks = [
        asyncio.create_task(_Replayed(url, one, splits[one.name], recording, blocks, begun, result).run())
        for one in conversations
    ]
    for task, conversation in zip(tasks, conversations, strict=True):
        try:
            await task
        except (OSError, TimeoutError, websockets.WebSocketException, MachineError, RemoteError) as error:
            result.failures.append(f"{conversation.name}: {type(error).__name__} {error}"[:200])
    result.records.sort(key=lambda record: record.asked_ms)
    return result


class _Replayed:
    """One conversation; times are ms since the replay began."""

    def __init__(
        self,
        url: str,
        conversation: Conversation,
        split: int,
        recording: Recording,
        blocks: int,
        begun: float,
        result: Replay,
    ) -> None:
        self._url = f"ws{url.removeprefix('http')}/v1/session"
        self._conversation, self._split = conversation, split
        self._recording, self._blocks = recording, blocks
        self._begun, self._result = begun, result
        self._side = ClientSide(conversation)
        self._length = 0

    def _now(self) -> float:
        return 1000 * (time.monotonic() - self._begun)

    async def _until(self, when: float) -> None:
        delay = when - self._now()
        if delay > 0:
            await asyncio.sleep(delay / 1000)
        self._result.late_ms.append(self._now() - when)

    async def run(self) -> None:
        """Open, ask every question, close."""
        conversation = self._conversation
        await self._until(conversation.arrival_ms)
        async with connect(self._url, compression=None, max_size=_MESSAGE_LIMIT) as socket:
            hello = {"type": "hello", "protocol": PROTOCOL_VERSION, "agent": f"splitllm/{__version__}"}
            await _request(socket, {**hello, "model": None, "bundle": None}, "welcome")
            report = ClientReport(backend="cpu", blocks_ready=self._blocks)
            await _request(
                socket,
                {
                    "type": "open",
                    "client": report_to(report),
                    "split": self._split,
                    "wire": "float16",
                    "max_tokens": conversation.max_tokens + len(conversation.turns),
                    "expected_prompt_tokens": conversation.turns[0].prompt_tokens,
                },
                "plan",
            )
            for number, turn in enumerate(conversation.turns):
                if number:
                    await self._until(self._now() + turn.think_ms)
                async with asyncio.timeout(_ANSWER_TIMEOUT_S):
                    await self._turn(socket, number)
            with contextlib.suppress(websockets.ConnectionClosed):
                await socket.send(encode_message({"type": "close"}))

    async def _turn(self, socket: ClientConnection, number: int) -> None:
        turn, client = self._conversation.turns[number], self._conversation.client
        prompt = turn.prompt_tokens + min(number, 1)  # the last token of the former answer was not run
        record = Record(
            self._conversation.name, client.kind, number, self._now(), turn.prompt_tokens, turn.answer_tokens,
            split=self._split, feasible=True,
        )  # fmt: skip
        self._result.records.append(record)
        request = TurnRequest(number + 1, self._length, prompt, turn.answer_tokens, SamplingParams())
        await self._until(self._side.up(self._now(), HEADER_BYTES))
        await socket.send(encode_message(request.to_message()))
        sending = asyncio.create_task(self._send_prompt(socket, number + 1, prompt, record.asked_ms))
        try:
            await self._answer(socket, number + 1, record)
            await sending
        finally:
            sending.cancel()
        record.positions = prompt + max(0, record.tokens - 1)

    async def _send_prompt(self, socket: ClientConnection, turn: int, prompt: int, computed: float) -> None:
        """The prompt's chunks, each when the client would have computed it and the link delivered it."""
        start, end = self._length, self._length + prompt
        for position in range(start, end, PREFILL_CHUNK):
            rows = min(PREFILL_CHUNK, end - position)
            computed += self._split * self._conversation.client.prefill_ms * rows / PREFILL_CHUNK
            if self._split < self._blocks:
                await self._send(socket, turn, position, rows, computed)
            elif position + rows == end:
                await self._send(socket, turn, end - 1, 1, computed)

    async def _send(self, socket: ClientConnection, turn: int, position: int, rows: int, when: float) -> None:
        if self._split == 0:
            frame = Frame(Kind.IDS, turn, position, np.ones((rows, 1), np.int32))
            size = ID_BYTES * rows
        else:
            values = self._recording.rows(self._split, rows, position)
            frame = Frame(Kind.HIDDEN, turn, position, values)
            size = VALUE_BYTES * values.size
        await self._until(self._side.up(when, HEADER_BYTES + size))
        await socket.send(encode_frame(frame))

    async def _answer(self, socket: ClientConnection, turn: int, record: Record) -> None:
        client = self._conversation.client
        while True:
            received = await socket.recv()
            if isinstance(received, str):
                message = _expect(received, "done")
                self._length = message["position"]
                return
            frame = decode_frame(received)
            for offset in range(frame.rows):
                arrived = self._side.down(self._now(), HEADER_BYTES + ID_BYTES)
                if record.last_ms is None:
                    record.first_ms = arrived
                else:
                    record.gaps.append(arrived - record.last_ms)
                record.last_ms = arrived
                record.tokens += 1
                if self._split and record.tokens < record.answer_tokens:
                    computed = arrived + self._split * client.decode_ms
                    await self._send(socket, turn, frame.position + offset, 1, computed)


async def _request(socket: ClientConnection, message: Message, answer_type: str) -> Message:
    await socket.send(encode_message(message))
    answer = await socket.recv()
    if isinstance(answer, bytes):
        raise MachineError("the server sent a frame where a message was due")
    return _expect(answer, answer_type)


def _expect(text: str, message_type: str) -> Message:
    message = decode_message(text, "server")
    if message["type"] == "error":
        raise RemoteError(message["message"], code=message["code"])
    if message["type"] != message_type:
        raise MachineError(f"the server sent `{message['type']}` where `{message_type}` was due")
    return message

"""One session with a server, over one WebSocket (protocol/PROTOCOL.md)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

import numpy as np
import websockets
from websockets.asyncio.client import ClientConnection, connect

from .. import __version__
from ..errors import MachineError, ProtocolError, RemoteError, TurnError
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
from .local_blocks import LocalBlocks

_OPEN_TIMEOUT_S: Final = 20.0
_MESSAGE_LIMIT: Final = 1 << 20
#: Errors that speak of a frame and leave its turn running (PROTOCOL.md, section 6).
_FRAME_ERRORS: Final = frozenset(
    {
        "not_finite",
        "unknown_token",
        "wrong_shape",
        "wrong_dtype",
        "unexpected_frame",
        "position_gap",
        "position_overlap",
        "unknown_turn",
    }
)
_WIRE: Final = {"float16": np.dtype(np.float16), "float32": np.dtype(np.float32)}


class ClientSession:
    """A session that is open. `blocks` is None while split is 0."""

    def __init__(self, socket: ClientConnection, welcome: Message, plan: Message, blocks: LocalBlocks | None) -> None:
        self._socket = socket
        self._blocks = blocks
        self.welcome, self.plan = welcome, plan
        self.split: int = plan["split"]
        self.total_blocks: int = welcome["blocks"]
        self._ids: list[int] = []  # of the positions that both sides hold keys and values of
        self._turn = 0

    @classmethod
    async def open(
        cls,
        server: str,
        *,
        model: str | None,
        identity: str,
        report: ClientReport,
        split: int | None,
        wire: str,
        expected_prompt_tokens: int,
        blocks: LocalBlocks | None,
    ) -> ClientSession:
        """Connect, greet and open.

        Raises:
            MachineError: the server cannot be reached.
            RemoteError: the server refuses.
        """
        url = f"ws{server.removeprefix('http')}/v1/session"
        try:
            socket = await connect(url, compression=None, max_size=_MESSAGE_LIMIT, open_timeout=_OPEN_TIMEOUT_S)
        except (OSError, TimeoutError, websockets.WebSocketException) as error:
            raise MachineError(f"cannot open a session at {url} ({error}); is the server running there?") from None
        try:
            hello = {"type": "hello", "protocol": PROTOCOL_VERSION, "agent": f"splitllm/{__version__}"}
            welcome = await _request(socket, {**hello, "model": model, "bundle": identity}, "welcome")
            open_message = {
                "type": "open",
                "client": report_to(report),
                "split": "auto" if split is None else split,
                "wire": wire,
                "max_tokens": welcome["limits"]["max_context"],
                "expected_prompt_tokens": max(1, expected_prompt_tokens),
            }
            plan = await _request(socket, open_message, "plan")
        except BaseException:
            await socket.close()
            raise
        return cls(socket, welcome, plan, blocks)

    def use_blocks(self, blocks: LocalBlocks | None) -> None:
        """Set the local blocks, `split` of them, before the first turn."""
        self._blocks = blocks

    async def close(self) -> None:
        """End the session."""
        try:
            await self._socket.send(encode_message({"type": "close"}))
            await self._socket.wait_closed()
        except websockets.ConnectionClosed:
            pass

    async def answer(
        self, ids: Sequence[int], *, max_tokens: int, sampling: SamplingParams, stop: Sequence[str] = ()
    ) -> AsyncIterator[int | Message]:
        """Answer a conversation: yields token ids as they come, and the `done` message last.

        Only what the conversation has beyond the former turn is computed.

        Args:
            ids: the whole conversation up to where the answer begins.
            max_tokens: tokens to generate at most.
            sampling: how tokens are drawn.
            stop: strings that end the answer.

        Raises:
            TurnError: the conversation is longer than the session.
            RemoteError: the server refuses the turn.
            MachineError: the connection was lost.
        """
        limit = self.plan["max_tokens"]
        if len(ids) + 1 > limit:
            raise TurnError(
                f"the conversation has {len(ids)} tokens and the session holds {limit} with the answer; shorten it or "
                "start a new chat",
                code="context_overflow",
            )
        start = min(_common_prefix(self._ids, ids), len(ids) - 1)
        self._turn += 1
        turn = TurnRequest(
            self._turn,
            start,
            len(ids) - start,
            max_tokens,
            sampling,
            tuple(stop),
            tuple(sorted(set(ids))) if sampling.repetition_penalty != 1 else (),
        )
        running = True
        try:
            await self._socket.send(encode_message(turn.to_message()))
            self._ids = list(ids[:start])
            await self._send_prompt(ids, start)
            tokens = 0
            while True:
                received = await self._socket.recv()
                if isinstance(received, str):
                    message = _expect(received, "done")
                    if message["turn"] == self._turn:
                        running = False
                        self._ids = self._ids[: message["position"]]
                        yield message
                        return
                    continue
                frame = decode_frame(received)
                if frame.turn != self._turn:
                    continue
                for offset, token in enumerate(frame.values[:, 0].tolist()):
                    tokens += 1
                    yield token
                    if tokens < max_tokens:
                        await self._send_step(token, frame.position + offset)
        except RemoteError as error:
            running = error.code in _FRAME_ERRORS
            raise
        except websockets.ConnectionClosed as error:
            running = False
            raise MachineError(f"the connection to the server was lost ({error}); run again") from None
        finally:
            if running:  # a frame was refused, or the caller lost interest: the next turn needs this one to end
                await self._give_up()

    async def _give_up(self) -> None:
        """Cancel the turn under way and wait for its end; the next turn begins at 0."""
        self._ids = []
        with contextlib.suppress(websockets.ConnectionClosed, RemoteError, TimeoutError):
            await self._socket.send(encode_message({"type": "cancel", "turn": self._turn}))
            async with asyncio.timeout(_OPEN_TIMEOUT_S):
                while True:
                    received = await self._socket.recv()
                    if isinstance(received, str) and _expect(received, "done")["turn"] == self._turn:
                        return

    async def _send_prompt(self, ids: Sequence[int], start: int) -> None:
        for position in range(start, len(ids), PREFILL_CHUNK):
            chunk = list(ids[position : position + PREFILL_CHUNK])
            is_last = position + len(chunk) == len(ids)
            if self._blocks is None:
                await self._send(Kind.IDS, position, np.array(chunk, np.int32)[:, None])
            else:
                hidden = await asyncio.to_thread(self._blocks.forward, chunk, position)
                if self.split < self.total_blocks:
                    await self._send(Kind.HIDDEN, position, hidden)
                elif is_last:  # only the head is left, and it needs the last row alone
                    await self._send(Kind.HIDDEN, len(ids) - 1, hidden[-1:])
            self._ids += chunk

    async def _send_step(self, token: int, position: int) -> None:
        """Run a token that was drawn through the local blocks; at split 0 the server goes on by itself."""
        if self._blocks is not None:
            hidden = await asyncio.to_thread(self._blocks.forward, [token], position)
            await self._send(Kind.HIDDEN, position, hidden)
        self._ids.append(token)

    async def _send(self, kind: Kind, position: int, values: Any) -> None:
        if kind is Kind.HIDDEN:
            values = values.astype(_WIRE[self.plan["wire"]])
        await self._socket.send(encode_frame(Frame(kind, self._turn, position, values)))


def _common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    for index, (left, right) in enumerate(zip(a, b, strict=False)):
        if left != right:
            return index
    return min(len(a), len(b))


async def _request(socket: ClientConnection, message: Message, answer_type: str) -> Message:
    try:
        await socket.send(encode_message(message))
        async with asyncio.timeout(_OPEN_TIMEOUT_S):
            answer = await socket.recv()
    except websockets.ConnectionClosed as error:
        raise MachineError(f"the server closed the connection ({error}); is it a SplitLLM server?") from None
    except TimeoutError:
        raise MachineError("the server does not answer; try again") from None
    if isinstance(answer, bytes):
        raise ProtocolError("The server sent a frame where a message was due; its version may differ.")
    return _expect(answer, answer_type)


def _expect(text: str, message_type: str) -> Message:
    """A message of this type; an error of the server is raised.

    Raises:
        RemoteError: the server sent `error`.
        ProtocolError: the server sent something else.
    """
    message = decode_message(text, "server")
    if message["type"] == "error":
        raise RemoteError(message["message"], code=message["code"])
    if message["type"] != message_type:
        raise ProtocolError(
            f"The server sent `{message['type']}` where `{message_type}` was due; its version may differ."
        )
    return message

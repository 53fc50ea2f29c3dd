"""One session with a server, over one WebSocket (protocol/PROTOCOL.md)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final, Self

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
    """A session that is open. `blocks` holds at least as many blocks as any plan calls for; None is none at all.

    What is to be computed follows from three lengths, so a prompt, a token, a catch-up after the split grew and a
    history that goes up again need no cases of their own: the ids that are known, how many of them the local blocks
    hold keys and values of, and from where on the server wants rows.
    """

    def __init__(self, socket: ClientConnection, welcome: Message, plan: Message, blocks: LocalBlocks | None) -> None:
        self._socket = socket
        self._blocks = blocks
        self.welcome, self.plan = welcome, plan
        self.total_blocks: int = welcome["blocks"]
        self.plans: list[Message] = [plan]  # in force one after the other, since the latest turn began
        self._ids: list[int] = []  # of the conversation, as far as it is known
        self._server_length = 0  # positions whose keys and values the server holds
        self._local_length = 0  # the same for the local blocks
        self._send_from = 0  # position from which on the server wants rows
        self._prompt_end = 0  # rows before it go up in chunks, the others one by one
        self._turn = 0
        self._in_turn = False
        self._report_open = False  # a `report` within a turn waits for its answer

    @property
    def split(self) -> int:
        """Blocks that run here."""
        return int(self.plan["split"])

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
    ) -> Self:
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

    async def report(self, report: ClientReport, *, split: int | None, expected_prompt_tokens: int) -> None:
        """Say what has changed, and follow the plan that comes; within a turn, `answer` does so when it is there.

        Raises:
            RemoteError: the server refuses (between turns; within one, the former plan just stays).
        """
        message = {
            "type": "report",
            "client": report_to(report),
            "split": "auto" if split is None else split,
            "expected_prompt_tokens": max(1, expected_prompt_tokens),
        }
        if self._in_turn:
            if not self._report_open:
                self._report_open = True
                await self._socket.send(encode_message(message))
            return
        await self._settle_report()
        self._follow(await _request(self._socket, message, "plan"))

    async def _settle_report(self) -> None:
        """A `report` of the turn before may still be unanswered; nothing may be sent until it is."""
        while self._report_open:
            received = await self._socket.recv()
            if isinstance(received, str):
                self._hear(decode_message(received, "server"))

    def _hear(self, message: Message) -> Message | None:
        """A message of the server while no request waits for it: the `done` of this turn, or None."""
        if message["type"] == "error" and not message["fatal"] and message["turn"] is None and self._report_open:
            self._report_open = False
            return None
        _check(message, "done", "plan")
        if message["type"] == "plan":
            self._report_open = False
            self._follow(message)
            return None
        return message if message["turn"] == self._turn else None

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
        await self._settle_report()
        start = min(_common_prefix(self._ids, ids), self._server_length, len(ids) - 1)
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
        running = self._in_turn = True
        self.plans = [self.plan]
        try:
            await self._socket.send(encode_message(turn.to_message()))
            self._ids = list(ids)
            self._server_length = self._send_from = start
            self._local_length = min(self._local_length, start)
            self._prompt_end = len(ids)
            tokens = 0
            while True:
                if tokens < max_tokens:
                    await self._compute()
                received = await self._socket.recv()
                if isinstance(received, str):
                    message = decode_message(received, "server")
                    if message["type"] == "plan" and message["turn"] == self._turn:
                        self._report_open = False
                        await self._adopt(message)
                        continue
                    done = self._hear(message)
                    if done is not None:
                        running = self._in_turn = False
                        self._server_length = done["position"]
                        yield done
                        return
                    continue
                frame = decode_frame(received)
                if frame.turn != self._turn:
                    continue
                for token in frame.values[:, 0].tolist():
                    tokens += 1
                    self._ids.append(token)
                    yield token
        except RemoteError as error:
            running = error.code in _FRAME_ERRORS
            raise
        except websockets.ConnectionClosed as error:
            running = False
            raise MachineError(f"the connection to the server was lost ({error}); run again") from None
        finally:
            self._in_turn = False
            if running:  # a frame was refused, or the caller lost interest: the next turn needs this one to end
                await self._give_up()

    async def _give_up(self) -> None:
        """Cancel the turn under way and wait for its end; the next turn begins at 0."""
        self._server_length = 0
        with contextlib.suppress(websockets.ConnectionClosed, RemoteError, TimeoutError):
            await self._socket.send(encode_message({"type": "cancel", "turn": self._turn}))
            async with asyncio.timeout(_OPEN_TIMEOUT_S):
                while True:
                    received = await self._socket.recv()
                    if isinstance(received, str) and self._hear(decode_message(received, "server")) is not None:
                        return

    def _follow(self, plan: Message) -> None:
        """A new plan is in force."""
        if plan["split"] > (self._blocks.blocks if self._blocks is not None else 0):
            raise ProtocolError("The server plans more blocks than there are here; its version may differ.")
        if plan["split"] != self.split:
            self._local_length = 0  # blocks that did not run until now know nothing of the conversation
            self.plans.append(plan)
        self._server_length = plan["position"]
        self.plan = plan

    async def _adopt(self, plan: Message) -> None:
        """Go on with the turn under a new plan (PROTOCOL.md, "A new plan within a turn")."""
        self._follow(plan)
        self._send_from, self._prompt_end = plan["position"], len(self._ids)
        await self._socket.send(encode_message({"type": "adopt", "turn": self._turn}))

    async def _compute(self) -> None:
        """Compute all that is known and not computed yet, and send what the server wants of it."""
        if self.split == 0:
            for start in range(self._send_from, self._prompt_end, PREFILL_CHUNK):
                chunk = self._ids[start : min(start + PREFILL_CHUNK, self._prompt_end)]
                await self._send(Kind.IDS, start, np.array(chunk, np.int32)[:, None])
            self._send_from = self._prompt_end
            return
        blocks, split = self._blocks, self.split
        assert blocks is not None  # noqa: S101  # _follow looked
        while self._local_length < len(self._ids):
            start = self._local_length
            # Rows that the server holds are caught up on here alone.
            limit = self._send_from if start < self._send_from else len(self._ids)
            chunk = self._ids[start : min(start + PREFILL_CHUNK, limit)]
            end = start + len(chunk)
            hidden = await asyncio.to_thread(blocks.forward, chunk, start, split)
            self._local_length = end
            if start < self._send_from:
                continue
            if split == self.total_blocks and end < self._prompt_end:
                continue  # only the head is left, and it needs the last row alone
            if split == self.total_blocks:
                hidden = hidden[-1:]
            await self._send(Kind.HIDDEN, end - len(hidden), hidden)

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


def _expect(text: str, *message_types: str) -> Message:
    """A message of one of these types; an error of the server is raised.

    Raises:
        RemoteError: the server sent `error`.
        ProtocolError: the server sent something else.
    """
    return _check(decode_message(text, "server"), *message_types)


def _check(message: Message, *message_types: str) -> Message:
    if message["type"] == "error":
        raise RemoteError(message["message"], code=message["code"])
    if message["type"] not in message_types:
        raise ProtocolError(
            f"The server sent `{message['type']}` where `{message_types[0]}` was due; its version may differ."
        )
    return message

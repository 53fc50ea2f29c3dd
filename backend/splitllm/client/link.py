"""Reaching a server: a socket, the greeting, and a session opened or taken up again (PROTOCOL.md, section 3)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import websockets
from websockets.asyncio.client import ClientConnection, connect
from websockets.http11 import Response

from .. import __version__
from ..errors import MachineError, ProtocolError, RemoteError, SplitLLMError, UsageError
from ..protocol import PROTOCOL_VERSION, Message, decode_message, encode_message, report_to
from ..types import ClientReport

_OPEN_TIMEOUT_S: Final = 20.0
#: A server tells those who wait their place more often than this.
_IN_LINE_S: Final = 60.0
_MESSAGE_LIMIT: Final = 1 << 20
#: Errors after which another attempt would end the same.
_FINAL: Final = frozenset({"protocol_version", "unknown_model", "bundle_mismatch"})
#: Errors about frames that got lost or out of order on their way; the server says what it waits for when it is asked.
_OUT_OF_STEP: Final = frozenset({"position_gap", "position_overlap", "unknown_turn", "unexpected_frame"})


class ConnectionLostError(SplitLLMError):
    """The connection is of no use any more; `reason` is what a person is told if it cannot be mended."""

    def __init__(self, reason: SplitLLMError) -> None:
        super().__init__(reason.message, code=reason.code)
        self.reason = reason


class RefusalError(RemoteError):
    """The server refuses something and the session goes on; `turn` is the turn that it speaks of."""

    def __init__(self, message: Message) -> None:
        super().__init__(message["message"], code=message["code"])
        self.turn: int | None = message["turn"]


@dataclass(frozen=True, slots=True)
class Opening:
    """What a session is opened with; `split` None lets the planner choose.

    in_line: called with the place in the server's queue, 1 being next; None does not wait where there is no room.
    """

    server: str
    model: str | None
    identity: str
    report: ClientReport
    split: int | None
    wire: str
    expected_prompt_tokens: int
    api_key: str | None = field(default=None, repr=False)
    in_line: Callable[[int], None] | None = field(default=None, repr=False, compare=False)


def bearer(api_key: str | None) -> dict[str, str]:
    """The header that gives an API key (RFC 6750)."""
    return {} if api_key is None else {"Authorization": f"Bearer {api_key}"}


def no_such_key() -> UsageError:
    """What the status 401 means to a person."""
    return UsageError("the server wants an API key that it knows; get one and use --key-file F")


class Link:
    """One connection that has been greeted."""

    def __init__(self, socket: ClientConnection, welcome: Message) -> None:
        self._socket, self.welcome = socket, welcome

    @classmethod
    async def connect(cls, opening: Opening, *, new: bool) -> Link:
        """Connect and greet; `new` says that a new session is all this is for, which a full server refuses at once.

        Raises:
            MachineError: the server cannot be reached.
            UsageError: it wants another API key.
            RemoteError: the server refuses.
            ConnectionLostError: it went away meanwhile.
        """
        url = f"ws{opening.server.removeprefix('http')}/v1/session{'?new' if new else ''}"
        try:
            socket = await connect(
                url,
                compression=None,
                max_size=_MESSAGE_LIMIT,
                open_timeout=_OPEN_TIMEOUT_S,
                additional_headers=bearer(opening.api_key),
            )
        except (OSError, TimeoutError, websockets.WebSocketException) as error:
            if isinstance(error, websockets.InvalidStatus):
                answer = error.response
                if answer.status_code == 401:
                    raise no_such_key() from None
                if answer.status_code == 503 and (after_s := answer.headers.get("Retry-After", "")).isdecimal():
                    raise RemoteError(_sentence(answer), code="server_full", retry_after_s=float(after_s)) from None
            raise MachineError(f"cannot open a session at {url} ({error}); is the server running there?") from None
        link = cls(socket, {})
        try:
            hello = {"type": "hello", "protocol": PROTOCOL_VERSION, "agent": f"splitllm/{__version__}"}
            link.welcome = await link.request({**hello, "model": opening.model, "bundle": opening.identity}, "welcome")
        except BaseException:
            link.abort()
            raise
        return link

    async def open(self, opening: Opening, resume: Message | None = None) -> Message:
        """Open a session, or take up the one that `resume` names. Returns its plan.

        Raises:
            RemoteError: the server refuses; after `resume_refused` a new session can be opened on this link.
            ConnectionLostError: it went away meanwhile.
        """
        message = {
            "type": "open",
            "client": report_to(opening.report),
            "split": "auto" if opening.split is None else opening.split,
            "wire": opening.wire,
            "max_tokens": self.welcome["limits"]["max_context"],
            "expected_prompt_tokens": max(1, opening.expected_prompt_tokens),
            "resume": resume,
            "queue": opening.in_line is not None,
        }
        return await self.request(message, "plan", opening.in_line)

    async def send(self, data: Message | bytes) -> None:
        """Send a control message or a frame.

        Raises:
            ConnectionLostError: there is nobody to send to.
        """
        try:
            await self._socket.send(encode_message(data) if isinstance(data, dict) else data)
        except websockets.ConnectionClosed as error:
            raise _lost(error) from None

    async def receive(self, patience_s: float) -> Message | bytes:
        """The next control message, or the bytes of a frame.

        Raises:
            RefusalError: the server refuses something; the session goes on.
            ConnectionLostError: nothing came for so long, nothing more can come, or what came cannot be read.
        """
        try:
            async with asyncio.timeout(patience_s):
                return await self._receive()
        except TimeoutError:
            raise ConnectionLostError(MachineError("the server does not answer; try again")) from None

    async def _receive(self) -> Message | bytes:
        try:
            received = await self._socket.recv()
        except websockets.ConnectionClosed as error:
            raise _lost(error) from None
        if isinstance(received, bytes):
            return received
        try:
            message = decode_message(received, "server")
        except ProtocolError as error:
            raise ConnectionLostError(error) from None
        if message["type"] == "error":
            refusal = RefusalError(message)
            out_of_step = refusal.code in _OUT_OF_STEP and message["expected_position"] is not None
            if refusal.code not in _FINAL and (message["fatal"] or out_of_step):
                raise ConnectionLostError(refusal)
            raise refusal
        return message

    async def received(self) -> Message | bytes | None:
        """What `receive` would give without waiting; None: nothing has come.

        Raises:
            RefusalError, ConnectionLostError: as `receive`.
        """
        try:
            async with asyncio.timeout(0):
                return await self._receive()
        except TimeoutError:
            return None

    async def request(
        self, message: Message, answer_type: str, in_line: Callable[[int], None] | None = None
    ) -> Message:
        """Send a message and take its answer; `in_line` hears the places in the queue for it.

        Raises:
            RemoteError: the server refuses.
            ConnectionLostError: as `receive`.
        """
        await self.send(message)
        answer = await self.receive(_OPEN_TIMEOUT_S)
        while in_line is not None and not isinstance(answer, bytes) and answer["type"] == "queued":
            in_line(answer["place"])
            answer = await self.receive(_IN_LINE_S)
        if isinstance(answer, bytes) or answer["type"] != answer_type:
            raise ConnectionLostError(unexpected(answer, answer_type))
        return answer

    async def close(self) -> None:
        """Say goodbye and wait for the connection's end."""
        try:
            await self.send({"type": "close"})
            await self._socket.wait_closed()
        except ConnectionLostError:
            pass  # which is what was wanted

    def abort(self) -> None:
        """Drop the connection; a polite close would wait for a peer that may be gone."""
        self._socket.transport.abort()


def _sentence(answer: Response) -> str:
    """Why the server refused to upgrade; what comes from a proxy in front of it may be a page."""
    if answer.body is None or not answer.headers.get("Content-Type", "").startswith("text/plain"):
        return "The server is full; try again later."
    return " ".join(answer.body.decode("utf-8", "replace").split())[:300]


def unexpected(got: Message | bytes, wanted: str) -> ProtocolError:
    """An answer that does not belong here."""
    name: Any = "a frame" if isinstance(got, bytes) else f"`{got['type']}`"
    return ProtocolError(f"The server sent {name} where `{wanted}` was due; its version may differ.")


def _lost(error: websockets.ConnectionClosed) -> ConnectionLostError:
    return ConnectionLostError(MachineError(f"the connection to the server was lost ({error}); run again"))

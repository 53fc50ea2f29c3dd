"""One WebSocket connection: a reader, a writer and a watch around the session that it carries."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Mapping, Sequence
from functools import partial

from aiohttp import WSMessage, WSMsgType, web

from ..errors import MachineError, ProtocolError, TurnError
from ..protocol import ResumeRequest, encode_message
from ..session import Action, Close, Feed, Greet, Plan, Resume, Send, State
from .access import Key
from .config import ServerConfig
from .live_session import LiveSession, Outgoing, Wire
from .model import ServedModel
from .observation import RoundTrip
from .pace import Lane, Pace

log = logging.getLogger(__name__)

_PING_EVERY_S = 5.0
_FIRST_PINGS = 3
_FIRST_PONG_S = 2.0
_OUTBOX_LIMIT = 256
#: A connection without a session holds a place that others may want.
_OPENING_S = 30.0
#: A peer that answers no ping for so long is gone.
_SILENT_S = 30.0
#: Seconds that a peer which does not read still gets to take the reason why it is let go.
_LAST_WORD_S = 1.0
#: Messages that feed the engine nothing: a connection may send so many at once, and then so many a second.
_TALK_BURST = 64
_TALK_PER_S = 16.0
_CLOSE_CODES = {"shutting_down": 1001, "message_too_large": 1009, "internal": 1011}


class Connection:
    """Shell around one socket."""

    def __init__(
        self,
        socket: web.WebSocketResponse,
        *,
        models: Mapping[str, ServedModel],
        config: ServerConfig,
        transport: asyncio.Transport | None,
        lane: Lane,
        owner: Key | None = None,
    ) -> None:
        """`models`: by name, the first is for who names none. `owner` is the API key that the peer showed, if any."""
        self._socket, self._models, self._config = socket, models, config
        #: Whose session this connection carries.
        self.model = next(iter(models.values()))
        self._transport, self._owner = transport, owner
        self._rtt = RoundTrip()
        self._ping_soon = asyncio.Event()
        self._outbox: asyncio.Queue[Outgoing] = asyncio.Queue()
        self._unread: deque[WSMessage] = deque()
        self._last_heard = time.monotonic()
        self._lane, self._pace = lane, Pace(self._last_heard, burst=_TALK_BURST, per_s=_TALK_PER_S)
        self._resumed = False  # and the client was not heard since
        self._wire = Wire(self._outbox.put_nowait, self._rtt, self._ping_soon.set, self._give_session_up)
        self._session = self._new_session()

    def _new_session(self) -> LiveSession:
        session = LiveSession(self.model.services, self._owner)
        session.ticket = partial(self.model.held.enter, session)  # not of `self`: a session outlives its connections
        session.attach(self._wire)
        return session

    async def serve(self) -> None:
        """Serve the connection until either side ends it."""
        tasks = [asyncio.create_task(self._write()), asyncio.create_task(self._watch())]
        reader = asyncio.create_task(self._read())
        try:
            await asyncio.wait([reader, *tasks], return_when=asyncio.FIRST_COMPLETED)
            for task in (reader, *tasks):
                if task.done() and not task.cancelled() and task.exception() is not None:
                    log.error("session %s failed", self._session.id[:8], exc_info=task.exception())
                    await self._last_words()
        finally:
            for task in (reader, *tasks):
                task.cancel()
            if not self.model.held.hold(self._session):
                self.model.held.forget(self._session)
                self._session.end()
            await asyncio.gather(reader, *tasks, return_exceptions=True)

    @property
    def state(self) -> State:
        """PROTOCOL.md, section 7."""
        return self._session.machine.state

    @property
    def standing(self) -> str:
        """The state, as metrics name it."""
        machine = self._session.machine
        if machine.waits_for_room:
            return "queued"
        return "evicted" if machine.is_evicted else machine.state.value.replace(" ", "_")

    def drain(self) -> None:
        """Let the turn in work finish, then tell the client that the server stops."""
        self._session.drain()

    def shut_down(self) -> None:
        """Tell the client that the server stops."""
        self._session.shut_down()

    def lose_engine(self) -> None:
        """Tell the client that the engine met a fault."""
        self._session.lose_engine()

    # -- three tasks --------------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        while True:
            message = self._unread.popleft() if self._unread else await self._socket.receive()
            now = time.monotonic()
            fed = False
            if message.type is WSMsgType.PONG:
                self._rtt.pong(bytes(message.data), now)
            elif message.type is WSMsgType.PING:
                await self._socket.pong(message.data)
            elif message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                self._last_heard = now
                fed = await self._receive(message.data, now)
            else:  # closed by the peer, or broken
                return
            if self.state is State.CLOSED or self._outbox.qsize() > _OUTBOX_LIMIT:
                await self._outbox.join()  # a peer that asks for more than it reads has to wait
            if self.state is State.CLOSED:
                return
            # Always give way: what a peer has sent already is received without waiting.
            await asyncio.sleep(0 if fed else self._pace.delay(now))

    async def _receive(self, data: str | bytes, now: float) -> bool:
        """Carry out what a message asks for; returns whether it fed the engine."""
        async with self._lane.turn() if isinstance(data, str) else contextlib.nullcontext():
            session = self._session
            if self._resumed:
                self._resumed = False
                self.model.held.heard(session)
            actions = session.receive(data, now)
        if session.is_open:
            await session.carry_out(actions)
            return any(isinstance(action, Feed) for action in actions)
        for action in actions:
            if isinstance(action, Plan):
                await self._first_pong()
            if isinstance(action, Greet):
                await self._greet(action)
            elif isinstance(action, Resume):
                await self._resume(action.request)
            else:
                await session.carry_out([action])
        return False

    async def _greet(self, action: Greet) -> None:
        former, self.model = self._session, self._models[action.model]
        self._session = self._new_session()
        former.end()
        await self._session.carry_out(self._session.machine.greet(action.hello))

    async def _resume(self, request: ResumeRequest) -> None:
        await self._first_pong()
        former = self._session
        try:
            self._session, ticket = await self.model.held.take(request, self._owner, self._wire)
        except TurnError as error:
            former.post(former.machine.refused(error))
            return
        former.end()
        self._resumed = True
        self._session.send(self._session.machine.resumed(request, ticket, self._rtt.ms))

    def _give_session_up(self) -> None:
        """The session goes on over another connection; whoever still listens here is told."""
        self._session = self._new_session()
        self._session.fail(ProtocolError("This session goes on over another connection.", code="session_moved"))

    async def _write(self) -> None:
        while True:
            item = await self._outbox.get()
            try:
                async with asyncio.timeout(self._config.send_timeout_s):
                    if isinstance(item, Close):
                        code = 1000 if item.error is None else _CLOSE_CODES.get(item.error.code, 1008)
                        await self._socket.close(code=code, message=(item.error.code if item.error else "").encode())
                        return
                    if isinstance(item, str):
                        await self._socket.send_str(item)
                    else:
                        await self._socket.send_bytes(item)
            except (TimeoutError, ConnectionError) as error:
                if isinstance(error, TimeoutError):
                    await self._let_go_of_slow_reader()
                self._abort()  # a polite close would wait for a peer that does not read
                return
            finally:
                self._outbox.task_done()

    async def _let_go_of_slow_reader(self) -> None:
        """Say why, behind what waits to be read: a peer that wakes up in this moment learns it.

        On a bad link nothing was done wrong: where the session can be taken up again, only the connection is lost.
        """
        session = self._session
        error = ProtocolError("You do not read what the server sends; read on, and reconnect.", code="slow_reader")
        last_words: Sequence[Action] = ()
        if self.model.held.can_hold(session):
            session.account.told(error.code)
        else:
            session.account.dropped(error.code)
            session.release()
            last_words = session.machine.fail(error)
        with contextlib.suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(_LAST_WORD_S):
                await self._tell(last_words)
                await self._socket.close(code=1008, message=b"slow_reader")

    async def _watch(self) -> None:
        """Ping for the round trip; end a session that fell silent."""
        sent = 0
        while True:
            now = time.monotonic()
            if not self._session.machine.waits_for_client:
                self._last_heard = now
            opening = self.state in (State.NEW, State.GREETED)
            limit = _OPENING_S if opening else self._config.idle_timeout_s
            if now - self._last_heard > min(limit, self._config.idle_timeout_s):
                error = ProtocolError("The session was silent for too long; reconnect to go on.", code="idle_timeout")
                self._session.fail(error)
                await self._outbox.join()
                return
            if now - self._rtt.last_pong > _SILENT_S:
                self._abort()  # gone without a word: asleep, or out of reach
                return
            try:
                await self._socket.ping(self._rtt.ping(now))
            except ConnectionError:
                return
            sent += 1
            pause = 0.05 if sent < _FIRST_PINGS else min(_PING_EVERY_S, self._config.idle_timeout_s)
            self._ping_soon.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._ping_soon.wait()

    def _abort(self) -> None:
        """Drop the connection with whatever waits to be sent, so that it holds neither socket nor memory."""
        if self._transport is not None:
            self._transport.abort()

    async def _first_pong(self) -> None:
        """The first pong may come behind the client's `open`; a client that answers no ping waits for nothing."""
        if not self._rtt.first.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_FIRST_PONG_S):
                    await self._await_pong()

    async def _await_pong(self) -> None:
        """Pongs come through the reader that waits here, so read on until the first; the rest waits its turn."""
        while not self._rtt.first.is_set():
            message = await self._socket.receive()
            if message.type is WSMsgType.PONG:
                self._rtt.pong(bytes(message.data), time.monotonic())
                continue
            self._unread.append(message)
            if len(self._unread) > _FIRST_PINGS or message.type not in (WSMsgType.TEXT, WSMsgType.PING):
                return

    async def _last_words(self) -> None:
        """A task of this connection failed: say so past the outbox, whose writer may be the one."""
        with contextlib.suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(self._config.send_timeout_s):
                await self._tell(self._session.machine.fail(MachineError("unexpected exception")))

    async def _tell(self, actions: Sequence[Action]) -> None:
        for action in actions:
            if isinstance(action, Send):
                await self._socket.send_str(encode_message(action.message))
                await self._socket.close(code=_CLOSE_CODES["internal"])

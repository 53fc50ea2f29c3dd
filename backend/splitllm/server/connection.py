"""One WebSocket connection: carries out what the session's state machine asks for."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections import deque
from collections.abc import Sequence

import numpy as np
from aiohttp import WSMessage, WSMsgType, web

from ..errors import MachineError, ProtocolError, SplitLLMError
from ..generation import Event, Generation, Resplitted
from ..protocol import Frame, Kind, TurnRequest, encode_frame, encode_message
from ..runner import Runner
from ..session import Action, Begin, Cancel, Close, Feed, Greeting, Plan, Resplit, Send, SendToken, ServerSession, State
from ..text import TextCodec
from .config import ServerConfig
from .following import Follower
from .observation import Observation
from .planning import Admission
from .telemetry import Telemetry

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
_CLOSE_CODES = {"shutting_down": 1001, "message_too_large": 1009, "internal": 1011}


class Connection:
    """Shell around one ServerSession."""

    def __init__(
        self,
        socket: web.WebSocketResponse,
        *,
        greeting: Greeting,
        config: ServerConfig,
        runner: Runner,
        admission: Admission,
        codec: TextCodec,
        transport: asyncio.Transport | None,
        telemetry: Telemetry,
    ) -> None:
        self._socket, self._config, self._runner = socket, config, runner
        self._transport = transport
        self._admission, self._codec = admission, codec
        self._id = secrets.token_hex(16)
        self._machine = ServerSession(greeting, price=lambda segments: admission.price(self._id, segments))
        self._account = telemetry.account(self._id, "websocket")
        self._draining = False
        self._open = False
        self._seen = Observation(config.sla, config.up_bytes_per_ms, config.down_bytes_per_ms)
        self._rtt = self._seen.round_trip
        self._ping_soon = asyncio.Event()
        self._follower = Follower(self._id, self._machine, admission, self._seen, self._post)
        self._follower.is_late = self._ping_soon.set
        self._outbox: asyncio.Queue[str | bytes | Close] = asyncio.Queue()
        self._unread: deque[WSMessage] = deque()
        self._frame_bytes = 0
        self._late_plans: set[asyncio.Task[None]] = set()
        self._last_heard = time.monotonic()

    async def serve(self) -> None:
        """Serve the connection until either side ends it."""
        tasks = [asyncio.create_task(self._write()), asyncio.create_task(self._watch())]
        reader = asyncio.create_task(self._read())
        try:
            await asyncio.wait([reader, *tasks], return_when=asyncio.FIRST_COMPLETED)
            for task in (reader, *tasks):
                if task.done() and not task.cancelled() and task.exception() is not None:
                    log.error("session %s failed", self._id, exc_info=task.exception())
                    await self._last_words()
        finally:
            self._release()
            self._account.ended()
            for task in (reader, *tasks):
                task.cancel()
            await asyncio.gather(reader, *tasks, return_exceptions=True)

    @property
    def state(self) -> State:
        """PROTOCOL.md, section 7."""
        return self._machine.state

    def drain(self) -> None:
        """Let the turn in work finish, then tell the client that the server stops."""
        self._draining = True
        if self._machine.state is not State.IN_TURN:
            self.shut_down()

    def shut_down(self) -> None:
        """Tell the client that the server stops."""
        error = ProtocolError("The server is stopping; connect again in a moment.", code="shutting_down")
        self._post(self._machine.fail(error))

    def lose_engine(self) -> None:
        """Tell the client that the engine met a fault."""
        error = ProtocolError("The server's engine stopped; its operator must restart it.", code="internal")
        self._post(self._machine.fail(error))

    # -- three tasks --------------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        while True:
            message = self._unread.popleft() if self._unread else await self._socket.receive()
            now = time.monotonic()
            if message.type is WSMsgType.PONG:
                self._rtt.pong(bytes(message.data), now)
            elif message.type is WSMsgType.PING:
                await self._socket.pong(message.data)
            elif message.type is WSMsgType.TEXT:
                self._last_heard = now
                await self._carry_out(self._machine.receive_text(message.data, 1000 * now))
            elif message.type is WSMsgType.BINARY:
                self._last_heard = now
                self._frame_bytes = len(message.data)
                await self._carry_out(self._machine.receive_binary(message.data))
            else:  # closed by the peer, or broken
                return
            if self._machine.state is State.CLOSED or self._outbox.qsize() > _OUTBOX_LIMIT:
                await self._outbox.join()  # a peer that asks for more than it reads has to wait
            if self._machine.state is State.CLOSED:
                return

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
        """Say why, behind what waits to be read: a peer that wakes up in this moment learns it."""
        self._account.dropped("slow_reader")
        self._release()
        error = ProtocolError("You do not read what the server sends; read on, and reconnect.", code="slow_reader")
        with contextlib.suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(_LAST_WORD_S):
                for action in self._machine.fail(error):
                    if isinstance(action, Send):
                        await self._socket.send_str(encode_message(action.message))
                await self._socket.close(code=1008, message=b"slow_reader")

    async def _watch(self) -> None:
        """Ping for the round trip; end a session that fell silent."""
        sent = 0
        while True:
            now = time.monotonic()
            if not self._machine.waits_for_client:
                self._last_heard = now
            opening = self._machine.state in (State.NEW, State.GREETED)
            limit = _OPENING_S if opening else self._config.idle_timeout_s
            if now - self._last_heard > min(limit, self._config.idle_timeout_s):
                error = ProtocolError("The session was silent for too long; reconnect to go on.", code="idle_timeout")
                self._post(self._machine.fail(error))
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

    # -- actions ------------------------------------------------------------------------------------------------------

    async def _carry_out(self, actions: Sequence[Action]) -> None:
        for action in actions:
            if isinstance(action, Plan):
                await self._plan(action)
            else:
                self._do(action)

    def _post(self, actions: Sequence[Action]) -> None:
        """Carry out actions from where nothing can be awaited."""
        for action in actions:
            if isinstance(action, Plan):  # the turn ended before its `report` was answered
                self._late_plans.add(task := asyncio.create_task(self._plan(action)))
                task.add_done_callback(self._late_plans.discard)
            else:
                self._do(action)

    def _do(self, action: Action) -> None:
        match action:
            case Send(message):
                self._account.sent(message)
                self._outbox.put_nowait(encode_message(message))
            case SendToken(turn, position, token):
                frame = Frame(Kind.TOKEN, turn, position, np.array([[token]], np.int32))
                self._outbox.put_nowait(encode_frame(frame))
                self._follower.token_sent(position)
            case Begin(request):
                self._account.turn_began(request.prompt_tokens)
                self._runner.begin(
                    self._id,
                    request.turn,
                    start=request.start,
                    prompt_end=request.prompt_end,
                    generation=self._generation(request),
                )
                self._follower.turn_began(request)
            case Feed(turn, position, values):
                self._follower.rows_arrived(position, len(values), self._frame_bytes)
                self._runner.feed(self._id, turn, position, values)
            case Resplit(turn, split):
                self._runner.resplit_turn(self._id, turn, split, self._on_event)
            case Cancel(turn):
                self._runner.cancel(self._id, turn)
            case Close(error):
                self._account.ends_because(error.code if error is not None else "closed")
                self._release()
                self._outbox.put_nowait(action)
            case Plan():
                raise AssertionError("plans are awaited")

    async def _plan(self, action: Plan) -> None:
        if not self._open and not self._rtt.first.is_set():
            # The first pong may come behind the client's `open`; a client that answers no ping waits for nothing.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_FIRST_PONG_S):
                    await self._await_pong()
        if self._machine.state is State.CLOSED:
            return
        if not self._runner.ready:
            self.lose_engine()
            return
        request = action.request
        in_turn = self._machine.state is State.IN_TURN
        try:
            plan = self._follower.plan(request)
            if not in_turn:
                self._admission.admit(self._id, plan.split, request.max_tokens)
        except SplitLLMError as error:
            self._post(self._machine.refused(error))
            return
        self._follower.request = request
        if in_turn:
            self._follower.change_turn(plan, request)
            return
        if self._open:
            if plan.split != self._machine.split:
                await self._runner.resplit(self._id, plan.split)
        else:
            self._open = True
            self._runner.open(self._id, plan.split, self._on_event)
        self._follower.tell(plan)
        self._post(self._machine.planned(self._id, plan, request, self._rtt.ms))

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

    def _generation(self, request: TurnRequest) -> Generation:
        room = self._machine.max_tokens - request.prompt_end
        return Generation(
            request.sampling,
            max_tokens=min(request.max_tokens, room),
            end_tokens=self._runner.engine.spec.end_tokens,
            stop=request.stop,
            seen_ids=request.seen_ids,
            decode=self._codec.decode,
            generator=np.random.default_rng(request.sampling.seed) if request.sampling.temperature > 0 else None,
        )

    def _on_event(self, event: Event | Resplitted) -> None:
        try:
            if not isinstance(event, Resplitted):
                self._account.event(event)
            self._post(self._machine.receive_event(event, 1000 * time.monotonic()))
            if self._open:
                self._follower.happened(event)
            if self._draining and self._machine.state is State.IDLE:
                self.shut_down()
        except Exception:
            log.exception("session %s failed", self._id)
            self._post(self._machine.fail(MachineError("unexpected exception")))

    def _release(self) -> None:
        if self._open:
            self._open = False
            self._runner.close(self._id)
            self._admission.release(self._id)

    async def _last_words(self) -> None:
        """A task of this connection failed: say so past the outbox, whose writer may be the one."""
        with contextlib.suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(self._config.send_timeout_s):
                for action in self._machine.fail(MachineError("unexpected exception")):
                    if isinstance(action, Send):
                        await self._socket.send_str(encode_message(action.message))
                await self._socket.close(code=_CLOSE_CODES["internal"])

"""One session as the server runs it: its state machine, its place in the engine, and what is seen of it.

It outlives the connection that it began on: while no connection is attached, what would be sent is dropped, and the
state machine tells it again when the client is back (PROTOCOL.md, "Taking a session up again").
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import CapacityError, MachineError, ProtocolError, SplitLLMError
from ..generation import Event, Generation, Resplitted, TurnEnded
from ..protocol import Frame, Kind, OpenRequest, Ticket, TurnRequest, encode_frame, encode_message
from ..runner import Runner
from ..session import (
    Action,
    Begin,
    Cancel,
    Close,
    Feed,
    Greeting,
    Plan,
    Readmit,
    Resplit,
    Send,
    SendToken,
    ServerSession,
    State,
)
from ..text import TextCodec
from ..types import SamplingParams, SessionPlan
from .access import Key
from .admission import AdmissionQueue, Guest
from .config import ServerConfig
from .following import Follower
from .observation import Observation, RoundTrip
from .planning import Admission
from .telemetry import Telemetry

log = logging.getLogger(__name__)

Outgoing = str | bytes | Close


@dataclass(frozen=True, slots=True)
class Services:
    """What all sessions of one model share."""

    greeting: Greeting
    config: ServerConfig
    runner: Runner
    admission: Admission
    queue: AdmissionQueue
    codec: TextCodec
    telemetry: Telemetry


@dataclass(frozen=True, slots=True)
class Wire:
    """A connection, as its session sees it. `moved` is called when the session goes on over another one."""

    send: Callable[[Outgoing], None]
    round_trip: RoundTrip
    ping_soon: Callable[[], None]
    moved: Callable[[], None]


class LiveSession:
    """Carries out what its state machine asks for."""

    def __init__(self, services: Services, owner: Key | None) -> None:
        """`owner` is the API key that the client showed, if any; only it may take the session up again."""
        self.id = secrets.token_hex(16)
        self.owner = owner
        self._config, self._runner = services.config, services.runner
        self._admission, self._codec, self._queue = services.admission, services.codec, services.queue
        self.machine = ServerSession(
            services.greeting,
            price=lambda segments: services.admission.price(self.id, segments),
            allow=None if owner is None else owner.begin,
        )
        self.account = services.telemetry.account(self.id, "websocket", owner)
        self._seen = Observation(
            services.config.sla, services.config.up_bytes_per_ms, services.config.down_bytes_per_ms
        )
        self._follower = Follower(self.id, self.machine, services.admission, self._seen, self.post)
        self._wire: Wire | None = None
        self._model = services.greeting.model
        self._plans: set[asyncio.Task[None]] = set()
        self._frame_bytes = 0
        #: Gives the client what it needs to come back, where it can and may.
        self.ticket: Callable[[], Ticket | None] = lambda: None
        self.is_open = False
        self._seated = False  # it has a row and memory
        self._may_evict = False  # its client knows what to do then
        self._evicted_split = 0  # when it was evicted last
        self.draining = False

    # -- its connection -----------------------------------------------------------------------------------------------

    def attach(self, wire: Wire) -> None:
        """From now on this connection is the session's; the one before hears that."""
        former, self._wire = self._wire, wire
        self._seen.round_trip = wire.round_trip
        self._seen.turn_began()  # the time without a connection says nothing of client and link
        self._follower.is_late = wire.ping_soon
        if former is not None:
            former.moved()

    def detach(self) -> None:
        """The connection is gone."""
        self._wire = None
        self._follower.is_late = lambda: None
        self._follower.forget_prompt()  # whose rows cannot come now, which says nothing of how fast the client is

    def send(self, actions: Sequence[Action]) -> None:
        """Send messages that the books know already."""
        for action in actions:
            if isinstance(action, Send):
                self._put(encode_message(action.message))

    def _put(self, item: Outgoing) -> None:
        if self._wire is not None:
            self._wire.send(item)

    # -- what happens to it -------------------------------------------------------------------------------------------

    def receive(self, message: str | bytes, now: float) -> list[Action]:
        """Actions for a message of the client, at `now` seconds."""
        if isinstance(message, str):
            return self.machine.receive_text(message, 1000 * now)
        self._frame_bytes = len(message)
        return self.machine.receive_binary(message)

    async def carry_out(self, actions: Sequence[Action]) -> None:
        """Carry out actions, and wait for the plans among them; they are made also if the connection is lost."""
        for plan in self.post(actions):
            await asyncio.shield(plan)

    def post(self, actions: Sequence[Action]) -> list[asyncio.Task[None]]:
        """Carry out actions from where nothing can be awaited. Returns the plans that are still to be made."""
        plans = []
        for action in actions:
            if isinstance(action, Plan):
                plans.append(task := asyncio.create_task(self._plan(action)))
                self._plans.add(task)
                task.add_done_callback(self._plans.discard)
            else:
                self._do(action)
        return plans

    async def settled(self) -> None:
        """Wait for plans in the making."""
        if self._plans:
            await asyncio.wait(self._plans)

    def fail(self, error: SplitLLMError) -> None:
        """Tell the client about a fatal error, and end."""
        self.post(self.machine.fail(error))

    def _fail_unexpectedly(self) -> None:
        log.exception("session %s failed", self.id[:8])
        self.fail(MachineError("unexpected exception"))

    def drain(self) -> None:
        """Let the turn in work finish, then tell the client that the server stops."""
        self.draining = True
        if self.machine.state is not State.IN_TURN or self.machine.waits_for_room:
            self.shut_down()

    def shut_down(self) -> None:
        """Tell the client that the server stops."""
        self.fail(ProtocolError("The server is stopping; connect again in a moment.", code="shutting_down"))

    def lose_engine(self) -> None:
        """Tell the client that the engine met a fault."""
        self.fail(ProtocolError("The server's engine stopped; its operator must restart it.", code="internal"))

    def end(self) -> None:
        """It is over: nothing of it is left but its line in the log."""
        self.detach()
        for task in self._plans:
            task.cancel()
        self.release()
        self.account.ended()

    def release(self) -> None:
        """Give its row and its memory back, or its place in the queue for them."""
        self._queue.leave(self.id)
        if self.is_open:
            self.is_open = False
            self._follower.forget_prompt()
            if self._seated:
                self._unseat(self.account.settled)
            else:
                self.account.settled()

    # -- actions ------------------------------------------------------------------------------------------------------

    def _do(self, action: Action) -> None:
        match action:
            case Send(message):
                self.account.sent(message)
                self._put(encode_message(message))
            case SendToken(turn, position, token):
                self._put(encode_frame(Frame(Kind.TOKEN, turn, position, np.array([[token]], np.int32))))
                self._follower.token_sent(position)
            case Begin(request):
                self._queue.busy(self.id)
                self.account.turn_began(request.prompt_tokens)
                self._begin(request, request.start)
                self._follower.turn_began(request)
            case Readmit(request):
                self.account.turn_began(request.prompt_tokens)
                self._ask_for_room(None, lambda: self._readmit(request), self.machine.turned_away, may_wait=True)
            case Feed(turn, position, values):
                self._follower.rows_arrived(position, len(values), self._frame_bytes)
                self._runner.feed(self.id, turn, position, values)
            case Resplit(turn, split):
                self._runner.resplit_turn(self.id, turn, split, self._on_event)
            case Cancel(turn):
                self._queue.leave(self.id)
                self._runner.cancel(self.id, turn)
            case Close(error):
                self.account.ends_because(error.code if error is not None else "closed")
                self.release()
                self._put(action)
            case _:
                raise AssertionError("plans are tasks, and a connection resumes")

    async def _plan(self, action: Plan) -> None:
        if self.machine.state is State.CLOSED:
            return
        request = action.request
        if not self.is_open:
            may_wait = request.queue is True
            self._ask_for_room(request, lambda: self._open(request), self.machine.refused, may_wait=may_wait)
            return
        if not self._runner.ready:
            self.lose_engine()
            return
        in_turn = self.machine.state is State.IN_TURN
        try:
            plan = self._follower.plan(request)
            if not in_turn and self._seated:
                self._admission.admit(self.id, plan.split, request.max_tokens)
        except SplitLLMError as error:
            self.post(self.machine.refused(error))
            return
        self._follower.request = request
        if self.machine.waits_for_room:
            self.post(self.machine.planned_in_turn(plan, request, self._seen.round_trip.ms))
            return
        if in_turn:
            self._follower.change_turn(plan, request)
            return
        if self._seated and plan.split != self.machine.split:
            await self._runner.resplit(self.id, plan.split)
        self._follower.tell(plan)
        self.post(self.machine.planned(self.id, plan, request, self._seen.round_trip.ms))

    # -- room ---------------------------------------------------------------------------------------------------------

    def _ask_for_room(
        self,
        opening: OpenRequest | None,
        enter: Callable[[], None],
        refused: Callable[[SplitLLMError], list[Action]],
        *,
        may_wait: bool,
    ) -> None:
        """Call `enter` now or when its turn in the queue has come; `refused` says what follows if it cannot be.

        `opening` says how much room is wanted; None: as much as the session had.
        """
        if not self._runner.ready:  # it could wait for nothing
            self.lose_engine()
            return

        def try_to_enter() -> None:
            if not self._runner.ready:
                self.lose_engine()
                return
            try:
                enter()
            except CapacityError:
                raise
            except SplitLLMError as error:
                self.post(refused(error))
            except Exception:  # whatever it is, who stands behind it in line goes on
                self._fail_unexpectedly()

        guest = Guest(
            enter=try_to_enter,
            would_fit=lambda others: self._admission.would_open(self.id, opening or self._follower.request, others),
            placed=lambda place: self.post(self.machine.queued(place)),
            refused=lambda error: self.post(refused(error)),
            model=self._model,
        )
        try:
            self._queue.ask(self.id, guest, may_wait=may_wait)
        except CapacityError as error:
            self.post(refused(error))

    def _open(self, request: OpenRequest) -> None:
        plan = self._follower.plan(request)
        self._seat(plan, request)
        self.is_open = True
        self._may_evict = request.queue is not None
        ticket = self.ticket() if request.resumable else None
        self.post(self.machine.planned(self.id, plan, request, self._seen.round_trip.ms, ticket))
        self._idle()

    def _readmit(self, request: TurnRequest) -> None:
        """Begin a turn without keys and values: the client sends the history as under a new plan within the turn."""
        opened = self._follower.request
        if opened is None:
            raise ProtocolError("This session has no plan yet; send `open` first.", code="unexpected_message")
        self._admission.check_place(self.id)
        plan = self._follower.plan(opened, prompt_tokens=request.prompt_end)
        self._seat(plan, opened)
        blocks = self._runner.engine.spec.blocks
        self.account.rebuilds(request.start * (blocks - max(plan.split, self._evicted_split)))
        self._begin(request, 0)
        self.post(self.machine.readmitted(plan, self._seen.round_trip.ms, 1000 * time.monotonic()))
        self._follower.turn_began(request, plan)

    def _seat(self, plan: SessionPlan, request: OpenRequest) -> None:
        self._admission.admit(self.id, plan.split, request.max_tokens)
        self._seated = True
        self._follower.request = request
        self._runner.open(self.id, plan.split, self._on_event)
        self._follower.tell(plan)

    def _unseat(self, on_closed: Callable[[], None] | None = None) -> None:
        self._seated = False
        self._queue.busy(self.id)
        self._runner.close(self.id, on_closed)
        self._admission.release(self.id)

    def _idle(self) -> None:
        """The person thinks: who waits may have the room, if they do so for long."""
        if self._may_evict and self._seated and self.machine.state is State.IDLE:
            self._queue.idle(self.id, self._evict)

    def _evict(self) -> bool:
        """Give row and memory to who waits; False if that cannot be now."""
        if not self.machine.can_be_evicted or self._plans:
            return False
        self._evicted_split = self.machine.split
        self._unseat()
        self.machine.evicted()
        self.account.evicted()
        return True

    def _begin(self, request: TurnRequest, start: int) -> None:
        self._runner.begin(
            self.id, request.turn, start=start, prompt_end=request.prompt_end, generation=self._generation(request)
        )

    def _generation(self, request: TurnRequest) -> Generation:
        room = self.machine.max_tokens - request.prompt_end
        return Generation(
            request.sampling,
            max_tokens=min(request.max_tokens, room),
            end_tokens=self._runner.engine.spec.end_tokens,
            stop=request.stop,
            seen_ids=request.seen_ids,
            decode=self._codec.decode,
            generator=_draws(request.sampling, request.prompt_end),
        )

    def _on_event(self, event: Event | Resplitted) -> None:
        try:
            if not isinstance(event, Resplitted):
                self.account.event(event)
            self.post(self.machine.receive_event(event, 1000 * time.monotonic()))
            if self.is_open:
                self._follower.happened(event)
            if isinstance(event, TurnEnded):
                self._idle()
            if self.draining and self.machine.state is State.IDLE:
                self.shut_down()
        except Exception:  # whatever it is, it ends this session with a word to its client, and no other
            self._fail_unexpectedly()


def _draws(sampling: SamplingParams, position: int) -> np.random.Generator | None:
    """What random tokens are drawn with, from `position` on; None where none are.

    The seed's stream has one number for each position of the conversation (PROTOCOL.md, section 4), so an answer that
    is asked for again from where it broke off goes on with the draws that it would have had.
    """
    if sampling.temperature <= 0:
        return None
    bits = np.random.PCG64(sampling.seed)
    bits.advance(position)
    return np.random.Generator(bits)

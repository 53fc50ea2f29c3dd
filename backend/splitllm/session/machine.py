"""The server's side of one session as a pure state machine (PROTOCOL.md, sections 3 to 7).

Text and frames go in, actions come out; the shell around it (server/connection.py) carries them out. It never blocks,
never reads a clock, and takes no memory for a peer before what the peer says has been checked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from ..errors import WIRE_CODES, CapacityError, ProtocolError, SplitLLMError, TurnError
from ..generation import Resplitted, TokenDrawn, TurnEnded
from ..protocol import (
    DType,
    Frame,
    Message,
    OpenRequest,
    ResumeRequest,
    Ticket,
    TurnRequest,
    decode_frame,
    decode_message,
    done_message,
    error_message,
    plan_message,
    queued_message,
    resume_member,
    text_limit,
)
from ..types import FinishReason, SessionPlan
from .actions import (
    Action,
    Begin,
    Cancel,
    Close,
    Greet,
    Greeting,
    Plan,
    Readmit,
    Resplit,
    Resume,
    Send,
    SendToken,
    State,
)
from .frames import Agreed, accept
from .hello import welcome_to
from .standing import Standing
from .turn import PendingPlan, Turn, TurnPrice, check_turn


class ServerSession(Standing):
    """One session; it may outlive the connection that it began on (`resumed`)."""

    def __init__(
        self, greeting: Greeting, *, price: TurnPrice | None = None, allow: Callable[[], None] | None = None
    ) -> None:
        """`price` tells what a turn cost the engine; without it, `done` says nothing of time.

        `allow` raises a TurnError when no turn may begin now.
        """
        super().__init__(greeting)
        self._price, self._allow = price, allow

    # -- from the client ----------------------------------------------------------------------------------------------

    def receive_text(self, text: str, now_ms: float) -> list[Action]:
        """Actions for a text message."""
        return self._guarded(lambda: self._on_text(text, now_ms))

    def receive_binary(self, data: bytes) -> list[Action]:
        """Actions for a binary message."""
        return self._guarded(lambda: self._on_frame(data))

    def _guarded(self, step: Callable[[], Sequence[Action]]) -> list[Action]:
        try:
            return list(step())
        except SplitLLMError as error:
            return self.refused(error)

    def fail(self, error: SplitLLMError) -> list[Action]:
        """Tell the client about a fatal error and close; of a fault of the server it learns no details."""
        if self.state is State.CLOSED:
            return []
        self.state = State.CLOSED
        told = error if error.code in WIRE_CODES else SplitLLMError("The server had an internal fault; try again.")
        return [Send({**error_message(told), "fatal": True}), Close(error)]

    def _on_text(self, text: str, now_ms: float) -> Sequence[Action]:
        limit = text_limit(self._greeting.limits.max_context, between_turns=self.state is State.IDLE)
        if len(text) > limit:  # before it is parsed: that costs others time
            raise ProtocolError(
                f"The text message has {len(text)} characters where at most {limit} are taken. See PROTOCOL.md, 6.",
                code="message_too_large",
            )
        return self._on_message(decode_message(text, "client"), now_ms)

    def _on_message(self, message: Message, now_ms: float) -> Sequence[Action]:
        handlers: dict[tuple[State, str], Callable[[], Sequence[Action]]] = {
            (State.NEW, "hello"): lambda: self._hello(message),
            (State.GREETED, "open"): lambda: self._open(message),
            (State.IDLE, "report"): lambda: self._report(message),
            (State.IDLE, "turn"): lambda: self._begin(TurnRequest.from_message(message), now_ms),
            (State.IDLE, "cancel"): list,
            (State.IDLE, "adopt"): list,
            (State.IN_TURN, "report"): lambda: self._report_in_turn(message),
            (State.IN_TURN, "adopt"): lambda: self._adopt(message["turn"]),
            (State.IN_TURN, "cancel"): lambda: self._cancel(message["turn"], now_ms),
            (State.GREETED, "close"): self._close,
            (State.QUEUED, "close"): self._close,
            (State.IDLE, "close"): self._close,
            (State.IN_TURN, "close"): self._close,
        }
        handler = handlers.get((self.state, message["type"]))
        if handler is None:
            raise ProtocolError(
                f"`{message['type']}` is not allowed now (the session is {self.state.value}); see PROTOCOL.md, 7.",
                code="unexpected_message",
            )
        if self.owes_plan and message["type"] in ("turn", "report"):
            # Also if the turn has ended: the engine may be at another split than this machine.
            raise ProtocolError("The former `report` is not answered yet; wait for it.", code="unexpected_message")
        return handler()

    def greet(self, hello: Message) -> list[Action]:
        """Actions for a `hello` that a session of another model has received."""
        return self._guarded(lambda: self._greet(hello))

    def _hello(self, message: Message) -> Sequence[Action]:
        if message["model"] in self._greeting.others:
            self.state = State.CLOSED
            return [Greet(message["model"], message)]
        return self._greet(message)

    def _greet(self, message: Message) -> Sequence[Action]:
        welcome = welcome_to(message, self._greeting)
        self.state = State.GREETED
        return [Send(welcome)]

    def _open(self, message: Message) -> Sequence[Action]:
        request = OpenRequest.from_message(message)
        if request.resume is not None:
            return [Resume(request.resume)]
        if request.max_tokens > self._greeting.limits.max_context:
            raise TurnError(
                f"A session here holds at most {self._greeting.limits.max_context} tokens; ask for no more.",
                code="context_overflow",
            )
        return [Plan(request)]

    def _report(self, message: Message) -> Sequence[Action]:
        return [Plan(replace(OpenRequest.from_message(message), wire=self._wire, max_tokens=self.max_tokens))]

    def _report_in_turn(self, message: Message) -> Sequence[Action]:
        if self._turn is not None:
            self._turn.report_open = True
        return self._report(message)

    def _close(self) -> Sequence[Action]:
        self.state = State.CLOSED
        return [Close(None)]

    # -- room ---------------------------------------------------------------------------------------------------------

    def queued(self, place: int) -> list[Action]:
        """There is no room yet for what a `Plan` or `Readmit` action asked for: its place among those who wait."""
        if self.state is State.CLOSED:
            return []
        if self._turn is not None and self.state is State.IN_TURN:
            return [Send(queued_message(self._turn.request.turn, place))]
        self.state = State.QUEUED
        return [Send(queued_message(None, place))]

    @property
    def can_be_evicted(self) -> bool:
        """Whether its room may go to others now: between turns, when the engine owes it nothing."""
        return self.state is State.IDLE and not self.owes_plan

    def evicted(self) -> None:
        """Others got its row and memory, between two turns. The client learns it when its next turn begins."""
        self._gave_up, self.length = self.length, 0

    def readmitted(self, plan: SessionPlan, rtt_ms: float, now_ms: float) -> list[Action]:
        """The turn that a `Readmit` action began has room: the client sends all it knows, as under any new plan."""
        turn = self._turn
        if self.state is not State.IN_TURN or turn is None:
            return []
        turn.queued, turn.queued_ms = False, now_ms - turn.began_ms
        turn.split, turn.segment_start, turn.report_open = plan.split, 0, False
        turn.expected = 0 if plan.split < self._blocks else turn.prompt_end - 1
        turn.unadopted += 1
        self.split, self.rtt_ms, self._gave_up = plan.split, rtt_ms, None
        return [Send(self._plan_message(plan, 0, turn.request.turn))]

    def turned_away(self, error: SplitLLMError) -> list[Action]:
        """The turn that a `Readmit` action began cannot have room; the next one may ask again."""
        turn = self._turn
        if self.state is not State.IN_TURN or turn is None:
            return []
        turn.active = turn.queued = False
        self.state = State.IDLE
        self._outcome = error_message(error, turn=turn.request.turn)
        return [Send(self._outcome)]

    # -- planning -----------------------------------------------------------------------------------------------------

    def planned(
        self, session: str, plan: SessionPlan, request: OpenRequest, rtt_ms: float, ticket: Ticket | None = None
    ) -> list[Action]:
        """The plan asked for by a `Plan` action is made and memory is reserved. `ticket` opens the session again."""
        if self.state is State.CLOSED:
            return []
        self._name = session
        if self._turn is not None:
            self._turn.report_open = False
        if self.state in (State.GREETED, State.QUEUED):
            self.max_tokens = request.max_tokens
            self._dtype = DType.FLOAT16 if request.wire == "float16" else DType.FLOAT32
            self.state = State.IDLE
        elif plan.split < self.split:
            self.length = 0
        self.split, self.rtt_ms = plan.split, rtt_ms
        return [Send(self._plan_message(plan, self.length, resume=None if ticket is None else resume_member(ticket)))]

    def resumed(self, request: ResumeRequest, ticket: Ticket, rtt_ms: float) -> list[Action]:
        """The client is back on another connection: the plan in force, and what it has missed of the turn it names.

        What was under way to either side is lost, so nothing is left to be adopted or answered. Frames that the client
        sends again are answered by their positions, as ever.
        """
        turn, plan = self._turn, self._plan
        if plan is None:
            return self.fail(ProtocolError("This session has no plan to go on with.", code="unexpected_message"))
        self.rtt_ms = rtt_ms
        tokens: list[int] = []
        if turn is not None:
            turn.unadopted, turn.report_open = 0, False
            if turn.request.turn == request.turn:
                tokens = [token for at, token in sorted(turn.answers.items()) if at >= request.position]
        member = resume_member(
            ticket, turn=self._last_turn, prompt_end=0 if turn is None else turn.prompt_end, tokens=tokens
        )
        position = turn.expected if turn is not None and turn.active else self.length
        actions: list[Action] = [Send(self._plan_message(plan, position, resume=member))]
        if request.turn == self._last_turn and self._outcome is not None:
            actions.append(Send(self._outcome))
        return actions

    def planned_in_turn(self, plan: SessionPlan, request: OpenRequest, rtt_ms: float) -> list[Action]:
        """A plan for the turn under way is made, asked for by `report` or not, and memory is reserved.

        One that changes the split takes effect when the engine has carried it out (`receive_event`).
        """
        turn = self._turn
        if self.state is not State.IN_TURN or turn is None:
            return []
        if plan.split == self.split or turn.pending is not None or turn.queued:
            if not turn.report_open:
                return []
            turn.report_open = False
            return [Send(self._plan_message(replace(plan, split=self.split), turn.expected))]
        turn.pending = PendingPlan(plan, request, rtt_ms)
        return [Resplit(turn.request.turn, plan.split)]

    def _plan_message(
        self, plan: SessionPlan, position: int, turn: int | None = None, resume: Message | None = None
    ) -> Message:
        self._plan = plan
        return plan_message(
            self._name,
            plan,
            wire=self._wire,
            max_tokens=self.max_tokens,
            position=position,
            rtt_ms=self.rtt_ms,
            turn=turn,
            resume=resume,
        )

    def refused(self, error: SplitLLMError) -> list[Action]:
        """What was asked cannot be had, and all stays as it was; an error of another kind ends the session."""
        if self.state is not State.CLOSED and isinstance(error, TurnError | CapacityError):
            if self.state is State.QUEUED:
                self.state = State.GREETED
            if self._turn is not None:
                self._turn.report_open = False
            return [Send(error_message(error))]
        return self.fail(error)

    def _adopt(self, number: int) -> Sequence[Action]:
        turn = self._turn
        if turn is None or number != turn.request.turn:
            return []
        if not turn.unadopted:
            raise ProtocolError("There is no plan of this turn to adopt.", code="unexpected_message")
        turn.unadopted -= 1
        return []

    # -- turns --------------------------------------------------------------------------------------------------------

    def _begin(self, request: TurnRequest, now_ms: float) -> Sequence[Action]:
        try:
            if request.turn <= self._last_turn:
                raise TurnError(f"Turn {request.turn} is not after turn {self._last_turn}; count upwards.")
            held = self.length if self._gave_up is None else self._gave_up
            check_turn(request, held, self.max_tokens, self._greeting.spec.vocab_size)
            if self._allow is not None:
                self._allow()
        except TurnError as error:
            told = error_message(error, turn=request.turn)
            if request.turn > self._last_turn:
                self._last_turn, self._outcome = request.turn, told
            return [Send(told)]
        self._last_turn, self._outcome = request.turn, None
        if self._gave_up is not None:
            self._turn = Turn(request, now_ms, 0, request.prompt_end, self.split, queued=True)
            self.state = State.IN_TURN
            return [Readmit(request)]
        self.length = request.start
        # With all blocks at the client only the head runs here, and it needs the prompt's last row alone.
        expected = request.start if self.split < self._blocks else request.prompt_end - 1
        self._turn = Turn(request, now_ms, expected, request.prompt_end, self.split)
        self.state = State.IN_TURN
        return [Begin(request)]

    def _cancel(self, turn: int, now_ms: float) -> Sequence[Action]:
        current = self._turn
        if current is None or current.request.turn != turn:
            return []
        if not current.queued:
            return [Cancel(turn)]
        ended = TurnEnded(self._name, turn, FinishReason.CANCELLED, None, 0, now_ms - current.began_ms)
        return [Cancel(turn), *self.receive_event(ended, now_ms)]

    def _on_frame(self, data: bytes) -> Sequence[Action]:
        if self.state not in (State.IDLE, State.IN_TURN):
            raise ProtocolError("Frames come after `plan`. See PROTOCOL.md, section 7.", code="unexpected_message")
        frame = decode_frame(data)
        try:
            return self._accepted(frame)
        except TurnError as error:
            turn = self._turn
            error.expected_position = turn.expected if turn is not None and turn.active else self.length
            return [Send(error_message(error, turn=frame.turn))]

    def _accepted(self, frame: Frame) -> Sequence[Action]:
        turn = self._turn
        if frame.turn > self._last_turn:
            raise TurnError(f"Turn {frame.turn} has not begun; send `turn` first.", code="unknown_turn")
        if turn is None or frame.turn < self._last_turn or frame.turn != turn.request.turn or not turn.active:
            return []
        return accept(turn, frame, Agreed(self._greeting, self.split, self._dtype))

    # -- from the runner ----------------------------------------------------------------------------------------------

    def receive_event(self, event: TokenDrawn | TurnEnded | Resplitted, now_ms: float) -> list[Action]:
        """Actions for what happened in the runner."""
        turn = self._turn
        if self.state is State.CLOSED or turn is None or event.turn != turn.request.turn:
            return []
        match event:
            case TokenDrawn():
                turn.tokens += 1
                turn.first_token_ms = now_ms if turn.first_token_ms is None else turn.first_token_ms
                turn.last_token_ms = now_ms
                turn.waiting = self.split > 0
                turn.answers[event.position] = event.token
                return [SendToken(event.turn, event.position, event.token)]
            case Resplitted():
                return self._resplitted(turn, event)
            case TurnEnded():
                turn.active = turn.queued = False
                self.state = State.IDLE
                self.length = event.length
                self._outcome = self._done(turn, event)
                return [Send(self._outcome)]

    def _resplitted(self, turn: Turn, event: Resplitted) -> list[Action]:
        pending, turn.pending = turn.pending, None
        if pending is None:
            return []
        if not event.done:  # the turn had ended; whoever asked gets the answer of a session between turns
            return [Plan(pending.request)] if turn.report_open else []
        plan = pending.plan
        turn.end_segment(event.ran_to, plan.split, event.length)
        self.split, self.rtt_ms, self.length = plan.split, pending.rtt_ms, event.length
        turn.expected = event.length if plan.split < self._blocks else event.end - 1
        turn.prompt_end, turn.waiting, turn.report_open = event.end, True, False
        turn.unadopted += 1
        return [Send(self._plan_message(plan, event.length, event.turn))]

    def _done(self, turn: Turn, ended: TurnEnded) -> Message:
        stats = turn.stats(ended, self._blocks, self._price, self.rtt_ms)
        stop, tokens, position = ended.stop_string, turn.tokens, ended.length
        return done_message(ended.turn, ended.reason, stop_string=stop, tokens=tokens, position=position, stats=stats)

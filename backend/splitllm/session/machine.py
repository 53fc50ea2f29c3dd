"""The server's side of one session as a pure state machine (PROTOCOL.md, sections 3 to 7).

Text and frames go in, actions come out; the shell around it (server/connection.py) carries them out. It never blocks,
never reads a clock, and takes no memory for a peer before what the peer says has been checked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from ..errors import WIRE_CODES, CapacityError, ProtocolError, SplitLLMError, TurnError
from ..generation import Resplitted, TokenDrawn, TurnEnded
from ..protocol import (
    PROTOCOL_VERSION,
    DType,
    Frame,
    Kind,
    Message,
    OpenRequest,
    TurnRequest,
    TurnStats,
    Wire,
    decode_frame,
    decode_message,
    done_message,
    error_message,
    plan_message,
)
from ..sampler import check_sampling
from ..types import SessionPlan
from .actions import Action, Begin, Cancel, Close, Feed, Greeting, Plan, Resplit, Send, SendToken, State
from .turn import PendingPlan, Segment, Turn

#: From what ran, the engine's milliseconds that a turn added and those that it was spared.
TurnPrice = Callable[[Sequence[Segment]], tuple[float, float]]


class ServerSession:
    """One connection's session."""

    def __init__(self, greeting: Greeting, *, price: TurnPrice | None = None) -> None:
        """`price` tells what a turn cost the engine; without it, `done` says nothing of time."""
        self._greeting = greeting
        self._price = price
        self._blocks = greeting.spec.blocks
        self.state = State.NEW
        self.split = 0
        self.max_tokens = 0
        self.length = 0  # positions whose keys and values the server holds
        self._dtype = DType.FLOAT16
        self._name = ""
        self._turn: Turn | None = None
        self._last_turn = 0  # highest turn number received, refused ones included
        self.rtt_ms = 0.0

    @property
    def waits_for_client(self) -> bool:
        """Whether the next step is the client's; the idle clock runs only then."""
        return self.state is not State.IN_TURN or self._turn is None or self._turn.waiting

    # -- from the client ----------------------------------------------------------------------------------------------

    def receive_text(self, text: str, now_ms: float) -> list[Action]:
        """Actions for a text message."""
        return self._guarded(lambda: self._on_message(decode_message(text, "client"), now_ms))

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
            (State.IN_TURN, "cancel"): lambda: self._cancel(message["turn"]),
            (State.GREETED, "close"): self._close,
            (State.IDLE, "close"): self._close,
            (State.IN_TURN, "close"): self._close,
        }
        handler = handlers.get((self.state, message["type"]))
        if handler is None:
            raise ProtocolError(
                f"`{message['type']}` is not allowed now (the session is {self.state.value}); see PROTOCOL.md, 7.",
                code="unexpected_message",
            )
        return handler()

    def _hello(self, message: Message) -> Sequence[Action]:
        if message["protocol"] != PROTOCOL_VERSION:
            raise ProtocolError(
                f"The server speaks protocol {PROTOCOL_VERSION}, you speak {message['protocol']}; reload the page or "
                "install the matching version.",
                code="protocol_version",
            )
        if message["model"] not in (None, self._greeting.model):
            raise ProtocolError(
                f"This server does not serve the model {message['model'][:100]!r}; it serves {self._greeting.model!r}.",
                code="unknown_model",
            )
        if message["bundle"] not in (None, self._greeting.bundle):
            raise ProtocolError(
                "Your copy of the model differs from the server's; load the manifest anew.", code="bundle_mismatch"
            )
        self.state = State.GREETED
        greeting = self._greeting
        welcome: Message = {
            "type": "welcome",
            "protocol": PROTOCOL_VERSION,
            "agent": greeting.agent,
            "model": greeting.model,
            "bundle": greeting.bundle,
            "blocks": greeting.spec.blocks,
            "hidden_size": greeting.spec.hidden_size,
            "vocab_size": greeting.spec.vocab_size,
            "sla": {"ttft_ms": greeting.sla.ttft_ms, "tpot_ms": greeting.sla.tpot_ms},
            "limits": {
                "max_context": greeting.limits.max_context,
                "max_rows": greeting.limits.max_rows,
                "max_message_bytes": greeting.limits.max_message_bytes,
                "idle_timeout_s": greeting.limits.idle_timeout_s,
            },
        }
        return [Send(welcome)]

    def _open(self, message: Message) -> Sequence[Action]:
        request = OpenRequest.from_message(message)
        if request.max_tokens > self._greeting.limits.max_context:
            raise TurnError(
                f"A session here holds at most {self._greeting.limits.max_context} tokens; ask for no more.",
                code="context_overflow",
            )
        return [Plan(request)]

    def _report(self, message: Message) -> Sequence[Action]:
        return [Plan(replace(OpenRequest.from_message(message), wire=self._wire, max_tokens=self.max_tokens))]

    def _report_in_turn(self, message: Message) -> Sequence[Action]:
        assert self._turn is not None  # noqa: S101  # the state says so
        if self._turn.report_open:
            raise ProtocolError("The former `report` is not answered yet; wait for it.", code="unexpected_message")
        self._turn.report_open = True
        return self._report(message)

    @property
    def _wire(self) -> Wire:
        return "float16" if self._dtype is DType.FLOAT16 else "float32"

    def _close(self) -> Sequence[Action]:
        self.state = State.CLOSED
        return [Close(None)]

    # -- planning -----------------------------------------------------------------------------------------------------

    def planned(self, session: str, plan: SessionPlan, request: OpenRequest, rtt_ms: float) -> list[Action]:
        """The plan asked for by a `Plan` action is made and memory is reserved."""
        if self.state is State.CLOSED:
            return []
        self._name = session
        if self.state is State.GREETED:
            self.max_tokens = request.max_tokens
            self._dtype = DType.FLOAT16 if request.wire == "float16" else DType.FLOAT32
            self.state = State.IDLE
        elif plan.split < self.split:
            self.length = 0
        self.split, self.rtt_ms = plan.split, rtt_ms
        return [Send(self._plan_message(plan, self.length))]

    def planned_in_turn(self, plan: SessionPlan, request: OpenRequest, rtt_ms: float) -> list[Action]:
        """A plan for the turn under way is made, asked for by `report` or not, and memory is reserved.

        One that changes the split takes effect when the engine has carried it out (`receive_event`).
        """
        turn = self._turn
        if self.state is not State.IN_TURN or turn is None:
            return []
        if plan.split == self.split or turn.pending is not None:
            if not turn.report_open:
                return []
            turn.report_open = False
            return [Send(self._plan_message(replace(plan, split=self.split), turn.expected))]
        turn.pending = PendingPlan(plan, request, rtt_ms)
        return [Resplit(turn.request.turn, plan.split)]

    @property
    def owes_plan(self) -> bool:
        """Whether a `report` of the turn under way waits for its answer."""
        return self._turn is not None and self._turn.report_open

    @property
    def positions(self) -> int:
        """Positions of the conversation that would have to be computed anew if the server held nothing."""
        turn = self._turn
        return self.length if turn is None or not turn.active else max(self.length, turn.expected)

    @property
    def tpot_ms(self) -> float | None:
        """Mean time per token of the latest turn, None if it has fewer than two."""
        return None if self._turn is None else self._turn.tpot_ms

    @property
    def changing(self) -> bool:
        """Whether a new plan of this turn is not in force yet on both sides."""
        turn = self._turn
        return turn is not None and turn.active and (turn.pending is not None or turn.unadopted > 0)

    def _plan_message(self, plan: SessionPlan, position: int, turn: int | None = None) -> Message:
        return plan_message(
            self._name,
            plan,
            wire=self._wire,
            max_tokens=self.max_tokens,
            position=position,
            rtt_ms=self.rtt_ms,
            turn=turn,
        )

    def refused(self, error: SplitLLMError) -> list[Action]:
        """What was asked cannot be had, and all stays as it was; an error of another kind ends the session."""
        if self.state is not State.CLOSED and isinstance(error, TurnError | CapacityError):
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
            self._check_turn(request)
        except TurnError as error:
            self._last_turn = max(self._last_turn, request.turn)
            return [Send(error_message(error, turn=request.turn))]
        self._last_turn = request.turn
        self.length = request.start
        # With all blocks at the client only the head runs here, and it needs the prompt's last row alone.
        expected = request.start if self.split < self._blocks else request.prompt_end - 1
        self._turn = Turn(request, now_ms, expected, request.prompt_end, self.split)
        self.state = State.IN_TURN
        return [Begin(request)]

    def _check_turn(self, request: TurnRequest) -> None:
        if request.turn <= self._last_turn:
            raise TurnError(f"Turn {request.turn} is not after turn {self._last_turn}; count upwards.")
        check_sampling(request.sampling)
        if len(request.seen_ids) > self.max_tokens:
            raise TurnError(f"`seen_ids` holds more than the session's {self.max_tokens} tokens; send each id once.")
        if any(token >= self._greeting.spec.vocab_size for token in request.seen_ids):
            raise TurnError("`seen_ids` holds an id outside the vocabulary; encode the conversation again.")
        if request.start > self.length:
            raise TurnError(
                f"The turn begins at position {request.start}, the server holds {self.length}; begin there or before.",
                expected_position=self.length,
            )
        if request.prompt_end + 1 > self.max_tokens:
            raise TurnError(
                f"The conversation has {request.prompt_end} tokens, and the session holds {self.max_tokens} with the "
                "answer; shorten it or start a new chat.",
                code="context_overflow",
            )

    def _cancel(self, turn: int) -> Sequence[Action]:
        current = self._turn
        return [Cancel(turn)] if current is not None and current.request.turn == turn else []

    def _on_frame(self, data: bytes) -> Sequence[Action]:
        if self.state not in (State.IDLE, State.IN_TURN):
            raise ProtocolError("Frames come after `plan`. See PROTOCOL.md, section 7.", code="unexpected_message")
        frame = decode_frame(data)
        try:
            return self._accept(frame)
        except TurnError as error:
            turn = self._turn
            error.expected_position = turn.expected if turn is not None and turn.active else self.length
            return [Send(error_message(error, turn=frame.turn))]

    def _accept(self, frame: Frame) -> Sequence[Action]:
        """PROTOCOL.md, section 5, row by row."""
        turn = self._turn
        if frame.turn > self._last_turn:
            raise TurnError(f"Turn {frame.turn} has not begun; send `turn` first.", code="unknown_turn")
        if turn is None or frame.turn < self._last_turn or frame.turn != turn.request.turn or not turn.active:
            return []
        if turn.pending is not None or turn.unadopted:
            return []  # sent under the former plan
        self._check_shape(frame)
        if frame.position > turn.expected:
            raise TurnError(
                f"The frame begins at position {frame.position}; continue at {turn.expected}.", code="position_gap"
            )
        if frame.end <= turn.expected:
            token = turn.answers.get(frame.end)
            return [] if token is None else [SendToken(frame.turn, frame.end, token)]
        if frame.position < turn.expected:
            raise TurnError(
                f"The frame repeats positions and adds new ones; continue at {turn.expected}.", code="position_overlap"
            )
        if not turn.waiting:
            raise TurnError("The server waits for no frame now; wait for its token.", code="unexpected_frame")
        limit = max(1, turn.prompt_end - turn.expected)
        if frame.rows > limit:
            raise TurnError(f"The frame has {frame.rows} rows where at most {limit} can follow.", code="wrong_shape")
        self._check_values(frame)
        turn.expected = frame.end
        turn.waiting = frame.end < turn.prompt_end
        values = frame.values[:, 0] if frame.kind is Kind.IDS else frame.values
        return [Feed(frame.turn, frame.position, values)]

    def _check_shape(self, frame: Frame) -> None:
        spec, limits = self._greeting.spec, self._greeting.limits
        kind = Kind.IDS if self.split == 0 else Kind.HIDDEN
        dtype = DType.INT32 if self.split == 0 else self._dtype
        if frame.kind is not kind or frame.dtype is not dtype:
            raise TurnError(
                f"With split {self.split} frames are {kind.name.lower()} of {dtype.name.lower()}, not "
                f"{frame.kind.name.lower()} of {frame.dtype.name.lower()}.",
                code="wrong_dtype",
            )
        columns = 1 if kind is Kind.IDS else spec.hidden_size
        if frame.values.shape[1] != columns or frame.rows > limits.max_rows:
            raise TurnError(
                f"A frame here has at most {limits.max_rows} rows of {columns} columns, not {frame.values.shape}.",
                code="wrong_shape",
            )

    def _check_values(self, frame: Frame) -> None:
        if frame.kind is Kind.HIDDEN:
            if not np.isfinite(frame.values).all():
                raise TurnError("The hidden states hold NaN or infinity; compute them again.", code="not_finite")
        elif frame.values.min() < 0 or frame.values.max() >= self._greeting.spec.vocab_size:
            raise TurnError("A token id is outside the vocabulary; encode the text again.", code="unknown_token")

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
                turn.active = False
                self.state = State.IDLE
                self.length = event.length
                return [Send(self._done(turn, event))]

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
        first = turn.first_token_ms
        run, saved = turn.block_steps(ended, self._blocks)
        ms_run, ms_saved = (0.0, 0.0) if self._price is None else self._price(turn.all_segments(ended.length))
        stats = TurnStats(
            ttft_ms=None if first is None else first - turn.began_ms,
            tpot_ms=turn.tpot_ms,
            queue_ms=ended.queue_ms,
            server_blocks_run=run,
            server_blocks_saved=saved,
            server_ms_run=ms_run,
            server_ms_saved=ms_saved,
            rtt_ms=self.rtt_ms,
        )
        return done_message(
            ended.turn,
            ended.reason,
            stop_string=ended.stop_string,
            tokens=turn.tokens,
            position=ended.length,
            stats=stats,
        )

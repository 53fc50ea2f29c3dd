"""The server's side of one session as a pure state machine (PROTOCOL.md, sections 3 to 7).

Text and frames go in, actions come out; the shell around it (server/connection.py) carries them out. It never blocks,
never reads a clock, and takes no memory for a peer before what the peer says has been checked.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import WIRE_CODES, CapacityError, ProtocolError, SplitLLMError, TurnError
from .generation import TokenDrawn, TurnEnded
from .protocol import (
    PROTOCOL_VERSION,
    DType,
    Frame,
    Kind,
    Limits,
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
from .sampler import check_sampling
from .types import ModelSpec, SessionPlan, Sla


@dataclass(frozen=True, slots=True)
class Send:
    """Send a control message."""

    message: Message


@dataclass(frozen=True, slots=True)
class SendToken:
    """Send a token frame."""

    turn: int
    position: int
    token: int


@dataclass(frozen=True, slots=True)
class Plan:
    """Plan the session, reserve for it, and call `planned` or `refused`."""

    request: OpenRequest


@dataclass(frozen=True, slots=True)
class Begin:
    """Begin a turn in the runner."""

    request: TurnRequest


@dataclass(frozen=True, slots=True, eq=False)
class Feed:
    """Hand rows to the runner."""

    turn: int
    position: int
    values: NDArray[Any]


@dataclass(frozen=True, slots=True)
class Cancel:
    """Cancel a turn in the runner."""

    turn: int


@dataclass(frozen=True, slots=True)
class Close:
    """Close the connection; `error` is None when the client asked."""

    error: SplitLLMError | None


Action = Send | SendToken | Plan | Begin | Feed | Cancel | Close


class State(enum.Enum):
    """PROTOCOL.md, section 7."""

    NEW = "new"
    GREETED = "greeted"
    IDLE = "idle"
    IN_TURN = "in turn"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class Greeting:
    """What the server says of itself in `welcome`."""

    agent: str
    model: str
    bundle: str
    spec: ModelSpec
    sla: Sla
    limits: Limits


@dataclass(slots=True)
class _Turn:
    """The turn in work, or the last one."""

    request: TurnRequest
    began_ms: float
    expected: int  # position the server waits for
    waiting: bool = True  # whether it waits for rows at all
    active: bool = True
    first_token_ms: float | None = None
    last_token_ms: float | None = None
    tokens: int = 0


class ServerSession:
    """One connection's session."""

    def __init__(self, greeting: Greeting) -> None:
        self._greeting = greeting
        self._blocks = greeting.spec.blocks
        self.state = State.NEW
        self.split = 0
        self.max_tokens = 0
        self.length = 0  # positions whose keys and values the server holds
        self._dtype = DType.FLOAT16
        self._turn: _Turn | None = None
        self._last_turn = 0  # highest turn number received, refused ones included
        self._answers: dict[int, int] = {}  # in this turn: position of a token -> the token
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
        wire: Wire = "float16" if self._dtype is DType.FLOAT16 else "float32"
        return [Plan(replace(OpenRequest.from_message(message), wire=wire, max_tokens=self.max_tokens))]

    def _close(self) -> Sequence[Action]:
        self.state = State.CLOSED
        return [Close(None)]

    # -- planning -----------------------------------------------------------------------------------------------------

    def planned(self, session: str, plan: SessionPlan, request: OpenRequest, rtt_ms: float) -> list[Action]:
        """The plan asked for by a `Plan` action is made and memory is reserved."""
        if self.state is State.CLOSED:
            return []
        if self.state is State.GREETED:
            self.max_tokens = request.max_tokens
            self._dtype = DType.FLOAT16 if request.wire == "float16" else DType.FLOAT32
            self.state = State.IDLE
        elif plan.split < self.split:
            self.length = 0
        self.split, self.rtt_ms = plan.split, rtt_ms
        message = plan_message(
            session, plan, wire=request.wire, max_tokens=self.max_tokens, position=self.length, rtt_ms=rtt_ms
        )
        return [Send(message)]

    def refused(self, error: SplitLLMError) -> list[Action]:
        """What was asked cannot be had, and all stays as it was; an error of another kind ends the session."""
        if self.state is not State.CLOSED and isinstance(error, TurnError | CapacityError):
            return [Send(error_message(error))]
        return self.fail(error)

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
        self._turn = _Turn(request, now_ms, expected)
        self._answers = {}
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
        self._check_shape(frame)
        if frame.position > turn.expected:
            raise TurnError(
                f"The frame begins at position {frame.position}; continue at {turn.expected}.", code="position_gap"
            )
        if frame.end <= turn.expected:
            token = self._answers.get(frame.end)
            return [] if token is None else [SendToken(frame.turn, frame.end, token)]
        if frame.position < turn.expected:
            raise TurnError(
                f"The frame repeats positions and adds new ones; continue at {turn.expected}.", code="position_overlap"
            )
        if not turn.waiting:
            raise TurnError("The server waits for no frame now; wait for its token.", code="unexpected_frame")
        limit = max(1, turn.request.prompt_end - turn.expected)
        if frame.rows > limit:
            raise TurnError(f"The frame has {frame.rows} rows where at most {limit} can follow.", code="wrong_shape")
        self._check_values(frame)
        turn.expected = frame.end
        turn.waiting = frame.end < turn.request.prompt_end
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

    def receive_event(self, event: TokenDrawn | TurnEnded, now_ms: float) -> list[Action]:
        """Actions for what happened in the runner."""
        turn = self._turn
        if self.state is State.CLOSED or turn is None or event.turn != turn.request.turn:
            return []
        if isinstance(event, TokenDrawn):
            turn.tokens += 1
            turn.first_token_ms = now_ms if turn.first_token_ms is None else turn.first_token_ms
            turn.last_token_ms = now_ms
            turn.waiting = self.split > 0
            self._answers[event.position] = event.token
            return [SendToken(event.turn, event.position, event.token)]
        turn.active = False
        self.state = State.IDLE
        self.length = event.length
        return [
            Send(
                done_message(
                    event.turn,
                    event.reason,
                    stop_string=event.stop_string,
                    tokens=turn.tokens,
                    position=event.length,
                    stats=self._stats(turn, event),
                )
            )
        ]

    def _stats(self, turn: _Turn, ended: TurnEnded) -> TurnStats:
        positions = max(0, ended.length - turn.request.start)
        first, last = turn.first_token_ms, turn.last_token_ms
        return TurnStats(
            ttft_ms=None if first is None else first - turn.began_ms,
            tpot_ms=None if first is None or last is None or turn.tokens < 2 else (last - first) / (turn.tokens - 1),
            queue_ms=ended.queue_ms,
            server_blocks_run=positions * (self._blocks - self.split),
            server_blocks_saved=positions * self.split,
            rtt_ms=self.rtt_ms,
        )

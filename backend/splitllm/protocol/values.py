"""Typed values behind the control messages, and the messages made from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from ..errors import SplitLLMError, TurnError
from ..types import ClientReport, FinishReason, SamplingParams, SessionPlan
from .message import Message

PROTOCOL_VERSION: Final = 1
Wire = Literal["float16", "float32"]


@dataclass(frozen=True, slots=True)
class Limits:
    """What a server takes from one client; sent in `welcome`."""

    max_context: int
    max_rows: int
    max_message_bytes: int
    idle_timeout_s: float


@dataclass(frozen=True, slots=True)
class ResumeRequest:
    """`resume` of an `open`: the session to go on with, and what is known of it.

    turn: the one that `done` has not come of, or None. position: where the next token belongs that has not come.
    """

    session: str
    token: str
    turn: int | None
    position: int


@dataclass(frozen=True, slots=True)
class Ticket:
    """What a client needs to take its session up again after its connection was lost."""

    token: str
    grace_s: float


@dataclass(frozen=True, slots=True)
class OpenRequest:
    """`open` or `report`: what the client can do and wants. `split` is None for auto.

    resumable: whether the client can take the session up again. resume: the session that it wants to go on with.
    queue: whether it wants to wait where there is no room; None for a client that does not know `queued`.
    """

    report: ClientReport
    split: int | None
    expected_prompt_tokens: int
    wire: Wire = "float16"
    max_tokens: int = 0
    resumable: bool = False
    resume: ResumeRequest | None = None
    queue: bool | None = None

    @classmethod
    def from_message(cls, message: Message) -> OpenRequest:
        """From a valid `open` or `report` message."""
        resume = message.get("resume")
        return cls(
            report=report_from(message["client"]),
            split=None if message["split"] == "auto" else message["split"],
            expected_prompt_tokens=message["expected_prompt_tokens"],
            wire=message.get("wire", "float16"),
            max_tokens=message.get("max_tokens", 0),
            resumable="resume" in message,
            resume=None if resume is None else ResumeRequest(**resume),
            queue=message.get("queue"),
        )


@dataclass(frozen=True, slots=True)
class TurnRequest:
    """`turn`: one prompt and how to answer it. The prompt occupies positions `[start, start + prompt_tokens)`."""

    turn: int
    start: int
    prompt_tokens: int
    max_tokens: int
    sampling: SamplingParams
    stop: tuple[str, ...] = ()
    seen_ids: tuple[int, ...] = ()

    @property
    def prompt_end(self) -> int:
        """Position after the prompt."""
        return self.start + self.prompt_tokens

    @classmethod
    def from_message(cls, message: Message) -> TurnRequest:
        """From a valid `turn` message."""
        return cls(
            turn=message["turn"],
            start=message["start"],
            prompt_tokens=message["prompt_tokens"],
            max_tokens=message["max_tokens"],
            sampling=sampling_from(message["sampling"]),
            stop=tuple(message["stop"]),
            seen_ids=tuple(message["seen_ids"]),
        )

    def to_message(self) -> Message:
        """The `turn` message."""
        return {
            "type": "turn",
            "turn": self.turn,
            "start": self.start,
            "prompt_tokens": self.prompt_tokens,
            "max_tokens": self.max_tokens,
            "sampling": sampling_to(self.sampling),
            "stop": list(self.stop),
            "seen_ids": list(self.seen_ids),
        }


@dataclass(frozen=True, slots=True)
class TurnStats:
    """What a turn cost, in the server's view. Times in ms; block counts are block-steps (one block on one row).

    server_ms_run, server_ms_saved: the engine's time that the turn added, and what split 0 would have added beyond it.
    """

    ttft_ms: float | None
    tpot_ms: float | None
    queue_ms: float
    server_blocks_run: int
    server_blocks_saved: int
    rtt_ms: float
    server_ms_run: float = 0.0
    server_ms_saved: float = 0.0


def sampling_from(member: Message) -> SamplingParams:
    """`sampling` of a valid `turn`."""
    return SamplingParams(**member)


def sampling_to(params: SamplingParams) -> Message:
    """`sampling` for a `turn`."""
    return asdict(params)


def report_from(member: Message) -> ClientReport:
    """`client` of a valid `open` or `report`."""
    return ClientReport(**member)


def report_to(report: ClientReport) -> Message:
    """`client` for an `open` or `report`."""
    return asdict(report)


def plan_message(
    session: str,
    plan: SessionPlan,
    *,
    wire: Wire,
    max_tokens: int,
    position: int,
    rtt_ms: float,
    turn: int | None = None,
    resume: Message | None = None,
) -> Message:
    """The `plan` message; `turn` is the turn under way whose rows are to be sent anew, if any."""
    message: Message = {
        "type": "plan",
        "turn": turn,
        "session": session,
        "split": plan.split,
        "wire": wire,
        "max_tokens": max_tokens,
        "position": position,
        "feasible": plan.feasible,
        "reason": plan.reason,
        "bound": plan.bound,
        "saved": {"block_steps": plan.saved_block_steps, "server_time": plan.saved_server_time},
        "predicted": {
            "ttft_ms": plan.predicted_ttft_ms,
            "tpot_ms": plan.predicted_tpot_ms,
            "server_ms": plan.server_ms,
        },
        "rtt_ms": rtt_ms,
    }
    return message if resume is None else {**message, "resume": resume}


def resume_member(ticket: Ticket, *, turn: int = 0, prompt_end: int = 0, tokens: Sequence[int] = ()) -> Message:
    """`resume` of a `plan`: the last turn that the server got, where its prompt ends, and tokens to be heard again."""
    return {
        "token": ticket.token,
        "grace_s": ticket.grace_s,
        "turn": turn,
        "prompt_end": prompt_end,
        "tokens": list(tokens),
    }


def queued_message(turn: int | None, place: int) -> Message:
    """The `queued` message: place 1 is next; `turn` is the one that waits, None where it is the session."""
    return {"type": "queued", "turn": turn, "place": place}


def done_message(
    turn: int, reason: FinishReason, *, stop_string: str | None, tokens: int, position: int, stats: TurnStats
) -> Message:
    """The `done` message."""
    return {
        "type": "done",
        "turn": turn,
        "finish_reason": reason.value,
        "stop_string": stop_string,
        "tokens": tokens,
        "position": position,
        "stats": asdict(stats),
    }


def error_message(error: SplitLLMError, *, turn: int | None = None) -> Message:
    """The `error` message, with the error's own code and sentence."""
    message: dict[str, Any] = {
        "type": "error",
        "code": error.code,
        "message": error.message[:2000],
        "fatal": error.fatal,
        "turn": turn,
        "expected_position": error.expected_position if isinstance(error, TurnError) else None,
    }
    return message

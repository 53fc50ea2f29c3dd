"""A session to talk to in literal messages and bytes, and a check of everything it says."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from splitllm.errors import SplitLLMError
from splitllm.generation import TokenDrawn, TurnEnded
from splitllm.protocol import Frame, Kind, Limits, Message, decode_frame, decode_message, encode_frame, encode_message
from splitllm.session import (
    Action,
    Begin,
    Close,
    Greeting,
    Plan,
    Send,
    SendToken,
    ServerSession,
    State,
)
from splitllm.types import FinishReason, ModelSpec, SessionPlan, Sla

BLOCKS, HIDDEN, VOCAB, MAX_ROWS = 4, 3, 50, 8
SPEC = ModelSpec(
    name="tiny",
    blocks=BLOCKS,
    hidden_size=HIDDEN,
    heads=1,
    kv_heads=1,
    head_dim=2,
    vocab_size=VOCAB,
    max_context=64,
    end_tokens=(0,),
)
BUNDLE = "ab" * 32
GREETING = Greeting("splitllm/test", "tiny", BUNDLE, SPEC, Sla(), Limits(64, MAX_ROWS, 4096, 60.0))
SESSION = "0123456789abcdef" * 2

HELLO = '{"type":"hello","protocol":1,"agent":"test","model":null,"bundle":null}'
REPORT = (
    '"client":{"backend":"cpu","variant":"float32","blocks_ready":4,"decode_ms":1.5,"prefill_ms":null,"prefill_rows":64,'
    '"memory_bytes":null,"effort":null}'
)
OPEN = '{"type":"open",' + REPORT + ',"split":"auto","wire":"float16","max_tokens":32,"expected_prompt_tokens":7}'
AGAIN = '{"type":"report",' + REPORT + ',"split":3,"expected_prompt_tokens":9}'
SAMPLING = '{"temperature":0.5,"top_p":0.9,"top_k":3,"min_p":0,"repetition_penalty":1.1,"seed":7}'
CLOSE = '{"type":"close"}'

#: Codes of PROTOCOL.md, section 6, that are fatal.
FATAL = {
    "malformed_message",
    "malformed_frame",
    "message_too_large",
    "protocol_version",
    "unknown_model",
    "bundle_mismatch",
    "unexpected_message",
    "idle_timeout",
    "slow_reader",
    "shutting_down",
    "internal",
}


def turn(number: int = 1, start: int = 0, prompt: int = 4, max_tokens: int = 9, **changes: Any) -> str:
    message = {
        "type": "turn",
        "turn": number,
        "start": start,
        "prompt_tokens": prompt,
        "max_tokens": max_tokens,
        "sampling": json.loads(SAMPLING),
        "stop": [],
        "seen_ids": [],
        **changes,
    }
    return json.dumps(message)


def cancel(number: int = 1) -> str:
    return f'{{"type":"cancel","turn":{number}}}'


def ids(number: int, position: int, values: Sequence[int]) -> bytes:
    """An ids frame, written from the table of PROTOCOL.md, section 2."""
    rows = len(values)
    header = b"SPLM" + bytes([1, 1, 3, 0]) + struct.pack("<6I", number, position, rows, 1, 4 * rows, 0)
    return header + struct.pack(f"<{rows}i", *values)


def hidden(
    number: int, position: int, rows: int, *, columns: int = HIDDEN, fill: float = 0.5, float32: bool = False
) -> bytes:
    """A hidden frame, written from the same table."""
    size, letter = (4, "f") if float32 else (2, "e")
    count = rows * columns
    header = b"SPLM" + bytes([1, 2, 1 if float32 else 2, 0])
    header += struct.pack("<6I", number, position, rows, columns, size * count, 0)
    return header + struct.pack(f"<{count}{letter}", *[fill] * count)


def plan_of(split: int) -> SessionPlan:
    return SessionPlan(
        split=split,
        feasible=True,
        reason="It fits.",
        bound="model",
        saved_block_steps=split / BLOCKS,
        saved_server_time=0.25,
        server_ms=30.0,
        predicted_ttft_ms=10.0,
        predicted_tpot_ms=2.0,
    )


class Talk:
    """A session, and a check of everything it sends."""

    def __init__(self) -> None:
        self.session = ServerSession(GREETING)
        self.closed = False

    def checked(self, actions: Sequence[Action]) -> list[Action]:
        for action in actions:
            assert not self.closed, f"{action} after close"
            if isinstance(action, Send):
                assert decode_message(encode_message(action.message), "server") == action.message
                if action.message["type"] == "error":
                    assert action.message["fatal"] == (action.message["code"] in FATAL)
                    assert action.message["message"]
            elif isinstance(action, SendToken):
                frame = Frame(Kind.TOKEN, action.turn, action.position, np.array([[action.token]], np.int32))
                assert decode_frame(encode_frame(frame)).position == action.position
            elif isinstance(action, Close):
                self.closed = True
        return list(actions)

    def say(self, text: str, now_ms: float = 0.0) -> list[Action]:
        return self.checked(self.session.receive_text(text, now_ms))

    def send(self, data: bytes) -> list[Action]:
        return self.checked(self.session.receive_binary(data))

    def planned(self, split: int, plan: Plan, rtt_ms: float = 0.0) -> list[Action]:
        return self.checked(self.session.planned(SESSION, plan_of(split), plan.request, rtt_ms))

    def refused(self, error: SplitLLMError) -> list[Action]:
        return self.checked(self.session.refused(error))

    def drawn(self, number: int, position: int, token: int, now_ms: float = 0.0) -> list[Action]:
        return self.checked(self.session.receive_event(TokenDrawn(SESSION, number, position, token), now_ms))

    def ended(
        self,
        number: int,
        length: int,
        reason: FinishReason = FinishReason.LENGTH,
        *,
        stop_string: str | None = None,
        queue_ms: float = 0.0,
        now_ms: float = 0.0,
    ) -> list[Action]:
        event = TurnEnded(SESSION, number, reason, stop_string, length, queue_ms)
        return self.checked(self.session.receive_event(event, now_ms))


def opened(split: int = 0, *, wire: str = "float16") -> Talk:
    talk = Talk()
    talk.say(HELLO)
    [plan] = talk.say(OPEN.replace("float16", wire))
    assert isinstance(plan, Plan)
    talk.planned(split, plan)
    return talk


def in_turn(split: int = 0, **fields: Any) -> Talk:
    talk = opened(split)
    [begin] = talk.say(turn(**fields))
    assert isinstance(begin, Begin)
    return talk


def in_state(state: State) -> Talk:
    talk = Talk() if state in (State.NEW, State.GREETED, State.QUEUED, State.CLOSED) else opened()
    if state in (State.GREETED, State.QUEUED):
        talk.say(HELLO)
    if state is State.QUEUED:
        talk.say(OPEN)
        talk.checked(talk.session.queued(2))
    elif state is State.IN_TURN:
        talk.say(turn())
    elif state is State.CLOSED:
        talk.say("{}")
    assert talk.session.state is state
    return talk


def sent(actions: Sequence[Action]) -> Message:
    [action] = actions
    assert isinstance(action, Send)
    return action.message


def error(actions: Sequence[Action]) -> tuple[str, int | None, int | None]:
    """Code, turn and expected position of an error that is not fatal."""
    message = sent(actions)
    assert message["type"] == "error"
    assert not message["fatal"]
    return message["code"], message["turn"], message["expected_position"]


def fatal(actions: Sequence[Action]) -> str:
    """Code of a fatal error; it is followed by the close."""
    send, close = actions
    assert isinstance(send, Send)
    assert isinstance(close, Close)
    assert close.error is not None
    assert send.message["fatal"] is True
    return str(send.message["code"])


#: One of each kind of message, and where it is allowed (PROTOCOL.md, section 7).
MESSAGES = {"hello": HELLO, "open": OPEN, "report": AGAIN, "turn": turn(), "cancel": cancel(), "close": CLOSE}
MESSAGES["adopt"] = '{"type":"adopt","turn":1}'
ALLOWED = {
    State.NEW: {"hello"},
    State.GREETED: {"open", "close"},
    State.QUEUED: {"close"},
    State.IDLE: {"report", "turn", "adopt", "cancel", "close", "frame"},
    State.IN_TURN: {"report", "cancel", "close", "frame"},  # and `adopt`, once there is a plan to adopt
}

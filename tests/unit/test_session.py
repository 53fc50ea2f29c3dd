"""The server's session against PROTOCOL.md, sections 3 to 7: literal messages and bytes in, actions out."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitllm.errors import BundleError, CapacityError, MachineError, ProtocolError, SplitLLMError, TurnError
from splitllm.generation import TokenDrawn, TurnEnded
from splitllm.protocol import Frame, Kind, Limits, Message, decode_frame, decode_message, encode_frame, encode_message
from splitllm.session import (
    Action,
    Begin,
    Cancel,
    Close,
    Feed,
    Greeting,
    Plan,
    Send,
    SendToken,
    ServerSession,
    State,
)
from splitllm.types import ClientReport, FinishReason, ModelSpec, SamplingParams, SessionPlan, Sla

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
    talk = Talk() if state in (State.NEW, State.GREETED, State.CLOSED) else opened()
    if state is State.GREETED:
        talk.say(HELLO)
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


# -- section 3: opening -----------------------------------------------------------------------------------------------


def test_hello_is_answered_with_welcome() -> None:
    assert sent(Talk().say(HELLO)) == {
        "type": "welcome",
        "protocol": 1,
        "agent": "splitllm/test",
        "model": "tiny",
        "bundle": BUNDLE,
        "blocks": 4,
        "hidden_size": 3,
        "vocab_size": 50,
        "sla": {"ttft_ms": 2000.0, "tpot_ms": 150.0},
        "limits": {"max_context": 64, "max_rows": 8, "max_message_bytes": 4096, "idle_timeout_s": 60.0},
    }


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ('"protocol":1', '"protocol":2', "protocol_version"),
        ('"protocol":1', '"protocol":0', "protocol_version"),
        ('"model":null', '"model":"other"', "unknown_model"),
        ('"bundle":null', f'"bundle":"{"cd" * 32}"', "bundle_mismatch"),
    ],
)
def test_a_hello_that_does_not_match_is_refused_with_the_reason(old: str, new: str, code: str) -> None:
    talk = Talk()
    assert fatal(talk.say(HELLO.replace(old, new))) == code
    assert talk.session.state is State.CLOSED


def test_a_hello_that_names_model_and_bundle_rightly_is_welcome() -> None:
    hello = HELLO.replace('"model":null', '"model":"tiny"').replace('"bundle":null', f'"bundle":"{BUNDLE}"')
    assert sent(Talk().say(hello))["type"] == "welcome"


def test_open_asks_for_a_plan_with_what_the_client_said() -> None:
    [plan] = in_state(State.GREETED).say(OPEN)
    assert isinstance(plan, Plan)
    request = plan.request
    assert request.report == ClientReport("cpu", "float32", 4, 1.5, None, 64, None)
    assert (request.split, request.wire, request.max_tokens, request.expected_prompt_tokens) == (None, "float16", 32, 7)


def test_plan_says_what_was_asked_and_what_was_planned() -> None:
    talk = in_state(State.GREETED)
    [plan] = talk.say(OPEN)
    assert isinstance(plan, Plan)
    assert sent(talk.planned(2, plan, rtt_ms=12.5)) == {
        "type": "plan",
        "turn": None,
        "session": SESSION,
        "split": 2,
        "wire": "float16",
        "max_tokens": 32,
        "position": 0,
        "feasible": True,
        "reason": "It fits.",
        "bound": "model",
        "saved": {"block_steps": 0.5, "server_time": 0.25},
        "predicted": {"ttft_ms": 10.0, "tpot_ms": 2.0, "server_ms": 30.0},
        "rtt_ms": 12.5,
    }


def test_more_tokens_than_the_server_s_context_are_refused_and_open_may_be_sent_again() -> None:
    talk = in_state(State.GREETED)
    assert error(talk.say(OPEN.replace('"max_tokens":32', '"max_tokens":65'))) == ("context_overflow", None, None)
    [plan] = talk.say(OPEN.replace('"max_tokens":32', '"max_tokens":64'))
    assert isinstance(plan, Plan)


@pytest.mark.parametrize(
    "refusal",
    [
        TurnError("No.", code="split_unavailable"),
        TurnError("No.", code="variant_unavailable"),
        CapacityError("No."),
        CapacityError("No.", code="kv_exhausted"),
    ],
)
def test_a_refused_open_leaves_the_session_greeted(refusal: SplitLLMError) -> None:
    talk = in_state(State.GREETED)
    talk.say(OPEN)
    assert error(talk.refused(refusal)) == (refusal.code, None, None)
    assert talk.session.state is State.GREETED


@pytest.mark.parametrize(("split", "new_split", "position"), [(1, 3, 10), (2, 2, 10), (0, 4, 10), (3, 2, 0)])
def test_a_new_plan_keeps_what_the_server_holds_unless_the_split_is_smaller(
    split: int, new_split: int, position: int
) -> None:
    talk = in_turn(split)
    talk.ended(1, 10)
    [plan] = talk.say(AGAIN)
    assert isinstance(plan, Plan)
    message = sent(talk.planned(new_split, plan))
    assert (message["split"], message["position"], message["max_tokens"]) == (new_split, position, 32)
    assert error(talk.say(turn(2, start=position + 1)))[2] == position


def test_a_refused_report_leaves_the_former_plan_in_force() -> None:
    talk = in_turn(2)
    talk.ended(1, 10)
    talk.say(AGAIN)
    assert error(talk.refused(CapacityError("No.", code="kv_exhausted"))) == ("kv_exhausted", None, None)
    assert isinstance(talk.say(turn(2, start=10))[0], Begin)
    assert isinstance(talk.send(hidden(2, 10, 4))[0], Feed)


def test_a_report_is_planned_with_the_wire_and_the_tokens_of_the_session() -> None:
    talk = opened(wire="float32")
    [plan] = talk.say(AGAIN)
    assert isinstance(plan, Plan)
    assert (plan.request.wire, plan.request.max_tokens, plan.request.split) == ("float32", 32, 3)


def test_a_plan_that_comes_after_the_close_is_kept_to_oneself() -> None:
    for answer in ("planned", "refused"):
        talk = in_state(State.GREETED)
        [plan] = talk.say(OPEN)
        assert isinstance(plan, Plan)
        talk.checked(talk.session.fail(ProtocolError("The server stops.", code="shutting_down")))
        assert (talk.planned(1, plan) if answer == "planned" else talk.refused(CapacityError("No."))) == []
        assert talk.session.state is State.CLOSED


@pytest.mark.parametrize("wire", ["float16", "float32"])
def test_hidden_states_come_in_the_dtype_of_the_wire(wire: str) -> None:
    talk = opened(1, wire=wire)
    talk.say(turn())
    other = talk.send(hidden(1, 0, 2, float32=wire == "float16"))
    assert error(other) == ("wrong_dtype", 1, 0)
    [feed] = talk.send(hidden(1, 0, 2, float32=wire == "float32"))
    assert isinstance(feed, Feed)
    assert feed.values.dtype == np.dtype(wire)
    assert feed.values.tolist() == [[0.5] * HIDDEN] * 2


# -- section 4: a turn ------------------------------------------------------------------------------------------------


def test_a_turn_begins_with_all_that_was_asked() -> None:
    [begin] = opened().say(turn(3, stop=["\n", "Ende"], seen_ids=[4, 49]))
    assert isinstance(begin, Begin)
    request = begin.request
    assert (request.turn, request.start, request.prompt_tokens, request.max_tokens) == (3, 0, 4, 9)
    assert request.sampling == SamplingParams(0.5, 0.9, 3, 0, 1.1, 7)
    assert (request.stop, request.seen_ids) == (("\n", "Ende"), (4, 49))


@pytest.mark.parametrize(
    ("fields", "code", "position"),
    [
        ({"start": 1}, "turn_refused", 0),
        ({"prompt": 32}, "context_overflow", None),
        ({"seen_ids": [3, VOCAB]}, "turn_refused", None),
    ],
)
def test_a_refused_turn_changes_nothing_but_uses_up_its_number(
    fields: dict[str, Any], code: str, position: int | None
) -> None:
    talk = opened()
    assert error(talk.say(turn(5, **fields))) == (code, 5, position)
    assert talk.session.state is State.IDLE
    assert talk.send(ids(5, 0, [1, 2])) == []
    assert error(talk.say(turn(5))) == ("turn_refused", 5, None)
    assert isinstance(talk.say(turn(6))[0], Begin)


def test_a_turn_that_fills_the_session_to_the_last_position_begins() -> None:
    assert isinstance(opened().say(turn(prompt=31))[0], Begin)


def test_a_turn_whose_number_does_not_grow_is_refused_and_uses_up_nothing() -> None:
    talk = in_turn(number=5)
    talk.ended(5, 4)
    for number in (4, 5):
        assert error(talk.say(turn(number))) == ("turn_refused", number, None)
    assert isinstance(talk.say(turn(6))[0], Begin)


def test_a_refused_turn_keeps_what_the_server_holds() -> None:
    talk = in_turn()
    talk.ended(1, 10)
    assert error(talk.say(turn(2, start=11))) == ("turn_refused", 2, 10)
    assert error(talk.say(turn(3, start=2, prompt=30))) == ("context_overflow", 3, None)
    assert isinstance(talk.say(turn(4, start=10))[0], Begin)


def test_a_turn_that_begins_earlier_expects_its_first_row_there() -> None:
    talk = in_turn(1)
    talk.ended(1, 10)
    talk.say(turn(2, start=6))
    assert error(talk.send(hidden(2, 10, 1))) == ("position_gap", 2, 6)
    [feed] = talk.send(hidden(2, 6, 4))
    assert isinstance(feed, Feed)
    assert (feed.turn, feed.position) == (2, 6)


def test_a_token_is_sent_with_its_place() -> None:
    talk = in_turn(1)
    talk.send(hidden(1, 0, 4))
    assert talk.drawn(1, 4, 17) == [SendToken(1, 4, 17)]


def test_done_tells_the_length_the_server_holds() -> None:
    talk = in_turn()
    talk.send(ids(1, 0, [1, 2, 3, 4]))
    talk.drawn(1, 4, 17)
    message = sent(talk.ended(1, 4, FinishReason.STOP_STRING, stop_string="Ende"))
    assert message["type"] == "done"
    assert (message["turn"], message["finish_reason"], message["stop_string"]) == (1, "stop_string", "Ende")
    assert (message["tokens"], message["position"]) == (1, 4)
    assert error(talk.say(turn(2, start=5))) == ("turn_refused", 2, 4)


@pytest.mark.parametrize("split", range(BLOCKS + 1))
def test_statistics_count_block_steps_and_time(split: int) -> None:
    talk = opened(split)
    talk.session.rtt_ms = 3.0
    talk.say(turn(start=0, prompt=4), now_ms=1000.0)
    talk.drawn(1, 4, 17, now_ms=1250.0)
    talk.drawn(1, 5, 18, now_ms=1260.0)
    talk.drawn(1, 6, 19, now_ms=1290.0)
    assert sent(talk.ended(1, 6, queue_ms=5.5))["stats"] == {
        "ttft_ms": 250.0,
        "tpot_ms": 20.0,
        "queue_ms": 5.5,
        "server_blocks_run": 6 * (BLOCKS - split),
        "server_blocks_saved": 6 * split,
        "server_ms_run": 0.0,
        "server_ms_saved": 0.0,
        "rtt_ms": 3.0,
    }


def test_statistics_of_a_later_turn_count_its_own_rows_only() -> None:
    talk = in_turn(1)
    talk.ended(1, 10)
    talk.say(turn(2, start=8, prompt=4))
    stats = sent(talk.ended(2, 12))["stats"]
    assert (stats["server_blocks_run"], stats["server_blocks_saved"]) == (4 * 3, 4 * 1)


def test_intervals_that_do_not_exist_are_null() -> None:
    talk = in_turn()
    stats = sent(talk.ended(1, 0, FinishReason.CANCELLED))["stats"]
    assert (stats["ttft_ms"], stats["tpot_ms"]) == (None, None)
    talk.say(turn(2), now_ms=5.0)
    talk.drawn(2, 4, 1, now_ms=7.0)
    stats = sent(talk.ended(2, 4))["stats"]
    assert (stats["ttft_ms"], stats["tpot_ms"]) == (2.0, None)


def test_a_first_token_at_time_zero_counts() -> None:
    talk = in_turn()
    talk.drawn(1, 4, 1, now_ms=0.0)
    talk.drawn(1, 5, 2, now_ms=10.0)
    stats = sent(talk.ended(1, 5))["stats"]
    assert (stats["ttft_ms"], stats["tpot_ms"]) == (0.0, 10.0)


def test_cancel_of_the_turn_under_way_goes_to_the_runner() -> None:
    talk = in_turn(number=3)
    assert talk.say(cancel(3)) == [Cancel(3)]
    assert talk.drawn(3, 4, 1) == [SendToken(3, 4, 1)]
    assert sent(talk.ended(3, 4, FinishReason.CANCELLED))["finish_reason"] == "cancelled"
    assert talk.session.state is State.IDLE


@pytest.mark.parametrize("number", [2, 4])
def test_cancel_of_any_other_turn_is_ignored_without_answer(number: int) -> None:
    talk = in_turn(number=3)
    assert talk.say(cancel(number)) == []
    talk.ended(3, 4)
    assert talk.say(cancel(3)) == []


def test_what_the_runner_says_of_an_earlier_turn_is_dropped() -> None:
    talk = in_turn()
    talk.ended(1, 4)
    talk.say(turn(2))
    assert talk.drawn(1, 5, 9) == []
    assert talk.ended(1, 5) == []
    assert talk.session.state is State.IN_TURN


def test_what_the_runner_says_after_the_close_is_dropped() -> None:
    talk = in_turn()
    talk.say(CLOSE)
    assert talk.drawn(1, 4, 9) == []
    assert talk.ended(1, 4) == []


@pytest.mark.parametrize("state", [State.GREETED, State.IDLE, State.IN_TURN])
def test_close_ends_the_session_without_an_error(state: State) -> None:
    talk = in_state(state)
    assert talk.say(CLOSE) == [Close(None)]
    assert talk.session.state is State.CLOSED


# -- section 5: positions, row by row ---------------------------------------------------------------------------------


@pytest.mark.parametrize("split", [0, 1])
def test_a_frame_of_an_earlier_turn_is_ignored_whatever_is_wrong_with_it(split: int) -> None:
    talk = in_turn(split)
    talk.ended(1, 4)
    for late in (ids(1, 4, [VOCAB]), hidden(1, 90, 9, columns=7, fill=float("nan"))):
        assert talk.send(late) == []
    talk.say(turn(2))
    for late in (ids(1, 4, [VOCAB]), hidden(1, 90, 9, columns=7, fill=float("nan"))):
        assert talk.send(late) == []


def test_a_frame_of_a_turn_that_has_not_begun_is_unknown() -> None:
    talk = in_turn(1)
    assert error(talk.send(hidden(2, 0, 1))) == ("unknown_turn", 2, 0)
    talk.send(hidden(1, 0, 2))
    assert error(talk.send(hidden(2, 0, 1))) == ("unknown_turn", 2, 2)


def test_between_turns_the_expected_position_is_what_the_server_holds() -> None:
    talk = opened(1)
    assert error(talk.send(hidden(1, 0, 1))) == ("unknown_turn", 1, 0)
    talk.say(turn(1))
    talk.send(hidden(1, 0, 4))
    talk.ended(1, 2, FinishReason.CANCELLED)  # two of the four rows never ran
    assert error(talk.send(hidden(2, 4, 1))) == ("unknown_turn", 2, 2)
    [plan] = talk.say(AGAIN)
    assert isinstance(plan, Plan)
    talk.planned(0, plan)
    assert error(talk.send(ids(2, 2, [1]))) == ("unknown_turn", 2, 0)


def test_a_frame_that_skips_positions_is_a_gap() -> None:
    talk = in_turn(1)
    assert error(talk.send(hidden(1, 1, 3))) == ("position_gap", 1, 0)
    talk.send(hidden(1, 0, 2))
    assert error(talk.send(hidden(1, 3, 1))) == ("position_gap", 1, 2)


def test_rows_sent_again_are_not_run_again_nor_looked_at() -> None:
    talk = in_turn(1)
    talk.send(hidden(1, 0, 3))
    assert talk.send(hidden(1, 0, 3, fill=float("nan"))) == []
    assert talk.send(hidden(1, 1, 2)) == []


def test_rows_sent_again_draw_the_token_that_answered_their_last_row() -> None:
    talk = in_turn(1)
    talk.send(hidden(1, 0, 4))
    assert talk.send(hidden(1, 2, 2)) == []  # not answered yet
    talk.drawn(1, 4, 17)
    talk.send(hidden(1, 4, 1))
    talk.drawn(1, 5, 18)
    assert talk.send(hidden(1, 0, 4)) == [SendToken(1, 4, 17)]
    assert talk.send(hidden(1, 3, 2)) == [SendToken(1, 5, 18)]
    assert talk.send(hidden(1, 0, 3)) == []


def test_rows_of_an_earlier_turn_s_positions_draw_no_token_of_that_turn() -> None:
    talk = in_turn(1)
    talk.send(hidden(1, 0, 4))
    talk.drawn(1, 4, 17)
    talk.ended(1, 4)
    talk.say(turn(2, start=4))
    assert talk.send(hidden(2, 0, 4)) == []


def test_rows_both_old_and_new_overlap() -> None:
    talk = in_turn(1)
    talk.send(hidden(1, 0, 2))
    assert error(talk.send(hidden(1, 1, 2))) == ("position_overlap", 1, 2)


def test_a_row_while_another_is_in_work_is_unexpected() -> None:
    talk = in_turn(1)
    talk.send(hidden(1, 0, 4))
    assert error(talk.send(hidden(1, 4, 1))) == ("unexpected_frame", 1, 4)
    talk.drawn(1, 4, 17)
    assert isinstance(talk.send(hidden(1, 4, 1))[0], Feed)
    assert error(talk.send(hidden(1, 5, 1))) == ("unexpected_frame", 1, 5)


def test_a_frame_after_the_prompt_is_unexpected_when_the_server_goes_on_by_itself() -> None:
    talk = in_turn(0)
    talk.send(ids(1, 0, [1, 2, 3, 4]))
    assert error(talk.send(ids(1, 4, [5]))) == ("unexpected_frame", 1, 4)
    talk.drawn(1, 4, 17)
    assert error(talk.send(ids(1, 4, [5]))) == ("unexpected_frame", 1, 4)
    assert talk.send(ids(1, 0, [1, 2, 3, 4])) == [SendToken(1, 4, 17)]


def test_more_rows_than_the_prompt_has_left_have_the_wrong_shape() -> None:
    talk = in_turn(1)
    assert error(talk.send(hidden(1, 0, 5))) == ("wrong_shape", 1, 0)
    talk.send(hidden(1, 0, 3))
    assert error(talk.send(hidden(1, 3, 2))) == ("wrong_shape", 1, 3)


def test_more_than_one_row_in_decode_has_the_wrong_shape() -> None:
    talk = in_turn(1)
    talk.send(hidden(1, 0, 4))
    talk.drawn(1, 4, 17)
    assert error(talk.send(hidden(1, 4, 2))) == ("wrong_shape", 1, 4)


def test_what_fits_is_run() -> None:
    talk = in_turn(0)
    for position, values in ((0, [1, 2, 3]), (3, [49])):
        [feed] = talk.send(ids(1, position, values))
        assert isinstance(feed, Feed)
        assert (feed.turn, feed.position, feed.values.tolist()) == (1, position, values)


def test_with_all_blocks_at_the_client_the_last_row_alone_is_expected() -> None:
    talk = in_turn(BLOCKS)
    assert error(talk.send(hidden(1, 4, 1))) == ("position_gap", 1, 3)
    assert talk.send(hidden(1, 0, 3)) == []
    assert error(talk.send(hidden(1, 2, 2))) == ("position_overlap", 1, 3)
    [feed] = talk.send(hidden(1, 3, 1))
    assert isinstance(feed, Feed)
    assert feed.position == 3
    talk.drawn(1, 4, 9)
    assert isinstance(talk.send(hidden(1, 4, 1))[0], Feed)


# -- section 2: what a frame may hold ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("split", "frame", "code"),
    [
        (0, hidden(1, 0, 1), "wrong_dtype"),
        (1, ids(1, 0, [1]), "wrong_dtype"),
        (1, hidden(1, 0, 1, float32=True), "wrong_dtype"),
        (0, ids(1, 0, [1]).replace(b"SPLM\x01\x01", b"SPLM\x01\x03"), "wrong_dtype"),  # a token frame
        (1, hidden(1, 0, 1, columns=HIDDEN + 1), "wrong_shape"),
        (1, hidden(1, 0, MAX_ROWS + 1), "wrong_shape"),
        (1, hidden(1, 0, 1, fill=float("nan")), "not_finite"),
        (1, hidden(1, 0, 1, fill=float("-inf")), "not_finite"),
        (0, ids(1, 0, [3, VOCAB]), "unknown_token"),
        (0, ids(1, 0, [-1, 3]), "unknown_token"),
        # the order of the checks
        (1, hidden(1, 9, 1, float32=True, columns=9), "wrong_dtype"),
        (1, hidden(1, 9, 1, columns=9, fill=float("nan")), "wrong_shape"),
        (1, hidden(1, 9, 1, fill=float("nan")), "position_gap"),
        (1, hidden(1, 0, 5, fill=float("nan")), "wrong_shape"),
    ],
)
def test_a_frame_that_cannot_be_run_is_dropped_and_the_turn_goes_on(split: int, frame: bytes, code: str) -> None:
    talk = in_turn(split, prompt=4)
    assert error(talk.send(frame)) == (code, 1, 0)
    assert isinstance(talk.send(ids(1, 0, [1]) if split == 0 else hidden(1, 0, 1))[0], Feed)


@pytest.mark.parametrize(
    "data",
    [b"", b"SPLM", ids(1, 0, [1])[:-1], ids(1, 0, [1]) + b"\0", b"X" + ids(1, 0, [1])[1:], ids(0, 0, [1])],
)
def test_a_malformed_frame_is_fatal(data: bytes) -> None:
    assert fatal(opened().send(data)) == "malformed_frame"


# -- section 6: errors ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"type":"open"}', '{"type":"welcome"}', CLOSE[:-1] + ',"x":1}', "\ud800"]
)
def test_a_malformed_message_is_fatal(text: str) -> None:
    assert fatal(opened().say(text)) == "malformed_message"


def test_what_arrives_after_a_fatal_error_is_ignored() -> None:
    talk = in_state(State.CLOSED)
    assert talk.say(HELLO) == []
    assert talk.say("{") == []
    assert talk.send(ids(1, 0, [1])) == []
    assert talk.send(b"") == []
    assert talk.session.fail(ProtocolError("Again.")) == []


@pytest.mark.parametrize("trouble", [MachineError("/etc/passwd is missing"), BundleError("/etc/passwd is damaged")])
def test_a_fault_of_the_server_is_told_as_internal_without_its_details(trouble: SplitLLMError) -> None:
    talk = opened()
    actions = talk.checked(talk.session.fail(trouble))
    assert fatal(actions) == "internal"
    assert "passwd" not in str(actions[0])
    assert actions[1] == Close(trouble)
    talk = opened()
    talk.say(AGAIN)
    actions = talk.refused(trouble)
    assert fatal(actions) == "internal"
    assert "passwd" not in str(actions[0])


# -- section 7: states ------------------------------------------------------------------------------------------------

MESSAGES = {"hello": HELLO, "open": OPEN, "report": AGAIN, "turn": turn(), "cancel": cancel(), "close": CLOSE}
MESSAGES["adopt"] = '{"type":"adopt","turn":1}'
ALLOWED = {
    State.NEW: {"hello"},
    State.GREETED: {"open", "close"},
    State.IDLE: {"report", "turn", "adopt", "cancel", "close", "frame"},
    State.IN_TURN: {"report", "cancel", "close", "frame"},  # and `adopt`, once there is a plan to adopt
}


@pytest.mark.parametrize("state", ALLOWED)
@pytest.mark.parametrize("message", [*MESSAGES, "frame"])
def test_a_message_is_allowed_in_its_states_only(state: State, message: str) -> None:
    talk = in_state(state)
    actions = talk.send(ids(1, 0, [1])) if message == "frame" else talk.say(MESSAGES[message])
    if message in ALLOWED[state]:
        assert talk.session.state is not State.CLOSED or actions == [Close(None)]
    else:
        assert fatal(actions) == "unexpected_message"


# -- anything at all --------------------------------------------------------------------------------------------------


class Stranger:
    """Says random things, right and wrong ones, and plays the runner as well. Checks what the session has run."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.talk = Talk()
        self.plan: Plan | None = None
        self.split = 0
        self.next_row = 0  # the position that may be fed next
        self.prompt_end = 0
        self.turn = self.number = 0  # the last turn that began, and the last one asked for
        self.under_way = self.in_work = False
        self.fed = 0
        self.now_ms = 0.0

    def step(self) -> None:
        chance = self.chance
        self.now_ms += 1
        what = chance.random()
        if self.plan is not None:
            plan, self.plan = self.plan, None
            if what < 0.1:
                self.note(self.talk.refused(CapacityError("No.")))
            else:
                self.split = chance.randrange(BLOCKS + 1)
                self.note(self.talk.planned(self.split, plan))
        elif self.talk.session.state is State.NEW:
            self.note(self.talk.say(HELLO))
        elif self.talk.session.state is State.GREETED:
            self.note(self.talk.say(OPEN))
        elif what < 0.25 and self.under_way and (self.in_work or chance.random() < 0.1):
            self.run()
        elif what < (0.8 if self.under_way else 0.3):
            self.note(self.talk.send(self.frame()))
        else:
            self.note(self.talk.say(self.text(), self.now_ms))

    def run(self) -> None:
        position = self.next_row
        if self.in_work and self.chance.random() < 0.8:
            self.in_work = self.split == 0
            self.note(self.talk.drawn(self.turn, position, self.chance.randrange(VOCAB), self.now_ms))
            self.next_row += self.split == 0
        else:
            self.under_way = self.in_work = False
            self.note(self.talk.ended(self.turn, position, self.chance.choice(list(FinishReason))))

    def frame(self) -> bytes:
        chance = self.chance
        number = max(1, self.turn + chance.choice([0] * 12 + [-1, 1]))
        position = max(0, self.next_row + chance.choice([0] * 8 + [-3, -1, 1]))
        left = max(1, min(MAX_ROWS, self.prompt_end - self.next_row))
        rows = chance.choice([1, left, left, left, 2, MAX_ROWS + 1])
        if (self.split == 0) == (chance.random() < 0.95):
            frame = ids(number, position, [chance.choice([1, 7, VOCAB - 1] * 4 + [VOCAB, -1]) for _ in range(rows)])
        else:
            fill = chance.choice([0.5, -1.0, float("nan")])
            frame = hidden(number, position, rows, columns=chance.choice([HIDDEN] * 9 + [1]), fill=fill)
        return self.mutated(frame) if chance.random() < 0.004 else frame

    def text(self) -> str:
        chance = self.chance
        text = chance.choice(
            [
                turn(
                    self.number + chance.choice([1] * 9 + [0]),
                    start=max(0, self.talk.session.length - chance.choice([0] * 5 + [1, 9, -1])),
                    prompt=chance.choice([1, 2, 4, 9, 20]),
                    seen_ids=[chance.choice([1] * 9 + [VOCAB])],
                ),
                chance.choice([AGAIN, cancel(99)]),
                cancel(max(1, self.turn - chance.choice([0, 0, 1]))),
                *([CLOSE, HELLO] if chance.random() < 0.02 else []),
            ]
        )
        if text in (AGAIN, HELLO) or '"turn", ' in text:
            allowed = text != HELLO and self.talk.session.state is State.IDLE
            if not allowed and chance.random() < 0.98:  # else every walk ends soon
                return cancel(99)
            self.number += '"turn", ' in text
        return self.mutated(text.encode()).decode("utf-8", "replace") if chance.random() < 0.003 else text

    def mutated(self, data: bytes) -> bytes:
        at = self.chance.randrange(len(data))
        middle = self.chance.choice([b"", bytes([self.chance.randrange(256)]), data[at : at + 3] * 2])
        return data[:at] + middle + data[at + 1 :]

    def note(self, actions: Sequence[Action]) -> None:
        for action in actions:
            if isinstance(action, Plan):
                self.plan = action
            elif isinstance(action, Begin):
                request = action.request
                assert request.start + request.prompt_tokens < 32
                self.turn, self.under_way, self.in_work = request.turn, True, False
                self.prompt_end = request.prompt_end
                self.next_row = request.start if self.split < BLOCKS else request.prompt_end - 1
            elif isinstance(action, Feed):
                rows = len(action.values)
                assert self.under_way
                assert not self.in_work
                assert (action.turn, action.position) == (self.turn, self.next_row)
                assert rows <= min(MAX_ROWS, max(1, self.prompt_end - self.next_row))
                assert action.values.shape == ((rows,) if self.split == 0 else (rows, HIDDEN))
                assert np.isfinite(action.values).all()
                self.next_row += rows
                self.in_work = self.next_row >= self.prompt_end
                self.fed += 1
            elif isinstance(action, Cancel):
                assert action.turn == self.turn


@given(st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_a_stranger_can_say_anything_and_only_rows_in_order_are_run(seed: int) -> None:
    stranger = Stranger(seed)
    for _ in range(120):
        stranger.step()


def test_the_stranger_above_gets_far_enough_to_matter() -> None:
    fed = closed = 0
    for seed in range(40):
        stranger = Stranger(seed)
        for _ in range(120):
            stranger.step()
        fed += stranger.fed
        closed += stranger.talk.closed
    assert fed > 150
    assert 5 < closed < 40


NOISE = st.one_of(st.text('{}[]",:type\\', max_size=20), st.binary(max_size=60))


@given(st.lists(NOISE, max_size=4), st.sampled_from(list(State)))
@settings(max_examples=50, deadline=None)
def test_noise_never_raises(noise: list[str | bytes], state: State) -> None:
    talk = in_state(state)
    for piece in noise:
        if isinstance(piece, str):
            talk.say(piece)
        else:
            talk.send(piece)

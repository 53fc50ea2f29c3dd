"""Opening a session and planning it: PROTOCOL.md, section 3."""

from __future__ import annotations

import numpy as np
import pytest

from splitllm.errors import CapacityError, ProtocolError, SplitLLMError, TurnError
from splitllm.session import (
    Begin,
    Feed,
    Plan,
    State,
)
from splitllm.types import ClientReport
from tests.unit.session_talk import (
    AGAIN,
    BUNDLE,
    HELLO,
    HIDDEN,
    OPEN,
    SESSION,
    Talk,
    error,
    fatal,
    hidden,
    in_state,
    in_turn,
    opened,
    sent,
    turn,
)


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

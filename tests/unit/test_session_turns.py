"""A turn of a session: PROTOCOL.md, section 4."""

from __future__ import annotations

from typing import Any

import pytest

from splitllm.session import (
    Begin,
    Cancel,
    Close,
    Feed,
    SendToken,
    State,
)
from splitllm.types import FinishReason, SamplingParams
from tests.unit.session_talk import (
    BLOCKS,
    CLOSE,
    VOCAB,
    cancel,
    error,
    hidden,
    ids,
    in_state,
    in_turn,
    opened,
    sent,
    turn,
)


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

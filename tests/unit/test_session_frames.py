"""Frames of a session, row by row: PROTOCOL.md, sections 2 and 5."""

from __future__ import annotations

import pytest

from splitllm.session import (
    Feed,
    Plan,
    SendToken,
)
from splitllm.types import FinishReason
from tests.unit.session_talk import (
    AGAIN,
    BLOCKS,
    HIDDEN,
    MAX_ROWS,
    VOCAB,
    error,
    fatal,
    hidden,
    ids,
    in_turn,
    opened,
    turn,
)


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

"""Errors and states of a session, and strangers who say anything: PROTOCOL.md, sections 6 and 7."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitllm.errors import BundleError, CapacityError, MachineError, ProtocolError, SplitLLMError
from splitllm.session import (
    Action,
    Begin,
    Cancel,
    Close,
    Feed,
    Plan,
    State,
)
from splitllm.types import FinishReason
from tests.unit.session_talk import (
    AGAIN,
    ALLOWED,
    BLOCKS,
    CLOSE,
    HELLO,
    HIDDEN,
    MAX_ROWS,
    MESSAGES,
    OPEN,
    VOCAB,
    Talk,
    cancel,
    fatal,
    hidden,
    ids,
    in_state,
    opened,
    turn,
)


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"type":"open"}', '{"type":"welcome"}', CLOSE[:-1] + ',"x":1}', "\ud800"]
)
def test_a_malformed_message_is_fatal(text: str) -> None:
    assert fatal(opened().say(text)) == "malformed_message"


@pytest.mark.parametrize("state", [State.NEW, State.GREETED, State.IDLE, State.IN_TURN])
def test_text_that_is_too_long_is_refused_unread(state: State) -> None:
    """Reading costs others time, so what is too long is not even looked at; between turns a list of ids may come."""
    limit = 32768 + 12 * 64 if state is State.IDLE else 8192
    assert fatal(in_state(state).say(" " * limit)) == "malformed_message"
    assert fatal(in_state(state).say(" " * (limit + 1))) == "message_too_large"


def test_the_longest_turn_is_within_the_limit() -> None:
    """Eight stop strings of 200 characters, each written as two escapes, and as many ids as the session has tokens."""
    ids = ", ".join(["2147483647"] * 64)
    text = turn(stop=["\U0001f600" * 200] * 8).replace('"seen_ids": []', f'"seen_ids": [{ids}]')
    assert ids in text
    assert "\\ud83d" in text
    assert not isinstance(opened().say(text)[-1], Close)


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

"""The split changes within a turn (PROTOCOL.md, "A new plan within a turn"): the server's machine and scheduler."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from splitllm.engines.fake import FakeEngine
from splitllm.generation import Event, Generation, Resplitted, TokenDrawn, TurnEnded
from splitllm.protocol import OpenRequest
from splitllm.scheduler import Scheduler
from splitllm.session import Begin, Close, Feed, Plan, Resplit, Segment, Send, State
from splitllm.types import ClientReport, FinishReason, ModelSpec, SamplingParams
from tests.unit.session_talk import AGAIN, BLOCKS, cancel, hidden, ids, opened, plan_of, turn

REQUEST = OpenRequest(ClientReport("cpu", "float32", BLOCKS), None, 4, "float16", 32)
ADOPT = '{"type":"adopt","turn":1}'


def changed(talk: Any, split: int, *, ran_to: int, length: int, end: int) -> dict[str, Any]:
    """A plan that the server makes within turn 1, carried out; the `plan` message."""
    [action] = talk.session.planned_in_turn(plan_of(split), REQUEST, 3.0)
    assert action == Resplit(1, split)
    [send] = talk.checked(
        talk.session.receive_event(Resplitted("s", 1, True, ran_to=ran_to, length=length, end=end), 0.0)
    )
    assert isinstance(send, Send)
    return send.message


def answering(split: int) -> Any:
    """A prompt of 4 that has run, and two tokens; the row of the second is not there yet (split 0: has run, too)."""
    talk = opened(split)
    talk.say(turn(prompt=4))
    if split == 0:
        talk.send(ids(1, 0, [1, 2, 3, 4]))
    elif split == BLOCKS:
        talk.send(hidden(1, 3, 1))
    else:
        talk.send(hidden(1, 0, 4))
    talk.drawn(1, 4, 17)
    if split:
        talk.send(hidden(1, 4, 1))
    talk.drawn(1, 5, 18)
    return talk


@pytest.mark.parametrize(("split", "come"), [(2, 3), (BLOCKS, 0)])
def test_a_prompt_that_is_on_its_way_tells_how_much_of_it_has_come(split: int, come: int) -> None:
    """With all blocks at the client nothing comes but the last row."""
    talk = opened(split)
    assert talk.session.prompt_rows is None
    talk.say(turn(prompt=7))
    if split < BLOCKS:
        talk.send(hidden(1, 0, 3))
    assert talk.session.prompt_rows == (come, 7)
    changed(talk, 1, ran_to=0, length=0, end=7)
    assert talk.session.prompt_rows is None  # it may not know of the plan yet
    talk.say(ADOPT)
    assert talk.session.prompt_rows == (0, 7)
    talk.send(hidden(1, 0, 7))
    assert talk.session.prompt_rows is None


def test_a_smaller_split_starts_the_rows_anew_once_it_is_adopted() -> None:
    talk = answering(3)
    message = changed(talk, 1, ran_to=5, length=0, end=6)
    assert (message["turn"], message["split"], message["position"]) == (1, 1, 0)
    assert talk.session.changing
    assert talk.send(hidden(1, 5, 1)) == []  # sent under the former plan
    assert talk.say(ADOPT) == []
    assert not talk.session.changing
    [feed] = talk.send(hidden(1, 0, 6))
    assert isinstance(feed, Feed)
    assert (feed.position, len(feed.values)) == (0, 6)
    assert isinstance(talk.drawn(1, 6, 19)[0], object)
    assert isinstance(talk.send(hidden(1, 6, 1))[0], Feed)


def test_a_larger_split_asks_only_for_the_rows_that_have_not_run() -> None:
    talk = answering(1)
    message = changed(talk, 3, ran_to=5, length=5, end=6)
    assert (message["split"], message["position"]) == (3, 5)
    talk.say(ADOPT)
    [feed] = talk.send(hidden(1, 5, 1))
    assert isinstance(feed, Feed)


def test_to_split_0_ids_come_and_the_server_goes_on_by_itself() -> None:
    talk = answering(3)
    changed(talk, 0, ran_to=5, length=0, end=6)
    talk.say(ADOPT)
    [feed] = talk.send(ids(1, 0, [1, 2, 3, 4, 17, 18]))
    assert isinstance(feed, Feed)
    talk.drawn(1, 6, 19)
    talk.drawn(1, 7, 20)


def test_to_all_blocks_only_the_last_row_comes() -> None:
    talk = answering(1)
    changed(talk, BLOCKS, ran_to=5, length=5, end=6)
    talk.say(ADOPT)
    [feed] = talk.send(hidden(1, 5, 1))
    assert isinstance(feed, Feed)


def test_what_ran_anew_is_counted() -> None:
    talk = answering(3)
    talk.send(hidden(1, 5, 1))
    talk.drawn(1, 6, 19)
    changed(talk, 1, ran_to=6, length=0, end=7)
    talk.say(ADOPT)
    talk.send(hidden(1, 0, 7))
    talk.drawn(1, 7, 20)
    [send] = talk.ended(1, 7)
    stats = send.message["stats"]
    # Six rows of one block, then seven of three; of seven rows times four blocks one is left.
    assert stats["server_blocks_run"] == 6 * 1 + 7 * 3
    assert stats["server_blocks_saved"] == 7 * 4 - 27


def test_the_price_of_a_turn_is_asked_for_each_split_it_ran_at() -> None:
    asked: list[Sequence[Segment]] = []

    def price(segments: Sequence[Segment]) -> tuple[float, float]:
        asked.append(segments)
        return 12.0, 5.0

    talk = answering(3)
    talk.session._price = price
    changed(talk, 1, ran_to=5, length=0, end=6)
    talk.say(ADOPT)
    talk.send(hidden(1, 0, 6))
    talk.drawn(1, 6, 19)
    [send] = talk.ended(1, 6)
    assert asked == [[Segment(3, 0, 4, 1), Segment(1, 0, 6, 0)]]
    assert (send.message["stats"]["server_ms_run"], send.message["stats"]["server_ms_saved"]) == (12.0, 5.0)


def test_a_turn_that_ends_before_the_change_keeps_its_split() -> None:
    talk = answering(3)
    assert talk.session.planned_in_turn(plan_of(1), REQUEST, 3.0) == [Resplit(1, 1)]
    talk.ended(1, 5)
    assert talk.session.receive_event(Resplitted("s", 1, False), 0.0) == []
    assert (talk.session.split, talk.session.state, talk.session.length) == (3, State.IDLE, 5)


def test_a_turn_that_ends_before_the_client_has_adopted_leaves_the_plan_in_force() -> None:
    talk = answering(3)
    changed(talk, 1, ran_to=5, length=0, end=6)
    talk.say(cancel())
    talk.ended(1, 0, FinishReason.CANCELLED)
    assert (talk.session.split, talk.session.length) == (1, 0)
    assert talk.say(ADOPT) == []  # on its way when the turn ended
    talk.say(turn(2, start=0, prompt=2))
    assert isinstance(talk.send(hidden(2, 0, 2))[0], Feed)


def test_adopting_nothing_ends_the_session_and_another_turns_plan_is_ignored() -> None:
    talk = answering(3)
    assert talk.say('{"type":"adopt","turn":7}') == []
    send, close = talk.say(ADOPT)
    assert send.message["code"] == "unexpected_message"
    assert isinstance(close, Close)


def test_a_report_within_a_turn_asks_for_a_plan_and_is_answered_even_if_nothing_changes() -> None:
    talk = answering(3)
    [action] = talk.say(AGAIN)
    assert isinstance(action, Plan)
    [send] = talk.checked(talk.session.planned_in_turn(plan_of(3), action.request, 2.0))
    assert (send.message["turn"], send.message["split"]) == (None, 3)
    assert isinstance(talk.send(hidden(1, 5, 1))[0], Feed)  # the turn goes on as it was


def test_only_one_report_of_a_turn_may_be_open() -> None:
    talk = answering(3)
    talk.say(AGAIN)
    send, _close = talk.say(AGAIN)
    assert send.message["code"] == "unexpected_message"


def test_a_report_whose_turn_ends_meanwhile_is_answered_as_between_turns() -> None:
    talk = answering(3)
    [action] = talk.say(AGAIN)
    talk.session.planned_in_turn(plan_of(1), action.request, 2.0)
    talk.ended(1, 5)
    [again] = talk.session.receive_event(Resplitted("s", 1, False), 0.0)
    assert isinstance(again, Plan)
    [send] = talk.checked(talk.session.planned("ab" * 16, plan_of(1), again.request, 2.0))
    assert (send.message["turn"], send.message["position"]) == (None, 0)
    [begin] = talk.say(turn(2, 0, prompt=4))
    assert isinstance(begin, Begin)


@pytest.mark.parametrize("message", [turn(2, 5, prompt=4), AGAIN], ids=["turn", "report"])
def test_until_it_is_answered_nothing_may_begin_also_if_the_turn_has_ended(message: str) -> None:
    """The engine may have changed the split already, and the rows of a turn would be those of another one."""
    talk = answering(3)
    talk.say(AGAIN)
    talk.ended(1, 5)
    send, _close = talk.say(message)
    assert (send.message["code"], talk.session.state) == ("unexpected_message", State.CLOSED)


def test_while_a_change_is_under_way_a_report_is_told_the_present_split() -> None:
    talk = answering(3)
    talk.session.planned_in_turn(plan_of(1), REQUEST, 3.0)
    [action] = talk.say(AGAIN)
    [send] = talk.checked(talk.session.planned_in_turn(plan_of(2), action.request, 2.0))
    assert (send.message["split"], send.message["turn"]) == (3, None)


# -- the scheduler, with an engine whose tokens depend on the whole history --------------------------------------------

SPEC = ModelSpec("model", 4, 2, 1, 1, 2, 97, 64, (96,))
PROMPT = [3, 5, 7, 11]


class World:
    """Scheduler, engine, and a client that follows every plan. The engine's "hidden states" are the ids themselves."""

    def __init__(self, split: int, tokens: int = 12) -> None:
        self.engine = FakeEngine(SPEC, 4, 64)
        self.scheduler = Scheduler(4)
        self.split = split
        self.known = list(PROMPT)
        self.events: list[Event] = []
        self.scheduler.open("s", split)
        generation = Generation(SamplingParams(), max_tokens=tokens, end_tokens=(96,))
        self.scheduler.begin("s", 1, start=0, prompt_end=len(PROMPT), generation=generation, now_ms=0.0)
        self.send(0, len(PROMPT))

    def send(self, start: int, end: int) -> None:
        rows = self.known[start:end]
        if self.split == 0:
            self.scheduler.feed("s", 1, start, np.array(rows, np.int32))
        else:
            self.scheduler.feed("s", 1, start, np.array([[row, 0] for row in rows], np.float32))

    def tick(self) -> None:
        seating, batch, sessions = self.scheduler.schedule(0.0)
        self.engine.move(seating.moves)
        for row in seating.freed:
            self.engine.clear(row)
        if not sessions:
            return
        for event in self.scheduler.complete(batch, sessions, self.engine.run(batch), now_ms=0.0):
            if event.session != "s":
                continue
            self.events.append(event)
            if isinstance(event, TokenDrawn):
                self.known.append(event.token)
                if self.split > 0 and event.position < len(PROMPT) + 11:
                    self.send(event.position, event.position + 1)

    def change(self, split: int) -> None:
        event = self.scheduler.resplit_turn("s", 1, split)
        assert event.done
        assert event.end == len(self.known)
        self.split = split
        self.send(event.length, event.end)

    def answer(self) -> list[int]:
        for _ in range(60):
            self.tick()
        assert isinstance(self.events[-1], TurnEnded)
        return self.known[len(PROMPT) :]


def undisturbed() -> list[int]:
    return World(0).answer()


@pytest.mark.parametrize("before", range(4))
@pytest.mark.parametrize("after", range(4))
@pytest.mark.parametrize("ticks", [0, 1, 5])
def test_a_change_at_any_time_leaves_the_answer_as_it_is(before: int, after: int, ticks: int) -> None:
    world = World(before)
    for _ in range(ticks):
        world.tick()
    if after != before:
        world.change(after)
    assert world.answer() == undisturbed()


def test_changes_one_after_the_other_leave_the_answer_as_it_is() -> None:
    world = World(3)
    for split in (0, 2, 1, 3, 0):
        world.tick()
        world.tick()
        world.change(split)
    assert world.answer() == undisturbed()


def test_a_change_comes_too_late_for_a_turn_that_has_ended_or_is_cancelled() -> None:
    world = World(2)
    world.answer()
    assert world.scheduler.resplit_turn("s", 1, 1) == Resplitted("s", 1, done=False)
    world = World(2)
    world.scheduler.cancel("s", 1)
    assert not world.scheduler.resplit_turn("s", 1, 1).done
    assert not World(2).scheduler.resplit_turn("s", 9, 1).done


def test_other_sessions_are_not_disturbed_by_a_change() -> None:
    world = World(2)
    world.scheduler.open("t", 1)
    other = Generation(SamplingParams(), max_tokens=6, end_tokens=(96,))
    world.scheduler.begin("t", 1, start=0, prompt_end=2, generation=other, now_ms=0.0)
    world.scheduler.feed("t", 1, 0, np.array([[1, 0], [2, 0]], np.float32))
    world.tick()
    world.change(0)
    world.tick()
    assert other.tokens == [3]
    assert world.answer() == undisturbed()

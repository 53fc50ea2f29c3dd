"""A session that waits for room, and one that gave its room to others (PROTOCOL.md, "Waiting for room")."""

from __future__ import annotations

import pytest

from splitllm.errors import CapacityError
from splitllm.generation import Resplitted
from splitllm.protocol import ResumeRequest, Ticket
from splitllm.session import Begin, Cancel, Feed, Plan, Readmit, Resplit, Send, State

from .session_talk import (
    AGAIN,
    CLOSE,
    HELLO,
    OPEN,
    SESSION,
    Talk,
    cancel,
    error,
    fatal,
    hidden,
    ids,
    opened,
    plan_of,
    sent,
    turn,
)

FULL = CapacityError("Full; try again.")


def evicted(split: int = 0) -> Talk:
    """A session that held five positions after its first turn."""
    talk = opened(split)
    talk.session.length = 5
    talk.session.evicted()
    return talk


def waiting(split: int = 0) -> Talk:
    """The same with a turn in the queue."""
    talk = evicted(split)
    [readmit] = talk.say(turn(1, start=5, prompt=2), now_ms=100.0)
    assert isinstance(readmit, Readmit)
    assert sent(talk.checked(talk.session.queued(3))) == {"type": "queued", "turn": 1, "place": 3}
    return talk


def test_a_place_is_told_until_there_is_a_plan() -> None:
    talk = Talk()
    talk.say(HELLO)
    [plan] = talk.say(OPEN)
    assert isinstance(plan, Plan)
    for place in (2, 1):
        assert sent(talk.checked(talk.session.queued(place))) == {"type": "queued", "turn": None, "place": place}
        assert (talk.session.state, talk.session.waits_for_client) == (State.QUEUED, False)
    assert sent(talk.planned(2, plan))["type"] == "plan"
    assert (talk.session.state, talk.session.waits_for_client) == (State.IDLE, True)


def test_who_has_waited_too_long_may_open_again() -> None:
    talk = Talk()
    talk.say(HELLO)
    talk.say(OPEN)
    talk.session.queued(1)
    assert error(talk.checked(talk.session.refused(FULL))) == ("server_full", None, None)
    assert isinstance(talk.say(OPEN)[0], Plan)


def test_a_turn_after_eviction_asks_for_room_and_begins_where_the_client_thinks() -> None:
    talk = evicted()
    assert (talk.session.length, talk.session.positions, talk.session.is_evicted) == (0, 0, True)
    assert error(talk.say(turn(1, start=6)))[0] == "turn_refused", "it never held so much"
    assert isinstance(talk.say(turn(2, start=5))[0], Readmit)


def test_nobody_loses_room_while_a_plan_is_owed() -> None:
    """The engine answers it, for a session that it knows: of one that gave its room up nothing more would come."""
    talk = opened(0)
    assert talk.session.can_be_evicted
    talk.say(turn(1, prompt=2))
    assert not talk.session.can_be_evicted
    [plan] = talk.say(AGAIN)
    assert isinstance(plan, Plan)
    assert isinstance(talk.session.planned_in_turn(plan_of(3), plan.request, 1.0)[0], Resplit)
    talk.ended(1, 2)
    assert (talk.session.state, talk.session.owes_plan, talk.session.can_be_evicted) == (State.IDLE, True, False)
    [late] = talk.session.receive_event(Resplitted("s", 1, done=False), 0.0)
    assert isinstance(late, Plan)
    talk.planned(3, late)
    assert talk.session.can_be_evicted


def test_what_comes_for_a_turn_that_waits_is_ignored() -> None:
    talk = waiting()
    assert talk.send(ids(1, 5, [1, 2])) == []
    assert (talk.session.waits_for_client, talk.session.waits_for_room, talk.session.worth_holding) == (
        False,
        True,
        False,
    )
    assert fatal(talk.say('{"type":"adopt","turn":1}')) == "unexpected_message"


@pytest.mark.parametrize(("split", "wanted"), [(0, 0), (2, 0), (4, 6)])
def test_with_room_the_client_sends_all_it_knows(split: int, wanted: int) -> None:
    """With all blocks at the client, the last row alone."""
    talk = waiting()
    plan = sent(talk.checked(talk.session.readmitted(plan_of(split), 1.0, 350.0)))
    assert (plan["type"], plan["turn"], plan["split"], plan["position"]) == ("plan", 1, split, 0)
    rows = ids(1, 0, range(1, 8)) if split == 0 else hidden(1, wanted, 7 - wanted)
    assert talk.send(rows) == [], "sent before the plan was adopted"
    assert talk.say('{"type":"adopt","turn":1}') == []
    [feed] = talk.send(rows)
    assert isinstance(feed, Feed)
    assert (feed.position, len(feed.values)) == (wanted, 7 - wanted)
    talk.drawn(1, 7, 9, now_ms=400.0)
    done = sent(talk.ended(1, 7, queue_ms=10.0))
    assert (done["position"], done["tokens"]) == (7, 1)
    assert done["stats"]["queue_ms"] == 260.0, "from the turn's arrival, the wait for room included"
    assert done["stats"]["ttft_ms"] == 300.0
    assert done["stats"]["server_blocks_run"] == 7 * (4 - split)
    assert isinstance(talk.say(turn(2, start=7))[0], Begin), "it has room again"


def test_a_turn_that_waits_is_cancelled_or_refused_and_the_next_asks_again() -> None:
    talk = waiting()
    stop, done = talk.say(cancel(), now_ms=150.0)
    assert isinstance(stop, Cancel)
    assert isinstance(done, Send)
    assert (done.message["finish_reason"], done.message["tokens"], done.message["position"]) == ("cancelled", 0, 0)
    assert done.message["stats"]["queue_ms"] == 50.0
    assert isinstance(talk.say(turn(2, start=5))[0], Readmit)
    assert error(talk.checked(talk.session.turned_away(FULL))) == ("server_full", 2, None)
    assert talk.session.state is State.IDLE
    assert isinstance(talk.say(turn(3, start=0))[0], Readmit)
    assert len(talk.say(CLOSE)) == 1


def test_a_report_of_a_turn_that_waits_changes_nothing_yet() -> None:
    talk = waiting()
    [plan] = talk.say(AGAIN)
    assert isinstance(plan, Plan)
    told = sent(talk.checked(talk.session.planned_in_turn(plan_of(3), plan.request, 1.0)))
    assert (told["turn"], told["split"]) == (None, 0)
    assert not talk.session.owes_plan


def test_a_session_without_a_turn_or_a_plan_can_neither_be_readmitted_nor_taken_up_again() -> None:
    """Nobody asks for it; if somebody does, nothing but this session may suffer."""
    assert opened(0).session.readmitted(plan_of(2), 1.0, 350.0) == []
    talk = Talk()
    talk.say(HELLO)
    request = ResumeRequest(SESSION, "ab" * 16, None, 0)
    assert fatal(talk.session.resumed(request, Ticket("ab" * 16, 60.0), 1.0)) == "unexpected_message"

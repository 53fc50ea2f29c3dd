"""Continuous batching: answers, turns, cancel and close."""

from __future__ import annotations

import pytest

from splitllm.engines.fake import FakeEngine
from splitllm.generation import TokenDrawn, TurnEnded
from splitllm.scheduler import Scheduler
from splitllm.types import FinishReason
from splitllm.work import Batch
from tests.unit.desk import BLOCKS, CAPACITY, SPEC, Client, Desk, answer_alone, letters, prompt, run

# -- one session ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", range(BLOCKS + 1))
def test_every_split_gives_the_answer_of_the_whole_model(split: int) -> None:
    desk = Desk()
    client = Client(desk, "a", split)
    client.begin(prompt(10), 8)
    run(desk, client)
    assert client.answer == answer_alone(prompt(10), 8)
    assert client.ended == TurnEnded("a", 1, FinishReason.LENGTH, None, 17, 0.0)


def test_split_zero_goes_on_by_itself_after_one_feed() -> None:
    desk = Desk()
    client = Client(desk, "a", 0)
    client.begin(prompt(3), 4)
    client.send()
    events = [event for _ in range(4) for event in desk.tick()]
    assert [event.token for event in events if isinstance(event, TokenDrawn)] == answer_alone(prompt(3), 4)
    assert desk.tick() == []


@pytest.mark.parametrize("split", [1, BLOCKS])
def test_a_split_session_waits_for_the_client_s_row(split: int) -> None:
    desk = Desk()
    client = Client(desk, "a", split)
    client.begin(prompt(3), 4)
    client.send()
    [first] = desk.tick()
    assert desk.scheduler.schedule(0.0)[1:] == (Batch(), [])
    client.hear(first)
    client.send()
    assert len(desk.tick()) == 1


def test_with_all_blocks_at_the_client_only_the_last_row_runs() -> None:
    desk = Desk()
    client = Client(desk, "a", BLOCKS)
    client.begin(prompt(100), 1)
    client.send()
    desk.tick()
    assert desk.last.prefill == ()
    assert [(work.position, work.wants_logits) for work in desk.last.decode] == [(99, True)]


def test_a_prompt_runs_in_chunks_of_64_and_only_the_last_asks_for_logits() -> None:
    desk = Desk()
    client = Client(desk, "a", 0)
    client.begin(prompt(150), 1)
    client.send()
    for _ in range(3):
        desk.tick()
    works = [work for batch in desk.engine.batches for work in batch.works]
    assert [(work.position, work.tokens, work.wants_logits) for work in works] == [
        (0, 64, False),
        (64, 64, False),
        (128, 22, True),
    ]


def test_a_chunk_that_ends_one_row_before_the_prompt_draws_nothing() -> None:
    desk = Desk()
    client = Client(desk, "a", 0)
    client.begin(prompt(65), 1)
    client.send()
    assert desk.tick() == []
    assert [event.token for event in desk.tick() if isinstance(event, TokenDrawn)] == answer_alone(prompt(65), 1)


# -- how an answer ends -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", [0, 2])
def test_an_end_token_ends_the_turn_and_is_not_shown(split: int) -> None:
    desk = Desk()
    whole = answer_alone(prompt(5), 8)
    client = Client(desk, "a", split)
    client.begin(prompt(5), 8, end=whole[3])
    run(desk, client)
    assert client.answer == whole[:3]
    assert client.ended == TurnEnded("a", 1, FinishReason.STOP, None, 8, 0.0)


def test_an_end_token_right_after_the_prompt_gives_an_empty_answer() -> None:
    desk = Desk()
    client = Client(desk, "a", 0)
    client.begin(prompt(5), 8, end=answer_alone(prompt(5), 1)[0])
    run(desk, client)
    assert client.answer == []
    assert client.ended == TurnEnded("a", 1, FinishReason.STOP, None, 5, 0.0)


def test_a_stop_string_ends_the_turn_with_the_token_that_completes_it_shown_but_not_run() -> None:
    desk = Desk()
    whole = answer_alone(prompt(5), 8)
    client = Client(desk, "a", 0)
    client.begin(prompt(5), 8, stop=[letters(whole[1:4])])
    run(desk, client)
    assert client.answer == whole[:4]
    assert client.ended == TurnEnded("a", 1, FinishReason.STOP_STRING, letters(whole[1:4]), 8, 0.0)


# -- several turns ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", [0, 3, BLOCKS])
def test_the_next_turn_goes_on_where_the_last_one_ended(split: int) -> None:
    desk = Desk()
    client = Client(desk, "a", split)
    client.begin(prompt(7), 3)
    run(desk, client)
    history = list(client.ids)
    client.begin(prompt(4, 1), 5)
    run(desk, client)
    assert history == prompt(7) + answer_alone(prompt(7), 2)
    assert client.answer == answer_alone(history + prompt(4, 1), 5)


@pytest.mark.parametrize("split", [0, 3, BLOCKS])
def test_a_turn_that_begins_earlier_forgets_what_came_after(split: int) -> None:
    desk = Desk()
    client = Client(desk, "a", split)
    client.begin(prompt(20), 6)
    run(desk, client)
    client.begin(prompt(4, 1), 5, start=9)
    run(desk, client)
    assert client.answer == answer_alone(prompt(20)[:9] + prompt(4, 1), 5)


def test_a_turn_cancelled_before_any_row_ran_has_the_length_of_its_start() -> None:
    desk = Desk()
    client = Client(desk, "a", 0)
    client.begin(prompt(20), 6)
    run(desk, client)
    client.begin(prompt(4, 1), 5, start=9)
    client.cancel()
    assert desk.tick() == [TurnEnded("a", 2, FinishReason.CANCELLED, None, 9, 0.0)]


# -- cancel and close -------------------------------------------------------------------------------------------------


def test_cancel_drops_queued_rows_and_ends_at_the_next_tick() -> None:
    desk = Desk()
    client = Client(desk, "a", 0)
    client.begin(prompt(64 * 3), 5)
    client.send()
    desk.tick()
    client.cancel()
    assert desk.tick() == [TurnEnded("a", 1, FinishReason.CANCELLED, None, 64, 0.0)]
    assert len(desk.engine.batches) == 1
    assert desk.tick() == []


def test_rows_that_arrive_after_the_end_of_their_turn_are_dropped() -> None:
    desk = Desk()
    client = Client(desk, "a", 1)
    client.begin(prompt(6), 5)
    client.cancel()
    desk.tick()
    client.send()
    assert desk.tick() == []
    assert desk.engine.batches == []


def test_cancelling_an_ended_turn_leaves_the_next_one_alone() -> None:
    desk = Desk()
    client = Client(desk, "a", 0)
    client.begin(prompt(6), 1)
    run(desk, client)
    client.cancel()
    client.begin(prompt(3, 1), 2)
    desk.scheduler.cancel("a", 1)
    run(desk, client)
    assert len(client.answer) == 2


def test_cancel_in_the_middle_of_an_answer_counts_what_ran() -> None:
    desk = Desk()
    client = Client(desk, "a", 0)
    client.begin(prompt(6), 50)
    client.send()
    for _ in range(3):
        desk.tick()
    client.cancel()
    assert desk.tick() == [TurnEnded("a", 1, FinishReason.CANCELLED, None, 8, 0.0)]


def test_a_session_closed_in_the_middle_of_its_prompt_leaves_no_work_behind() -> None:
    desk = Desk()
    leaving, staying = Client(desk, "leaving", 0), Client(desk, "staying", 2)
    for client in (leaving, staying):
        client.begin(prompt(64 * 2), 4)
        client.send()
    desk.tick()
    desk.close("leaving")
    run(desk, staying)
    assert staying.answer == answer_alone(prompt(64 * 2), 4)
    assert desk.occupied == 1


def test_a_row_that_was_given_back_is_found_empty() -> None:
    desk = Desk()
    first = Client(desk, "first", 0)
    first.begin(prompt(30), 3)
    run(desk, first)
    desk.close("first")
    second = Client(desk, "second", 0)
    second.begin(prompt(5, 1), 6)
    run(desk, second)
    assert second.answer == answer_alone(prompt(5, 1), 6)


def test_a_session_without_a_free_row_is_refused() -> None:
    scheduler = Scheduler(2)
    for name in "ab":
        scheduler.open(name, 1)
    with pytest.raises(ValueError, match="all 2 rows are taken"):
        scheduler.open("c", 0)


def test_a_full_table_takes_any_change_of_split() -> None:
    desk = Desk(scheduler=Scheduler(3), engine=FakeEngine(SPEC, 3, CAPACITY))
    clients = {name: Client(desk, name, 1) for name in "abc"}
    for name, split in (("a", 3), ("b", 0), ("a", 0), ("c", BLOCKS), ("b", 2)):
        desk.resplit(name, split)
        client = clients[name]
        client.ids = client.ids if split >= client.split else []
        client.split = split
        histories = {other.name: list(other.ids) for other in clients.values()}
        for other in clients.values():
            other.begin(prompt(3, split), 4)
        run(desk, *clients.values())
        assert desk.occupied == 3
        for other in clients.values():
            assert other.answer == answer_alone(histories[other.name] + prompt(3, split), 4)

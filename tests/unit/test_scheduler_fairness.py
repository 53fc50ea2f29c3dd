"""Who waits for whom: decode steps, prompts, deadlines."""

from __future__ import annotations

import pytest

from splitllm.engines.fake import FakeEngine
from splitllm.generation import TokenDrawn, TurnEnded
from splitllm.scheduler import Scheduler
from splitllm.types import Sla
from tests.unit.desk import BLOCKS, ROWS, SPEC, Client, Desk, prompt, run

# -- batches ----------------------------------------------------------------------------------------------------------


def test_sessions_of_different_splits_share_one_decode_batch() -> None:
    desk = Desk()
    clients = [Client(desk, name, split) for name, split in (("a", 3), ("b", 0), ("c", BLOCKS), ("d", 1), ("e", 0))]
    for seed, client in enumerate(clients):
        client.begin(prompt(1, seed), 3)
        client.send()
    desk.tick()
    assert [work.split for work in desk.last.decode] == [0, 0, 1, 3, BLOCKS]
    assert desk.last.prefill == ()


def test_prompts_take_turns_chunk_by_chunk() -> None:
    desk = Desk()
    clients = [Client(desk, name, split) for name, split in (("a", 0), ("b", 2), ("c", 0))]
    for client in clients:
        client.begin(prompt(64 * 3), 1)
        client.send()
    for _ in range(9):
        desk.tick()
    rows = {desk.row(client.name): client.name for client in clients}
    assert all(len(batch.prefill) == 1 for batch in desk.engine.batches)
    assert "".join(rows[batch.prefill[0].row] for batch in desk.engine.batches) == "abcabcabc"


def test_a_prompt_that_comes_later_waits_for_one_chunk_of_each_other_prompt_only() -> None:
    desk = Desk()
    early, late = Client(desk, "early", 0), Client(desk, "late", 0)
    early.begin(prompt(64 * 6), 1)
    early.send()
    desk.tick()
    late.begin(prompt(10), 1)
    late.send()
    events = [desk.tick() for _ in range(2)]
    assert [event for tick in events for event in tick if event.session == "late"] != []


def test_a_decode_step_runs_in_every_tick_while_prompts_are_computed() -> None:
    desk = Desk()
    speaker = Client(desk, "speaker", 0)
    speaker.begin(prompt(2), 20)
    speaker.send()
    desk.tick()
    for name in "ab":
        reader = Client(desk, name, 1)
        reader.begin(prompt(64 * 3), 1)
        reader.send()
    for _ in range(6):
        [token] = [event for event in desk.tick() if event.session == "speaker"]
        assert isinstance(token, TokenDrawn)
        assert sum(work.tokens for work in desk.last.prefill) == 64


def test_the_last_row_of_a_prompt_does_not_wait_behind_another_s_chunk() -> None:
    desk = Desk()
    long, short = Client(desk, "long", 0), Client(desk, "short", 0)
    for client, length in ((long, 64 * 4), (short, 1)):
        client.begin(prompt(length), 1)
        client.send()
    desk.tick()
    assert len(desk.last.works) == 2


def test_queue_time_runs_from_begin_to_the_first_step() -> None:
    desk = Desk(now_ms=100.0)
    first, second = Client(desk, "first", 0), Client(desk, "second", 0)
    for client in (first, second):
        client.begin(prompt(64), 1)
        client.send()
    [*_, end_of_first] = desk.tick()
    desk.now_ms = 130.0
    [*_, end_of_second] = desk.tick()
    assert isinstance(end_of_first, TurnEnded)
    assert isinstance(end_of_second, TurnEnded)
    assert (end_of_first.queue_ms, end_of_second.queue_ms) == (0.0, 30.0)


def test_queue_time_is_that_of_the_turn_and_not_of_the_one_before() -> None:
    desk = Desk(now_ms=100.0)
    client = Client(desk, "a", 0)
    client.begin(prompt(3), 1)
    desk.now_ms = 150.0
    run(desk, client)
    client.begin(prompt(3), 1)
    desk.now_ms = 160.0
    run(desk, client)
    assert client.ended is not None
    assert client.ended.queue_ms == 10.0


@pytest.mark.parametrize("speakers", [1, 5])
def test_a_prompt_of_4000_tokens_delays_no_token_of_others_by_more_than_one_chunk(speakers: int) -> None:
    desk = Desk(engine=FakeEngine(SPEC, ROWS, 5000))
    others = [Client(desk, f"speaker {number}", number % (BLOCKS + 1)) for number in range(speakers)]
    for seed, speaker in enumerate(others):
        speaker.begin(prompt(1, seed), 400)
        speaker.send()
    long = Client(desk, "long", 0)
    long.begin([1 + number % 90 for number in range(4000)], 1)
    long.send(4000)
    by_name = {client.name: client for client in (long, *others)}
    ticks = 0
    while long.ended is None and ticks < 100:
        events = desk.tick()
        ticks += 1
        assert sum(work.tokens for work in desk.last.prefill) <= 64
        heard = {event.session for event in events}
        assert heard >= {speaker.name for speaker in others}, f"tick {ticks}"
        for event in events:
            by_name[event.session].hear(event)
        for speaker in others:
            speaker.send()  # as a client without any delay does
    assert ticks == 63  # 62 whole chunks and 32 rows: the speakers cost the prompt no tick either


def test_a_short_question_behind_a_long_prompt_is_answered_after_one_chunk_of_it() -> None:
    desk = Desk(engine=FakeEngine(SPEC, ROWS, 5000))
    long, short = Client(desk, "long", 0), Client(desk, "short", 0)
    long.begin([1] * 4000, 1)
    long.send(4000)
    for _ in range(11):
        desk.tick()
    short.begin(prompt(60), 1)
    short.send()
    first_two = [event.session for _ in range(2) for event in desk.tick()]
    assert "short" in first_two


def test_short_prompts_share_one_tick_where_their_rows_fit() -> None:
    desk = Desk()
    clients = [Client(desk, name, 0) for name in "ab"]
    for client in clients:
        client.begin(prompt(20), 1)
        client.send()
    assert {event.session for event in desk.tick()} == {"a", "b"}


def test_the_prompt_that_is_due_first_gets_every_other_tick_whoever_else_comes() -> None:
    desk = Desk()
    desk.scheduler = Scheduler(ROWS, sla=Sla(ttft_ms=1000.0))
    first = Client(desk, "first", 0)
    first.begin(prompt(64 * 5), 1)
    first.send()
    for number in range(6):
        desk.now_ms += 10
        other = Client(desk, f"other {number}", 0)
        other.begin(prompt(64 * 5), 1)
        other.send()
    served = []
    for _ in range(9):
        desk.tick()
        row = desk.row("first")
        served.append(desk.last.prefill[0].row == row)
    assert served[::2] == [True] * 5
    assert not any(served[3::2])


def test_a_promise_that_is_broken_already_breaks_no_other() -> None:
    desk = Desk()
    desk.scheduler = Scheduler(ROWS, sla=Sla(ttft_ms=100.0))
    late, punctual = Client(desk, "late", 0), Client(desk, "punctual", 0)
    late.begin(prompt(64 * 4), 1)
    late.send()
    desk.now_ms = 150.0
    punctual.begin(prompt(64 * 2), 1)
    punctual.send()
    heard = [event.session for _ in range(3) for event in desk.tick()]
    assert heard[0] == "punctual"
    run(desk, late)  # and is not forgotten

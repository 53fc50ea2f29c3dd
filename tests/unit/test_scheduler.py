"""Continuous batching, driven by hand over the fake engine: schedule, run, complete."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitllm.engines.fake import FakeEngine
from splitllm.generation import Event, Generation, TokenDrawn, TurnEnded
from splitllm.scheduler import Scheduler
from splitllm.slots import Move
from splitllm.types import FinishReason, ModelSpec, SamplingParams
from splitllm.work import Batch

BLOCKS, VOCAB, CAPACITY, ROWS = 4, 97, 512, 9
SPEC = ModelSpec(
    name="fake",
    blocks=BLOCKS,
    hidden_size=2,
    heads=1,
    kv_heads=1,
    head_dim=2,
    vocab_size=VOCAB,
    max_context=CAPACITY,
    end_tokens=(0,),
)
NO_END = -1


def letters(ids: Sequence[int]) -> str:
    """A decoder: every id is one letter."""
    return "".join(chr(ord("a") + token % 26) for token in ids)


def generation(max_tokens: int, *, end: int = NO_END, stop: Sequence[str] = ()) -> Generation:
    return Generation(SamplingParams(), max_tokens=max_tokens, end_tokens=(end,), stop=stop, decode=letters)


def answer_alone(history: Sequence[int], max_tokens: int, *, end: int = NO_END) -> list[int]:
    """What the fake model answers, computed without any of the code under test."""
    answer: list[int] = []
    while len(answer) < max_tokens:
        token = (sum(history) + sum(answer)) % VOCAB
        if token == end:
            break
        answer.append(token)
    return answer


@dataclass
class Desk:
    """A scheduler, an engine and the loop that ties them."""

    scheduler: Scheduler = field(default_factory=lambda: Scheduler(ROWS, BLOCKS))
    engine: FakeEngine = field(default_factory=lambda: FakeEngine(SPEC, ROWS, CAPACITY))
    now_ms: float = 0.0

    def open(self, session: str, split: int) -> None:
        self.engine.move(self.scheduler.open(session, split))

    def resplit(self, session: str, split: int) -> None:
        self.engine.move(self.scheduler.resplit(session, split))

    def close(self, session: str) -> None:
        self.engine.clear(self.scheduler.row(session))
        self.engine.move(self.scheduler.close(session))
        self.engine.clear(self.scheduler.occupied)

    def tick(self) -> list[Event]:
        events = self.scheduler.end_cancelled()
        batch, sessions = self.scheduler.schedule(self.now_ms)
        if sessions:
            events += self.scheduler.complete(batch, sessions, self.engine.run(batch))
        return events

    @property
    def last(self) -> Batch:
        return self.engine.batches[-1]


class Client:
    """One conversation: keeps its ids and answers tokens with rows, as a real client does."""

    def __init__(self, desk: Desk, name: str, split: int) -> None:
        self.desk, self.name, self.split = desk, name, split
        self.ids: list[int] = []  # the conversation, tokens received included
        self.turn = 0
        self.answer: list[int] = []
        self.ended: TurnEnded | None = None
        desk.open(name, split)

    def rows(self, start: int, end: int) -> np.ndarray:
        """Input of block `split` for the positions [start, end)."""
        if self.split == 0:
            return np.array(self.ids[start:end], np.int32)
        hidden = np.zeros((end - start, SPEC.hidden_size), np.float32)
        # The head alone remembers nothing, so with all blocks at the client the client sums up.
        hidden[:, 0] = np.cumsum(self.ids)[start:end] if self.split == BLOCKS else self.ids[start:end]
        return hidden

    def begin(
        self,
        prompt: Sequence[int],
        max_tokens: int,
        *,
        start: int | None = None,
        end: int = NO_END,
        stop: Sequence[str] = (),
    ) -> None:
        start = len(self.ids) if start is None else start
        self.ids = self.ids[:start] + list(prompt)
        self.turn += 1
        self.answer, self.ended = [], None
        self.desk.scheduler.begin(
            self.name,
            self.turn,
            start=start,
            prompt_end=len(self.ids),
            generation=generation(max_tokens, end=end, stop=stop),
            now_ms=self.desk.now_ms,
        )
        self.unsent = len(self.ids) - 1 if self.split == BLOCKS else start

    def send(self, rows: int = CAPACITY) -> None:
        """Send the next rows of what is unsent."""
        end = min(len(self.ids), self.unsent + rows)
        if end > self.unsent:
            self.desk.scheduler.feed(self.name, self.turn, self.unsent, self.rows(self.unsent, end))
            self.unsent = end

    def hear(self, event: Event) -> None:
        assert (event.session, event.turn) == (self.name, self.turn)
        assert self.ended is None
        if isinstance(event, TurnEnded):
            self.ended = event
            self.ids = self.ids[: event.length]
        else:
            assert event.position == len(self.ids)
            self.answer.append(event.token)
            self.ids.append(event.token)
            if self.split == 0:
                self.unsent = len(self.ids)

    @property
    def under_way(self) -> bool:
        return self.turn > 0 and self.ended is None

    def cancel(self) -> None:
        self.desk.scheduler.cancel(self.name, self.turn)


def run(desk: Desk, *clients: Client, ticks: int = 400) -> None:
    """Tick until every client's turn has ended; clients send at once what they have."""
    by_name = {client.name: client for client in clients}
    for _ in range(ticks):
        for client in clients:
            if client.ended is None:
                client.send()
        for event in desk.tick():
            by_name[event.session].hear(event)
        if all(client.ended is not None for client in clients):
            return
    raise AssertionError("the turns do not end")


def prompt(length: int, seed: int = 0) -> list[int]:
    return [random.Random(seed).randrange(1, VOCAB) for _ in range(length)]


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
    assert desk.scheduler.schedule(0.0) == (Batch(), [])
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


# -- fairness ---------------------------------------------------------------------------------------------------------


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
    rows = {desk.scheduler.row(client.name): client.name for client in clients}
    for _ in range(9):
        desk.tick()
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
    assert desk.scheduler.occupied == 1


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


def test_one_row_stays_spare_for_changes_of_split() -> None:
    scheduler = Scheduler(3, BLOCKS)
    opened: list[str] = []
    while scheduler.can_open():
        opened.append(f"session {len(opened)}")
        scheduler.open(opened[-1], 1)
    assert len(opened) == 2
    scheduler.resplit(opened[0], 3)
    assert scheduler.occupied == 2


# -- changes of split -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("split", "new_split"), [(0, 3), (1, 1), (2, BLOCKS), (0, BLOCKS)])
def test_a_larger_or_equal_split_keeps_the_conversation(split: int, new_split: int) -> None:
    desk = Desk()
    neighbours = [Client(desk, f"neighbour {other}", other) for other in range(BLOCKS + 1)]
    client = Client(desk, "a", split)
    for other in (client, *neighbours):
        other.begin(prompt(12), 4)
    run(desk, client, *neighbours)
    history = list(client.ids)
    desk.resplit("a", new_split)
    client.split = new_split
    for other in (client, *neighbours):
        other.begin(prompt(3, 1), 5)
    run(desk, client, *neighbours)
    for other in (client, *neighbours):
        assert other.answer == answer_alone(history + prompt(3, 1), 5)


def test_a_smaller_split_forgets_the_conversation_and_nobody_else_s() -> None:
    desk = Desk()
    client, neighbour = Client(desk, "a", 3), Client(desk, "b", 1)
    for other in (client, neighbour):
        other.begin(prompt(12), 4)
    run(desk, client, neighbour)
    history = list(neighbour.ids)
    desk.resplit("a", 0)
    client.split, client.ids = 0, []
    client.begin(prompt(6, 1), 2)
    neighbour.begin(prompt(3, 2), 5)
    run(desk, client, neighbour)
    assert client.answer == answer_alone(prompt(6, 1), 2)
    assert neighbour.answer == answer_alone(history + prompt(3, 2), 5)


def test_a_turn_cancelled_right_after_a_smaller_split_holds_nothing() -> None:
    desk = Desk()
    client = Client(desk, "a", 3)
    client.begin(prompt(12), 4)
    run(desk, client)
    desk.resplit("a", 2)
    client.split, client.ids = 2, []
    client.begin(prompt(5), 2)
    client.cancel()
    assert desk.tick() == [TurnEnded("a", 2, FinishReason.CANCELLED, None, 0, 0.0)]


@given(st.lists(st.tuples(st.sampled_from(["open", "close", "resplit"]), st.integers(0, 99), st.integers(0, BLOCKS))))
@settings(max_examples=80, deadline=None)
def test_moves_carry_exactly_the_blocks_that_a_session_still_needs(steps: list[tuple[str, int, int]]) -> None:
    scheduler = Scheduler(ROWS, BLOCKS)
    cells: list[list[str]] = [[""] * BLOCKS for _ in range(ROWS)]
    splits: dict[str, int] = {}

    def carry_out(moves: Sequence[Move]) -> None:
        for move in moves:
            cells[move.target][move.split :] = cells[move.source][move.split :]

    for number, (step, choice, split) in enumerate(steps):
        if step == "open" and scheduler.can_open():
            name = f"session {number}"
            carry_out(scheduler.open(name, split))
            splits[name] = split
            cells[scheduler.row(name)][split:] = [name] * (BLOCKS - split)
        elif step == "close" and splits:
            name = sorted(splits)[choice % len(splits)]
            carry_out(scheduler.close(name))
            del splits[name]
        elif step == "resplit" and splits:
            name = sorted(splits)[choice % len(splits)]
            carry_out(scheduler.resplit(name, split))
            if split < splits[name]:
                cells[scheduler.row(name)][split:] = [name] * (BLOCKS - split)
            splits[name] = split
        assert sorted(scheduler.row(name) for name in splits) == list(range(scheduler.occupied))
        for name, kept in splits.items():
            assert cells[scheduler.row(name)][kept:] == [name] * (BLOCKS - kept)


# -- everything at once -----------------------------------------------------------------------------------------------


@given(st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_whatever_the_interleaving_each_session_gets_its_own_answers(seed: int) -> None:
    chance = random.Random(seed)
    desk = Desk()
    clients: dict[str, Client] = {}

    def tick() -> None:
        for event in desk.tick():
            client = clients[event.session]
            if isinstance(event, TokenDrawn):
                assert event.token == sum(client.ids) % VOCAB
            client.hear(event)
        if desk.engine.batches:
            assert sum(work.tokens > 1 for work in desk.last.works) <= 1

    for step in range(250):
        what = chance.random()
        client = chance.choice(list(clients.values())) if clients else None
        if what < 0.06 and desk.scheduler.can_open():
            name = f"session {step}"
            clients[name] = Client(desk, name, chance.randrange(BLOCKS + 1))
        elif what < 0.4:
            tick()
        elif client is None:
            continue
        elif what < 0.43:
            desk.close(client.name)
            del clients[client.name]
        elif client.under_way:
            client.send(chance.choice([1, 7, 64, 200]))
            if chance.random() < 0.04:
                client.cancel()
        elif what < 0.5:
            split = chance.randrange(BLOCKS + 1)
            desk.resplit(client.name, split)
            client.ids = client.ids if split >= client.split else []
            client.split = split
        elif len(client.ids) < 300:
            start = chance.randint(0, len(client.ids))
            client.begin(prompt(chance.choice([1, 2, 30, 64, 65, 150]), step), chance.randint(1, 12), start=start)
    for client in clients.values():
        if chance.random() < 0.2:
            client.cancel()
    while any(client.under_way for client in clients.values()):
        for client in clients.values():
            if client.under_way:
                client.send()
        tick()

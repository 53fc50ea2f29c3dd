"""Changes of split, the moves they cause, and everything at once."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitllm.generation import TokenDrawn, TurnEnded
from splitllm.types import FinishReason
from tests.unit.desk import BLOCKS, ROWS, VOCAB, Client, Desk, answer_alone, prompt, run

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
            assert sum(work.tokens for work in desk.last.prefill) <= 64

    for step in range(250):
        what = chance.random()
        client = chance.choice(list(clients.values())) if clients else None
        if what < 0.06 and desk.occupied < ROWS:
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

"""Waiting for company: rows that are ready run with those that are under way, if that is soon and nobody gets late."""

from __future__ import annotations

import pytest

from splitllm.policy import COMPANY_LEAVES, COMPANY_TICKS
from splitllm.scheduler import Scheduler
from splitllm.types import Sla
from tests.unit.desk import BLOCKS, ROWS, Client, Desk, prompt

TICK_MS, TPOT_MS = 20.0, 150.0


def tick(desk: Desk, *clients: Client) -> None:
    """One tick of 20 ms; the clients hear, and send nothing yet."""
    events = desk.tick(TICK_MS)
    for client in clients:
        for event in events:
            if event.session == client.name:
                client.hear(event)


@pytest.fixture
def desk() -> Desk:
    return Desk(scheduler=Scheduler(ROWS, sla=Sla(1000.0, TPOT_MS)))


def talking(desk: Desk, *splits: int) -> list[Client]:
    """Sessions that have drawn some tokens; those with a split of 1 or more have their clients at work."""
    clients = [Client(desk, f"{number}: {split}", split) for number, split in enumerate(splits)]
    for client in clients:
        client.begin(prompt(5), 90)
        client.send()
    for _ in range(6):
        tick(desk, *clients)
        for client in clients:
            client.send()
    tick(desk, *clients)
    return clients


def company(desk: Desk) -> float:
    return desk.scheduler.company_ms(desk.now_ms)


def test_a_row_that_is_ready_waits_for_half_a_tick_in_all_for_one_that_is_under_way(desk: Desk) -> None:
    first, second = talking(desk, 1, 2)
    assert company(desk) == 0  # nobody is ready
    first.send()
    assert company(desk) == pytest.approx(COMPANY_TICKS * TICK_MS)
    desk.now_ms += 4
    assert company(desk) == pytest.approx(COMPANY_TICKS * TICK_MS - 4)
    desk.now_ms += 6
    assert company(desk) == 0
    second.send()
    assert company(desk) == 0


def test_the_one_that_was_waited_for_ends_the_wait(desk: Desk) -> None:
    first, second = talking(desk, 1, BLOCKS)
    first.send()
    assert company(desk) > 0
    second.send()
    assert company(desk) == 0
    tick(desk, first, second)
    assert len(desk.last.decode) == 2


def test_nobody_waits_alone_nor_for_those_who_stream_or_think(desk: Desk) -> None:
    [alone] = talking(desk, 1)
    alone.send()
    assert company(desk) == 0
    streams = Desk()
    talking(streams, 0, 0)
    assert company(streams) == 0


def test_nobody_waits_for_a_client_that_is_overdue_itself(desk: Desk) -> None:
    talking(desk, 1, 0)
    assert company(desk) > 0
    for _ in range(int(TPOT_MS / TICK_MS) + 1):
        desk.tick(TICK_MS)
    assert company(desk) == 0


def test_no_token_waits_into_its_deadline_and_no_prompt_waits_at_all(desk: Desk) -> None:
    first, _ = talking(desk, 1, 2)
    desk.now_ms += TPOT_MS - COMPANY_LEAVES * TICK_MS
    first.send()
    assert company(desk) == 0
    desk.now_ms -= 2 * TICK_MS
    assert company(desk) > 0
    newcomer = Client(desk, "new", 0)
    newcomer.begin(prompt(30), 5)
    newcomer.send()
    assert company(desk) == 0

"""Who has a seat: those that decode, and for a while those that will."""

from __future__ import annotations

from splitllm.policy import PARKED_AT_ONCE, SILENT_TICKS, TURN_ENDED_TICKS
from tests.unit.desk import Client, Desk, answer_alone, prompt, run


def streaming(desk: Desk, name: str, split: int = 0) -> Client:
    """A session that has drawn its first two tokens."""
    client = Client(desk, name, split)
    client.begin(prompt(5), 300)
    for _ in range(2):
        client.send()
        for event in desk.tick():
            if event.session == name:
                client.hear(event)
    return client


def test_a_prompt_is_computed_behind_those_who_decode_and_moves_nobody() -> None:
    desk = Desk()
    for name in "ab":
        streaming(desk, name)
    client = Client(desk, "c", 0)
    client.begin(prompt(64 * 3), 9)
    client.send()
    for _ in range(2):
        desk.tick()
        assert desk.seatings[-1].moves == ()
        assert [work.row for work in desk.last.decode] == [0, 1]
        assert [work.row for work in desk.last.prefill] == [2]


def test_a_session_between_two_turns_is_parked_and_goes_on_where_it_was() -> None:
    desk = Desk()
    done = Client(desk, "done", 0)
    done.begin(prompt(5), 3)
    run(desk, done)
    history = list(done.ids)
    for name in "ab":
        streaming(desk, name)
    for _ in range(TURN_ENDED_TICKS):
        desk.tick()
    assert [work.row for work in desk.last.decode] == [0, 1]
    assert desk.row("done") == 2
    done.begin(prompt(3, 1), 6)
    while done.ended is None:
        done.send()
        for event in desk.tick():
            if event.session == "done":
                done.hear(event)
    assert done.answer == answer_alone(history + prompt(3, 1), 6)


def test_a_session_whose_client_takes_long_for_a_token_keeps_its_seat_for_a_while() -> None:
    desk = Desk()
    slow, other = streaming(desk, "slow", 1), streaming(desk, "other", 2)
    waited = 0
    while desk.row("slow") == 0:
        other.send()
        for event in desk.tick():
            other.hear(event)
        waited += 1
        assert waited < 3 * SILENT_TICKS
    assert waited >= SILENT_TICKS - 1  # one passed while the other one began
    slow.send()
    assert [event.session for event in desk.tick()] == ["slow"]
    assert desk.row("slow") == 0


def test_when_many_turns_end_at_once_few_are_moved_in_one_tick() -> None:
    desk = Desk()
    short = [Client(desk, f"short {number}", 0) for number in range(7)]
    for client in short:
        client.begin(prompt(1), 8)
        client.send()
    streaming(desk, "long")
    assert desk.row("long") == 7
    for _ in range(20):
        desk.tick()
        assert len(desk.seatings[-1].moves) <= 2 * PARKED_AT_ONCE
    assert [work.row for work in desk.last.decode] == [0]

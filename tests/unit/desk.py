"""A scheduler driven by hand over the fake engine (schedule, run, complete), and clients that talk to it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from splitllm.engines.fake import FakeEngine
from splitllm.generation import Event, Generation, TurnEnded
from splitllm.scheduler import Scheduler
from splitllm.slots import Seating
from splitllm.types import ModelSpec, SamplingParams
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

    scheduler: Scheduler = field(default_factory=lambda: Scheduler(ROWS))
    engine: FakeEngine = field(default_factory=lambda: FakeEngine(SPEC, ROWS, CAPACITY))
    now_ms: float = 0.0
    seatings: list[Seating] = field(default_factory=list)

    def open(self, session: str, split: int) -> None:
        self.scheduler.open(session, split)

    def resplit(self, session: str, split: int) -> None:
        self.scheduler.resplit(session, split)

    def close(self, session: str) -> None:
        self.scheduler.close(session)

    @property
    def occupied(self) -> int:
        return len(self.scheduler._slots)

    def row(self, session: str) -> int:
        return self.scheduler._slots.row(session)

    def tick(self, took_ms: float = 0.0) -> list[Event]:
        events = self.scheduler.end_cancelled()
        seating, batch, sessions = self.scheduler.schedule(self.now_ms)
        self.seatings.append(seating)
        self.engine.move(seating.moves)
        for row in seating.freed:
            self.engine.clear(row)
        if sessions:
            self.now_ms += took_ms
            events += self.scheduler.complete(batch, sessions, self.engine.run(batch), now_ms=self.now_ms)
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

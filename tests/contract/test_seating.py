"""Seats and parking over every engine: whoever stands idle, is moved or comes back, all answers are the same."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial

import numpy as np
import pytest

from splitllm import scheduler as scheduler_module
from splitllm.bundle import Bundle
from splitllm.engines.base import Engine
from splitllm.engines.fake import FakeEngine
from splitllm.engines.onnx import OnnxEngine
from splitllm.engines.onnx.runtime import DeviceMemory
from splitllm.errors import SplitLLMError
from splitllm.generation import Generation, TokenDrawn
from splitllm.policy import IdleSeat, parked
from splitllm.scheduler import Scheduler
from splitllm.types import SamplingParams

CAPACITY, TURNS, TOKENS, PROMPT, THINK = 96, 2, 12, 6, 9
#: Ticks that each session's client takes for a token; whether it runs a part of the blocks decides its split.
DELAYS = (0, 0, 2, 0, 15, 1, 4)


@pytest.fixture(params=["fake", "onnx", "onnx with device memory", "cuda"])
def engine(request: pytest.FixtureRequest, bundle: Bundle) -> Iterator[Engine]:
    rows = len(DELAYS)
    made: Engine
    if request.param == "fake":
        made = FakeEngine(bundle.spec, rows, CAPACITY)
    else:
        device = "cuda" if request.param == "cuda" else "cpu"
        memory = DeviceMemory(device="cpu") if "memory" in request.param else None
        try:
            made = OnnxEngine(bundle, rows=rows, capacity=CAPACITY, threads=2, device=device, memory=memory)
        except SplitLLMError as error:
            pytest.skip(error.message)
    yield made
    made.close()


class Talk:
    """Every session asks twice. Those at split 0 stream; the others' clients take their time for each token."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.scheduler = engine, Scheduler(engine.rows)
        self.splits = [0 if delay == 0 else 1 + number % engine.spec.blocks for number, delay in enumerate(DELAYS)]
        self.tokens: list[list[int]] = [[] for _ in DELAYS]
        self.moved = self.moved_beside_others = 0
        self._due: list[tuple[int, Callable[[], None]]] = []
        self._expected: set[str] = set()  # sessions with a token to decode
        self._now = 0

    def run(self) -> list[list[int]]:
        for number, split in enumerate(self.splits):
            self.scheduler.open(str(number), split)
            self._later(3 * number, partial(self._ask, number, 1, 0))
        while any(len(tokens) < TURNS * TOKENS for tokens in self.tokens):
            self._tick()
            assert self._now < 1000, "somebody starves"
        for number in range(len(DELAYS)):
            self.scheduler.close(str(number))
        self._tick()
        return self.tokens

    def _tick(self) -> None:
        self._now += 1
        due = [do for when, do in self._due if when <= self._now]
        self._due = [(when, do) for when, do in self._due if when > self._now]
        for do in due:
            do()
        seating, batch, sessions = self.scheduler.schedule(0.0)
        assert {sessions[-1 - i] for i in range(len(batch.decode))} == self._expected  # nobody waits for a seat
        self._expected = set()
        self.engine.move(seating.moves)
        for row in seating.freed:
            self.engine.clear(row)
        self.moved += len(seating.moves)
        self.moved_beside_others += len(seating.moves) * (len(sessions) > 1)
        if not sessions:
            return
        for event in self.scheduler.complete(batch, sessions, self.engine.run(batch), now_ms=0.0):
            number = int(event.session)
            if isinstance(event, TokenDrawn):
                self.tokens[number].append(event.token)
                if len(self.tokens[number]) % TOKENS:
                    self._answer(number, event)
            elif event.turn < TURNS:
                self._later(THINK, partial(self._ask, number, TURNS, event.length))

    def _later(self, ticks: int, do: Callable[[], None]) -> None:
        self._due.append((self._now + ticks, do))

    def _ask(self, number: int, turn: int, start: int) -> None:
        name, end = str(number), start + PROMPT
        generation = Generation(SamplingParams(), max_tokens=TOKENS, end_tokens=())
        self.scheduler.begin(name, turn, start=start, prompt_end=end, generation=generation, now_ms=0.0)
        rows = self._rows(number, start, end)
        self.scheduler.feed(name, turn, start, rows)

    def _answer(self, number: int, token: TokenDrawn) -> None:
        def feed() -> None:
            self._expected.add(token.session)
            if self.splits[number]:
                rows = self._rows(number, token.position, token.position + 1)
                self.scheduler.feed(token.session, token.turn, token.position, rows)

        if self.splits[number]:
            self._later(DELAYS[number], feed)
        else:
            feed()

    def _rows(self, number: int, start: int, end: int) -> np.ndarray:
        """Ids or hidden states that depend on session and position alone."""
        spec = self.engine.spec
        chances = [np.random.default_rng([number, position]) for position in range(start, end)]
        if self.splits[number] == 0:
            return np.array([chance.integers(3, spec.vocab_size) for chance in chances], np.int32)
        return np.array([chance.integers(-8, 8, spec.hidden_size) / 4 for chance in chances], np.float32)


def test_answers_are_the_same_whoever_is_parked_and_nobody_waits_for_a_seat(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def at_once(seats: Iterable[IdleSeat]) -> list[str]:
        return [seat.session for seat in seats]

    talks = {}
    for name, rule in (("never", lambda _: []), ("as in the product", parked), ("at once", at_once)):
        monkeypatch.setattr(scheduler_module, "parked", rule)
        talks[name] = Talk(engine)
        talks[name].run()
    moved = [talk.moved_beside_others for talk in talks.values()]
    assert moved == sorted(set(moved))
    assert talks["never"].tokens == talks["as in the product"].tokens == talks["at once"].tokens
    if isinstance(engine, OnnxEngine):
        assert len(set(map(tuple, talks["never"].tokens))) == len(DELAYS)

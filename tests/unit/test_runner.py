"""The engine's thread behind an event loop, with the fake engine."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import AsyncIterator, Sequence
from typing import ClassVar

import numpy as np
import pytest
import pytest_asyncio

from splitllm.bench.event_loop import measure_gaps
from splitllm.engine_thread import EngineThread
from splitllm.engines.fake import FakeEngine
from splitllm.generation import Event, Generation, TokenDrawn, TurnEnded
from splitllm.runner import Runner, Tick
from splitllm.types import FinishReason, Float32Array, ModelSpec, SamplingParams
from splitllm.work import Batch

SPEC = ModelSpec(
    name="fake",
    blocks=3,
    hidden_size=2,
    heads=1,
    kv_heads=1,
    head_dim=2,
    vocab_size=97,
    max_context=4096,
    end_tokens=(0,),
)
FOREVER = 4000
PROMPT = np.array([3, 5, 7], np.int32)
#: Only reached when something is broken.
PATIENCE_S = 20


class Inbox:
    """A session's handler; notes where it was called."""

    def __init__(self) -> None:
        self.events: asyncio.Queue[Event] = asyncio.Queue()
        self.threads: set[threading.Thread] = set()

    def __call__(self, event: Event) -> None:
        self.threads.add(threading.current_thread())
        self.events.put_nowait(event)

    async def next(self) -> Event:
        return await asyncio.wait_for(self.events.get(), PATIENCE_S)

    async def answer(self) -> tuple[list[int], TurnEnded]:
        """Tokens up to the end of the turn, and the end."""
        tokens: list[int] = []
        while isinstance(event := await self.next(), TokenDrawn):
            tokens.append(event.token)
        assert isinstance(event, TurnEnded)
        return tokens, event


class FailingEngine(FakeEngine):
    """Fails at its first batch."""

    def run(self, batch: Batch) -> Float32Array:
        raise MemoryError("out of memory")


def generation(max_tokens: int) -> Generation:
    return Generation(SamplingParams(), max_tokens=max_tokens, end_tokens=())


def ask(runner: Runner, session: str, max_tokens: int, *, turn: int = 1, start: int = 0) -> None:
    """A whole prompt at split 0."""
    runner.begin(session, turn, start=start, prompt_end=start + 3, generation=generation(max_tokens))
    runner.feed(session, turn, start, PROMPT)


def answer_alone(history: Sequence[int], max_tokens: int) -> list[int]:
    answer: list[int] = []
    for _ in range(max_tokens):
        answer.append((sum(history) + sum(answer)) % SPEC.vocab_size)
    return answer


@pytest_asyncio.fixture
async def runner() -> AsyncIterator[Runner]:
    made = Runner(FakeEngine(SPEC, rows=6, capacity=4096))
    made.start()
    yield made
    await made.stop()


async def test_an_answer_arrives_on_the_loop_in_order(runner: Runner) -> None:
    inbox = Inbox()
    runner.open("a", 0, inbox)
    ask(runner, "a", 20)
    tokens, ended = await inbox.answer()
    assert tokens == answer_alone([3, 5, 7], 20)
    assert (ended.reason, ended.length) == (FinishReason.LENGTH, 22)
    assert inbox.threads == {threading.current_thread()}


async def test_the_engine_runs_on_a_thread_of_its_own() -> None:
    threads = set()

    class Watched(FakeEngine):
        def run(self, batch: Batch) -> Float32Array:
            threads.add(threading.current_thread())
            return super().run(batch)

    runner = Runner(Watched(SPEC, rows=2, capacity=64))
    runner.start()
    inbox = Inbox()
    runner.open("a", 0, inbox)
    ask(runner, "a", 2)
    await inbox.answer()
    await runner.stop()
    assert len(threads) == 1
    assert threading.current_thread() not in threads


async def test_each_session_gets_its_own_events(runner: Runner) -> None:
    inboxes = {name: Inbox() for name in "abc"}
    for count, (name, inbox) in enumerate(inboxes.items()):
        runner.open(name, 0, inbox)
        ask(runner, name, 5 + count)
    for count, inbox in enumerate(inboxes.values()):
        tokens, _ = await inbox.answer()
        assert tokens == answer_alone([3, 5, 7], 5 + count)


async def test_a_session_goes_on_after_a_change_of_its_split(runner: Runner) -> None:
    inbox = Inbox()
    runner.open("a", 0, inbox)
    ask(runner, "a", 1)
    await inbox.answer()
    await runner.resplit("a", 2)
    runner.begin("a", 2, start=3, prompt_end=4, generation=generation(1))
    runner.feed("a", 2, 3, np.full((1, 2), 11, np.float32))
    tokens, _ = await inbox.answer()
    assert tokens == answer_alone([3, 5, 7, 11], 1)


async def test_cancel_ends_an_answer_that_would_go_on(runner: Runner) -> None:
    inbox = Inbox()
    runner.open("a", 0, inbox)
    ask(runner, "a", FOREVER)
    await inbox.next()
    runner.cancel("a", 1)
    _, ended = await inbox.answer()
    assert ended.reason is FinishReason.CANCELLED


async def test_no_event_comes_after_close(runner: Runner) -> None:
    closed, other = Inbox(), Inbox()
    runner.open("closed", 0, closed)
    runner.open("other", 0, other)
    ask(runner, "closed", FOREVER)
    await closed.next()
    runner.close("closed")
    known = closed.events.qsize()
    ask(runner, "other", 20)
    await other.answer()
    assert closed.events.qsize() == known


async def test_what_is_asked_of_a_closed_session_is_ignored(runner: Runner) -> None:
    inbox = Inbox()
    runner.open("a", 0, Inbox())
    runner.close("a")
    ask(runner, "a", 5)
    runner.cancel("a", 1)
    await runner.resplit("a", 2)
    runner.close("a")
    runner.open("b", 0, inbox)
    ask(runner, "b", 5)
    assert (await inbox.answer())[0] == answer_alone([3, 5, 7], 5)
    assert runner.ready


async def test_sessions_that_are_gone_leave_nothing_in_the_engine(runner: Runner) -> None:
    assert isinstance(runner.engine, FakeEngine)
    names = [f"session {number}" for number in range(5)]
    inboxes = {name: Inbox() for name in names}
    for number, name in enumerate(names):
        runner.open(name, 0, inboxes[name])
        ask(runner, name, 2 + number)
        await inboxes[name].answer()
        await runner.resplit(name, (2 * number) % 4)
    assert runner.engine._memory.any()
    for name in names[::2] + names[1::2]:
        runner.close(name)
    await runner.stop()
    assert not runner.engine._memory.any()


async def test_a_row_is_overwritten_before_another_session_moves_into_it() -> None:
    class Watched(FakeEngine):
        calls: ClassVar[list[object]] = []

        def clear(self, row: int) -> None:
            self.calls.append(f"clear row {row}")

        def run(self, batch: Batch) -> Float32Array:
            self.calls.append("run")
            return super().run(batch)

    runner = Runner(Watched(SPEC, rows=1, capacity=64))
    runner.start()
    for name in ("first", "second"):
        inbox = Inbox()
        runner.open(name, 0, inbox)
        ask(runner, name, 1)
        await inbox.answer()
        runner.close(name)
    await runner.stop()
    assert Watched.calls == ["run", "clear row 0"] * 2


async def test_stop_ends_the_thread_in_the_middle_of_an_answer() -> None:
    runner = Runner(FakeEngine(SPEC, rows=2, capacity=4096))
    assert not runner.ready
    runner.start()
    assert runner.ready
    inbox = Inbox()
    runner.open("a", 0, inbox)
    ask(runner, "a", FOREVER)
    await inbox.next()
    await runner.stop()
    assert not runner.ready
    assert runner.fault is None


async def test_a_runner_that_never_started_can_be_stopped() -> None:
    await Runner(FakeEngine(SPEC, rows=2, capacity=64)).stop()


@pytest.mark.parametrize("started", [True, False])
def test_with_nobody_to_tell_the_engine_stops_and_says_so(started: bool, caplog: pytest.LogCaptureFixture) -> None:
    """The loop is closed, or the thread was started by another model alone."""
    thread = EngineThread()
    runner = Runner(FakeEngine(SPEC, rows=2, capacity=4096), thread=thread)

    async def begin() -> None:
        (runner if started else thread).start()
        runner.open("a", 0, Inbox())

    asyncio.run(begin())
    ask(runner, "a", 3)
    deadline_s = time.monotonic() + PATIENCE_S
    while runner.ready and time.monotonic() < deadline_s:
        time.sleep(0.005)
    asyncio.run(runner.stop())
    assert isinstance(runner.fault, RuntimeError)
    assert caplog.text.count("the engine stops") == 1


@pytest.fixture
def faults() -> asyncio.Queue[BaseException]:
    return asyncio.Queue()


async def broken_runner(faults: asyncio.Queue[BaseException]) -> Runner:
    """A runner whose engine has failed."""
    runner = Runner(FailingEngine(SPEC, rows=3, capacity=64), on_fault=faults.put_nowait)
    runner.start()
    runner.open("a", 0, Inbox())
    ask(runner, "a", 5)
    assert isinstance(await asyncio.wait_for(faults.get(), PATIENCE_S), MemoryError)
    return runner


async def test_an_engine_that_fails_is_reported_once_and_ends_the_readiness(
    faults: asyncio.Queue[BaseException],
) -> None:
    runner = await broken_runner(faults)
    assert isinstance(runner.fault, MemoryError)
    assert not runner.ready
    runner.close("a")
    await runner.stop()
    assert faults.empty()


async def test_after_a_fault_nothing_is_kept_of_what_peers_go_on_to_send(
    faults: asyncio.Queue[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = await broken_runner(faults)
    waiting: list[object] = []  # for a thread that is busy with another model
    monkeypatch.setattr(runner._thread, "ask", lambda _model, command: waiting.append(command))
    rows = np.zeros(1000, np.int32)
    kept = weakref.ref(rows)
    runner.feed("a", 1, 3, rows)
    del rows
    gc.collect()
    assert kept() is None
    assert not waiting
    monkeypatch.undo()
    await runner.stop()


async def test_a_handler_that_fails_takes_no_event_from_another(runner: Runner) -> None:
    class Broken(Inbox):
        def __call__(self, event: Event) -> None:
            raise RuntimeError("a fault of one connection")

    healthy = Inbox()
    runner.open("broken", 0, Broken())
    runner.open("healthy", 0, healthy)
    ask(runner, "broken", 30)
    ask(runner, "healthy", 10)
    tokens, _ = await healthy.answer()
    assert tokens == answer_alone([3, 5, 7], 10)


async def test_who_watches_hears_of_each_tick_before_its_events() -> None:
    heard: list[object] = []
    runner = Runner(FakeEngine(SPEC, rows=3, capacity=64), on_tick=heard.append)
    runner.start()
    inbox = Inbox()

    def handler(event: Event) -> None:
        heard.append(event)
        inbox(event)

    runner.open("a", 0, handler)
    ask(runner, "a", 3)
    await inbox.answer()
    await runner.stop()
    kinds = ["tick" if isinstance(item, Tick) else type(item).__name__ for item in heard]
    assert kinds == ["tick", "TokenDrawn"] * 3 + ["TurnEnded"]
    ticks = [item for item in heard if isinstance(item, Tick)]
    assert [(tick.sessions, [work.tokens for work in tick.batch.works]) for tick in ticks] == [
        (["a"], [3]),
        (["a"], [1]),
        (["a"], [1]),
    ]
    assert all(0 <= tick.engine_s <= tick.total_s for tick in ticks)


class ListeningEngine(FakeEngine):
    """Computes no batch before the loop has heard the token of the one before."""

    def __init__(self, spec: ModelSpec, rows: int, capacity: int) -> None:
        super().__init__(spec, rows, capacity)
        self.drawn = 0
        self.heard = threading.Semaphore(0)

    def run(self, batch: Batch) -> Float32Array:
        if self.drawn and not self.heard.acquire(timeout=PATIENCE_S):
            raise TimeoutError("the loop was not told before the engine began to compute")
        self.drawn += sum(work.wants_logits for work in batch.works)
        return super().run(batch)


async def test_what_came_of_a_tick_is_told_before_the_next_one_computes() -> None:
    """It waits for that moment, since the thread needs Python until then; never for the end of a computation."""
    engine = ListeningEngine(SPEC, rows=2, capacity=4096)
    runner = Runner(engine)
    runner.start()
    inbox = Inbox()

    def hear(event: Event) -> None:
        inbox(event)
        engine.heard.release()

    runner.open("a", 0, hear)
    runner.begin("a", 1, start=0, prompt_end=3, generation=generation(8))
    runner.feed("a", 1, 0, PROMPT)
    tokens, _ = await inbox.answer()
    assert len(tokens) == 8
    assert engine.drawn == 8
    await runner.stop()


async def test_the_benchmark_of_the_loop_begins_anew_when_rows_are_full() -> None:
    engine = FakeEngine(SPEC, rows=4, capacity=9)  # a prompt and one token; two tokens of each are waited for
    result = await measure_gaps(engine, sessions=3, seconds=0.02)
    assert sum(len(batch.prefill) for batch in engine.batches) >= 6
    assert result["decoding_ms"]["longest"] >= result["decoding_ms"]["median"] >= 0
    assert not engine._memory.any()  # all sessions were closed

"""Several models on one thread: whose tick comes next, and that a fault of one leaves the others alone."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Sequence

import pytest

from splitllm.engine_thread import EngineThread
from splitllm.engines.fake import FakeEngine
from splitllm.policy import in_turn
from splitllm.runner import Runner
from splitllm.types import FinishReason, Float32Array
from splitllm.work import Batch
from tests.unit.test_runner import FOREVER, PATIENCE_S, SPEC, FailingEngine, Inbox, answer_alone, ask


class Noted(FakeEngine):
    """Notes in a list that engines share who runs."""

    def __init__(self, name: str, ran: list[str]) -> None:
        super().__init__(SPEC, rows=6, capacity=4096)
        self._name, self._ran = name, ran

    def run(self, batch: Batch) -> Float32Array:
        self._ran.append(self._name)
        return super().run(batch)


def longest_wait(busy: Sequence[set[int]], models: int) -> int:
    """The most ticks of others between two ticks of a model that had work all the while; `busy`: who has, by tick."""
    last, waits, worst = 0, dict.fromkeys(range(models), 0), 0
    for working in busy:
        last = next(model for model in in_turn(models, last) if model in working)
        waits = {model: 0 if model == last or model not in working else waits[model] + 1 for model in waits}
        worst = max(worst, *waits.values())
    return worst


@pytest.mark.parametrize("models", [1, 2, 3])
def test_a_model_with_work_waits_for_one_tick_of_each_other_at_most(models: int) -> None:
    subsets = [set(some) for size in range(1, models + 1) for some in itertools.combinations(range(models), size)]
    every = list(itertools.product(subsets, repeat=4))
    assert max(longest_wait(busy, models) for busy in every) == models - 1


async def test_models_take_turns_and_each_has_its_own_answers() -> None:
    ran: list[str] = []
    thread = EngineThread()
    runners = {name: Runner(Noted(name, ran), thread=thread) for name in ("a", "b")}
    inboxes = {name: Inbox() for name in runners}
    started = threading.Event()
    thread.ask(runners["a"], started.wait)  # the first to start would answer for the other, whose loop is not known yet
    for name, runner in runners.items():
        runner.open("session", 0, inboxes[name])  # names are each model's own
        ask(runner, "session", 30)
    for runner in runners.values():
        runner.start()
    started.set()
    for inbox in inboxes.values():
        tokens, ended = await inbox.answer()
        assert (tokens, ended.reason) == (answer_alone([3, 5, 7], 30), FinishReason.LENGTH)
    assert ran[:60] in (["a", "b"] * 30, ["b", "a"] * 30)
    for runner in runners.values():
        await runner.stop()
        assert not runner.ready


async def test_a_model_whose_engine_fails_takes_no_other_with_it() -> None:
    thread, faults = EngineThread(), asyncio.Queue[BaseException]()
    broken = Runner(FailingEngine(SPEC, rows=3, capacity=64), on_fault=faults.put_nowait, thread=thread)
    healthy = Runner(FakeEngine(SPEC, rows=3, capacity=4096), thread=thread)
    inbox = Inbox()
    for runner in (broken, healthy):
        runner.start()
        runner.open("session", 0, inbox if runner is healthy else Inbox())
        ask(runner, "session", FOREVER if runner is healthy else 5)
    assert isinstance(await asyncio.wait_for(faults.get(), PATIENCE_S), MemoryError)
    assert (broken.ready, healthy.ready) == (False, True)
    before = inbox.events.qsize()
    for _ in range(before + 5):
        await inbox.next()
    await healthy.stop()

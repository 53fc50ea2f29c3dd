"""A plan that is made late, behind the end of the turn that it was asked for in."""

from __future__ import annotations

import threading

import pytest

from splitllm.bundle import Bundle
from splitllm.engines.fake import FakeEngine
from splitllm.protocol import Kind
from splitllm.types import Float32Array
from splitllm.work import Batch
from tests.chaos.world import serving, until
from tests.integration.test_hostile_http import ServerAt
from tests.integration.test_rough_peers import AGAIN
from tests.integration.test_wire import HELLO, IDS, OPEN, TURN, is_well, peer


class Gate:
    """An engine that runs a batch only when it is let."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.waiting, self._passes, run = 0, threading.Semaphore(0), FakeEngine.run

        def gated(engine: FakeEngine, batch: Batch) -> Float32Array:
            self.waiting += 1
            self._passes.acquire(timeout=30)
            return run(engine, batch)

        monkeypatch.setattr(FakeEngine, "run", gated)

    def let(self, ticks: int) -> None:
        """Let so many batches run."""
        self._passes.release(ticks)


async def test_who_begins_a_turn_before_the_plan_is_there_harms_nobody(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its rows would come to the engine as those of a split that they were not sent for."""
    gate = Gate(monkeypatch)
    async with serving(bundle) as (url, server):
        at = ServerAt(url)
        async with peer(at, HELLO, OPEN) as busy, peer(at, HELLO, OPEN) as bad:
            await bad.say(TURN)
            await busy.say({**TURN, "max_tokens": 9})
            await busy.frame(Kind.IDS, 1, 0, IDS)
            await until(lambda: gate.waiting == 1)
            for message in ({"type": "cancel", "turn": 1}, {**AGAIN, "split": 1}):
                await bad.say(message)
            await until(lambda: server.first.runner._thread._commands.qsize() == 2)
            gate.let(1)
            assert (await bad.hear())["finish_reason"] == "cancelled"
            await until(lambda: gate.waiting == 2)
            await bad.say({**TURN, "turn": 2})
            await bad.frame(Kind.IDS, 2, 0, IDS)
            refusal = await bad.hear()
            assert (refusal["code"], refusal["fatal"]) == ("unexpected_message", True)
            gate.let(99)
            for position in range(4, 13):
                assert (await busy.token())[0] == position
            assert (await busy.hear())["type"] == "done"
        await is_well(at)

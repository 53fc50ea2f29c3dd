"""Hours of bad luck in minutes: a real server process of tiny-chat that is paused and killed, real clients, any fault.

Not part of `make test`: `make soak` runs it, all on loopback, for SPLITLLM_SOAK_S seconds (600 by default) and at most
SPLITLLM_SOAK_ROUNDS rounds. A failure names the seed of its round; SPLITLLM_SOAK_SEED begins with it. What was done
is written as JSON into the file SPLITLLM_SOAK_OUT, if it is given.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from splitllm.bench.machine import describe
from splitllm.client import session
from splitllm.client.conversation import Answer, Conversation
from splitllm.resources import demo_bundle
from splitllm.types import SamplingParams
from tests.chaos.proxy import Fault, Proxy
from tests.chaos.test_chaos import CASES, PHASES
from tests.support import ServerProcess, running_server

SECONDS = float(os.environ.get("SPLITLLM_SOAK_S", "600"))
SEED = int(os.environ.get("SPLITLLM_SOAK_SEED", "1"))
ROUNDS = int(os.environ.get("SPLITLLM_SOAK_ROUNDS", "2000"))
OUT = os.environ.get("SPLITLLM_SOAK_OUT")
QUESTIONS = ("Hello! My name is Ada.", "Tell me a story.", "What is my name?")
SAMPLINGS = (SamplingParams(), SamplingParams(temperature=0.7, top_p=0.9, seed=11))
CLIENTS = 3
#: By how much a server's memory may grow over all rounds that it lives: allocators keep some of what they had.
LEVEL_BYTES = 48 << 20


@dataclass
class Tally:
    """What was done, and what came of it; bytes are a server's, when its first and when its last round was over."""

    machine: dict[str, object]
    first_seed: int
    seconds: float = 0.0
    rounds: int = 0
    answers: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    pauses: int = 0
    connections: int = 0
    servers: int = 0
    killed: int = 0
    rss_bytes: list[tuple[int, int]] = field(default_factory=list)
    failure: str | None = None

    @contextlib.contextmanager
    def written(self) -> Iterator[None]:
        """Print it in the end, and write it where that is wanted."""
        begun = time.monotonic()
        try:
            yield
        except BaseException as error:
            self.failure = f"seed {self.first_seed + self.rounds}: {type(error).__name__} {error}"[:300]
            raise
        finally:
            self.seconds = round(time.monotonic() - begun, 1)
            text = json.dumps(vars(self), indent=1)
            print(text)
            if OUT is not None:
                Path(OUT).write_text(text + "\n", "utf-8")


async def texts(url: str, cache: Path, split: int, sampling: SamplingParams) -> list[str]:
    """The answers to three questions."""
    talk = await Conversation.open(url, cache=cache, split=split, wire="float32")
    told = []
    for question in QUESTIONS:
        async for item in talk.ask(question, max_tokens=40, sampling=sampling):
            if isinstance(item, Answer):
                told.append(item.text)
    await talk.close()
    return told


async def trouble(proxy: Proxy, server: ServerProcess, draw: random.Random, tally: Tally) -> None:
    """Faults on messages; and the whole server is paused now and then."""
    for _ in range(draw.randint(1, 5)):
        phase, way, action = draw.choice(CASES)
        kind, first, last = PHASES[phase][way]
        proxy.faults.append(Fault(action, way, kind, after=draw.randint(first, 3 * last + 1)))
    while True:
        await asyncio.sleep(draw.uniform(0.5, 3))
        tally.pauses += 1
        server.process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(draw.uniform(0.05, 1))
        server.process.send_signal(signal.SIGCONT)


@pytest.mark.timeout(SECONDS + 600)
async def test_whatever_happens_the_texts_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "_STEP_S", 4.0)
    monkeypatch.setattr(session, "_REPLY_S", 4.0)
    monkeypatch.setattr(session, "_PAUSES_S", (0.0, *(0.2,) * 500))
    monkeypatch.setattr(session, "_MOST_LOSSES", 100)
    with running_server(demo_bundle()) as calm:
        quiet = {
            (split, sampling): await texts(calm.url, tmp_path, split, sampling)
            for split in (0, 3, 8)
            for sampling in SAMPLINGS
        }
    ends, seed, tally = time.monotonic() + SECONDS, SEED, Tally(describe(), SEED)
    with tally.written():
        while more := time.monotonic() < ends and tally.rounds < ROUNDS:
            with running_server(demo_bundle(), "--grace-s", "5") as server:
                tally.servers += 1
                async with Proxy(server.url).running() as proxy:
                    memory: list[int] = []
                    killed = False
                    while more and not killed:
                        draw = random.Random(seed)
                        lives = [(draw.choice((0, 3, 8)), draw.choice(SAMPLINGS)) for _ in range(CLIENTS)]
                        proxy.faults.clear()
                        harm = asyncio.create_task(trouble(proxy, server, draw, tally))
                        talks = [asyncio.create_task(texts(proxy.url, tmp_path, *life)) for life in lives]
                        killed = draw.random() < 0.25
                        if killed:  # another takes its place, and knows nothing
                            await asyncio.sleep(draw.uniform(0.5, 2))
                            harm.cancel()
                            proxy.target = ""
                            server.process.kill()
                            proxy.cut()
                            tally.killed += 1
                            tally.servers += 1
                        with running_server(demo_bundle()) if killed else contextlib.nullcontext() as successor:
                            proxy.target = (successor or server).url
                            heard = await asyncio.gather(*talks)
                        harm.cancel()
                        if not killed:
                            server.process.send_signal(signal.SIGCONT)
                            memory.append(server.resident_bytes())
                            assert memory[-1] - memory[0] < LEVEL_BYTES
                        assert heard == [quiet[life] for life in lives]
                        tally.faults.update(fault.action for fault in proxy.faults if fault.done)
                        tally.answers += len(lives) * len(QUESTIONS)
                        tally.rounds, seed = tally.rounds + 1, seed + 1
                        more = time.monotonic() < ends and tally.rounds < ROUNDS
                    tally.connections += proxy.upgrades
                    if memory:
                        tally.rss_bytes.append((memory[0], memory[-1]))
    assert tally.rounds

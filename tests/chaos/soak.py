"""Hours of bad luck in minutes: a real server process of tiny-chat that is paused and killed, real clients, any fault.

Not part of `make test`: `make soak` runs it for SPLITLLM_SOAK_S seconds (600 by default), all on loopback. The seed of
each round is printed, and SPLITLLM_SOAK_SEED begins with it again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import resource
import signal
import time
from pathlib import Path

import pytest

from splitllm.client import session
from splitllm.client.conversation import Answer, Conversation
from splitllm.resources import demo_bundle
from splitllm.types import SamplingParams
from tests.chaos.proxy import Fault, Proxy
from tests.chaos.test_chaos import CASES, PHASES
from tests.support import ServerProcess, running_server

SECONDS = float(os.environ.get("SPLITLLM_SOAK_S", "600"))
SEED = int(os.environ.get("SPLITLLM_SOAK_SEED", "1"))
QUESTIONS = ("Hello! My name is Ada.", "Tell me a story.", "What is my name?")
SAMPLINGS = (SamplingParams(), SamplingParams(temperature=0.7, top_p=0.9, seed=11))
CLIENTS = 3
#: By how much a server's memory may grow over all rounds that it lives: allocators keep some of what they had.
LEVEL_BYTES = 48 << 20


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


def resident_bytes(server: ServerProcess) -> int:
    statm = Path(f"/proc/{server.process.pid}/statm").read_text("ascii")
    return int(statm.split()[1]) * resource.getpagesize()


async def trouble(proxy: Proxy, server: ServerProcess, draw: random.Random) -> None:
    """Faults on messages; and the whole server is paused now and then."""
    for _ in range(draw.randint(1, 5)):
        phase, way, action = draw.choice(CASES)
        kind, first, last = PHASES[phase][way]
        proxy.faults.append(Fault(action, way, kind, after=draw.randint(first, 3 * last + 1)))
    while True:
        await asyncio.sleep(draw.uniform(0.5, 3))
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
    ends, rounds, kills, seed = time.monotonic() + SECONDS, 0, 0, SEED
    while time.monotonic() < ends:
        with running_server(demo_bundle(), "--grace-s", "5") as server:
            async with Proxy(server.url).running() as proxy:
                memory = 0
                killed = False
                while not killed and time.monotonic() < ends:
                    draw = random.Random(seed)
                    lives = [(draw.choice((0, 3, 8)), draw.choice(SAMPLINGS)) for _ in range(CLIENTS)]
                    proxy.faults.clear()
                    harm = asyncio.create_task(trouble(proxy, server, draw))
                    talks = [asyncio.create_task(texts(proxy.url, tmp_path, *life)) for life in lives]
                    killed = draw.random() < 0.25
                    if killed:  # another takes its place, and knows nothing
                        await asyncio.sleep(draw.uniform(0.5, 2))
                        harm.cancel()
                        proxy.target = ""
                        server.process.kill()
                        proxy.cut()
                        kills += 1
                    with running_server(demo_bundle()) if killed else contextlib.nullcontext() as successor:
                        proxy.target = (successor or server).url
                        heard = await asyncio.gather(*talks)
                    harm.cancel()
                    if not killed:
                        server.process.send_signal(signal.SIGCONT)
                        now = resident_bytes(server)
                        memory = memory or now
                        assert now - memory < LEVEL_BYTES, f"seed {seed}"
                    assert heard == [quiet[life] for life in lives], f"seed {seed}"
                    rounds, seed = rounds + 1, seed + 1
    print(f"{rounds} rounds of {CLIENTS} conversations, {kills} servers killed, seeds {SEED} to {seed - 1}")
    assert rounds

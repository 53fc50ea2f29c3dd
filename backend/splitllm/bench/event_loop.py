"""How long the event loop is kept waiting while the engine's thread decodes for 32 sessions behind it."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

import numpy as np

from ..engines.base import Engine
from ..generation import Event, Generation, TokenDrawn, TurnEnded
from ..runner import Runner
from ..types import SamplingParams

_TICK_S: Final = 0.001
_PROMPT: Final = 8


async def measure_gaps(engine: Engine, *, sessions: int, seconds: float) -> dict[str, Any]:
    """Gaps of a timer of 1 ms on the loop, in ms: with the runner idle, and while all sessions decode at split 0.

    What the idle loop shows is the machine's other work; the difference is ours.
    """
    runner = Runner(engine)
    runner.start()
    tokens, begun = 0, asyncio.Event()

    def ask(session: str, turn: int) -> None:
        generation = Generation(SamplingParams(), max_tokens=engine.capacity - _PROMPT, end_tokens=())
        runner.begin(session, turn, start=0, prompt_end=_PROMPT, generation=generation)
        runner.feed(session, turn, 0, np.full(_PROMPT, 7, np.int32))

    def hear(event: Event) -> None:
        nonlocal tokens
        if isinstance(event, TokenDrawn):
            tokens += 1
            if tokens >= 2 * sessions:
                begun.set()
        elif isinstance(event, TurnEnded):  # the row is full: begin anew
            ask(event.session, event.turn + 1)

    try:
        idle = await _gaps(seconds)
        for number in range(sessions):
            runner.open(str(number), 0, hear)
            ask(str(number), 1)
        await begun.wait()
        before, since = tokens, time.perf_counter()
        busy = await _gaps(seconds)
        rate = (tokens - before) / (time.perf_counter() - since)
        for number in range(sessions):
            runner.close(str(number))
    finally:
        await runner.stop()
    return {"sessions": sessions, "idle_ms": idle, "decoding_ms": busy, "tokens_per_s": rate}


async def _gaps(seconds: float) -> dict[str, float]:
    gaps = []
    last = begun = time.perf_counter()
    while last - begun < seconds:
        await asyncio.sleep(_TICK_S)
        now = time.perf_counter()
        gaps.append(1000 * (now - last - _TICK_S))
        last = now
    return {
        "median": float(np.median(gaps)),
        "p99": float(np.percentile(gaps, 99)),
        "longest": max(gaps),
    }

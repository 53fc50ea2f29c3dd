"""Measuring a server for the simulator, through the engine's own seam: what its batches take.

The least of several rounds is taken: other work on the machine only ever adds time. Rounds go over the whole grid, so
that a busy minute spoils no single point.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from ..engines.base import Engine
from ..planner.profile import EngineProfile, Grid
from ..slots import Move
from ..types import PREFILL_CHUNK
from ..work import Batch, Work
from .simulator_engine import ServerModel

DECODE_ROWS: Final = (1, 2, 4, 8, 16, 32, 64)
PREFILL_ROWS: Final = (1, 16, PREFILL_CHUNK)
CONTEXTS: Final = (64, 256, 1024)


def measure_server(
    engine: Engine,
    *,
    made_by: str,
    rounds: int = 5,
    decode_rows: Sequence[int] = DECODE_ROWS,
    contexts: Sequence[int] = CONTEXTS,
    clock: Callable[[], float] = time.perf_counter,
    progress: Callable[[int, int], None] | None = None,
) -> ServerModel:
    """The figures of a server with this engine, which must hold one row more than the largest of `decode_rows`.

    Args:
        engine: freshly loaded; its rows are overwritten.
        made_by: kept with the figures.
        rounds: times that each point is measured.
        decode_rows: sizes of batches; those that the engine cannot hold are left out.
        contexts: earlier positions; those that the engine cannot hold are left out.
        clock: seconds; `time.process_time` counts the processor's time and is deaf to other processes.
        progress: called with (rounds done, rounds).
    """
    blocks = engine.spec.blocks
    rows = [count for count in decode_rows if count <= engine.rows]
    contexts = [context for context in contexts if context + PREFILL_CHUNK <= engine.capacity]
    _fill(engine, max(contexts))
    decode = np.full((len(rows), len(contexts)), np.inf)
    prefill = np.full((len(PREFILL_ROWS), len(contexts) + 1), np.inf)
    head = np.full(len(rows), np.inf)
    copy = np.inf
    for number in range(rounds):
        for (i, count), (j, context) in itertools.product(enumerate(rows), enumerate(contexts)):
            decode[i, j] = min(decode[i, j], _time(engine, _decode(count, context, wants_logits=False), clock))
        for i, count in enumerate(rows):
            with_head = _time(engine, _decode(count, contexts[0], wants_logits=True), clock)
            head[i] = min(head[i], with_head)
        for (i, count), (j, context) in itertools.product(enumerate(PREFILL_ROWS), enumerate((0, *contexts))):
            values = np.ones(count, np.int32)
            batch = Batch(prefill=(Work(0, 0, context, values, wants_logits=False),))
            prefill[i, j] = min(prefill[i, j], _time(engine, batch, clock))
            _restore(engine, max(contexts))
        begun = clock()
        engine.move([Move(0, engine.rows - 1, 0)])
        copy = min(copy, clock() - begun)
        if progress is not None:
            progress(number + 1, rounds)
    head -= decode[:, 0]  # what the same batch takes more with the head
    kv_block_bytes = engine.spec.kv_bytes_per_token()
    copied = blocks * kv_block_bytes * max(contexts)
    return ServerModel(
        EngineProfile(
            decode=Grid.smoothed(rows, contexts, (1000 * decode / blocks).tolist()),
            prefill=Grid.smoothed(PREFILL_ROWS, (0, *contexts), (1000 * prefill / blocks).tolist()),
            head=Grid.smoothed(rows, (0,), np.maximum(1000 * head, 0)[:, None].tolist()),
            kv_block_bytes=kv_block_bytes,
        ),
        blocks=blocks,
        hidden_size=engine.spec.hidden_size,
        copy_bytes_per_ms=copied / max(1000 * copy, 1e-6),
        made_by=made_by,
    )


def _time(engine: Engine, batch: Batch, clock: Callable[[], float]) -> float:
    begun = clock()
    engine.run(batch)
    return clock() - begun


def _decode(count: int, context: int, *, wants_logits: bool) -> Batch:
    token = np.ones(1, np.int32)
    return Batch(decode=tuple(Work(row, 0, context, token, wants_logits) for row in range(count)))


def _fill(engine: Engine, positions: int) -> None:
    """Every row holds keys and values: memory that was never written is not read from where it would be."""
    for position in range(0, positions, PREFILL_CHUNK):
        values = np.ones(min(PREFILL_CHUNK, positions - position), np.int32)
        engine.run(Batch(prefill=(Work(0, 0, position, values, wants_logits=False),)))
    engine.move([Move(0, row, 0) for row in range(1, engine.rows)])


def _restore(engine: Engine, positions: int) -> None:
    """Row 0 counts as long again: a run at an earlier position cut it."""
    engine.run(Batch(decode=(Work(0, 0, positions - 1, np.ones(1, np.int32), wants_logits=False),)))

"""The seam between scheduling and computing.

An engine holds keys and values of many sessions in rows, and runs pieces of work on them. It knows nothing of
connections, turns or sampling. Nothing here assumes that the engine lives in this process.
"""

from __future__ import annotations

import abc
import itertools
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ..planner.profile import EngineProfile
from ..slots import Move
from ..types import BlockTimes, Float32Array, ModelSpec, Span
from ..work import Batch

#: Fewer would save a little more where they run as one, and tell less of where time goes.
_GROUPS: Final = 4


def groups_of(span: Span) -> list[Span]:
    """At most four groups of neighbouring blocks: what time is told by, and what runs as one where that is faster."""
    count = min(_GROUPS, len(span))
    edges = [span.start + len(span) * i // count for i in range(count + 1)] if count else []
    return [Span(start, end) for start, end in itertools.pairwise(edges)]


class Engine(abc.ABC):
    """Runs the blocks `[split, blocks)` and the head for many sessions. Used by one thread at a time."""

    spec: ModelSpec
    rows: int
    capacity: int  # positions a row can hold
    #: Seconds spent so far, float64[2, blocks + 1]: in prefill and in decode, for each block and, last, the head.
    #: Blocks that run as one share its time evenly. The engine's thread adds to it and anybody may read it.
    stage_seconds: NDArray[np.float64]

    @abc.abstractmethod
    def run(self, batch: Batch) -> Float32Array:
        """Compute a batch: logits float32[W, vocab_size] of the W of `batch.works` that want them, in their order.

        The array may be the engine's own, and is valid until the next call. Decode works hold one position each, in
        different rows, which must be sorted by split in row order.

        Raises:
            ValueError: work that lies outside the rows or their capacity (a fault of the caller).
        """

    @abc.abstractmethod
    def move(self, moves: Sequence[Move]) -> None:
        """Copy rows, all at once: each target then holds what its source held before, from the move's split on.

        It holds nothing else: what was there is overwritten. A source that is no target keeps what it holds.
        """

    @abc.abstractmethod
    def clear(self, row: int) -> None:
        """Forget what a row holds and overwrite it, so that no later session can read it."""

    @abc.abstractmethod
    def measure(self) -> BlockTimes:
        """Time blocks and head on this machine. Only while no session is open."""

    def profile(self) -> EngineProfile:
        """What the planner knows of this engine's costs. Only while no session is open.

        Here: every row costs what it costs alone. `profiling.measure_profile` measures any engine in full.
        """
        return EngineProfile.of_times(self.measure(), kv_block_bytes=self.spec.kv_bytes_per_token())

    @abc.abstractmethod
    def close(self) -> None:
        """Give back memory and threads."""


def check_batch(engine: Engine, batch: Batch) -> None:
    """Refuse a batch that would write outside its rows; every engine calls this first.

    Raises:
        ValueError: naming what is wrong.
    """
    rows = [work.row for work in batch.works]
    if len(set(rows)) != len(rows):
        raise ValueError("a row stands twice in one batch")
    for work in batch.works:
        if not 0 <= work.row < engine.rows:
            raise ValueError(f"row {work.row} is outside 0..{engine.rows - 1}")
        if work.position < 0 or work.position + work.tokens > engine.capacity:
            raise ValueError(
                f"positions up to {work.position + work.tokens} are outside the capacity {engine.capacity}"
            )
        expected = (work.tokens,) if work.split == 0 else (work.tokens, engine.spec.hidden_size)
        if work.values.shape != expected or work.tokens < 1:
            raise ValueError(f"work of shape {work.values.shape} where {expected} is needed")
    if any(work.tokens != 1 for work in batch.decode):
        raise ValueError("decode work holds one position")
    order = sorted(batch.decode, key=lambda work: work.row)
    if any(a.split > b.split for a, b in itertools.pairwise(order)):
        raise ValueError("decode rows are not sorted by split")

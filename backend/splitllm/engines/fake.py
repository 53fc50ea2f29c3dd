"""An engine without a model, for tests of what surrounds engines. It obeys the same contract as the real one.

Its "model": a row remembers, per position, a number; an id counts as itself, a hidden row as its first element. The
logits of a position have their peak at (sum of the row's numbers up to it) modulo the vocabulary, so every token
depends on the whole history, and a row that is mixed up with another shows at once.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..slots import Move
from ..types import BlockTimes, Float32Array, ModelSpec
from ..work import Batch, Work
from .base import Engine, check_batch


class FakeEngine(Engine):
    """Deterministic arithmetic in the place of a model."""

    def __init__(self, spec: ModelSpec, rows: int, capacity: int) -> None:
        self.spec, self.rows, self.capacity = spec, rows, capacity
        self.batches: list[Batch] = []
        self.stage_seconds = np.zeros((2, spec.blocks + 1))
        self._memory = np.zeros((rows, capacity), np.float64)

    def run(self, batch: Batch) -> Float32Array:
        """See Engine."""
        check_batch(self, batch)
        self.batches.append(batch)
        peaks = [peak for work in batch.works if (peak := self._run(work)) is not None]
        logits = np.zeros((len(peaks), self.spec.vocab_size), np.float32)
        logits[np.arange(len(peaks)), peaks] = 1.0
        return logits

    def _run(self, work: Work) -> int | None:
        """Where the work's logits have their peak, or None where they are not wanted."""
        numbers = work.values if work.split == 0 else work.values[:, 0]
        end = work.position + work.tokens
        if work.split < self.spec.blocks:
            self._memory[work.row, work.position : end] = numbers
            total = self._memory[work.row, :end].sum()
        else:  # the head alone remembers nothing
            total = float(numbers[-1])
        if not work.wants_logits:
            return None
        return round(float(total)) % self.spec.vocab_size

    def move(self, moves: Sequence[Move]) -> None:
        """See Engine."""
        held = [self._memory[move.source] * (move.split < self.spec.blocks) for move in moves]
        for move, numbers in zip(moves, held, strict=True):
            self._memory[move.target] = numbers

    def clear(self, row: int) -> None:
        """See Engine."""
        self._memory[row] = 0

    def measure(self) -> BlockTimes:
        """See Engine; fixed figures, since nothing is computed."""
        return BlockTimes(block_decode_ms=1.0, block_prefill_ms=4.0, prefill_rows=64, head_ms=1.0)

    def close(self) -> None:
        """See Engine."""

"""The client's part of the model: embedding and the first blocks, on ONNX Runtime."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..bundle import Bundle
from ..engines.onnx import OnnxBlocks
from ..types import PREFILL_CHUNK, ClientReport, Span

_REPEATS = 3


class LocalBlocks:
    """Embedding and blocks `[0, blocks)` for one conversation; a split may use fewer of them."""

    def __init__(self, bundle: Bundle, blocks: int, *, variant: str, capacity: int) -> None:
        """Load the blocks; `capacity` is the number of positions the conversation may have.

        Raises:
            BundleError: a part is missing or cannot be loaded.
        """
        self.blocks, self.variant, self.capacity = blocks, variant, capacity
        self._embedding = bundle.embedding()
        self._runner = OnnxBlocks(bundle, Span(0, blocks), variant=variant, capacity=capacity)

    def forward(self, ids: Sequence[int], position: int, split: int | None = None) -> NDArray[Any]:
        """Hidden states [T, hidden_size] behind `split` blocks (None: all), for T ids that begin at `position`."""
        embedded = np.asarray(self._embedding[np.asarray(ids)], np.float32)
        return self._runner.forward(embedded, position, end=split)

    def measure(self) -> ClientReport:
        """Time one block in prefill and decode; overwrites the conversation, so only before it begins."""
        rows = min(PREFILL_CHUNK, self.capacity - 1)
        prefill = self._time([0] * rows, 0)
        decode = self._time([0], rows)
        return ClientReport(
            backend="cpu",
            variant=self.variant,
            blocks_ready=self.blocks,
            decode_ms=decode,
            prefill_ms=prefill,
            prefill_rows=rows,
        )

    def _time(self, ids: Sequence[int], position: int) -> float:
        """Median milliseconds of one block."""
        times = []
        for _ in range(1 + _REPEATS):
            begin = time.perf_counter()
            self.forward(ids, position)
            times.append(1000 * (time.perf_counter() - begin) / self.blocks)
        return statistics.median(times[1:])

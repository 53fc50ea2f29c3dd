"""This project's engine and sampler, bare: what the server's thread runs, at split 0."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from splitllm.bundle import Bundle
from splitllm.engines.onnx import OnnxEngine
from splitllm.sampler import Draw, Sampler
from splitllm.types import PREFILL_CHUNK, SamplingParams
from splitllm.work import Batch, Work

ROWS, CAPACITY = 34, 1024


class Peer:
    """Sequences of one batch size stand in the engine at a time, plus a last row for prompts."""

    variant = "float32"

    def __init__(self, model: Path, threads: int) -> None:
        bundle = Bundle.open(model, verify=False)
        self.engine = OnnxEngine(
            bundle, rows=ROWS, capacity=CAPACITY, threads=threads, device="cpu", variant=self.variant
        )
        self.sampler = Sampler()
        self.tokens: dict[int, list[int]] = {}
        self.position: dict[int, int] = {}

    def _prompt(self, row: int, ids: list[int]) -> int:
        token = 0
        for first in range(0, len(ids), PREFILL_CHUNK):
            part = np.array(ids[first : first + PREFILL_CHUNK], np.int32)
            last = first + len(part) == len(ids)
            logits = self.engine.run(Batch(prefill=(Work(row, 0, first, part, wants_logits=last),)))
            if last:
                token = self.sampler.draw(logits, [Draw(SamplingParams())])[0]
        return token

    def _first_row(self, batch: int) -> int:
        return 0 if batch > 1 else ROWS - 2

    def open(self, prompts: list[list[int]]) -> None:
        """See worker.py."""
        first = self._first_row(len(prompts))
        self.tokens[len(prompts)] = [self._prompt(first + row, ids) for row, ids in enumerate(prompts)]
        self.position[len(prompts)] = len(prompts[0])

    def step(self, batch: int, steps: int) -> None:
        """See worker.py."""
        first = self._first_row(batch)
        for _ in range(steps):
            position = self.position[batch]
            works = tuple(
                Work(first + row, 0, position, np.array([token], np.int32), True)
                for row, token in enumerate(self.tokens[batch])
            )
            logits = self.engine.run(Batch(decode=works))
            self.tokens[batch] = self.sampler.draw(logits, [Draw(SamplingParams())] * batch)
            self.position[batch] += 1

    def prefill(self, ids: list[int]) -> int:
        """See worker.py."""
        return self._prompt(ROWS - 1, ids)

"""onnxruntime-genai, with the model that its own builder made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime_genai as og

LENGTH = 1024


class Peer:
    """One generator per batch size."""

    def __init__(self, model: Path, threads: int) -> None:
        config = og.Config(str(model))
        config.overlay(
            '{"model": {"decoder": {"session_options": {"intra_op_num_threads": %d}}}}' % threads  # noqa: UP031  # braces
        )
        self.model = og.Model(config)
        self.generators: dict[int, og.Generator] = {}

    def _generator(self, prompts: list[list[int]]) -> og.Generator:
        params = og.GeneratorParams(self.model)
        params.set_search_options(batch_size=len(prompts), max_length=LENGTH, min_length=LENGTH, do_sample=False)
        generator = og.Generator(self.model, params)
        generator.append_tokens(np.array(prompts, np.int32))
        return generator

    def open(self, prompts: list[list[int]]) -> None:
        """See worker.py."""
        self.generators[len(prompts)] = self._generator(prompts)
        self.step(len(prompts), 1)

    def step(self, batch: int, steps: int) -> None:
        """See worker.py."""
        for _ in range(steps):
            self.generators[batch].generate_next_token()

    def prefill(self, ids: list[int]) -> int:
        """See worker.py."""
        generator = self._generator([ids])
        generator.generate_next_token()
        return int(generator.get_next_tokens()[0])

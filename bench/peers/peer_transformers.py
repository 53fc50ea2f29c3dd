"""transformers on PyTorch, float32, its default attention (SDPA) and cache."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM


class Peer:
    """One cache per batch size."""

    def __init__(self, model: Path, threads: int) -> None:
        torch.set_num_threads(threads)
        self.model = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
        self.state: dict[int, tuple[Any, Any]] = {}

    @torch.inference_mode()
    def _forward(self, ids: Any, cache: Any) -> tuple[Any, Any]:
        out = self.model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        return out.logits[:, -1:].argmax(-1), out.past_key_values

    def open(self, prompts: list[list[int]]) -> None:
        """See worker.py."""
        self.state[len(prompts)] = self._forward(torch.tensor(prompts), None)

    def step(self, batch: int, steps: int) -> None:
        """See worker.py."""
        for _ in range(steps):
            self.state[batch] = self._forward(*self.state[batch])

    def prefill(self, ids: list[int]) -> int:
        """See worker.py."""
        return int(self._forward(torch.tensor([ids]), None)[0][0, 0])

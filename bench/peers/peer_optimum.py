"""Optimum's ORTModelForCausalLM on ONNX Runtime, float32, with its own cache and IO binding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnxruntime as ort
import torch
from optimum.onnxruntime import ORTModelForCausalLM


class Peer:
    """One cache per batch size. `model` is what `optimum-cli export onnx` made."""

    def __init__(self, model: Path, threads: int) -> None:
        torch.set_num_threads(threads)
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        self.model = ORTModelForCausalLM.from_pretrained(model, session_options=options, use_io_binding=True)
        self.state: dict[int, tuple[Any, Any]] = {}

    def _forward(self, ids: Any, cache: Any) -> tuple[Any, Any]:
        past = 0 if cache is None else cache[0][0].shape[2]
        mask = torch.ones((ids.shape[0], past + ids.shape[1]), dtype=torch.int64)
        position = torch.arange(past, past + ids.shape[1])[None].expand(ids.shape)
        out = self.model(
            input_ids=ids, attention_mask=mask, position_ids=position, past_key_values=cache, use_cache=True
        )
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

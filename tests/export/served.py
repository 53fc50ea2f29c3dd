"""What a server's engine makes of a bundle, with its blocks joined and one by one."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import numpy as np

from splitllm.bundle import Bundle
from splitllm.engines import base
from splitllm.engines.onnx import OnnxEngine
from splitllm.work import Batch, Work


def joined_error(folder: Path) -> float:
    """The largest difference of logits, when two sessions of different splits get a chunk of a prompt and decode."""
    bundle = Bundle.open(folder)
    spec, logits = bundle.spec, []
    for joined in (True, False):
        with mock.patch.object(base, "_GROUPS", 1):
            engine = OnnxEngine(bundle, rows=2, capacity=16, device="cpu", variant="float32", joined=joined)
        works = [_works(row, split, spec.hidden_size) for row, split in enumerate((0, spec.blocks - 1))]
        for prompt, _ in works:
            logits.append(engine.run(Batch(prefill=(prompt,))).copy())
        logits.append(engine.run(Batch(decode=tuple(step for _, step in works))).copy())
        engine.close()
    half = len(logits) // 2
    return max(float(np.abs(a - b).max()) for a, b in zip(logits[:half], logits[half:], strict=True))


def _works(row: int, split: int, hidden_size: int) -> tuple[Work, Work]:
    """A prompt of six positions, and one that follows."""
    random = np.random.default_rng(row)
    ids = random.integers(3, 60, 7).astype(np.int32)
    hidden = random.standard_normal((7, hidden_size)).astype(np.float32)
    values = hidden if split else ids
    return Work(row, split, 0, values[:6], wants_logits=True), Work(row, split, 6, values[6:], wants_logits=True)

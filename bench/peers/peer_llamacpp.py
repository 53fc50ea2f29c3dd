"""llama.cpp through llama-cpp-python, float32 weights, its own batch of sequences."""

from __future__ import annotations

import ctypes
from pathlib import Path

import llama_cpp
import numpy as np

SEQUENCES, LENGTH = 34, 1024


class Peer:
    """Sequences 0 to 31 are the batch, 32 the single one, 33 prompts. `model` is a GGUF file (see gguf_of.py)."""

    def __init__(self, model: Path, threads: int) -> None:
        llama_cpp.llama_backend_init()
        options = llama_cpp.llama_model_default_params()
        self.model = llama_cpp.llama_model_load_from_file(str(model).encode(), options)
        context = llama_cpp.llama_context_default_params()
        context.n_ctx, context.n_seq_max = SEQUENCES * LENGTH, SEQUENCES
        context.n_batch = context.n_ubatch = 512
        context.n_threads = context.n_threads_batch = threads
        context.type_k = context.type_v = 0  # float32, as everybody's
        self.context = llama_cpp.llama_init_from_model(self.model, context)
        self.vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))
        self.batch = llama_cpp.llama_batch_init(512, 0, 1)
        self.tokens: dict[int, list[int]] = {}
        self.position: dict[int, int] = {}

    def _decode(self, rows: list[tuple[int, int, int, bool]]) -> list[int]:
        """Rows are (token, position, sequence, wants logits); returns the likeliest tokens of those that want them."""
        batch = self.batch
        batch.n_tokens = len(rows)
        for i, (token, position, sequence, wants) in enumerate(rows):
            batch.token[i], batch.pos[i], batch.n_seq_id[i] = token, position, 1
            batch.seq_id[i][0], batch.logits[i] = sequence, wants
        if llama_cpp.llama_decode(self.context, batch) != 0:
            raise RuntimeError("llama_decode failed")
        tokens = []
        for i, row in enumerate(rows):
            if row[3]:
                pointer = llama_cpp.llama_get_logits_ith(self.context, i)
                address = ctypes.cast(pointer, ctypes.POINTER(ctypes.c_float))
                tokens.append(int(np.ctypeslib.as_array(address, (self.vocab,)).argmax()))
        return tokens

    def _prompt(self, sequence: int, ids: list[int]) -> int:
        llama_cpp.llama_memory_seq_rm(llama_cpp.llama_get_memory(self.context), sequence, -1, -1)
        return self._decode([(token, i, sequence, i == len(ids) - 1) for i, token in enumerate(ids)])[0]

    def open(self, prompts: list[list[int]]) -> None:
        """See worker.py."""
        first = 0 if len(prompts) > 1 else 32
        self.tokens[len(prompts)] = [self._prompt(first + row, ids) for row, ids in enumerate(prompts)]
        self.position[len(prompts)] = len(prompts[0])

    def step(self, batch: int, steps: int) -> None:
        """See worker.py."""
        first = 0 if batch > 1 else 32
        for _ in range(steps):
            rows = [(token, self.position[batch], first + row, True) for row, token in enumerate(self.tokens[batch])]
            self.tokens[batch] = self._decode(rows)
            self.position[batch] += 1

    def prefill(self, ids: list[int]) -> int:
        """See worker.py."""
        return self._prompt(33, ids)

"""The blocks of a bundle, run one after the other by ONNX Runtime as a server runs them.

Only one block is in memory at a time: each carries every step of the plan through before the next one is opened.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime

from splitllm.bundle import DTYPES, Bundle
from splitllm.errors import BundleError
from splitllm.types import Float32Array, FloatArray, TokenArray

#: Variants whose weights are `MatMulNBits`.
QUANTIZED: Final = ("int8", "int4", "int4f16")
#: Before the name of a variant: its blocks in the graphs that only servers run.
SERVER: Final = "server."


@dataclass(frozen=True, slots=True)
class Step:
    """Compute `count` positions of rows [row, row + len(past)); `past` is how many each row's cache already holds."""

    row: int
    past: tuple[int, ...]
    count: int

    def positions(self) -> Iterator[tuple[int, int]]:
        """Each row with its first new position."""
        return ((self.row + index, past) for index, past in enumerate(self.past))


@dataclass(frozen=True, slots=True)
class Plan:
    """Token ids of every row, the steps that compute them, and the capacity of the KV buffers."""

    tokens: tuple[TokenArray, ...]
    steps: tuple[Step, ...]
    capacity: int


def make_plan(vocab_size: int, max_context: int, prompt: Sequence[int] = ()) -> Plan:
    """Three rows of different lengths: one prefill each, a second chunk on a past, then decode steps as one batch,
    then a few of the first row alone. The first row reads `prompt` over and over, the last one too, from its middle on;
    the second row is drawn with a fixed seed (all of them without a prompt).
    """
    length = min(max_context, 96)
    tail = max(1, length // 24)
    random = np.random.default_rng(20410)
    rows = [random.integers(0, vocab_size, length, np.int32) for _ in range(3)]
    if prompt:
        rows[0] = np.resize(np.array(prompt, np.int32), length)
        rows[2] = np.resize(np.array(prompt[len(prompt) // 2 :], np.int32), length)
    starts = (length - 2 * tail, length // 2, length // 6)
    steps = []
    for row, start in enumerate(starts):
        first = max(1, start * 5 // 8)
        steps += [Step(row, (0,), first), Step(row, (first,), start - first)]
    steps += [Step(0, tuple(start + i for start in starts), 1) for i in range(tail)]
    steps += [Step(0, (starts[0] + tail + i,), 1) for i in range(tail)]
    tokens = [rows[0], *(rows[row][: starts[row] + tail] for row in (1, 2))]
    return Plan(tuple(tokens), tuple(step for step in steps if step.count), length)


def embed(bundle: Bundle, plan: Plan) -> list[Float32Array]:
    """Input of block 0 for every step: `float32[rows, count, hidden]` each."""
    table = bundle.embedding()
    return [
        np.stack([table[plan.tokens[row][past : past + step.count]] for row, past in step.positions()])
        for step in plan.steps
    ]


def chains_of(bundle: Bundle) -> tuple[str, ...]:
    """What is measured: every variant of the blocks, and `server.<variant>` where servers run graphs of their own."""
    entries = bundle.manifest.blocks[0].items()
    return (*bundle.block_variants, *(f"{SERVER}{variant}" for variant, entry in entries if entry.server_graph))


class BlockRun:
    """One variant of one block, opened once; `variant` is one of `chains_of`."""

    def __init__(self, bundle: Bundle, index: int, variant: str) -> None:
        server, variant = variant.startswith(SERVER), variant.removeprefix(SERVER)
        files = bundle.block(index, variant, server=server)
        self._session = open_session(files.graph, packed=variant in QUANTIZED)
        self._spec, self._dtype = bundle.spec, DTYPES[files.activations]
        self._constants = {
            name: np.array(bundle.constant(constant, files.activations)) for name, constant in files.constants.items()
        }

    def run(self, plan: Plan, inputs: Sequence[Float32Array]) -> list[Float32Array]:
        """Carry every step through the block: past and present are one buffer, bound by pointer."""
        rows = max(step.row + len(step.past) for step in plan.steps)
        shape = (rows, self._spec.kv_heads, plan.capacity, self._spec.head_dim)
        keys, values = np.zeros(shape, self._dtype), np.zeros(shape, self._dtype)
        return [self._step(step, hidden, keys, values) for step, hidden in zip(plan.steps, inputs, strict=True)]

    def _step(self, step: Step, hidden: Float32Array, keys: FloatArray, values: FloatArray) -> Float32Array:
        binding = self._session.io_binding()
        hidden = np.ascontiguousarray(hidden, self._dtype)
        out = np.empty_like(hidden)
        lengths = np.array([past + step.count for past in step.past], np.int32)
        fed = {
            "hidden_states": hidden,
            "seqlens_k": lengths - 1,
            "total_sequence_length": np.array(lengths.max(), np.int32),
            **self._constants,
        }
        for name, array in fed.items():
            _bind(binding.bind_input, name, array)
        for name, buffer in (("key", keys), ("value", values)):
            shared = buffer[step.row : step.row + len(step.past)]
            _bind(binding.bind_input, f"past_{name}", shared)
            _bind(binding.bind_output, f"present_{name}", shared)
        _bind(binding.bind_output, "hidden_states_out", out)
        self._session.run_with_iobinding(binding)
        return out.astype(np.float32, copy=False)


def run_head(bundle: Bundle, hidden: Sequence[Float32Array]) -> list[Float32Array]:
    """Logits `float32[rows, count, vocab]` of every step."""
    session = open_session(bundle.head().graph)
    return [session.run(["logits"], {"hidden_states": states})[0] for states in hidden]


def open_session(graph: Path, *, packed: bool = False) -> Any:
    """An ONNX Runtime session on the CPU that does not spin and does not talk.

    Float weights stay in their mapped files: packed for the kernels they would be in memory once more, a head of a
    large model for 2 GB. Quantized weights are small, and must be `packed` to be computed with as a server does:
    otherwise each run turns the whole matrix back into floats, which takes up to 45 times as long.

    Raises:
        BundleError: the graph or its weights are not what ONNX Runtime reads.
    """
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.disable_prepacking", "0" if packed else "1")
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors share no base class
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise BundleError(f"{graph.name} does not load in ONNX Runtime ({reason})") from error


def _bind(bind: Any, name: str, array: Any) -> None:
    bind(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)

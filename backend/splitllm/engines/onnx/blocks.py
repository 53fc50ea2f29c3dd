"""A span of blocks with their KV buffers: used by servers and by the Python client alike.

One runtime session per block, because only that lets sessions with different splits share a batch; keys and values
live in one buffer per block, which is both `past` and `present`. Nothing is allocated per token: hidden states go back
and forth between two buffers of a `Lane`, and what was bound once to a session stays bound.
"""

from __future__ import annotations

import os
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from ...bundle import DTYPES, BlockFiles, Bundle
from ...types import PREFILL_CHUNK, Span
from ..memory import KvRows, Memory, RowMove, Tensor, host_tensor
from .runtime import bind, load, memory_of, session_options

#: Bindings kept per block: a batch's rows change as sessions come, go and wait, and what was bound comes back soon.
_BINDINGS: Final = 64


@dataclass(frozen=True, slots=True, eq=False)
class Lane:
    """Buffers that hidden states run through: block l reads `hidden[l % 2]` and writes `hidden[(l + 1) % 2]`.

    hidden: two of [rows, hidden_size]. last: int32[rows], index of each row's last position (`seqlens_k`).
    total: int32 scalar on the host, at least the largest length (`total_sequence_length`).
    """

    hidden: tuple[Tensor, Tensor]
    last: Tensor
    total: NDArray[np.int32]


@dataclass(slots=True, eq=False)
class _Block:
    session: ort.InferenceSession
    constants: list[tuple[str, Tensor]]
    key: KvRows
    value: KvRows
    bindings: OrderedDict[tuple[int, int, int, int], Any] = field(default_factory=OrderedDict)


class OnnxBlocks:
    """The blocks of a span, with keys and values for `rows` sessions of `capacity` positions each."""

    def __init__(
        self,
        bundle: Bundle,
        span: Span,
        *,
        variant: str = "float32",
        rows: int = 1,
        capacity: int,
        threads: int | None = None,
        device: str = "cpu",
        memory: Memory | None = None,
        server: bool = False,
    ) -> None:
        """Load the blocks on a device (`cpu` or `cuda`), as a client or as a `server` runs them.

        `memory` is by default that device's.

        Raises:
            BundleError: a graph cannot be loaded, or the bundle lacks the variant.
        """
        spec = bundle.spec
        self.span, self.rows, self.capacity = span, rows, capacity
        self.memory: Memory = memory or memory_of(device)
        self._hidden_size = spec.hidden_size
        options = session_options(threads or os.cpu_count() or 1)
        constants: dict[tuple[str, str], Tensor] = {}
        self._blocks: list[_Block] = []
        for index in range(span.start, span.end):
            files: BlockFiles = bundle.block(index, variant, server=server)
            self.dtype = np.dtype(DTYPES[files.activations])
            named = []
            for name, constant in files.constants.items():
                key = (constant, files.activations)
                if key not in constants:
                    constants[key] = self._resident(bundle.constant(*key))
                named.append((name, constants[key]))
            kv = [self.memory.kv_rows((rows, spec.kv_heads, capacity, spec.head_dim), self.dtype) for _ in range(2)]
            self._blocks.append(_Block(load(files, options, device), named, kv[0], kv[1]))
        self._prefill = self.lane(PREFILL_CHUNK, sequences=1)

    def _resident(self, array: NDArray[Any]) -> Tensor:
        tensor = self.memory.empty(array.shape, array.dtype)
        self.memory.upload(np.ascontiguousarray(array), tensor)
        return tensor

    def lane(self, rows: int, *, sequences: int) -> Lane:
        """Buffers for `rows` hidden rows of up to `sequences` sessions."""
        hidden = [self.memory.empty((rows, self._hidden_size), self.dtype) for _ in range(2)]
        return Lane((hidden[0], hidden[1]), self.memory.empty((sequences,), np.int32), np.zeros((), np.int32))

    def run(self, block: int, lane: Lane, row: int, batch: int, tokens: int = 1) -> None:
        """Run one block on the sessions of the rows `[row, row + batch)`.

        With tokens = 1 the hidden states and `last` of these rows are read from the same rows of the lane; with more,
        batch is 1 and they are read from the lane's beginning.
        """
        entry = self._blocks[block - self.span.start]
        key = (id(lane), row, batch, tokens)
        binding = entry.bindings.get(key)
        if binding is None:
            if len(entry.bindings) >= _BINDINGS:
                entry.bindings.popitem(last=False)
            binding = entry.bindings[key] = self._new_binding(block, entry, lane, row, batch, tokens)
        else:
            entry.bindings.move_to_end(key)
        entry.session.run_with_iobinding(binding)

    def _new_binding(self, block: int, entry: _Block, lane: Lane, row: int, batch: int, tokens: int) -> Any:
        binding = entry.session.io_binding()
        first = 0 if lane is self._prefill else row
        shape = (batch, tokens, self._hidden_size)
        bind(binding.bind_input, "hidden_states", lane.hidden[block % 2], first, shape)
        bind(binding.bind_output, "hidden_states_out", lane.hidden[(block + 1) % 2], first, shape)
        bind(binding.bind_input, "seqlens_k", lane.last, first, (batch,))
        bind(binding.bind_input, "total_sequence_length", host_tensor(lane.total), 0, ())
        for name, constant in entry.constants:
            bind(binding.bind_input, name, constant, 0, constant.shape)
        for name, cache in (("key", entry.key.tensor), ("value", entry.value.tensor)):
            bind(binding.bind_input, f"past_{name}", cache, row, (batch, *cache.shape[1:]))
            bind(binding.bind_output, f"present_{name}", cache, row, (batch, *cache.shape[1:]))
        return binding

    def prefill(
        self,
        hidden: NDArray[Any],
        position: int,
        row: int,
        start: int,
        seconds: NDArray[np.float64] | None = None,
        end: int | None = None,
    ) -> Tensor:
        """Run the blocks `[start, end)` on one session.

        Args:
            hidden: [T, hidden_size] in any float type, the input of block `start`.
            position: that of the first of them.
            row: the session's.
            start: first block to run.
            seconds: float64[>= blocks], to which each block's time is added.
            end: block to stop before; None runs to the span's end.

        Returns:
            [>= T, hidden_size], the states behind the last block; valid until the next call.
        """
        tokens = len(hidden)
        if tokens > self._prefill.hidden[0].shape[0]:
            self._grow(tokens)
        lane, length = self._prefill, position + tokens
        self.memory.upload(np.ascontiguousarray(hidden, self.dtype), lane.hidden[start % 2])
        self.memory.upload(np.array([length - 1], np.int32), lane.last)
        lane.total[()] = length
        end = self.span.end if end is None else end
        for block in range(start, end):
            begun = time.perf_counter()
            self.run(block, lane, row, 1, tokens)
            if seconds is not None:
                seconds[block] += time.perf_counter() - begun
        return lane.hidden[max(start, end) % 2]

    def _grow(self, tokens: int) -> None:
        """Make the prefill lane longer; what was bound to the old one goes with it."""
        old = id(self._prefill)
        for entry in self._blocks:
            for key in [key for key in entry.bindings if key[0] == old]:
                del entry.bindings[key]
        self._prefill = self.lane(tokens, sequences=1)

    def forward(self, hidden: NDArray[Any], position: int, *, row: int = 0, end: int | None = None) -> NDArray[Any]:
        """Run the span's blocks up to `end` on one row: hidden [T, hidden_size] at `position` -> [T, hidden_size]."""
        states = self.prefill(hidden, position, row, self.span.start, end=end)
        return self.memory.download(states, 0, len(hidden))

    def move(self, moves: Mapping[int, Sequence[RowMove]]) -> None:
        """Copy rows, for each block its own."""
        for block, of_block in moves.items():
            entry = self._blocks[block - self.span.start]
            entry.key.move(of_block)
            entry.value.move(of_block)

    def clear(self, row: int, length: int, start: int = 0) -> None:
        """Overwrite the first `length` positions of a row with zeros, in the blocks from `start` on."""
        for entry in self._blocks[max(0, start - self.span.start) :]:
            entry.key.clear(row, length)
            entry.value.clear(row, length)

"""Running blocks with ONNX Runtime: the one file that imports it.

`OnnxBlocks` is a span of blocks with their KV buffers, used by servers and by the Python client alike. `OnnxEngine` is
the server's engine on top of it. One runtime session per block, because only that lets sessions with different splits
share a batch; keys and values live in one buffer per block, which is both `past` and `present`.
"""

from __future__ import annotations

import math
import mmap
import os
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from ..bundle import DTYPES, BlockFiles, Bundle
from ..errors import BundleError
from ..slots import Move
from ..types import PREFILL_CHUNK, BlockTimes, Float32Array, Span
from ..work import Batch, Work
from .base import Engine, check_batch

#: Idle rows between two busy ones are run along rather than starting another run: a run's fixed part costs about as
#: much as 16 to 20 rows (docs/architecture.md, "One batch"), so this stays well on the winning side.
BRIDGED_ROWS: Final = 8
_REPEATS: Final = 5
#: On Linux pages of a private mapping that are not needed read as zeros; elsewhere the advice means other things.
_CAN_GIVE_BACK: Final = sys.platform == "linux"


def _session_options(threads: int) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Spinning threads of dozens of sessions fight for the cores: 607 ms a step with, 34 ms without (30 blocks).
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return options


def _load(files: Any, options: ort.SessionOptions) -> ort.InferenceSession:
    try:
        return ort.InferenceSession(str(files.graph), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime raises its own classes, which share no base below Exception
        raise BundleError(
            f"ONNX Runtime cannot load {files.graph.name} ({str(error).splitlines()[0][:200]}); export the bundle again"
        ) from None


class KvRows:
    """Keys or values of one block for all rows: `array` is [rows, kv_heads, capacity, head_dim].

    The system hands out memory when a page is first written, so a row that was never used costs none; a row that is
    cleared gives its pages back.
    """

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._row_bytes = math.prod(shape[1:]) * dtype.itemsize
        size = max(1, shape[0] * self._row_bytes)
        private = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if _CAN_GIVE_BACK else {}
        self._memory = mmap.mmap(-1, size, **private)
        self.array: NDArray[Any] = np.frombuffer(self._memory, dtype, math.prod(shape)).reshape(shape)

    def clear(self, row: int, length: int) -> None:
        """Overwrite the first `length` positions of a row with zeros, and give its whole pages back."""
        self.array[row, :, :length] = 0
        if _CAN_GIVE_BACK:
            first = -(-row * self._row_bytes // mmap.PAGESIZE) * mmap.PAGESIZE
            end = (row + 1) * self._row_bytes // mmap.PAGESIZE * mmap.PAGESIZE
            if end > first:
                self._memory.madvise(mmap.MADV_DONTNEED, first, end - first)  # reads as zeros from now on


@dataclass(slots=True)
class _Block:
    session: ort.InferenceSession
    constants: list[tuple[str, NDArray[Any]]]
    key: KvRows
    value: KvRows


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
    ) -> None:
        """Load the blocks.

        Raises:
            BundleError: a graph cannot be loaded, or the bundle lacks the variant.
        """
        spec = bundle.spec
        self.span, self.rows, self.capacity = span, rows, capacity
        self._options = _session_options(threads or os.cpu_count() or 1)
        constants: dict[tuple[str, str], NDArray[Any]] = {}
        self._blocks: list[_Block] = []
        for index in range(span.start, span.end):
            files: BlockFiles = bundle.block(index, variant)
            self.dtype = np.dtype(DTYPES[files.activations])
            named = []
            for name, constant in files.constants.items():
                key = (constant, files.activations)
                if key not in constants:
                    constants[key] = np.ascontiguousarray(bundle.constant(*key))
                named.append((name, constants[key]))
            shape = (rows, spec.kv_heads, capacity, spec.head_dim)
            self._blocks.append(
                _Block(_load(files, self._options), named, KvRows(shape, self.dtype), KvRows(shape, self.dtype))
            )

    def run(self, block: int, hidden: NDArray[Any], row: int, lengths: NDArray[np.int32]) -> NDArray[Any]:
        """Run one block on the rows `[row, row + B)`.

        Args:
            block: index of the block in the model.
            hidden: [B, S, hidden_size] in the variant's float type; B = 1 unless S = 1.
            row: first row.
            lengths: int32[B], positions in each row after this step; the S new ones are the last of them.

        Returns:
            [B, S, hidden_size], a new array.
        """
        entry = self._blocks[block - self.span.start]
        batch = hidden.shape[0]
        hidden = np.ascontiguousarray(hidden, self.dtype)
        out = np.empty_like(hidden)
        last = np.ascontiguousarray(lengths - 1, np.int32)
        total = np.array(lengths.max(), np.int32)
        binding = entry.session.io_binding()

        def bind(bind_one: Any, name: str, array: NDArray[Any], first_row: int = 0, rows: int | None = None) -> None:
            shape = array.shape if rows is None else (rows, *array.shape[1:])
            offset = first_row * array.strides[0] if first_row else 0
            bind_one(name, "cpu", 0, array.dtype.type, shape, array.ctypes.data + offset)

        bind(binding.bind_input, "hidden_states", hidden)
        bind(binding.bind_input, "seqlens_k", last)
        bind(binding.bind_input, "total_sequence_length", total)
        for name, constant in entry.constants:
            bind(binding.bind_input, name, constant)
        for name, cache in (("key", entry.key), ("value", entry.value)):
            bind(binding.bind_input, f"past_{name}", cache.array, row, batch)
            bind(binding.bind_output, f"present_{name}", cache.array, row, batch)
        bind(binding.bind_output, "hidden_states_out", out)
        entry.session.run_with_iobinding(binding)
        return out

    def forward(self, hidden: NDArray[Any], position: int, *, row: int = 0) -> NDArray[Any]:
        """Run all blocks of the span on one row: hidden [T, hidden_size] at `position` -> [T, hidden_size]."""
        states = hidden[None]
        lengths = np.array([position + hidden.shape[0]], np.int32)
        for block in range(self.span.start, self.span.end):
            states = self.run(block, states, row, lengths)
        return np.asarray(states[0])

    def copy(self, move: Move, length: int) -> None:
        """Copy the first `length` positions of a row, in the blocks that the row's session uses."""
        for entry in self._blocks[max(0, move.split - self.span.start) :]:
            for cache in (entry.key, entry.value):
                cache.array[move.target, :, :length] = cache.array[move.source, :, :length]

    def clear(self, row: int, length: int) -> None:
        """Overwrite the first `length` positions of a row with zeros."""
        for entry in self._blocks:
            entry.key.clear(row, length)
            entry.value.clear(row, length)


class OnnxEngine(Engine):
    """All blocks and the head of a bundle, for many sessions, on the CPU."""

    def __init__(self, bundle: Bundle, *, rows: int, capacity: int, threads: int | None = None) -> None:
        """Load the bundle's float32 blocks and head.

        Raises:
            BundleError: a part cannot be loaded.
        """
        self.spec, self.rows, self.capacity = bundle.spec, rows, capacity
        threads = threads or os.cpu_count() or 1
        self._blocks = OnnxBlocks(bundle, Span(0, self.spec.blocks), rows=rows, capacity=capacity, threads=threads)
        self._head = _load(bundle.head(), _session_options(threads))
        self._embedding = bundle.embedding()
        self.stage_seconds = np.zeros((2, self.spec.blocks + 1))
        #: Positions that each row holds; tells where an idle row may be written to without harm.
        self._lengths = np.zeros(rows, np.int32)
        #: Highest length a row ever had since it was cleared: what clear() must overwrite.
        self._dirty = np.zeros(rows, np.int32)

    # -- Engine -------------------------------------------------------------------------------------------------------

    def run(self, batch: Batch) -> Sequence[Float32Array | None]:
        """See Engine."""
        check_batch(self, batch)
        last = [self._run_prefill(work) for work in batch.prefill] + self._run_decode(batch.decode)
        wanted = [i for i, work in enumerate(batch.works) if work.wants_logits]
        result: list[Float32Array | None] = [None] * len(last)
        if wanted:
            states = np.stack([last[i] for i in wanted])[:, None]
            begun = time.perf_counter()
            logits = self._head.run(["logits"], {"hidden_states": states})[0]
            of_prefill = sum(i < len(batch.prefill) for i in wanted) / len(wanted)
            self.stage_seconds[:, -1] += (time.perf_counter() - begun) * np.array([of_prefill, 1 - of_prefill])
            for row, i in enumerate(wanted):
                result[i] = logits[row, 0]
        return result

    def move(self, moves: Sequence[Move]) -> None:
        """See Engine."""
        for move in moves:
            length = int(self._lengths[move.source])
            self._blocks.copy(move, length)
            self._lengths[move.target] = length
            self._dirty[move.target] = max(self._dirty[move.target], length)

    def clear(self, row: int) -> None:
        """See Engine."""
        self._blocks.clear(row, int(self._dirty[row]) + 1)  # one more: an idle row is written behind its end
        self._lengths[row] = self._dirty[row] = 0

    def measure(self) -> BlockTimes:
        """See Engine: medians over a few runs, after one that warms up, in row 0."""
        chunk = min(PREFILL_CHUNK, self.capacity - 1)
        hidden = np.zeros((1, chunk, self.spec.hidden_size), np.float32)
        lengths = np.array([chunk], np.int32)
        prefill = _median_ms(lambda: self._blocks.run(0, hidden, 0, lengths))
        decode = _median_ms(lambda: self._blocks.run(0, hidden[:, :1], 0, lengths + 1))
        head = _median_ms(lambda: self._head.run(["logits"], {"hidden_states": hidden[:, :1]}))
        self._dirty[0] = chunk + 1
        self.clear(0)
        return BlockTimes(decode, prefill, chunk, head)

    def close(self) -> None:
        """See Engine."""
        self._blocks = self._head = None  # type: ignore[assignment]  # the runtime frees what nobody holds

    # -- pieces -------------------------------------------------------------------------------------------------------

    def _input(self, work: Work) -> Float32Array:
        """Input of block `split`, float32[T, hidden_size]."""
        if work.split == 0:
            return np.asarray(self._embedding[work.values], np.float32)
        return work.values.astype(np.float32)

    def _note(self, row: int, length: int) -> None:
        self._lengths[row] = length
        self._dirty[row] = max(self._dirty[row], length)

    def _run_prefill(self, work: Work) -> Float32Array:
        states = self._input(work)[None]
        lengths = np.array([work.position + work.tokens], np.int32)
        for block in range(work.split, self.spec.blocks):
            begun = time.perf_counter()
            states = self._blocks.run(block, states, work.row, lengths)
            self.stage_seconds[0, block] += time.perf_counter() - begun
        self._note(work.row, int(lengths[0]))
        return np.asarray(states[0, -1])

    def _run_decode(self, works: Sequence[Work]) -> list[Float32Array]:
        """Last states float32[hidden_size] of each work, in the order given."""
        if not works:
            return []
        by_row = sorted(works, key=lambda work: work.row)
        for work in by_row:
            self._note(work.row, work.position)  # a truncated row is shorter than it was
        rows = by_row[-1].row + 1
        states = np.zeros((rows, 1, self.spec.hidden_size), np.float32)
        for work in by_row:
            states[work.row, 0] = self._input(work)[0]
        lengths = self._lengths[:rows] + 1  # idle rows are written behind their end, where nobody reads
        joined = 0
        for block in range(self.spec.blocks):
            while joined < len(by_row) and by_row[joined].split <= block:
                joined += 1
            begun = time.perf_counter()
            for first, end in self._runs(by_row[:joined]):
                states[first:end] = self._blocks.run(block, states[first:end], first, lengths[first:end])
            self.stage_seconds[1, block] += time.perf_counter() - begun
        for work in by_row:
            self._note(work.row, work.position + 1)
        return [states[work.row, 0] for work in works]

    def _runs(self, by_row: Sequence[Work]) -> Iterator[tuple[int, int]]:
        """Half-open ranges of rows to run, so that every work is in one and few idle rows are run along."""
        first = end = None
        for work in by_row:
            if first is None or end is None:
                first, end = work.row, work.row + 1
            elif work.row - end <= BRIDGED_ROWS and not np.any(self._lengths[end : work.row] >= self.capacity):
                end = work.row + 1
            else:
                yield first, end
                first, end = work.row, work.row + 1
        if first is not None and end is not None:
            yield first, end


def _median_ms(call: Any) -> float:
    call()
    times = []
    for _ in range(_REPEATS):
        begin = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - begin))
    return statistics.median(times)

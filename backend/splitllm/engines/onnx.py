"""Running blocks with ONNX Runtime: the one file that imports it.

`OnnxBlocks` is a span of blocks with their KV buffers, used by servers and by the Python client alike. `OnnxEngine` is
the server's engine on top of it. One runtime session per block, because only that lets sessions with different splits
share a batch; keys and values live in one buffer per block, which is both `past` and `present`.

Nothing is allocated per token: hidden states go back and forth between two buffers of a `Lane`, and what was bound
once to a session stays bound (see OnnxBlocks.run).
"""

from __future__ import annotations

import os
import statistics
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import onnxruntime as ort
from numpy.typing import DTypeLike, NDArray

from ..bundle import DTYPES, BlockFiles, Bundle
from ..errors import BundleError
from ..slots import Move
from ..types import PREFILL_CHUNK, BlockTimes, Float32Array, Span
from ..work import Batch, Work
from .base import Engine, check_batch
from .decode_rows import joint_runs
from .memory import HostMemory, KvRows, Memory, Tensor, host_tensor

_REPEATS: Final = 5
#: Bindings kept per block: a batch's rows change as sessions come, go and wait, and what was bound comes back soon.
_BINDINGS: Final = 64


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


def _bind(bind: Callable[..., None], name: str, tensor: Tensor, first: int, shape: Sequence[int]) -> None:
    """Bind the part of a tensor that begins at index `first` of its first axis."""
    bind(name, tensor.device, 0, tensor.dtype.type, list(shape), tensor.pointer + first * tensor.row_bytes)


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
        memory: Memory | None = None,
    ) -> None:
        """Load the blocks.

        Raises:
            BundleError: a graph cannot be loaded, or the bundle lacks the variant.
        """
        spec = bundle.spec
        self.span, self.rows, self.capacity = span, rows, capacity
        self.memory: Memory = memory or HostMemory()
        self._hidden_size = spec.hidden_size
        options = _session_options(threads or os.cpu_count() or 1)
        constants: dict[tuple[str, str], Tensor] = {}
        self._blocks: list[_Block] = []
        for index in range(span.start, span.end):
            files: BlockFiles = bundle.block(index, variant)
            self.dtype = np.dtype(DTYPES[files.activations])
            named = []
            for name, constant in files.constants.items():
                key = (constant, files.activations)
                if key not in constants:
                    constants[key] = self._resident(bundle.constant(*key))
                named.append((name, constants[key]))
            kv = [self.memory.kv_rows((rows, spec.kv_heads, capacity, spec.head_dim), self.dtype) for _ in range(2)]
            self._blocks.append(_Block(_load(files, options), named, kv[0], kv[1]))
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
        _bind(binding.bind_input, "hidden_states", lane.hidden[block % 2], first, shape)
        _bind(binding.bind_output, "hidden_states_out", lane.hidden[(block + 1) % 2], first, shape)
        _bind(binding.bind_input, "seqlens_k", lane.last, first, (batch,))
        _bind(binding.bind_input, "total_sequence_length", host_tensor(lane.total), 0, ())
        for name, constant in entry.constants:
            _bind(binding.bind_input, name, constant, 0, constant.shape)
        for name, cache in (("key", entry.key.tensor), ("value", entry.value.tensor)):
            _bind(binding.bind_input, f"past_{name}", cache, row, (batch, *cache.shape[1:]))
            _bind(binding.bind_output, f"present_{name}", cache, row, (batch, *cache.shape[1:]))
        return binding

    def prefill(
        self,
        hidden: NDArray[Any],
        position: int,
        row: int,
        start: int,
        seconds: NDArray[np.float64] | None = None,
    ) -> Tensor:
        """Run the blocks `[start, span.end)` on one session.

        Args:
            hidden: [T, hidden_size] in any float type, the input of block `start`.
            position: that of the first of them.
            row: the session's.
            start: first block to run.
            seconds: float64[>= blocks], to which each block's time is added.

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
        for block in range(start, self.span.end):
            begun = time.perf_counter()
            self.run(block, lane, row, 1, tokens)
            if seconds is not None:
                seconds[block] += time.perf_counter() - begun
        return lane.hidden[max(start, self.span.end) % 2]

    def _grow(self, tokens: int) -> None:
        """Make the prefill lane longer; what was bound to the old one goes with it."""
        old = id(self._prefill)
        for entry in self._blocks:
            for key in [key for key in entry.bindings if key[0] == old]:
                del entry.bindings[key]
        self._prefill = self.lane(tokens, sequences=1)

    def forward(self, hidden: NDArray[Any], position: int, *, row: int = 0) -> NDArray[Any]:
        """Run all blocks of the span on one row: hidden [T, hidden_size] at `position` -> [T, hidden_size]."""
        return self.memory.download(self.prefill(hidden, position, row, self.span.start), 0, len(hidden))

    def copy(self, move: Move, length: int) -> None:
        """Copy the first `length` positions of a row, in the blocks that the row's session uses."""
        for entry in self._blocks[max(0, move.split - self.span.start) :]:
            entry.key.copy(move.source, move.target, length)
            entry.value.copy(move.source, move.target, length)

    def clear(self, row: int, length: int) -> None:
        """Overwrite the first `length` positions of a row with zeros."""
        for entry in self._blocks:
            entry.key.clear(row, length)
            entry.value.clear(row, length)


class OnnxEngine(Engine):
    """All blocks and the head of a bundle, for many sessions."""

    def __init__(self, bundle: Bundle, *, rows: int, capacity: int, threads: int | None = None) -> None:
        """Load the bundle's float32 blocks and head.

        Raises:
            BundleError: a part cannot be loaded.
        """
        self.spec, self.rows, self.capacity = bundle.spec, rows, capacity
        threads = threads or os.cpu_count() or 1
        self._blocks = OnnxBlocks(bundle, Span(0, self.spec.blocks), rows=rows, capacity=capacity, threads=threads)
        self._memory = self._blocks.memory
        self._lane = self._blocks.lane(rows, sequences=rows)
        self._staging = np.zeros((rows, self.spec.hidden_size), self._blocks.dtype)
        self._head = _Head(_load(bundle.head(), _session_options(threads)), self._memory, self.spec, rows)
        self._embedding = bundle.embedding()
        self.stage_seconds = np.zeros((2, self.spec.blocks + 1))
        #: Positions that each row holds; tells where an idle row may be written to without harm.
        self._lengths = np.zeros(rows, np.int32)
        #: Highest length a row ever had since it was cleared: what clear() must overwrite.
        self._dirty = np.zeros(rows, np.int32)

    # -- Engine -------------------------------------------------------------------------------------------------------

    def run(self, batch: Batch) -> Float32Array:
        """See Engine."""
        check_batch(self, batch)
        wanted = 0
        for work in batch.prefill:
            states = self._run_prefill(work)
            if work.wants_logits:
                self._memory.copy_rows(states, work.tokens - 1, self._head.states, wanted, 1)
                wanted += 1
        if batch.decode:
            states = self._run_decode(batch.decode)
            rows = [work.row for work in batch.decode if work.wants_logits]
            for first, count, at in _pieces(rows):
                self._memory.copy_rows(states, first, self._head.states, wanted + at, count)
            wanted += len(rows)
        return self._run_head(wanted, of_prefill=wanted - sum(work.wants_logits for work in batch.decode))

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
        blocks, chunk = self._blocks, min(PREFILL_CHUNK, self.capacity - 1)
        hidden = np.zeros((chunk, self.spec.hidden_size), np.float32)
        last = self.spec.blocks - 1
        prefill = _median_ms(lambda: blocks.prefill(hidden, 0, 0, last))
        decode = _median_ms(lambda: blocks.prefill(hidden[:1], chunk, 0, last))
        head = _median_ms(lambda: self._head.run(1))
        self._dirty[0] = chunk + 1
        self.clear(0)
        return BlockTimes(decode, prefill, chunk, head)

    def close(self) -> None:
        """See Engine."""
        self._blocks = self._head = self._lane = None  # type: ignore[assignment]  # the runtime frees what nobody holds

    # -- pieces -------------------------------------------------------------------------------------------------------

    def _run_prefill(self, work: Work) -> Tensor:
        hidden = self._embedding[work.values] if work.split == 0 else work.values
        states = self._blocks.prefill(hidden, work.position, work.row, work.split, self.stage_seconds[0])
        self._lengths[work.row] = work.position + work.tokens
        self._dirty[work.row] = max(self._dirty[work.row], self._lengths[work.row])
        return states

    def _run_decode(self, works: Sequence[Work]) -> Tensor:
        """States behind the last block, at each work's row."""
        by_row = sorted(works, key=lambda work: work.row)
        rows = np.array([work.row for work in by_row])
        count, positions = int(rows[-1]) + 1, np.array([work.position for work in by_row], np.int32)
        self._lengths[rows] = positions  # a truncated row is shorter than it was
        self._stage(by_row, count)
        # Block l writes rows of sessions that have joined by l only, so in whichever buffer the block reads at which a
        # session joins, its row is still what was put there.
        for buffer in self._lane.hidden:
            self._memory.upload(self._staging[:count], buffer)
        # An idle row runs as its next position: it is written behind its end, where nobody reads.
        self._memory.upload(self._lengths[:count], self._lane.last)
        self._lane.total[()] = min(self._lengths[:count].max() + 1, self.capacity)
        full = self._lengths >= self.capacity  # an idle row without that place cannot be run along
        splits = [work.split for work in by_row]
        joined, runs = 0, []
        for block in range(self.spec.blocks):
            if joined < len(by_row) and splits[joined] <= block:
                while joined < len(by_row) and splits[joined] <= block:
                    joined += 1
                runs = joint_runs(rows[:joined].tolist(), full)
            begun = time.perf_counter()
            for first, end in runs:
                self._blocks.run(block, self._lane, first, end - first)
            self.stage_seconds[1, block] += time.perf_counter() - begun
        self._lengths[rows] = positions + 1
        self._dirty[rows] = np.maximum(self._dirty[rows], positions + 1)
        return self._lane.hidden[self.spec.blocks % 2]

    def _run_head(self, wanted: int, *, of_prefill: int) -> Float32Array:
        begun = time.perf_counter()
        logits = self._head.run(wanted)
        if wanted:
            share = of_prefill / wanted
            self.stage_seconds[:, -1] += (time.perf_counter() - begun) * np.array([share, 1 - share])
        return logits

    def _stage(self, by_row: Sequence[Work], count: int) -> None:
        """Gather the works' inputs on the host; idle rows are zeros, so that no row computes on another's states."""
        self._staging[:count] = 0
        ids = [work for work in by_row if work.split == 0]
        if ids:
            table = self._embedding[np.fromiter((int(work.values[0]) for work in ids), np.int64, len(ids))]
            self._staging[[work.row for work in ids]] = table
        for work in by_row[len(ids) :]:  # sorted by split, so those of split 0 come first
            self._staging[work.row] = work.values[0]


class _Head:
    """The head with its input and output buffers, for up to `rows` states at once."""

    def __init__(self, session: ort.InferenceSession, memory: Memory, spec: Any, rows: int) -> None:
        dtype: DTypeLike = np.float16 if "float16" in session.get_inputs()[0].type else np.float32
        self.states = memory.empty((rows, spec.hidden_size), dtype)
        self._session, self._rows = session, rows
        self._logits = np.zeros((rows, spec.vocab_size), dtype)
        self._bindings: dict[int, Any] = {}

    def run(self, count: int) -> Float32Array:
        """Logits float32[count, vocab_size] of the first `count` states; valid until the next call."""
        logits = self._logits[:count]
        if count == 0:
            return np.asarray(logits, np.float32)
        if count not in self._bindings:
            binding = self._session.io_binding()
            _bind(binding.bind_input, "hidden_states", self.states, 0, (count, 1, self.states.shape[1]))
            _bind(binding.bind_output, "logits", host_tensor(self._logits), 0, (count, 1, self._logits.shape[1]))
            self._bindings[count] = binding
        self._session.run_with_iobinding(self._bindings[count])
        return np.asarray(logits, np.float32)


def _pieces(rows: Sequence[int]) -> list[tuple[int, int, int]]:
    """Runs of consecutive numbers in a list, as (first number, how many, index of the first in the list)."""
    pieces: list[tuple[int, int, int]] = []
    for at, row in enumerate(rows):
        if pieces and row == pieces[-1][0] + pieces[-1][1]:
            first, count, index = pieces[-1]
            pieces[-1] = (first, count + 1, index)
        else:
            pieces.append((row, 1, at))
    return pieces


def _median_ms(call: Callable[[], object]) -> float:
    call()
    times = []
    for _ in range(_REPEATS):
        begin = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - begin))
    return statistics.median(times)

"""The server's engine: all blocks and the head, for many sessions."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import onnxruntime as ort
from numpy.typing import DTypeLike

from ...bundle import Bundle
from ...slots import Move
from ...types import PREFILL_CHUNK, BlockTimes, Float32Array, ModelSpec, Span
from ...work import Batch, Work
from .. import huge_pages
from ..base import Engine, check_batch
from ..decode_rows import BRIDGED_ROWS, joining, joint_runs
from ..memory import Memory, RowMove, Tensor, host_tensor
from .blocks import OnnxBlocks
from .choice import choose
from .runtime import bind, load, session_options

_REPEATS: Final = 5


class OnnxEngine(Engine):
    """All blocks and the head of a bundle, for many sessions."""

    def __init__(
        self,
        bundle: Bundle,
        *,
        rows: int,
        capacity: int,
        threads: int | None = None,
        device: str = "auto",
        variant: str | None = None,
        head_variant: str | None = None,
        memory: Memory | None = None,
        joined: bool | None = None,
    ) -> None:
        """Load the bundle's blocks and head on a device: `auto`, `cpu` or `cuda`.

        Variants, and whether blocks are `joined` in groups, are what `choose` finds unless given; `memory` is by
        default the device's.

        Raises:
            BundleError: a part cannot be loaded, or the bundle lacks the variant.
            MachineError: the device was asked for by name and cannot be used.
        """
        self.spec, self.rows, self.capacity = bundle.spec, rows, capacity
        self.choice = choose(bundle, device, variant, head_variant)
        self.device = self.choice.device
        self.bridged_rows = BRIDGED_ROWS
        threads = threads or os.cpu_count() or 1
        self._blocks = OnnxBlocks(
            bundle,
            Span(0, self.spec.blocks),
            variant=self.choice.blocks,
            rows=rows,
            capacity=capacity,
            threads=threads,
            device=self.device,
            memory=memory,
            server=True,
            joined=self.choice.joined if joined is None else joined,
        )
        self._memory = self._blocks.memory
        self._lane = self._blocks.lane(rows, sequences=rows)
        self._staging = np.zeros((rows, self.spec.hidden_size), self._blocks.dtype)
        head = load(bundle.head(self.choice.head), session_options(threads), self.device)
        self._head = _Head(head, self._memory, self.spec, rows)
        if self.spec.blocks * bundle.block_bytes(self.choice.blocks) >= huge_pages.WORTHWHILE:
            huge_pages.collapse()
        self._embedding = bundle.embedding()
        self.stage_seconds = np.zeros((2, self.spec.blocks + 1))
        #: Positions that each row holds; tells where an idle row may be written to without harm.
        self._lengths = np.zeros(rows, np.int32)
        #: Positions of a row that may hold something since it was cleared: what clear() must overwrite.
        self._dirty = np.zeros(rows, np.int32)
        #: Lowest block that a row was written in since it was cleared.
        self._lowest = np.full(rows, self.spec.blocks, np.int32)

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
        """See Engine.

        What a longer session leaves behind a shorter one goes back to the system where it is more than the shorter one
        holds: pages come at a price, and so a row keeps up to twice what it needs.
        """
        held = [(int(self._lengths[move.source]), int(self._lowest[move.source])) for move in moves]
        by_block: dict[int, list[RowMove]] = {}
        after: list[tuple[int, int, int]] = []  # length, written, lowest of each target
        for move, (length, lowest) in zip(moves, held, strict=True):
            first, used_from, used = max(move.split, lowest), int(self._lowest[move.target]), self._written(move.target)
            give_back = used > 2 * length
            for block in range(min(first, used_from), self.spec.blocks):
                if block < first or move.source != move.target:
                    kept, stale = length * (block >= first), used * (block >= used_from)
                    by_block.setdefault(block, []).append(
                        RowMove(move.source, move.target, kept, stale, give_back or not kept)
                    )
            after.append((length, length if give_back else max(length, used), first))
        self._blocks.move(by_block)
        for move, state in zip(moves, after, strict=True):
            self._lengths[move.target], self._dirty[move.target], self._lowest[move.target] = state

    def clear(self, row: int) -> None:
        """See Engine."""
        self._blocks.clear(row, self._written(row), int(self._lowest[row]))
        self._lengths[row] = self._dirty[row] = 0
        self._lowest[row] = self.spec.blocks

    def _written(self, row: int) -> int:
        """Positions of a row that may hold something: an idle row is written one behind its end."""
        return min(int(self._dirty[row]) + 1, self.capacity)

    def measure(self) -> BlockTimes:
        """See Engine: medians over a few runs of the last group, after one that warms up, in row 0."""
        blocks, chunk = self._blocks, min(PREFILL_CHUNK, self.capacity - 1)
        hidden = np.zeros((chunk, self.spec.hidden_size), np.float32)
        group = blocks.groups[-1]
        prefill = _median_ms(lambda: blocks.prefill(hidden, 0, 0, group.start)) / len(group)
        decode = _median_ms(lambda: blocks.prefill(hidden[:1], chunk, 0, group.start)) / len(group)
        head = _median_ms(lambda: self._head.run(1))
        self._dirty[0], self._lowest[0] = chunk + 1, group.start
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
        self._lowest[work.row] = min(self._lowest[work.row], work.split)
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
        splits, pieces = np.array([work.split for work in by_row]), []
        for first, end in joint_runs(rows.tolist(), full, self.bridged_rows):
            inside = slice(*np.searchsorted(rows, (first, end)))
            joins = joining(rows[inside] - first, splits[inside])
            np.minimum(self._lowest[first:end], joins, out=self._lowest[first:end])
            pieces.append((first, np.searchsorted(joins, np.arange(self.spec.blocks), side="right")))
        for group, blocks in enumerate(self._blocks.groups):
            begun = time.perf_counter()
            for first, counts in pieces:
                if counts[blocks.end - 1]:
                    self._blocks.run(group, self._lane, first, tuple(counts[blocks.start : blocks.end].tolist()))
            ran = slice(max(blocks.start, splits[0]), blocks.end)
            if ran.start < ran.stop:
                self.stage_seconds[1, ran] += (time.perf_counter() - begun) / (ran.stop - ran.start)
        self._lengths[rows] = positions + 1
        self._dirty[rows] = np.maximum(self._dirty[rows], positions + 1)
        return self._blocks.result(self._lane)

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

    def __init__(self, session: ort.InferenceSession, memory: Memory, spec: ModelSpec, rows: int) -> None:
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
            bind(binding.bind_input, "hidden_states", self.states, 0, (count, 1, self.states.shape[1]))
            bind(binding.bind_output, "logits", host_tensor(self._logits), 0, (count, 1, self._logits.shape[1]))
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

"""A span of blocks with their KV buffers: used by servers and by the Python client alike.

Sessions of different splits share a batch. They join the others at their first block: between two runs, or within one
where several blocks run as a group (joined.py). Keys and values live in one buffer per block, which is both `past` and
`present`. Nothing is allocated per token: hidden states go back and forth between two buffers of a `Lane`, and what was
bound once to a session stays bound.
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

from ...bundle import DTYPES, Bundle
from ...types import PREFILL_CHUNK, Span
from ..base import groups_of
from ..memory import KvRows, Memory, RowMove, Tensor, host_tensor
from .joined import constant_name, join, name_in
from .runtime import bind, load, load_joined, memory_of, session_options

#: Bindings kept per group: a batch's rows change as sessions come, go and wait, and what was bound comes back soon.
_BINDINGS: Final = 64
#: What a joined graph is told of a block: whether it runs.
_SKIP_OR_RUN: Final = host_tensor(np.array([False, True]))


@dataclass(frozen=True, slots=True, eq=False)
class Lane:
    """Buffers that hidden states run through: group g reads `hidden[g % 2]` and writes `hidden[(g + 1) % 2]`.

    hidden: two of [rows, hidden_size]. last: int32[rows], index of each row's last position (`seqlens_k`).
    total: int32 scalar on the host, at least the largest length (`total_sequence_length`).
    """

    hidden: tuple[Tensor, Tensor]
    last: Tensor
    total: NDArray[np.int32]


@dataclass(slots=True, eq=False)
class _Group:
    """Blocks that one session runs: a block's own graph, or several joined.

    constants: by the names of the graph's inputs.
    """

    blocks: Span
    joined: bool
    session: ort.InferenceSession
    constants: dict[str, Tensor]
    bindings: OrderedDict[tuple[int, int, tuple[int, ...], int], Any] = field(default_factory=OrderedDict)


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
        joined: bool = False,
    ) -> None:
        """Load the blocks on a device (`cpu` or `cuda`), as a client or as a `server` runs them.

        `memory` is by default that device's. With `joined`, blocks run in groups: faster, but none can be the last but
        those that end a group.

        Raises:
            BundleError: a graph cannot be loaded, or the bundle lacks the variant.
        """
        spec = bundle.spec
        self.span, self.rows, self.capacity = span, rows, capacity
        self.memory: Memory = memory or memory_of(device)
        self._hidden_size = spec.hidden_size
        threads = threads or os.cpu_count() or 1
        constants: dict[tuple[str, str], Tensor] = {}
        self._groups: list[_Group] = []
        #: Blocks that run at once, in their order.
        self.groups = groups_of(span) if joined else [Span(b, b + 1) for b in range(span.start, span.end)]
        #: Keys and values of each block.
        self.kv: list[tuple[KvRows, KvRows]] = []
        for blocks in self.groups:
            parts = {b: bundle.block(b, variant, server=server) for b in range(blocks.start, blocks.end)}
            named: dict[str, Tensor] = {}
            for files in parts.values():
                self.dtype = np.dtype(DTYPES[files.activations])
                for name, constant in files.constants.items():
                    key = (constant, files.activations)
                    if key not in constants:
                        constants[key] = self._resident(bundle.constant(*key))
                    named[constant_name(constant) if joined else name] = constants[key]
            session = (
                load_joined(*join(parts), bundle.folder, threads, device)
                if joined
                else load(parts[blocks.start], session_options(threads), device)
            )
            self._groups.append(_Group(blocks, joined, session, named))
            shape = (rows, spec.kv_heads, capacity, spec.head_dim)
            for _ in parts:
                self.kv.append((self.memory.kv_rows(shape, self.dtype), self.memory.kv_rows(shape, self.dtype)))
        self._prefill = self.lane(PREFILL_CHUNK, sequences=1)

    def _resident(self, array: NDArray[Any]) -> Tensor:
        tensor = self.memory.empty(array.shape, array.dtype)
        self.memory.upload(np.ascontiguousarray(array), tensor)
        return tensor

    def lane(self, rows: int, *, sequences: int) -> Lane:
        """Buffers for `rows` hidden rows of up to `sequences` sessions."""
        hidden = [self.memory.empty((rows, self._hidden_size), self.dtype) for _ in range(2)]
        return Lane((hidden[0], hidden[1]), self.memory.empty((sequences,), np.int32), np.zeros((), np.int32))

    def run(self, group: int, lane: Lane, row: int, counts: tuple[int, ...], tokens: int = 1) -> None:
        """Run a group on the rows from `row` on, each block on as many as `counts` says, which never fall.

        With tokens = 1 the hidden states and `last` of these rows are read from the same rows of the lane; with more,
        no block has more than one row and they are read from the lane's beginning. Rows that join at a later block are
        read from the group's input all the same. In a group of several, blocks may have no rows.
        """
        entry = self._groups[group]
        key = (id(lane), row, counts, tokens)
        binding = entry.bindings.get(key)
        if binding is None:
            if len(entry.bindings) >= _BINDINGS:
                entry.bindings.popitem(last=False)
            binding = entry.bindings[key] = self._new_binding(group, lane, row, counts, tokens)
        else:
            entry.bindings.move_to_end(key)
        entry.session.run_with_iobinding(binding)

    def _new_binding(self, group: int, lane: Lane, row: int, counts: tuple[int, ...], tokens: int) -> Any:
        entry, before = self._groups[group], 0
        binding = entry.session.io_binding()
        first = 0 if lane is self._prefill else row
        source, target = lane.hidden[group % 2], lane.hidden[(group + 1) % 2]
        bind(binding.bind_input, "total_sequence_length", host_tensor(lane.total), 0, ())
        for name, constant in entry.constants.items():
            bind(binding.bind_input, name, constant, 0, constant.shape)
        for block, count in zip(range(entry.blocks.start, entry.blocks.end), counts, strict=True):
            prefix = name_in(block, "") if entry.joined else ""
            joins = prefix + "joins" if entry.joined else "hidden_states"
            bind(binding.bind_input, joins, source, first + before, (count - before, tokens, self._hidden_size))
            bind(binding.bind_input, prefix + "seqlens_k", lane.last, first, (count,))
            if entry.joined:
                bind(binding.bind_input, prefix + "runs", _SKIP_OR_RUN, int(count > 0), ())
            for name, rows in zip(("key", "value"), self.kv[block - self.span.start], strict=True):
                shape = (count, *rows.tensor.shape[1:])
                bind(binding.bind_input, f"{prefix}past_{name}", rows.tensor, row, shape)
                bind(binding.bind_output, f"{prefix}present_{name}", rows.tensor, row, shape)
            before = count
        bind(binding.bind_output, f"{prefix}hidden_states_out", target, first, (before, tokens, self._hidden_size))
        return binding

    def result(self, lane: Lane) -> Tensor:
        """What the last group has written."""
        return lane.hidden[len(self._groups) % 2]

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
            seconds: float64[>= blocks], to which each block's time is added; blocks of a group share its time evenly.
            end: block to stop before, which begins a group; None runs to the span's end.

        Returns:
            [>= T, hidden_size], the states behind the last block; valid until the next call.
        """
        tokens = len(hidden)
        if tokens > self._prefill.hidden[0].shape[0]:
            self._grow(tokens)
        lane, length = self._prefill, position + tokens
        end = self.span.end if end is None else end
        groups = [i for i, blocks in enumerate(self.groups) if start < blocks.end and blocks.start < end]
        source = groups[0] if groups else 0
        self.memory.upload(np.ascontiguousarray(hidden, self.dtype), lane.hidden[source % 2])
        self.memory.upload(np.array([length - 1], np.int32), lane.last)
        lane.total[()] = length
        for group in groups:
            blocks, begun = self._groups[group].blocks, time.perf_counter()
            self.run(group, lane, row, tuple(int(b >= start) for b in range(blocks.start, blocks.end)), tokens)
            if seconds is not None:
                ran = slice(max(start, blocks.start), blocks.end)
                seconds[ran] += (time.perf_counter() - begun) / (ran.stop - ran.start)
        return lane.hidden[(source + len(groups)) % 2]

    def _grow(self, tokens: int) -> None:
        """Make the prefill lane longer; what was bound to the old one goes with it."""
        old = id(self._prefill)
        for entry in self._groups:
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
            for rows in self.kv[block - self.span.start]:
                rows.move(of_block)

    def clear(self, row: int, length: int, start: int = 0) -> None:
        """Overwrite the first `length` positions of a row with zeros, in the blocks from `start` on."""
        for block in range(max(self.span.start, start), self.span.end):
            for rows in self.kv[block - self.span.start]:
                rows.clear(row, length)

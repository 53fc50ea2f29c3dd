"""Where an engine's numbers lie. `HostMemory` is the computer's own; engines for other devices bring their own.

Everything the runtime reads or writes is bound by pointer, so both kinds hand out tensors with an address.
"""

from __future__ import annotations

import math
import mmap
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

#: On Linux pages of a private mapping that are not needed read as zeros; elsewhere the advice means other things.
_CAN_GIVE_BACK: Final = sys.platform == "linux"


@dataclass(frozen=True, slots=True)
class Tensor:
    """Memory with a shape, at an address of a device. `owner` keeps it alive."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    device: str
    pointer: int
    owner: Any

    @property
    def row_bytes(self) -> int:
        """Bytes from one index of the first axis to the next."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize


#: In place of a row: memory for one row beside the buffer.
ASIDE: Final = -1


@dataclass(frozen=True, slots=True)
class RowMove:
    """`target` is to hold the first `length` positions of `source`, and zeros in the rest of the first `used` ones.

    give_back: whether memory of that rest is to go back to the system, as far as it can.
    """

    source: int
    target: int
    length: int
    used: int = 0
    give_back: bool = False


def one_by_one(moves: Sequence[RowMove]) -> list[RowMove]:
    """Moves that happen at once, as moves one after the other; where rows go in a ring, one is put ASIDE first."""
    left = {move.target: move for move in moves}
    readers = Counter(move.source for move in moves)
    ordered = []
    while left:
        target = next((row for row in left if not readers[row]), None)
        if target is None:
            target = next(iter(left))
            waiting = [move for move in left.values() if move.source == target]
            ordered.append(RowMove(target, ASIDE, max(move.length for move in waiting)))
            for move in waiting:
                left[move.target] = replace(move, source=ASIDE)
        move = left.pop(target)
        readers[move.source] -= 1
        ordered.append(move)
    return ordered


class KvRows(Protocol):
    """Keys or values of one block for all rows, [rows, kv_heads, capacity, head_dim]; all zeros when made."""

    @property
    def tensor(self) -> Tensor:
        """The whole buffer."""

    def move(self, moves: Sequence[RowMove]) -> None:
        """Copy rows, all at once: each target then holds what its source held before the call."""

    def clear(self, row: int, length: int) -> None:
        """Overwrite (at least) the first `length` positions of a row with zeros."""


class Memory(Protocol):
    """Memory of one device."""

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> Tensor:
        """Memory for an array, all zeros."""

    def kv_rows(self, shape: tuple[int, ...], dtype: DTypeLike) -> KvRows:
        """Memory for keys or values: [rows, kv_heads, capacity, head_dim]."""

    def upload(self, array: NDArray[Any], target: Tensor) -> None:
        """Fill the first rows of `target` with a C-contiguous host array of its dtype."""

    def copy_rows(self, source: Tensor, first: int, target: Tensor, to: int, count: int) -> None:
        """Copy `count` rows (indices of the first axis) from one tensor of this memory to another."""

    def download(self, source: Tensor, first: int, count: int) -> NDArray[Any]:
        """A host copy of the rows `[first, first + count)`."""


def host_tensor(array: NDArray[Any]) -> Tensor:
    """A C-contiguous array as a tensor; both share the memory."""
    return Tensor(array.shape, array.dtype, "cpu", array.ctypes.data, array)


class HostKvRows:
    """KvRows in the computer's own memory: `array` is [rows, kv_heads, capacity, head_dim].

    The system hands out memory when a page is first written, so a row that was never used costs none; a row that is
    cleared gives its pages back.
    """

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any], aside: NDArray[Any] | None = None) -> None:
        """`aside`: one row, [kv_heads, capacity, head_dim], all zeros between calls; buffers may share it."""
        self._aside = np.zeros(shape[1:], dtype) if aside is None else aside
        self._row_bytes = math.prod(shape[1:]) * dtype.itemsize
        size = max(1, shape[0] * self._row_bytes)
        private = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if _CAN_GIVE_BACK else {}
        self._memory = mmap.mmap(-1, size, **private)
        self._bytes = np.frombuffer(self._memory, np.uint8)
        self.array: NDArray[Any] = self._bytes[: math.prod(shape) * dtype.itemsize].view(dtype).reshape(shape)
        self.tensor = host_tensor(self.array)

    def move(self, moves: Sequence[RowMove]) -> None:
        """See KvRows."""
        put_aside = 0
        for move in one_by_one(moves):
            target, source = self._row(move.target), self._row(move.source)
            target[:, : move.length] = source[:, : move.length]
            if move.target == ASIDE:
                put_aside = max(put_aside, move.length)
            elif move.used > move.length and move.give_back:
                self._give_back(move.target, move.length, move.used)
            else:
                target[:, move.length : move.used] = 0
        self._aside[:, :put_aside] = 0

    def _row(self, row: int) -> NDArray[Any]:
        return self._aside if row == ASIDE else self.array[row]

    def clear(self, row: int, length: int) -> None:
        """Overwrite the first `length` positions of a row with zeros, and give its whole pages back."""
        if _CAN_GIVE_BACK:
            self._zero_bytes(row * self._row_bytes, (row + 1) * self._row_bytes)
        else:
            self.array[row, :, :length] = 0

    def _give_back(self, row: int, start: int, end: int) -> None:
        """Zeros in the positions `[start, end)`."""
        if not _CAN_GIVE_BACK:
            self.array[row, :, start:end] = 0
            return
        heads, capacity = self.array.shape[1:3]
        position = self._row_bytes // (heads * capacity)
        for head in range(heads):
            base = row * self._row_bytes + head * capacity * position
            self._zero_bytes(base + start * position, base + end * position)

    def _zero_bytes(self, start: int, end: int) -> None:
        """Whole pages go back, and read as zeros from now on; what lies beside them is overwritten."""
        first, last = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE, end // mmap.PAGESIZE * mmap.PAGESIZE
        if first >= last:
            self._bytes[start:end] = 0
            return
        self._bytes[start:first] = 0
        self._bytes[last:end] = 0
        self._memory.madvise(mmap.MADV_DONTNEED, first, last - first)


class HostMemory:
    """The computer's own memory."""

    def __init__(self) -> None:
        self._aside: dict[tuple[tuple[int, ...], np.dtype[Any]], NDArray[Any]] = {}

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> Tensor:
        """See Memory."""
        return host_tensor(np.zeros(shape, dtype))

    def kv_rows(self, shape: tuple[int, ...], dtype: DTypeLike) -> HostKvRows:
        """See Memory."""
        key = (shape[1:], np.dtype(dtype))
        return HostKvRows(shape, key[1], self._aside.setdefault(key, np.zeros(*key)))

    def upload(self, array: NDArray[Any], target: Tensor) -> None:
        """See Memory."""
        target.owner[: len(array)] = array

    def copy_rows(self, source: Tensor, first: int, target: Tensor, to: int, count: int) -> None:
        """See Memory."""
        target.owner[to : to + count] = source.owner[first : first + count]

    def download(self, source: Tensor, first: int, count: int) -> NDArray[Any]:
        """See Memory."""
        return np.array(source.owner[first : first + count])

"""Where an engine's numbers lie. `HostMemory` is the computer's own; engines for other devices bring their own.

Everything the runtime reads or writes is bound by pointer, so both kinds hand out tensors with an address.
"""

from __future__ import annotations

import math
import mmap
import sys
from dataclasses import dataclass
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


class KvRows(Protocol):
    """Keys or values of one block for all rows, [rows, kv_heads, capacity, head_dim]; all zeros when made."""

    @property
    def tensor(self) -> Tensor:
        """The whole buffer."""

    def copy(self, source: int, target: int, length: int) -> None:
        """Copy (at least) the first `length` positions of a row to another."""

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

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._row_bytes = math.prod(shape[1:]) * dtype.itemsize
        size = max(1, shape[0] * self._row_bytes)
        private = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if _CAN_GIVE_BACK else {}
        self._memory = mmap.mmap(-1, size, **private)
        self.array: NDArray[Any] = np.frombuffer(self._memory, dtype, math.prod(shape)).reshape(shape)
        self.tensor = host_tensor(self.array)

    def copy(self, source: int, target: int, length: int) -> None:
        """See KvRows."""
        self.array[target, :, :length] = self.array[source, :, :length]

    def clear(self, row: int, length: int) -> None:
        """Overwrite the first `length` positions of a row with zeros, and give its whole pages back."""
        self.array[row, :, :length] = 0
        if _CAN_GIVE_BACK:
            first = -(-row * self._row_bytes // mmap.PAGESIZE) * mmap.PAGESIZE
            end = (row + 1) * self._row_bytes // mmap.PAGESIZE * mmap.PAGESIZE
            if end > first:
                self._memory.madvise(mmap.MADV_DONTNEED, first, end - first)  # reads as zeros from now on


class HostMemory:
    """The computer's own memory."""

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> Tensor:
        """See Memory."""
        return host_tensor(np.zeros(shape, dtype))

    def kv_rows(self, shape: tuple[int, ...], dtype: DTypeLike) -> HostKvRows:
        """See Memory."""
        return HostKvRows(shape, np.dtype(dtype))

    def upload(self, array: NDArray[Any], target: Tensor) -> None:
        """See Memory."""
        target.owner[: len(array)] = array

    def copy_rows(self, source: Tensor, first: int, target: Tensor, to: int, count: int) -> None:
        """See Memory."""
        target.owner[to : to + count] = source.owner[first : first + count]

    def download(self, source: Tensor, first: int, count: int) -> NDArray[Any]:
        """See Memory."""
        return np.array(source.owner[first : first + count])

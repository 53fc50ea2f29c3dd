"""Weights on huge pages: every token reads all of them, and with pages of 4 KiB a good part of that is finding them.

Linux moves memory that is in use to huge pages on request, once, and leaves what is allocated later alone
(`MADV_COLLAPSE`, madvise(2), Linux 6.1). KV rows thus keep small pages, and what is cleared goes back at once.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

#: Blocks of fewer bytes stay in the caches of a processor, or near enough.
WORTHWHILE: Final = 32 << 20
_COLLAPSE: Final = 25  # MADV_COLLAPSE, which the mmap module does not name
#: Of the small pages that a huge one replaces, so many must be in use: it takes memory for the others too.
_IN_USE: Final = 0.9
_HUGE_SIZE: Final = Path("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size")
_MAPS: Final = Path("/proc/self/maps")


def collapse() -> int:
    """Move this process's own memory that is in use to huge pages; how many bytes the system was asked to move.

    Where it cannot or will not, all stays as it is. Takes about a second for a gigabyte.
    """
    try:
        huge, maps = int(_HUGE_SIZE.read_text()), _MAPS.read_text()
    except (OSError, ValueError):
        return 0  # not Linux, or built without huge pages
    libc, asked = ctypes.CDLL(None), 0
    if trim := getattr(libc, "malloc_trim", None):  # glibc's
        trim(0)  # what loading has left free goes back, rather than into huge pages
    for start, end in _own(maps):
        pages = -(-start // huge) * huge
        count = (end - pages) // huge
        if count <= 0:
            continue
        resident = np.zeros((count, huge // mmap.PAGESIZE), np.uint8)
        if libc.mincore(ctypes.c_void_p(pages), ctypes.c_size_t(count * huge), ctypes.c_void_p(resident.ctypes.data)):
            continue  # unmapped since
        for index, length in _runs((resident & 1).mean(1) >= _IN_USE):
            size = length * huge
            libc.madvise(ctypes.c_void_p(pages + index * huge), ctypes.c_size_t(size), _COLLAPSE)
            asked += size
    return asked


def _own(maps: str) -> Iterator[tuple[int, int]]:
    """Private writable memory with no file behind it, from the text of proc_pid_maps(5): start and end."""
    for line in maps.splitlines():
        span, mode, _, _, inode, *name = line.split(None, 5)
        if mode == "rw-p" and inode == "0" and name in ([], ["[heap]"]):
            start, _, end = span.partition("-")
            yield int(start, 16), int(end, 16)


def _runs(wanted: NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    """Where runs of True begin, and how long they are."""
    edges = np.flatnonzero(np.diff(wanted.astype(np.int8), prepend=0, append=0)).tolist()
    yield from ((begin, end - begin) for begin, end in zip(edges[::2], edges[1::2], strict=True))

"""Memory in use moves to huge pages with what it holds; memory that is only reserved stays reserved."""

import mmap
from pathlib import Path

import numpy as np

from splitllm.engines import huge_pages
from splitllm.engines.huge_pages import _own, _runs


def test_what_is_in_use_keeps_its_contents_and_what_is_not_takes_no_memory() -> None:
    size = 64 << 20
    used, sparse = mmap.mmap(-1, size // 4, mmap.MAP_PRIVATE), mmap.mmap(-1, size, mmap.MAP_PRIVATE)
    numbers = np.frombuffer(used, np.int64)
    numbers[:] = np.arange(len(numbers))
    np.frombuffer(sparse, np.uint8)[:: 1 << 20] = 1  # a page in each MiB
    before = _resident()
    asked = huge_pages.collapse()
    grown = _resident() - before
    assert grown < size // 4
    assert np.array_equal(numbers, np.arange(len(numbers)))
    if huge_pages._HUGE_SIZE.exists():
        assert asked >= size // 4 - 2 * int(huge_pages._HUGE_SIZE.read_text())


def test_only_private_writable_memory_without_a_file_is_the_process_s_own() -> None:
    maps = """\
00400000-00401000 r-xp 00000000 fe:00 17                                 /usr/bin/python3
01c8f000-0bb70000 rw-p 00000000 00:00 0                                  [heap]
7f00a0000000-7f00b0000000 rw-p 00000000 00:00 0
7f00b0000000-7f00b0001000 ---p 00000000 00:00 0
7f00c0000000-7f00c7000000 r--p 00000000 fe:00 99                         /srv/a model/embed.float32.bin
7f00d0000000-7f00d7000000 rw-s 00000000 00:01 2064                       /dev/zero (deleted)
7ffd1a2b3000-7ffd1a2d4000 rw-p 00000000 00:00 0                          [stack]
"""
    assert list(_own(maps)) == [(0x1C8F000, 0xBB70000), (0x7F00A0000000, 0x7F00B0000000)]


def test_neighbours_are_asked_for_together() -> None:
    assert list(_runs(np.array([True, False, True, True, True, False, True]))) == [(0, 1), (2, 3), (6, 1)]
    assert list(_runs(np.array([False]))) == []


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE

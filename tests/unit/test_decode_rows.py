"""Which rows run together."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitllm.engines.decode_rows import joining, joint_runs

FREE = np.zeros(64, bool)


@pytest.mark.parametrize(
    ("busy", "runs"),
    [
        ([], []),
        ([5], [(5, 6)]),
        ([0, 1, 2], [(0, 3)]),
        ([0, 4], [(0, 5)]),  # three idle rows between
        ([0, 5], [(0, 1), (5, 6)]),  # four
        ([0, 3, 9, 10], [(0, 4), (9, 11)]),
    ],
)
def test_up_to_so_many_idle_rows_are_run_along(busy: list[int], runs: list[tuple[int, int]]) -> None:
    assert joint_runs(busy, FREE, 3) == runs


def test_an_idle_row_without_a_free_position_is_never_run_along() -> None:
    full = FREE.copy()
    full[2] = True
    assert joint_runs([0, 1, 3, 4], full, 8) == [(0, 2), (3, 5)]
    assert joint_runs([1, 2, 3], full, 8) == [(1, 4)]  # busy, and about to be refused elsewhere if it were full


@given(st.sets(st.integers(0, 63)), st.sets(st.integers(0, 63)), st.integers(0, 20))
@settings(deadline=None)
def test_every_busy_row_is_in_exactly_one_run_and_no_full_idle_one_is(
    busy: set[int], full: set[int], bridged: int
) -> None:
    flags = np.array([row in full for row in range(64)])
    runs = joint_runs(sorted(busy), flags, bridged)
    covered = [row for first, end in runs for row in range(first, end)]
    assert len(covered) == len(set(covered))
    assert busy <= set(covered)
    assert not (set(covered) - busy) & full
    assert all(first in busy and end - 1 in busy for first, end in runs)


@settings(max_examples=200, deadline=None)
@given(
    st.sets(st.integers(0, 40), min_size=1),
    st.lists(st.integers(0, 6), min_size=41, max_size=41).map(sorted),
    st.sets(st.integers(0, 40)),
)
def test_rows_that_join_run_as_if_each_block_s_rows_were_looked_for_by_themselves(
    rows: set[int], splits: list[int], full: set[int]
) -> None:
    """Runs of all rows, cut at each block to those that have joined, are the runs of those that have joined."""
    busy, occupied = np.array(sorted(rows)), np.isin(np.arange(64), sorted(full))
    first_blocks = np.array(splits[: len(busy)])
    runs = joint_runs(busy.tolist(), occupied, 3)
    inside = [(first, (busy >= first) & (busy < end)) for first, end in runs]
    joins = [(first, joining(busy[mask] - first, first_blocks[mask])) for first, mask in inside]
    for block in range(7):
        counts = [(first, int((of_run <= block).sum())) for first, of_run in joins]
        cut = [(first, first + count) for first, count in counts if count]
        assert cut == joint_runs(busy[first_blocks <= block].tolist(), occupied, 3)

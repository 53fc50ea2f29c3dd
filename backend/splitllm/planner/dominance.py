"""Which partial placements are worth keeping: the Pareto fronts of the label search.

A label is (objective, reduced objective, one total per resource). On one side, a label dominates another when
its objective is less, no resource is more, and it has crossed no more often: whatever completes the other completes
it, for less. Labels come in ascending order of their objectives, which are all different.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from operator import le
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Label = tuple[int, ...]
#: A label and its state; among labels of one side, the larger state has crossed more often.
Entry = tuple[Label, int]

_FIRST: Final = 2  # where the resources begin in a label
_FEW: Final = 16
_BLOCK: Final = 256
_LONGEST: Final = 1 << 62  # totals below this are compared as 64-bit integers


def undominated(entries: Sequence[Entry]) -> Sequence[Entry]:
    """Those of the sorted `entries` that no earlier one dominates, in order."""
    if len(entries) < 2:
        return entries
    resources = len(entries[0][0]) - _FIRST
    if resources < 2:
        return _least_by_state(entries)
    if resources == 2:
        return _staircases(entries)
    return _compared(entries) if len(entries) < _FEW else _compared_in_blocks(entries)


def _least_by_state(entries: Sequence[Entry]) -> list[Entry]:
    """No resource or one: the least total so far, for each state."""
    kept = []
    least: dict[int, int] = {}
    for label, state in entries:
        total = label[_FIRST] if len(label) > _FIRST else 0
        if all(total < other for rival, other in least.items() if rival <= state):
            least[state] = total
            kept.append((label, state))
    return kept


def _staircases(entries: Sequence[Entry]) -> list[Entry]:
    """Two resources: for each state the undominated pairs, firsts ascending and seconds descending."""
    kept = []
    stairs: dict[int, tuple[list[int], list[int]]] = {}
    for label, state in entries:
        first, second = label[_FIRST], label[_FIRST + 1]
        for rival, (firsts, seconds) in stairs.items():
            if rival <= state:
                at = bisect_right(firsts, first)
                if at and seconds[at - 1] <= second:
                    break
        else:
            kept.append((label, state))
            firsts, seconds = stairs.setdefault(state, ([], []))
            at = end = bisect_right(firsts, first)
            if at and firsts[at - 1] == first:
                at -= 1
            while end < len(seconds) and seconds[end] >= second:
                end += 1
            firsts[at:end] = [first]
            seconds[at:end] = [second]
    return kept


def _compared(entries: Sequence[Entry]) -> list[Entry]:
    kept: list[Entry] = []
    front: list[Label] = []
    for label, state in entries:
        totals = (*label[_FIRST:], state)
        if not any(all(map(le, better, totals)) for better in front):
            front.append(totals)
            kept.append((label, state))
    return kept


def _compared_in_blocks(entries: Sequence[Entry]) -> list[Entry]:
    """Many entries: compare block by block with the front found so far."""
    totals = [(*label[_FIRST:], state) for label, state in entries]
    points = np.array(totals, dtype=np.int64 if max(map(max, totals)) < _LONGEST else object)
    front = points[:0]
    kept: list[Entry] = []
    for start in range(0, len(entries), _BLOCK):
        block = points[start : start + _BLOCK]
        alive = ~_at_most(front, block).any(axis=0)
        block = block[alive]
        alone = ~np.triu(_at_most(block, block), 1).any(axis=0)
        front = np.concatenate([front, block[alone]])
        kept += [entries[number] for number in (start + np.flatnonzero(alive)[alone]).tolist()]
    return kept


def _at_most(better: NDArray[Any], worse: NDArray[Any]) -> NDArray[np.bool_]:
    """bool[better, worse]: whether the one is at most the other in every column."""
    matched = np.ones((len(better), len(worse)), dtype=np.bool_)
    for column in range(worse.shape[1]):
        matched &= (better[:, None, column] <= worse[None, :, column]).astype(np.bool_, copy=False)
    return matched

"""Which rows of a batch one run of a block takes. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

#: What engines take for `bridged`; section `idle_rows` of `splitllm bench engine` shows where the gain ends.
BRIDGED_ROWS: Final = 4


def joint_runs(busy: Sequence[int], full: NDArray[Any], bridged: int) -> list[tuple[int, int]]:
    """Half-open ranges of rows to run, so that every busy row is in one and few idle rows are run along.

    Args:
        busy: rows with work, ascending.
        bridged: idle rows between two busy ones that are run along rather than starting another run.
        full: bool[rows]; idle rows that have no free position, and so must not be run along.
    """
    runs: list[tuple[int, int]] = []
    for row in busy:
        if runs:
            first, end = runs[-1]
            if row - end <= bridged and not (row > end and full[end:row].any()):
                runs[-1] = (first, row + 1)
                continue
        runs.append((row, row + 1))
    return runs


def joining(busy: NDArray[Any], splits: NDArray[Any]) -> NDArray[Any]:
    """The block at which each row of a run joins it, int[last busy row + 1]: an idle row joins with the next busy one.

    Args:
        busy: int[N], rows with work, ascending, counted from the run's first.
        splits: int[N], first block of each, ascending.
    """
    return splits[np.searchsorted(busy, np.arange(busy[-1] + 1))]

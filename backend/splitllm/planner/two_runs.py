"""Up to four crossings: every pair of runs on the server, compared by matrices.

With at most four crossings the server works in at most two runs of consecutive stages, and all totals are additive: a
placement costs what the client alone costs, plus one difference per run. There are about n²/2 runs and n⁴/24 pairs of
runs that leave a stage between them, 3.5 million for 96 stages: few enough to compare them all, whatever the limits,
so the time has a bound that a search over labels does not have (`tests/unit/planner/test_two_runs.py`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

import numpy as np
from numpy.typing import NDArray

from .exact import Axis, Tables
from .problem import Placement, Problem, Side

#: Longer problems, which `problem_from_json` refuses, have too many pairs (n⁴/24) and go to the label search.
MOST_STAGES: Final = 512
_LONGEST: Final = 1 << 62

_Integers = NDArray[np.int64]
#: Primary and secondary totals, then first start, -first end, second start, -second end: ties as `dp` decides them.
_Key = tuple[int, int, int, int, int, int]


@dataclass(frozen=True, slots=True)
class _Column:
    """One quantity over the runs, in units of the greatest common divisor of its entries."""

    added: _Integers  # what each run adds to the total of the client alone
    slack: int  # what the runs may add together; 0 and unused without a limit


@dataclass(frozen=True, slots=True)
class RunTable:
    """What every run of stages on the server adds; the runs are in ascending order of their starts, then ends."""

    problem: Problem
    starts: _Integers
    ends: _Integers
    latency: tuple[_Column, ...]
    cost: _Column
    weighted: _Column
    memory: _Column
    far_pins: _Column

    @classmethod
    def of(cls, tables: Tables) -> RunTable | None:
        """Tabulate all runs that the pins allow; None where totals are longer than 64 bits or stages too many."""
        problem = tables.problem
        count = len(problem.stages)
        if count > MOST_STAGES:
            return None
        pins = [problem.pin(stage) for stage in range(count)]
        starts, ends = np.nonzero(np.arange(count)[:, None] < np.arange(count + 1)[None, :])
        at_home = np.array([0, *accumulate(pin is Side.CLIENT for pin in pins)])
        free = at_home[ends] == at_home[starts]
        starts, ends = starts[free], ends[free]
        axes = (*tables.latency, tables.cost, tables.weighted, tables.memory, _far_pins(pins))
        columns = [column for axis in axes if (column := _column(axis, starts, ends)) is not None]
        if len(columns) < len(axes):
            return None
        phases = len(tables.latency)
        return cls(problem, starts, ends, tuple(columns[:phases]), *columns[phases:])

    def best(self) -> Placement | None:
        """The placement of at most two runs of least cost, then weighted latency, within all limits and pins."""
        limits = [phase.latency_limit_ms for phase in self.problem.phases]
        bound = [column for column, limit in zip(self.latency, limits, strict=True) if limit is not None]
        return self._least(self.cost, self.weighted, bound)

    def fastest(self) -> Placement | None:
        """The one of least weighted latency, then cost, within the client's memory, whatever the phases' limits."""
        return self._least(self.weighted, self.cost, [])

    def _least(self, primary: _Column, secondary: _Column, limited: list[_Column]) -> Placement | None:
        if self.problem.client_memory_limit is not None:
            limited = [*limited, self.memory]
        pairs = _Pairs(self.starts, self.ends, primary, secondary, [*limited, self.far_pins], len(self.problem.stages))
        most, best = 4 if self.problem.max_crossings is None else self.problem.max_crossings, pairs.none()
        if most >= 2:
            best = pairs.alone(best)
        if most >= 4:
            for end in range(1, pairs.count - 1):
                best = pairs.ending_at(end, best)
        return None if best is None else _placement(best, pairs.count)


def is_two_runs(problem: Problem) -> bool:
    """Whether the limit of crossings leaves at most two runs on the server."""
    return problem.max_crossings is not None and problem.max_crossings < 6


@dataclass(frozen=True, slots=True)
class _Pairs:
    """One search over the runs: an objective, and what limits two runs together."""

    starts: _Integers
    ends: _Integers
    primary: _Column
    secondary: _Column
    limited: Sequence[_Column]
    count: int

    def none(self) -> _Key | None:
        """Everything on the client, where that keeps every limit."""
        return (0, 0, self.count, 0, self.count, 0) if all(column.slack >= 0 for column in self.limited) else None

    def alone(self, best: _Key | None) -> _Key | None:
        """The better of `best` and all single runs."""
        holds = np.ones(len(self.starts), dtype=np.bool_)
        for column in self.limited:
            holds &= column.added <= column.slack
        runs = np.flatnonzero(holds)
        if not len(runs):
            return best
        found = self._least(runs, None)
        return found if best is None else min(found, best)

    def ending_at(self, end: int, best: _Key | None) -> _Key | None:
        """The better of `best` and all pairs whose first run ends before stage `end`."""
        first = np.flatnonzero(self.ends == end)
        second = np.arange(np.searchsorted(self.starts, end + 1), len(self.starts))
        bounds = [(column.added, column.slack) for column in self.limited]
        if best is not None:
            bounds.append((self.primary.added, best[0]))
        for added, most in bounds:  # rows and columns that no partner can mend
            if len(first) and len(second):
                first = first[added[first] <= most - added[second].min()]
            if len(first) and len(second):
                second = second[added[second] <= most - added[first].min()]
        if not len(first) or not len(second):
            return best
        holds = np.ones((len(first), len(second)), dtype=np.bool_)
        for added, most in bounds:
            holds &= added[second][None, :] <= (most - added[first])[:, None]
        rows, columns = np.nonzero(holds)
        if not len(rows):
            return best
        found = self._least(first[rows], second[columns])
        return found if best is None else min(found, best)

    def _least(self, first: _Integers, second: _Integers | None) -> _Key:
        keys = [
            column.added[first] + (0 if second is None else column.added[second])
            for column in (self.primary, self.secondary)
        ]
        keys += [self.starts[first], -self.ends[first]]
        if second is not None:
            keys += [self.starts[second], -self.ends[second]]
        left = np.arange(len(first))
        least = []
        for key in keys:
            held = key[left]
            lowest = held.min()
            least.append(int(lowest))
            left = left[held == lowest]
        if second is None:
            least += [self.count, 0]
        return tuple(least)  # type: ignore[return-value] # six entries either way


def _column(axis: Axis, starts: _Integers, ends: _Integers) -> _Column | None:
    """None where totals do not fit 64 bits."""
    unit = math.gcd(*axis.client, *axis.server, *axis.up, *axis.down) or 1
    client, server, up, down = ([value // unit for value in column] for column in axis.columns)
    if sum(client) + sum(server) + sum(up) + sum(down) >= _LONGEST:
        return None
    moved = np.array([0, *accumulate(far - near for far, near in zip(server, client, strict=True))], dtype=np.int64)
    going, coming = np.array(up, dtype=np.int64), np.array(down, dtype=np.int64)
    slack = 0 if axis.limit is None else min(axis.limit // unit, _LONGEST) - sum(client)
    return _Column(moved[ends] - moved[starts] + going[starts] + coming[ends], slack)


def _far_pins(pins: Sequence[Side | None]) -> Axis:
    """Counts the stages pinned to the server that are not there; its limit is 0."""
    nowhere = [0] * len(pins)
    return Axis([int(pin is Side.SERVER) for pin in pins], nowhere, nowhere, [*nowhere, 0], 1, 0)


def _placement(key: _Key, count: int) -> Placement:
    sides = [Side.CLIENT] * count
    for start, end in ((key[2], -key[3]), (key[4], -key[5])):
        sides[start:end] = [Side.SERVER] * (end - start)
    return tuple(sides)

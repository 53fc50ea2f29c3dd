"""The plan that the runtime executes: the client runs a prefix of the stages, the server the rest.

With the last stage bound to the server and at most two crossings no other placement exists, so every candidate is
one cut, and prefix sums give all of them in O(stages · phases).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from .exact import Axis, Tables
from .problem import Placement, Problem, Side


@dataclass(frozen=True, slots=True)
class CutTable:
    """Totals by cut: entry k is for stages [0, k) on the client and the rest on the server, k = 0 .. stages - 1.

    Integers in the units of the axes of `tables`; `first` and `last` are the cuts that the pins allow, half open.
    """

    tables: Tables
    latency: tuple[Sequence[int], ...]
    cost: Sequence[int]
    weighted: Sequence[int]
    memory: Sequence[int]
    first: int
    last: int

    @classmethod
    def of(cls, tables: Tables) -> CutTable:
        """Tabulate all cuts with at least the last stage on the server."""
        problem = tables.problem
        count = len(problem.stages)
        pins = [problem.pin(stage) for stage in range(count)]
        first = max((stage + 1 for stage, pin in enumerate(pins) if pin is Side.CLIENT), default=0)
        last = min((stage for stage, pin in enumerate(pins) if pin is Side.SERVER), default=count - 1) + 1
        return cls(
            tables=tables,
            latency=tuple(_by_cut(axis) for axis in tables.latency),
            cost=_by_cut(tables.cost),
            weighted=_by_cut(tables.weighted),
            memory=_by_cut(tables.memory),
            first=first,
            last=last,
        )

    def best(self) -> int | None:
        """The feasible cut of least cost, then least weighted latency, then fewest client stages."""
        cuts = self._within((*self.tables.latency, self.tables.memory), (*self.latency, self.memory))
        return min(cuts, key=lambda cut: (self.cost[cut], self.weighted[cut], cut), default=None)

    def fastest(self) -> int | None:
        """The cut of least weighted latency within the client's memory, whatever the phases' limits."""
        cuts = self._within((self.tables.memory,), (self.memory,))
        return min(cuts, key=lambda cut: (self.weighted[cut], self.cost[cut], cut), default=None)

    def _within(self, axes: Sequence[Axis], totals: Sequence[Sequence[int]]) -> list[int]:
        """The allowed cuts that keep the limits of `axes`, one pass per limit: quicker than cut by cut."""
        cuts = list(range(self.first, self.last))
        for axis, by in zip(axes, totals, strict=True):
            if (limit := axis.limit) is not None:
                cuts = [cut for cut in cuts if by[cut] <= limit]
        return cuts

    def placement(self, cut: int) -> Placement:
        """The placement that a cut stands for."""
        return (Side.CLIENT,) * cut + (Side.SERVER,) * (len(self.tables.problem.stages) - cut)


def is_one_cut(problem: Problem) -> bool:
    """Whether pins and crossings leave nothing but one cut (three crossings are two: the result must come home)."""
    return problem.max_crossings in (2, 3) and problem.pin(len(problem.stages) - 1) is Side.SERVER


def _by_cut(axis: Axis) -> list[int]:
    count = len(axis.client)
    home = axis.down[count]
    before = accumulate(axis.client[: count - 1], initial=0)
    after = list(accumulate(reversed(axis.server), initial=home))
    after.reverse()
    return [left + over + right for left, over, right in zip(before, axis.up, after, strict=False)]

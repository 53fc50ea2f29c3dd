"""A problem in whole numbers: what lets every policy compare, add and break ties without float noise.

Every quantity is kept as an integer count of 10^-d of its unit, with d chosen so that the smallest positive entry
keeps at least ten significant digits. Sums are then exact in any order: 0.1 + 0.2 equals 0.3, two placements of
equal stages tie, prefix sums agree with step-by-step sums, and dominance between partial placements is exact.

The one tolerance is `LIMIT_TOLERANCE`, and it is applied in one place, when a limit becomes an integer: a limit
holds when the exact total is at most limit · (1 + 1e-9), which covers the rounding of the entries.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import chain
from typing import Final

from .problem import Link, Phase, Placement, Problem, Side

LIMIT_TOLERANCE: Final = 1e-9
_DIGITS: Final = 10
_MOST_DIGITS: Final = 30
_EXACT_FLOATS: Final = float(1 << 53)


@dataclass(frozen=True, slots=True)
class Axis:
    """One quantity that adds up along a placement: a phase's latency, the cost, memory or crossings.

    All entries are in units of 1/`scale`. `up[i]` is added where the placement goes from client to server before
    stage i, `down[i]` where it comes back before stage i; `down[n]`, with n stages, brings the result home.
    """

    client: Sequence[int]
    server: Sequence[int]
    up: Sequence[int]
    down: Sequence[int]
    scale: int = 1
    limit: int | None = None

    @property
    def columns(self) -> tuple[Sequence[int], Sequence[int], Sequence[int], Sequence[int]]:
        """`client`, `server`, `up`, `down`."""
        return self.client, self.server, self.up, self.down

    @classmethod
    def of(cls, columns: Iterable[Sequence[int]]) -> Axis:
        """An axis of `client`, `server`, `up` and `down`, without a limit."""
        client, server, up, down = columns
        return cls(client, server, up, down)

    def total(self, placement: Placement) -> int:
        """What the quantity amounts to; a request starts at the client and its result ends there."""
        total, here = 0, Side.CLIENT
        for stage, side in enumerate(placement):
            if side is not here:
                total += self.up[stage] if side is Side.SERVER else self.down[stage]
                here = side
            total += self.client[stage] if side is Side.CLIENT else self.server[stage]
        return total + self.down[len(placement)] if here is Side.SERVER else total

    def holds(self, total: int) -> bool:
        """Whether `total` keeps the limit; the tolerance is in the limit already."""
        return self.limit is None or total <= self.limit

    def value(self, total: int) -> float:
        """`total` in the unit the problem was written in."""
        return total / self.scale

    def values(self, totals: Sequence[int]) -> list[float]:
        """The same of several at once."""
        scale = self.scale
        return [total / scale for total in totals]

    def exceeded(self, totals: Sequence[int]) -> list[bool]:
        """Which of several break the limit."""
        limit = self.limit
        return [False] * len(totals) if limit is None else [total > limit for total in totals]


@dataclass(frozen=True, slots=True)
class Tables:
    """All quantities of one problem. `cost` and `weighted` (the weighted latency) are summed over the phases."""

    problem: Problem
    latency: tuple[Axis, ...]
    cost: Axis
    weighted: Axis
    memory: Axis
    crossings: Axis

    @classmethod
    def of(cls, problem: Problem) -> Tables:
        """Turn the problem's numbers into integers; O(stages · phases)."""
        count = len(problem.stages)
        nowhere, home = [0] * count, [0] * (count + 1)
        weights, weight_scale = _integers([[phase.weight for phase in problem.phases]])
        shares = weights[0]

        columns: list[Sequence[float]] = []
        for phase in problem.phases:
            columns += [phase.client_ms, phase.server_ms, *_transfers(phase, phase.link or problem.link)]
        times, time_scale = _integers(columns)
        latency = tuple(
            Axis(client, server, up, down, time_scale, _limit(phase.latency_limit_ms, time_scale))
            for phase, client, server, up, down in zip(
                problem.phases, *(times[side::4] for side in range(4)), strict=True
            )
        )
        costs, cost_scale = _integers([phase.server_cost for phase in problem.phases])
        memory, memory_scale = _integers([problem.client_memory])
        most = problem.max_crossings
        return cls(
            problem=problem,
            latency=latency,
            cost=Axis(nowhere, _combined(shares, costs), nowhere, home, cost_scale * weight_scale),
            weighted=Axis(
                _combined(shares, [axis.client for axis in latency]),
                _combined(shares, [axis.server for axis in latency]),
                _combined(shares, [axis.up for axis in latency]),
                _combined(shares, [axis.down for axis in latency]),
                time_scale * weight_scale,
            ),
            memory=Axis(
                memory[0], nowhere, nowhere, home, memory_scale, _limit(problem.client_memory_limit, memory_scale)
            ),
            crossings=Axis(nowhere, nowhere, [1] * count, [1] * (count + 1), 1, most),
        )

    @property
    def limited(self) -> tuple[Axis, ...]:
        """The quantities that a limit may rest on, phases first."""
        return (*self.latency, self.memory, self.crossings)

    def most_cost(self) -> int:
        """The cost of everything on the server, the figure that savings are compared with."""
        return sum(self.cost.server)


def _transfers(phase: Phase, link: Link) -> tuple[list[float], list[float]]:
    """Milliseconds of a crossing before each stage, upwards and downwards; the last downward one is the result's."""
    up_ms, up_rate, down_ms, down_rate = link.up_ms, link.up_bytes_per_ms, link.down_ms, link.down_bytes_per_ms
    up = [up_ms + size / up_rate for size in phase.input_bytes]
    down = [down_ms + size / down_rate for size in phase.input_bytes]
    down.append(down_ms + phase.output_bytes / down_rate)
    return up, down


def _integers(columns: Sequence[Sequence[float]]) -> tuple[list[list[int]], int]:
    """All entries times one power of ten, as integers, and that power. Whole numbers keep the power 1."""
    digits = 0
    if not all(_whole(column) for column in columns):
        least = min(filter(None, chain.from_iterable(columns)), default=1.0)  # no entry is negative
        digits = min(max(_DIGITS - 1 - math.floor(math.log10(least)), 0), _MOST_DIGITS)
    factor = 10.0**digits
    return [_scaled(column, digits, factor) for column in columns], 10**digits


def _whole(column: Iterable[float]) -> bool:
    return all(map(float.is_integer, map(float, column)))


def _scaled(column: Sequence[float], digits: int, factor: float) -> list[int]:
    if max(column) * factor < _EXACT_FLOATS:
        distinct = set(column)
        if 2 * len(distinct) > len(column):
            return [round(value * factor) for value in column]
        rounded = {value: round(value * factor) for value in distinct}  # like blocks have like times
        return [rounded[value] for value in column]
    # Too long for a float: take the decimal digits as they are written.
    return [round(Decimal(repr(float(value))).scaleb(digits)) for value in column]


def _limit(limit: float | None, scale: int) -> int | None:
    return None if limit is None else math.floor(limit * (1 + LIMIT_TOLERANCE) * scale)


def _combined(shares: Sequence[int], columns: Sequence[Sequence[int]]) -> list[int]:
    combined = [shares[0] * value for value in columns[0]]
    for share, column in zip(shares[1:], columns[1:], strict=True):
        combined = [total + share * value for total, value in zip(combined, column, strict=True)]
    return combined

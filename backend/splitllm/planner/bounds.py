"""What the rest of a placement costs at least: the bounds that keep the label search small.

The stages form a graph of (stage, state), where a state is a side, or a number of crossings so far when crossings
are limited (even numbers are the client's). On it a single quantity is minimised backwards in O(stages · states).
Several limits at once are priced into the objective (Lagrangian relaxation): for prices λ ≥ 0,

    L(λ) = min over placements of  objective + Σ_r λ_r · (resource_r − limit_r)

is at most the best feasible objective, and `ascend` finds the prices that make it largest. Any prices give a true
bound, so `ascend` may work in floats while the bounds that prune are then computed in integers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from operator import mul
from typing import Final, TypeVar

from .exact import Axis
from .problem import Placement, Problem, Side

Number = TypeVar("Number", int, float)

#: Up to this limit the number of crossings is part of the state; above it is one more resource.
MOST_CROSSING_STATES: Final = 8
_STEPS: Final = 60
_CLOSE: Final = 1e-10


@dataclass(frozen=True, slots=True)
class Graph:
    """Which sides a stage may take (`allowed[i]` is client, server) and where a state flips to (-1: nowhere)."""

    allowed: Sequence[tuple[bool, bool]]
    flips: Sequence[int]

    @classmethod
    def of(cls, problem: Problem, *, crossings: bool = True) -> Graph:
        """The problem's pins and, where few are allowed and `crossings` is true, its limit of crossings."""
        pins = [problem.pin(stage) for stage in range(len(problem.stages))]
        allowed = [(pin is not Side.SERVER, pin is not Side.CLIENT) for pin in pins]
        most = problem.max_crossings
        if not crossings or most is None or most > MOST_CROSSING_STATES:
            return cls(allowed, (1, 0))
        # A request that ends where it began crosses an even number of times.
        return cls(allowed, (*range(1, most - most % 2 + 1), -1))


def least_rests(
    graph: Graph,
    client: Sequence[Number],
    server: Sequence[Number],
    up: Sequence[Number],
    down: Sequence[Number],
    unreachable: Number,
) -> list[list[Number]]:
    """`rests[i][state]`: the least that stages i.. and the way home can add, coming from `state`.

    A state from which no placement is allowed has `unreachable` or more.
    """
    states = range(len(graph.flips))
    rest = [unreachable] * len(graph.flips)
    for state in states:
        if not state & 1:
            rest[state] = client[0] * 0
        elif graph.flips[state] >= 0:
            rest[state] = down[len(client)]
    rests = [rest]
    for stage in range(len(client) - 1, -1, -1):
        stay_client, stay_server = graph.allowed[stage]
        at_client, at_server, go_up, go_down = client[stage], server[stage], up[stage], down[stage]
        after, rest = rest, [unreachable] * len(graph.flips)
        for state in states:
            other = graph.flips[state]
            best = unreachable
            if state & 1:
                if stay_server:
                    best = at_server + after[state]
                if other >= 0 and stay_client:
                    best = min(best, go_down + at_client + after[other])
            else:
                if stay_client:
                    best = at_client + after[state]
                if other >= 0 and stay_server:
                    best = min(best, go_up + at_server + after[other])
            rest[state] = best
        rests.append(rest)
    rests.reverse()
    return rests


def least_path(
    graph: Graph,
    columns: tuple[Sequence[float], Sequence[float], Sequence[float], Sequence[float]],
    rests: Sequence[Sequence[float]],
) -> Placement:
    """A placement that attains `rests[0][0]`, found by walking forwards."""
    client, server, up, down = columns
    state = 0
    placement = []
    for stage in range(len(client)):
        stay_client, stay_server = graph.allowed[stage]
        other, after = graph.flips[state], rests[stage + 1]
        stay = flip = math.inf
        if state & 1:
            if stay_server:
                stay = server[stage] + after[state]
            if other >= 0 and stay_client:
                flip = down[stage] + client[stage] + after[other]
        else:
            if stay_client:
                stay = client[stage] + after[state]
            if other >= 0 and stay_server:
                flip = up[stage] + server[stage] + after[other]
        if flip < stay:
            state = other
        placement.append(Side.SERVER if state & 1 else Side.CLIENT)
    return tuple(placement)


@dataclass(frozen=True, slots=True)
class Ascent:
    """Prices of the resources, in units of the primary objective per unit of the resource, and what they found.

    `feasible` are placements within every limit that turned up on the way.
    """

    prices: tuple[float, ...]
    feasible: tuple[Placement, ...]


def ascend(graph: Graph, primary: Axis, resources: Sequence[Axis]) -> Ascent:
    """Find the prices that make the bound largest; each step costs one pass over the graph."""
    unit = float(max(sum(map(max, primary.client, primary.server)) + sum(primary.up) + sum(primary.down), 1))
    limits = [float(max(axis.limit or 0, 1)) for axis in resources]
    objective = _floats(primary, unit)
    priced = [_floats(axis, limit) for axis, limit in zip(resources, limits, strict=True)]
    master = _Master(len(resources))
    best, best_prices = -math.inf, [0.0] * len(resources)
    found: list[Placement] = []
    for _ in range(_STEPS):
        prices = master.prices()
        columns = objective
        for price, axis in zip(prices, priced, strict=True):
            if price > 0:
                columns = _plus(columns, price, axis)
        rests = least_rests(graph, *columns, unreachable=math.inf)
        if math.isinf(rests[0][0]):
            break
        bound = rests[0][0] - sum(prices)
        if bound > best:
            best, best_prices = bound, prices
        placement = least_path(graph, columns, rests)
        totals = [axis.total(placement) for axis in resources]
        if all(axis.holds(total) for axis, total in zip(resources, totals, strict=True)):
            found.append(placement)
        excess = [total / limit - 1 for total, limit in zip(totals, limits, strict=True)]
        if not master.enter(primary.total(placement) / unit, excess):
            break
    return Ascent(tuple(price * unit / limit for price, limit in zip(best_prices, limits, strict=True)), tuple(found))


class _Master:
    """The linear program over the placements met so far: mix them at least cost with no resource over its limit.

    Revised simplex with an explicit inverse of R + 1 rows (one per resource, and one that makes the shares add up
    to 1). Its dual values are the prices to try next (Dantzig and Wolfe, "Decomposition principle for linear
    programs", 1960).
    """

    def __init__(self, resources: int) -> None:
        size = resources + 1
        self._inverse = [[float(row == column) for column in range(size)] for row in range(size)]
        self._shares = [0.0] * resources + [1.0]
        # The basis begins with slack in every resource and a stand-in that costs more than any placement.
        self._costs = [0.0] * resources + [2.0]

    def _duals(self) -> list[float]:
        return [
            sum(cost * row[column] for cost, row in zip(self._costs, self._inverse, strict=True))
            for column in range(len(self._costs))
        ]

    def prices(self) -> list[float]:
        """One price per resource, 0 or more."""
        return [max(-dual, 0.0) for dual in self._duals()[:-1]]

    def enter(self, cost: float, excess: Sequence[float]) -> bool:
        """Add a placement; False when it cannot improve the mix, so that the prices are the best."""
        column = [*excess, 1.0]
        duals = self._duals()
        if cost - sum(map(mul, duals, column)) > -_CLOSE or not self._pivot(cost, column):
            return False
        for _ in range(2 * len(column)):  # a resource whose price fell below 0 gets its slack back
            duals = self._duals()[:-1]
            worst = max(range(len(duals)), key=duals.__getitem__)
            if duals[worst] <= _CLOSE or not self._pivot(0.0, [float(row == worst) for row in range(len(column))]):
                break
        return True

    def _pivot(self, cost: float, column: Sequence[float]) -> bool:
        steps = [sum(map(mul, row, column)) for row in self._inverse]
        ratios = [
            (share / step, -step, row)
            for row, (share, step) in enumerate(zip(self._shares, steps, strict=True))
            if step > _CLOSE
        ]
        if not ratios:
            return False
        ratio, _, leaving = min(ratios)
        pivot = [entry / steps[leaving] for entry in self._inverse[leaving]]
        for row, step in enumerate(steps):
            if row != leaving:
                self._inverse[row] = [
                    entry - step * more for entry, more in zip(self._inverse[row], pivot, strict=True)
                ]
                self._shares[row] = max(self._shares[row] - step * ratio, 0.0)
        self._inverse[leaving], self._shares[leaving], self._costs[leaving] = pivot, ratio, cost
        return True


_Columns = tuple[Sequence[float], Sequence[float], Sequence[float], Sequence[float]]


def _floats(axis: Axis, unit: float) -> _Columns:
    client, server, up, down = ([value / unit for value in column] for column in axis.columns)
    return client, server, up, down


def _plus(columns: _Columns, price: float, axis: _Columns) -> _Columns:
    client, server, up, down = (
        [value + price * more for value, more in zip(column, extra, strict=True)]
        for column, extra in zip(columns, axis, strict=True)
    )
    return client, server, up, down

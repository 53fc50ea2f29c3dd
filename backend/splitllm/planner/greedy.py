"""The two greedy rules that the exact planner is compared with. Both keep the pins.

They start with everything on the server that may run there and only take steps after which every limit holds; where
the start breaks a limit and no first step mends it, the start is returned as it is.
"""

from __future__ import annotations

from .exact import Axis, Tables
from .problem import Placement, Problem, Side


def everything_on(problem: Problem, side: Side) -> Placement:
    """Every stage on `side`, except those pinned to the other."""
    return tuple(problem.pin(stage) or side for stage in range(len(problem.stages)))


def greedy_prefix(tables: Tables) -> Placement:
    """Extend the client's prefix stage by stage while every limit holds; O(stages² · phases)."""
    placement = list(everything_on(tables.problem, Side.SERVER))
    for stage in range(len(placement)):
        if tables.problem.pin(stage) is Side.SERVER:
            break
        longer = [*placement[:stage], Side.CLIENT, *placement[stage + 1 :]]
        if not all(axis.holds(axis.total(tuple(longer))) for axis in tables.limited):
            break
        placement = longer
    return tuple(placement)


def greedy_ratio(tables: Tables) -> Placement:
    """Move, again and again, the stage that saves most server cost per added weighted latency within every limit.

    A stage whose move adds no latency beats all that add some; among equals the one that saves more, then the
    earlier stage. O(stages² · phases).
    """
    problem = tables.problem
    sides = list(everything_on(problem, Side.SERVER))
    totals = [axis.total(tuple(sides)) for axis in tables.limited]
    while True:
        best: tuple[float, int, int] | None = None
        for stage, side in enumerate(sides):
            saved = tables.cost.server[stage]
            if side is Side.CLIENT or problem.pin(stage) is Side.SERVER or saved == 0:
                continue
            moves = zip(tables.limited, totals, strict=True)
            if not all(axis.holds(total + _change(axis, sides, stage)) for axis, total in moves):
                continue
            added = _change(tables.weighted, sides, stage)
            rank = (saved / added if added > 0 else float("inf"), saved, -stage)
            if best is None or rank > best:
                best = rank
        if best is None:
            return tuple(sides)
        stage = -best[2]
        moves = zip(tables.limited, totals, strict=True)
        totals = [total + _change(axis, sides, stage) for axis, total in moves]
        sides[stage] = Side.CLIENT


def _change(axis: Axis, sides: list[Side], stage: int) -> int:
    """What moving `stage` from the server to the client adds to the axis."""
    change = axis.client[stage] - axis.server[stage]
    if stage == 0 or sides[stage - 1] is Side.CLIENT:
        change -= axis.up[stage]
    else:
        change += axis.down[stage]
    after = stage + 1
    if after == len(sides) or sides[after] is Side.CLIENT:
        change -= axis.down[after]
    else:
        change += axis.up[after]
    return change

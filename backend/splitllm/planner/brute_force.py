"""Every placement there is, evaluated: slow, plain, and what the exact planner is tested against."""

from __future__ import annotations

from operator import add
from typing import Final

from ..errors import ProblemError
from .exact import Tables
from .problem import Placement, Side

MOST_STAGES: Final = 20


def brute_force(tables: Tables) -> tuple[Placement, bool]:
    """The best placement and whether it is feasible, by the rules of `dp` (ties and infeasible problems included).

    Raises:
        ProblemError: the problem has more than 20 stages, which would take minutes and more.
    """
    problem = tables.problem
    count = len(problem.stages)
    if count > MOST_STAGES:
        raise ProblemError(f"brute-force takes at most {MOST_STAGES} stages and this problem has {count}: use dp")

    axes = (tables.cost, tables.weighted, *tables.limited)
    phases = range(2, 2 + len(tables.latency))
    structure = range(phases.stop, len(axes))
    best: list[tuple[tuple[int, ...], Placement] | None] = [None, None, None]

    def visit(placement: Placement, totals: tuple[int, ...], bits: int) -> None:
        stage = len(placement)
        here = placement[-1] if placement else Side.CLIENT
        if stage == count:
            if here is Side.SERVER:
                totals = tuple(map(add, totals, home))
            runnable = all(axes[number].holds(totals[number]) for number in structure)
            in_time = all(axes[number].holds(totals[number]) for number in phases)
            cost, weighted = totals[:2]
            for rank, allowed, key in (
                (0, runnable and in_time, (cost, weighted, bits)),
                (1, runnable, (weighted, cost, bits)),
                (2, True, (weighted, cost, bits)),
            ):
                held = best[rank]
                if allowed and (held is None or key < held[0]):
                    best[rank] = key, placement
            return
        pin = problem.pin(stage)
        for side in Side:
            if pin is None or side is pin:
                step = steps[stage][here is Side.SERVER][side is Side.SERVER]
                visit((*placement, side), tuple(map(add, totals, step)), 2 * bits + (side is Side.CLIENT))

    home = [axis.down[count] for axis in axes]
    steps = [
        (
            ([axis.client[i] for axis in axes], [axis.up[i] + axis.server[i] for axis in axes]),
            ([axis.down[i] + axis.client[i] for axis in axes], [axis.server[i] for axis in axes]),
        )
        for i in range(count)
    ]
    visit((), (0,) * len(axes), 0)
    first = next(number for number, held in enumerate(best) if held is not None)
    found = best[first]
    return (found[1] if found else ()), first == 0

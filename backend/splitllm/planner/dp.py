"""The exact planner: dynamic programming over (stage, side) with Pareto labels.

Source: SplitLLM (arXiv 2410.10759), which places each layer on client or server by a DP over (layer, time used,
side). Time is not cut into steps here: a partial placement is a label holding its exact totals, and only labels that
no other dominates are kept. With R_i(s) the labels of stages 0..i-1 that end on side s,

    R_0(client) = {0},  R_0(server) = {}
    R_{i+1}(s)  = undominated( { label + stage_i(s)                      for label in R_i(s)  }
                             ∪ { label + crossing_i(s) + stage_i(s)      for label in R_i(s') } )

and the answer is the least of R_n(client) ∪ (R_n(server) + the way home). A label is (objective, one total per
limit that can bind); it dies when the rest of the stages must break a limit or cannot beat the best placement known
(`bounds`). The objective is the cost, its ties decided by the lower weighted latency, and those by the placement that
has the server at the first stage where the two differ (the least to download).

Two cases need no labels, for the same answer: one cut is read off prefix sums (`one_cut`), and with up to four
crossings all pairs of runs on the server are compared (`two_runs`). The best such pair is also where a search with
more crossings starts.

When nothing is feasible, the promise is what gives way first: the answer is the placement of least weighted latency
(ties: lower cost, then as above) among those that keep the pins, the client's memory and the limit of crossings,
because a placement without these could not be run. Only where no placement keeps all three are memory and crossings
waived as well; pins always hold.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from .bounds import Graph
from .exact import Tables
from .greedy import greedy_prefix, greedy_ratio
from .one_cut import CutTable, is_one_cut
from .problem import Placement, Problem
from .search import Found, Objective, minimise
from .two_runs import RunTable, is_two_runs

#: Labels kept per stage (see `_default_cap`).
_LABEL_CAP: Final = 4000
_LEAST_CAP: Final = 256
_BOUND_CAP: Final = 32


@dataclass(frozen=True, slots=True)
class Solution:
    """The planner's choice.

    `gap` bounds what is lost: the optimal cost is at least `cost · (1 - gap)`; 0 where the answer is exact. It is 1
    where nothing feasible was found and the search was cut short, so that infeasibility is not proven. `labels`
    counts the labels kept over all stages (cuts or runs where these are tabulated).
    """

    placement: Placement
    feasible: bool
    gap: float
    labels: int


def solve_dp(problem: Problem | Tables, *, label_cap: int | None = None, shortcuts: bool = True) -> Solution:
    """The placement of least server cost within all limits; exact unless `gap` is above 0.

    `label_cap` bounds the labels kept per stage (default: 4000, and fewer beyond 100 stages or two phases). One cut is
    read off prefix sums and up to four crossings off pairs of runs; `shortcuts=False` searches labels there too, for
    the same answer.
    """
    tables = problem if isinstance(problem, Tables) else Tables.of(problem)
    cap = label_cap or _default_cap(tables.problem)
    if shortcuts and is_one_cut(tables.problem):
        cuts = CutTable.of(tables)
        cut, feasible = cuts.best(), True
        if cut is None:
            cut, feasible = cuts.fastest(), False
        if cut is not None:
            return Solution(cuts.placement(cut), feasible, 0.0, len(tables.problem.stages))
        return _fastest_at_all(tables, cap, Found(None, 0, True, 0))
    known: list[Placement] = []
    runs = RunTable.of(tables) if shortcuts else None
    if runs is not None:
        placement = runs.best()
        if is_two_runs(tables.problem):
            return _two_runs(tables, runs, placement, cap)
        known = [] if placement is None else [placement]

    graph = Graph.of(tables.problem)
    found = minimise(graph, Objective.of(tables.cost, tables.weighted), tables.limited, label_cap=cap, known=known)
    if not found.complete:
        found = _no_worse_than_greedy(tables, found)
    if found.placement is None:
        return _fastest(tables, graph, cap, found)
    cost = tables.cost.total(found.placement)
    gap = 0.0 if found.complete or cost == 0 else (cost - found.bound) / cost
    return Solution(found.placement, True, gap, found.labels)


def lower_bound(tables: Tables) -> int:
    """A proven lower bound of a feasible placement's cost, in units of the cost axis, without a full search."""
    objective = Objective.of(tables.cost, tables.weighted)
    return minimise(Graph.of(tables.problem), objective, tables.limited, label_cap=_BOUND_CAP).bound


def _two_runs(tables: Tables, runs: RunTable, best: Placement | None, cap: int) -> Solution:
    placement = runs.fastest() if best is None else best
    if placement is None:
        return _fastest_at_all(tables, cap, Found(None, 0, True, 0))
    return Solution(placement, best is not None, 0.0, len(runs.starts))


def _default_cap(problem: Problem) -> int:
    """Labels per stage so that a hard problem takes seconds: fewer beyond 100 stages and two phases."""
    long = max(1.0, len(problem.stages) / 100)
    return max(_LEAST_CAP, int(_LABEL_CAP / long / max(1, len(problem.phases) - 1)))


def _no_worse_than_greedy(tables: Tables, found: Found) -> Found:
    best = found.placement
    for greedy in (greedy_prefix, greedy_ratio):
        placement = greedy(tables)
        feasible = all(axis.holds(axis.total(placement)) for axis in tables.limited)
        if feasible and (best is None or tables.cost.total(placement) < tables.cost.total(best)):
            best = placement
    return Found(best, found.bound, False, found.labels)


def _fastest(tables: Tables, graph: Graph, cap: int, failed: Found) -> Solution:
    objective = Objective.of(tables.weighted, tables.cost)
    found = minimise(graph, objective, (tables.memory, tables.crossings), label_cap=cap)
    if found.placement is None:
        return _fastest_at_all(tables, cap, failed)
    return Solution(found.placement, False, 0.0 if failed.complete else 1.0, failed.labels + found.labels)


def _fastest_at_all(tables: Tables, cap: int, failed: Found) -> Solution:
    free = Graph.of(tables.problem, crossings=False)
    found = minimise(free, Objective.of(tables.weighted, tables.cost), (), label_cap=cap)
    if found.placement is None:  # pins leave one side at least for every stage, and both sides reach each other
        raise AssertionError("a graph without limits always has a placement")
    return Solution(found.placement, False, 0.0 if failed.complete else 1.0, failed.labels + found.labels)

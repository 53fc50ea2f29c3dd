"""The policies by name, and the plan each of them answers with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from ..errors import UsageError
from .brute_force import brute_force
from .dp import lower_bound, solve_dp
from .evaluate import Evaluation, evaluate
from .exact import Tables
from .greedy import everything_on, greedy_prefix, greedy_ratio
from .problem import Placement, Problem, Side
from .reasons import failures, feasible_reason, figure


@dataclass(frozen=True, slots=True)
class Plan:
    """A policy's answer.

    `saved_fraction` is 1 - server_cost / cost of everything on the server. `optimality_gap` is proven: the cost of
    the best feasible placement is at least server_cost · (1 - optimality_gap); it is 0 where the answer is exact
    and for infeasible answers (1 where the search was cut short before it found anything feasible).
    """

    feasible: bool
    placement: Placement
    server_cost: float
    saved_fraction: float
    crossings: int
    client_memory: float
    latency_ms: Mapping[str, float]
    optimality_gap: float
    reason: str

    def to_json(self) -> dict[str, Any]:
        """The answer in the JSON form of DESIGN.md ("Planner")."""
        memory = self.client_memory
        return {
            "feasible": self.feasible,
            "placement": [side.value for side in self.placement],
            "server_cost": self.server_cost,
            "saved_fraction": self.saved_fraction,
            "crossings": self.crossings,
            "client_memory": int(memory) if memory.is_integer() else memory,
            "latency_ms": dict(self.latency_ms),
            "optimality_gap": self.optimality_gap,
            "reason": self.reason,
        }


def _dp(problem: Problem) -> Plan:
    tables = Tables.of(problem)
    solution = solve_dp(tables)
    chosen = evaluate(tables, solution.placement)
    if solution.feasible:
        reason = feasible_reason(tables, chosen)
        if solution.gap > 0:
            reason += f" The search was cut short: a cost up to {figure(100 * solution.gap, 2)} % lower may exist."
    elif solution.gap > 0:
        reason = f"Nothing feasible was found before the search was cut short; here {failures(chosen.failures)}."
    else:
        reason = f"No placement meets every limit; in the fastest one {failures(chosen.failures)}."
    return _plan(chosen, solution.gap, reason)


def _brute_force(problem: Problem) -> Plan:
    tables = Tables.of(problem)
    placement, feasible = brute_force(tables)
    chosen = evaluate(tables, placement)
    if feasible:
        return _plan(chosen, 0.0, feasible_reason(tables, chosen))
    return _plan(chosen, 0.0, f"No placement meets every limit; in the fastest one {failures(chosen.failures)}.")


def _baseline(place: Callable[[Tables], Placement]) -> Callable[[Problem], Plan]:
    def policy(problem: Problem) -> Plan:
        tables = Tables.of(problem)
        chosen = evaluate(tables, place(tables))
        if not chosen.feasible:
            return _plan(chosen, 0.0, f"This placement breaks a limit: {failures(chosen.failures)}.")
        cost = tables.cost.total(chosen.placement)
        gap = max(cost - lower_bound(tables), 0) / cost if cost else 0.0
        return _plan(chosen, gap, feasible_reason(tables, chosen))

    return policy


def _plan(chosen: Evaluation, gap: float, reason: str) -> Plan:
    return Plan(
        feasible=chosen.feasible,
        placement=chosen.placement,
        server_cost=chosen.server_cost,
        saved_fraction=chosen.saved_fraction,
        crossings=chosen.crossings,
        client_memory=chosen.client_memory,
        latency_ms=chosen.latency_ms,
        optimality_gap=gap,
        reason=reason,
    )


#: Policy by name. The baselines keep the pins and answer `feasible` false where they break a limit.
POLICIES: Final[Mapping[str, Callable[[Problem], Plan]]] = MappingProxyType(
    {
        "dp": _dp,
        "brute-force": _brute_force,
        "all-server": _baseline(lambda tables: everything_on(tables.problem, Side.SERVER)),
        "all-client": _baseline(lambda tables: everything_on(tables.problem, Side.CLIENT)),
        "greedy-prefix": _baseline(greedy_prefix),
        "greedy-ratio": _baseline(greedy_ratio),
    }
)


def solve(problem: Problem, policy: str = "dp") -> Plan:
    """Plan `problem` with the policy of that name.

    Raises:
        UsageError: there is no such policy.
        ProblemError: the policy refuses the problem (`brute-force` takes at most 20 stages).
    """
    if policy not in POLICIES:
        raise UsageError(f"there is no policy {policy[:40]!r}: choose one of {', '.join(POLICIES)}")
    return POLICIES[policy](problem)

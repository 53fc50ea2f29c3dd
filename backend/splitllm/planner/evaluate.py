"""What one placement costs and which limits it breaks: the single definition that every policy uses.

A request starts at the client and its result ends there. A crossing before stage i costs the link's latency in that
direction plus `input_bytes[i]` over the bandwidth in that direction, the last one `output_bytes`; being on the
server at the first or last stage counts as a crossing. A limit holds up to the tolerance stated in `exact`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..errors import ProblemError
from .exact import Tables
from .problem import Placement, Problem, Side


@dataclass(frozen=True, slots=True)
class Failure:
    """One limit that a placement breaks: `kind` is latency, memory, crossings or pinned.

    `subject` is the phase's name for latency and the stage's for pinned, otherwise empty; `value` and `limit` are
    milliseconds, bytes or crossings (0 for pinned).
    """

    kind: str
    subject: str
    value: float
    limit: float


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The figures of one placement. `weighted_ms` is the sum over phases of weight · latency."""

    placement: Placement
    server_cost: float
    saved_fraction: float
    weighted_ms: float
    latency_ms: Mapping[str, float]
    client_memory: float
    crossings: int
    failures: tuple[Failure, ...]

    @property
    def feasible(self) -> bool:
        """Whether every limit and pin holds."""
        return not self.failures


def evaluate(problem: Problem | Tables, placement: Sequence[Side | str]) -> Evaluation:
    """Evaluate `placement`, one side per stage; pass `Tables.of(problem)` to evaluate many placements quickly.

    Raises:
        ProblemError: the placement has not one side per stage, or names an unknown side.
    """
    tables = problem if isinstance(problem, Tables) else Tables.of(problem)
    problem = tables.problem
    if len(placement) != len(problem.stages):
        raise ProblemError(f"the placement has {len(placement)} sides for {len(problem.stages)} stages")
    try:
        sides = tuple(Side(side) for side in placement)
    except ValueError as error:
        raise ProblemError('a placement is written with "client" and "server" only') from error

    failures = []
    latency = {}
    for phase, axis in zip(problem.phases, tables.latency, strict=True):
        total = axis.total(sides)
        latency[phase.name] = axis.value(total)
        if phase.latency_limit_ms is not None and not axis.holds(total):
            failures.append(Failure("latency", phase.name, axis.value(total), phase.latency_limit_ms))
    memory, crossings = tables.memory.total(sides), tables.crossings.total(sides)
    if problem.client_memory_limit is not None and not tables.memory.holds(memory):
        failures.append(Failure("memory", "", tables.memory.value(memory), problem.client_memory_limit))
    if problem.max_crossings is not None and not tables.crossings.holds(crossings):
        failures.append(Failure("crossings", "", crossings, problem.max_crossings))
    for stage, side in problem.pinned.items():
        if sides[problem.stages.index(stage)] is not side:
            failures.append(Failure("pinned", stage, 0, 0))

    cost, most = tables.cost.total(sides), tables.most_cost()
    return Evaluation(
        placement=sides,
        server_cost=tables.cost.value(cost),
        saved_fraction=(most - cost) / most if most else 0.0,
        weighted_ms=tables.weighted.value(tables.weighted.total(sides)),
        latency_ms=latency,
        client_memory=tables.memory.value(memory),
        crossings=crossings,
        failures=tuple(failures),
    )

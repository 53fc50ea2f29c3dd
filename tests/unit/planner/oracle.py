"""A second reading of DESIGN.md's planner, in fractions and without haste, and random problems to try it on."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass
from fractions import Fraction

from splitllm.planner.problem import Link, Phase, Placement, Problem, Side

TOLERANCE = 1 + Fraction(1, 10**9)


def exact(number: float) -> Fraction:
    """The number as it is written, so that 0.1 is a tenth."""
    return Fraction(str(number))


@dataclass(frozen=True)
class Reading:
    cost: Fraction
    weighted: Fraction
    latency: tuple[Fraction, ...]
    memory: Fraction
    crossings: int
    in_time: bool
    runnable: bool


def read(problem: Problem, placement: Placement) -> Reading:
    up, down = exact(problem.link.up_ms), exact(problem.link.down_ms)
    up_rate, down_rate = exact(problem.link.up_bytes_per_ms), exact(problem.link.down_bytes_per_ms)
    latencies, cost, weighted, in_time = [], Fraction(0), Fraction(0), True
    crossings = 0
    for phase in problem.phases:
        latency, here, crossings = Fraction(0), "client", 0
        for stage, side in enumerate(placement):
            if side == "server" and here == "client":
                latency += up + exact(phase.input_bytes[stage]) / up_rate
            if side == "client" and here == "server":
                latency += down + exact(phase.input_bytes[stage]) / down_rate
            crossings += side != here
            latency += exact(phase.client_ms[stage] if side == "client" else phase.server_ms[stage])
            cost += exact(phase.weight) * (exact(phase.server_cost[stage]) if side == "server" else 0)
            here = side
        if here == "server":
            latency += down + exact(phase.output_bytes) / down_rate
            crossings += 1
        latencies.append(latency)
        weighted += exact(phase.weight) * latency
        if phase.latency_limit_ms is not None and latency > exact(phase.latency_limit_ms) * TOLERANCE:
            in_time = False
    memory = sum((exact(problem.client_memory[i]) for i, side in enumerate(placement) if side == "client"), Fraction(0))
    runnable = problem.max_crossings is None or crossings <= problem.max_crossings
    if problem.client_memory_limit is not None and memory > exact(problem.client_memory_limit) * TOLERANCE:
        runnable = False
    return Reading(cost, weighted, tuple(latencies), memory, crossings, in_time, runnable)


def best(problem: Problem) -> tuple[bool, Reading]:
    """Feasible or not, and the figures of the answer that `dp` documents."""
    sides = [[problem.pin(i)] if problem.pin(i) else list(Side) for i in range(len(problem.stages))]
    readings = [read(problem, placement) for placement in itertools.product(*sides)]
    feasible = [one for one in readings if one.in_time and one.runnable]
    if feasible:
        return True, min(feasible, key=lambda one: (one.cost, one.weighted))
    runnable = [one for one in readings if one.runnable] or readings
    return False, min(runnable, key=lambda one: (one.weighted, one.cost))


def random_problem(chance: random.Random, stages: int, phases: int) -> Problem:
    """Small whole numbers (many ties) or decimals; every kind of limit, often binding."""
    digits = chance.choice([0, 0, 1, 3])

    def number(low: float, high: float) -> float:
        value = round(chance.uniform(low, high), digits)
        return int(value) if digits == 0 else value

    def column(high: float) -> tuple[float, ...]:
        return tuple(number(0, high) for _ in range(stages))

    names = tuple(f"s{i}" for i in range(stages))
    pinned = {name: chance.choice(list(Side)) for name in names if chance.random() < 0.12}
    if chance.random() < 0.4:
        pinned[names[-1]] = Side.SERVER
    return Problem(
        stages=names,
        phases=tuple(
            Phase(
                name=f"p{i}",
                weight=number(0, 20),
                latency_limit_ms=None if chance.random() < 0.15 else number(4, 26 * stages),
                client_ms=column(20),
                server_ms=column(8),
                server_cost=column(9),
                input_bytes=column(200),
                output_bytes=number(0, 20),
            )
            for i in range(phases)
        ),
        link=Link(number(0, 5), number(0, 5), number(5, 50), number(5, 50)),
        client_memory=column(10),
        client_memory_limit=None if chance.random() < 0.5 else number(0, 7 * stages),
        pinned=pinned,
        max_crossings=chance.choice([None, 0, 1, 2, 2, 2, 3, 4, 5, 6, 9, 100]),
    )

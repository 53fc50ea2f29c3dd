"""How long planning takes, and whether it is exact: random problems of 96 stages in two phases, and small ones that
brute force can answer too.

Three kinds of models, from the easiest to what no model looks like. `alike`: attention and feed-forward stages in turn,
all of a kind equal; `measured`: the same, each time off by up to 10 %, as measured times are; `arbitrary`: every entry
drawn by itself from a range of 1 to 30. Half of each have a limit on the client's memory that binds.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeVar

from ..planner.brute_force import brute_force
from ..planner.dp import solve_dp
from ..planner.evaluate import evaluate
from ..planner.exact import Tables
from ..planner.greedy import greedy_prefix, greedy_ratio
from ..planner.marginal import Load
from ..planner.problem import Link, Phase, Placement, Problem, Side
from ..planner.profile import EngineProfile, Grid
from ..planner.session_plan import EXPECTED_ANSWER_TOKENS, Held, KvMemory, plan_session
from ..types import ClientReport, ModelSpec, SessionPlan, Sla

T = TypeVar("T")
KINDS: Final = ("alike", "measured", "arbitrary")
STAGES: Final = 96
_REPEATS: Final = 3
_LONG_MS: Final = 200.0
#: Attention and feed-forward stages, relative to each other.
_SIZES: Final = (1.0, 2.0)


@dataclass(frozen=True, slots=True)
class Case:
    """One way to plan: the limit of crossings, and what the time is held against (milliseconds)."""

    name: str
    max_crossings: int | None
    target_ms: float | None


CASES: Final = (
    Case("one cut", 2, 1.0),
    Case("four crossings", 4, 50.0),
    Case("eight crossings", 8, None),
    Case("any crossings", None, None),
)


def random_problem(kind: str, seed: int, *, stages: int, max_crossings: int | None, memory: bool) -> Problem:
    """A model of `stages` stages with a prefill and 200 decode steps, limits between the fastest and the slowest."""
    chance = random.Random(f"{kind}/{seed}/{stages}")
    spread: Callable[[], float] = {
        "alike": lambda: 1.0,
        "measured": lambda: chance.uniform(0.9, 1.1),
        "arbitrary": lambda: chance.uniform(0.1, 3.0),
    }[kind]
    slower = chance.uniform(0.3, 8)
    link = Link(chance.uniform(1, 40), chance.uniform(1, 40), chance.uniform(500, 5000), chance.uniform(1000, 20_000))
    sizes = [_SIZES[stage % 2] for stage in range(stages)]
    phases = []
    for name, weight, scale, crossing in (("prefill", 1, 4.0, 200_000.0), ("decode", 200, 0.2, 2000.0)):
        server = [round(scale * size * spread(), 4) for size in sizes]
        client = [round(scale * slower * size * spread(), 4) for size in sizes]
        moved = [round(crossing * spread()) for _ in sizes]
        alone = sum(server) + link.up_ms + link.down_ms + moved[0] / link.up_bytes_per_ms
        limit = alone + chance.uniform(0.05, 0.95) * max(sum(client) - alone, 0.3 * alone)
        phases.append(Phase(name, weight, round(limit, 4), client, server, server, moved, 8.0))
    held = [round(1e6 * size * spread()) for size in sizes]
    names = tuple(f"s{stage}" for stage in range(stages))
    return Problem(
        stages=names,
        phases=tuple(phases),
        link=link,
        client_memory=held,
        client_memory_limit=round(sum(held) * chance.uniform(0.2, 0.8)) if memory else None,
        pinned={names[-1]: Side.SERVER} if max_crossings == 2 else {},  # the plan that the runtime executes
        max_crossings=max_crossings,
    )


def problems(case: Case, count: int, stages: int = STAGES) -> Iterator[Problem]:
    """`count` problems for every kind of model."""
    for kind in KINDS:
        for seed in range(count):
            yield random_problem(kind, seed, stages=stages, max_crossings=case.max_crossings, memory=seed % 2 == 1)


def measure(count: int, checks: int) -> dict[str, Any]:
    """Time `count` problems per kind and case, and compare `checks` small problems per case with brute force.

    `sessions` times as many whole plans as `splitllm serve` makes them.
    """
    return {
        "stages": STAGES,
        "phases": 2,
        "kinds": list(KINDS),
        "repeats": _REPEATS,
        "cases": [_rounded({**_timed(case, count), **_checked(case, checks)}) for case in CASES],
        "sessions": _timed_sessions(len(KINDS) * count),
    }


def _timed(case: Case, count: int) -> dict[str, Any]:
    """Best of three runs for every problem that takes no longer than 200 ms."""
    times, solutions, saved, greedy = [], [], [], []
    for problem in problems(case, count):
        solve = partial(solve_dp, problem)
        runs = [_clocked(solve)]
        while len(runs) < _REPEATS and runs[0][0] <= _LONG_MS:
            runs.append(_clocked(solve))
        times.append(min(spent for spent, _ in runs))
        solutions.append(runs[0][1])
        if solutions[-1].feasible:
            tables = Tables.of(problem)
            saved.append(_saved(tables, solutions[-1].placement))
            greedy.append(max(_saved(tables, place(tables)) for place in (greedy_prefix, greedy_ratio)))
    return {
        "case": case.name,
        "target_ms": case.target_ms,
        "problems": len(times),
        "feasible": sum(one.feasible for one in solutions),
        **_quantiles(times),
        "exact": sum(one.gap == 0 for one in solutions),
        "worst_gap": max(one.gap for one in solutions),
        "saved": statistics.fmean(saved or [0]),
        "better_greedy_saved": statistics.fmean(greedy or [0]),
    }


def session_plans(count: int) -> Iterator[Callable[[], SessionPlan]]:
    """`count` plans of sessions as `splitllm serve` makes them, on a model of 94 blocks (96 stages) and measured costs.

    Every second joins up to 32 others, every third is under way, every fifth client is too slow to run all blocks.
    """
    blocks = STAGES - 2
    spec = ModelSpec("bench", blocks, 576, 9, 3, 64, 49152, 4096, ())
    for seed in range(count):
        chance = random.Random(f"session/{seed}")
        rows, contexts = (1, 2, 4, 8, 16, 32, 64), (16, 256, 1024)
        ms = [[(0.2 + 0.03 * n) * (1 + c / 2000) * chance.uniform(0.9, 1.1) for c in contexts] for n in rows]
        decode = Grid.smoothed(rows, contexts, ms)
        profile = EngineProfile(decode, decode.scaled(1.5), Grid((1, 32), (0,), ((1.5,), (4.8,))), kv_block_bytes=1536)
        others = [chance.randrange(blocks + 1) for _ in range(chance.randint(1, 32))] if seed % 2 else []
        speed = 20.0 if seed % 5 == 0 else chance.uniform(0.1, 1)
        report = ClientReport("webgpu", "float32", blocks, speed, 3 * speed, 64, chance.randint(1, 4) << 30)
        link = Link(
            chance.uniform(1, 40), chance.uniform(1, 40), chance.uniform(500, 5000), chance.uniform(1000, 20_000)
        )
        yield partial(
            plan_session, spec, report, profile, link, Sla(),
            prompt_tokens=chance.randint(1, 500), expected_tokens=EXPECTED_ANSWER_TOKENS, wire_bytes=2,
            block_bytes=14 << 20, requested=None, headroom=0.7,
            load=Load.of(others, blocks, context=chance.uniform(0, 1000)),
            held=Held(chance.randrange(blocks + 1), chance.randint(1, 1000)) if seed % 3 == 0 else None,
            kv_memory=KvMemory(1e10, chance.uniform(0, 1e10), 2048),
        )  # fmt: skip


def _timed_sessions(count: int) -> dict[str, Any]:
    """Best of nine for every plan: they are short, and other work on the machine shows in single runs."""
    times, splits = [], set()
    for make in session_plans(count):
        runs = [_clocked(make) for _ in range(3 * _REPEATS)]
        times.append(min(spent for spent, _ in runs))
        splits.add(runs[0][1].split)
    return _rounded({"target_ms": 1.0, "plans": len(times), "different_splits": len(splits), **_quantiles(times)})


def _quantiles(times: Sequence[float]) -> dict[str, float]:
    return {"median_ms": statistics.median(times), "p95_ms": _percentile(times, 0.95), "worst_ms": max(times)}


def _rounded(case: dict[str, Any]) -> dict[str, Any]:
    return {key: round(value, 4) if isinstance(value, float) else value for key, value in case.items()}


def _saved(tables: Tables, placement: Placement) -> float:
    """The share of the server's cost that a placement saves; 0 where it breaks a limit and so is not used."""
    found = evaluate(tables, placement)
    return found.saved_fraction if found.feasible else 0.0


def _clocked(make: Callable[[], T]) -> tuple[float, T]:
    """Milliseconds of processor time: planning waits for nothing, and the machine may have other work."""
    start = time.process_time_ns()
    made = make()
    return (time.process_time_ns() - start) / 1e6, made


def _checked(case: Case, count: int) -> dict[str, Any]:
    """Small problems, 3 to 10 stages, whose placement must be that of brute force."""
    different = tried = 0
    for number in range(count):
        stages = 3 + number % 8
        problem = random_problem(
            KINDS[number % len(KINDS)], number, stages=stages, max_crossings=case.max_crossings, memory=number % 2 == 1
        )
        tables = Tables.of(problem)
        solution = solve_dp(tables)
        tried += 1
        different += (solution.placement, solution.feasible) != brute_force(tables) or solution.gap > 0
    return {"checked": tried, "different": different}


def _percentile(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(int(share * len(values)), len(values) - 1)]

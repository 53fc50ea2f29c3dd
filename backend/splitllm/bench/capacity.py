"""`splitllm bench capacity`: how many requests a second one server answers in time, by policy. Pure but for processes.

A turn is good if its time to first token and its time per output token both keep the promise; the latter is the mean
over the turn's further tokens, as DistServe (arXiv 2401.09670) and the usual serving benchmarks define it. A person
reads on while single tokens are late, so the mean is what they feel; `goodput_p95` counts the stricter way, with the
95th percentile of the turn's gaps between tokens in place of their mean.
"""

from __future__ import annotations

import multiprocessing
import statistics
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final

from ..errors import UsageError
from ..types import Sla
from .population import KINDS, PROMPT_TOKENS, WEB_WIDE, Kind, describe, population
from .simulator import simulate
from .simulator_engine import ServerModel
from .simulator_policies import POLICIES, policy
from .simulator_values import Outcome, Record

#: Rounding of predictions is no violation.
_TOLERANCE: Final = 1 + 1e-6
#: DistServe's goodput: the highest rate at which nine of ten requests keep the promise.
ATTAINMENT: Final = 0.9


@dataclass(frozen=True, slots=True)
class Scenario:
    """Everything that a run depends on but policy, rate and seed.

    speed: the server is that many times as fast as the profile. headroom: share of the promised TPOT and TTFT that
    plans are made for; the rest is for ticks that take longer than planned. warmup_s: turns asked before are not
    counted.
    """

    server: ServerModel
    sla: Sla = field(default_factory=Sla)
    speed: float = 4.0
    headroom: float = 0.7
    seconds: float = 300.0
    warmup_s: float = 60.0
    max_sessions: int = 256
    kv_bytes: int | None = None
    kinds: Mapping[str, Kind] = field(default_factory=lambda: KINDS)
    prompt_tokens: float = PROMPT_TOKENS

    def __post_init__(self) -> None:
        if not (0 < self.headroom <= 1 and 0 < self.speed < 1e6):
            raise UsageError("headroom is above 0 and at most 1, speed is above 0")
        if not 0 <= self.warmup_s < self.seconds:
            raise UsageError("the time simulated must be longer than the warm-up")


@dataclass(frozen=True, slots=True)
class Job:
    """One run."""

    scenario: Scenario
    policy: str
    rate: float
    seed: int


def run_job(job: Job) -> dict[str, Any]:
    """Simulate one policy at one rate with one seed; plain figures."""
    scenario = job.scenario
    server = scenario.server.scaled(1 / scenario.speed)
    people = population(
        job.rate,
        seconds=scenario.seconds,
        seed=job.seed,
        blocks=server.blocks,
        kinds=scenario.kinds,
        prompt_tokens=scenario.prompt_tokens,
    )
    outcome = simulate(
        server,
        people,
        policy(job.policy, server, scenario.sla, scenario.headroom),
        sla=scenario.sla,
        max_sessions=scenario.max_sessions,
        kv_bytes=scenario.kv_bytes,
    )
    figures = _figures(outcome, scenario, server.blocks)
    return {"policy": job.policy, "rate": job.rate, "seed": job.seed, **figures}


def is_good(record: Record, sla: Sla, *, tail: bool = False) -> bool:
    """Whether a turn kept both promises; `tail` takes the gaps' 95th percentile instead of their mean."""
    ttft = record.ttft_ms
    if not record.finished or ttft is None or ttft > sla.ttft_ms:
        return False
    per_token = percentile(record.gaps, 0.95) if tail else record.tpot_ms
    return per_token is None or per_token <= sla.tpot_ms


def percentile(values: Sequence[float], share: float) -> float | None:
    """Nearest-rank percentile; None of nothing."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -(-int(share * 1000) * len(ordered) // 1000) - 1))]


def _figures(outcome: Outcome, scenario: Scenario, blocks: int) -> dict[str, Any]:
    sla, spent = scenario.sla, outcome.spent
    begin, end = 1000 * scenario.warmup_s, 1000 * scenario.seconds
    counted = [record for record in outcome.records if begin <= record.asked_ms < end]
    served = [record for record in outcome.records if not record.refused]
    good = [record for record in counted if is_good(record, sla)]
    planned = [record for record in counted if record.feasible]
    window_s = scenario.seconds - scenario.warmup_s
    all_steps = sum(record.positions for record in served) * blocks
    tpot = [record.tpot_ms for record in counted if record.tpot_ms is not None]
    ttft = [record.ttft_ms for record in counted if record.ttft_ms is not None]
    return {
        "asked": len(counted),
        "asked_per_s": _round(len(counted) / window_s),
        "goodput": _round(len(good) / window_s),
        "goodput_p95": _round(sum(is_good(record, sla, tail=True) for record in counted) / window_s),
        "attainment": _round(len(good) / max(1, len(counted))),
        "refused": sum(record.refused for record in counted),
        "planned_feasible": len(planned),
        "planned_violations": sum(_breaks_its_plan(record, sla) for record in planned),
        "planned_feasible_missed": sum(not is_good(record, sla) for record in planned),
        "ttft_ms": {"p50": _round(percentile(ttft, 0.5)), "p95": _round(percentile(ttft, 0.95))},
        "tpot_ms": {"p50": _round(percentile(tpot, 0.5)), "p95": _round(percentile(tpot, 0.95))},
        "block_steps_saved": _round(sum(r.positions * r.split for r in served) / max(1, all_steps)),
        "server_ms_per_request": _round(spent.total_ms / max(1, len(served))),
        "server_ms": {
            "prefill": _round(spent.prefill_ms),
            "decode": _round(spent.decode_ms),
            "head": _round(spent.head_ms),
            "copies": _round(spent.copy_ms),
            "overhead": _round(spent.overhead_ms),
        },
        "busy": _round(spent.total_ms / max(outcome.end_ms, 1)),
        "rows_per_tick": _round(spent.rows / max(1, spent.ticks)),
        "idle_block_rows_per_busy": _round(spent.idle_rows / max(1, spent.decode_block_rows)),
        "most_sessions": outcome.most_sessions,
        "splits": {kind: _splits(counted, kind) for kind in scenario.kinds},
    }


def _breaks_its_plan(record: Record, sla: Sla) -> bool:
    """Whether a plan that claims to keep the promise predicts otherwise."""
    late = record.predicted_ttft_ms > sla.ttft_ms * _TOLERANCE
    return late or record.predicted_tpot_ms > sla.tpot_ms * _TOLERANCE


def _splits(records: Sequence[Record], kind: str) -> dict[str, int]:
    """How many turns of this kind of client ran with which split."""
    splits = [record.split for record in records if record.kind == kind and not record.refused]
    return {str(split): splits.count(split) for split in sorted(set(splits))}


def _round(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")


# -- many runs --------------------------------------------------------------------------------------------------------


def sweep(
    scenario: Scenario,
    *,
    rates: Sequence[float],
    policies: Sequence[str],
    seeds: Sequence[int],
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """All policies at all rates with all seeds, and what follows: `runs` (each a run) and `policies` (a summary each).

    Raises:
        UsageError: a policy is unknown, or rates or seeds are missing.
    """
    unknown = [name for name in policies if name not in POLICIES]
    if unknown or not policies or not rates or not seeds:
        raise UsageError(f"give rates, seeds and policies; policies are {', '.join(POLICIES)}")
    jobs = [
        Job(scenario, name, rate, seed)
        for rate in sorted(set(rates))
        for seed in seeds
        for name in dict.fromkeys(policies)
    ]
    runs: list[dict[str, Any]] = []
    for run in _all(jobs, workers):
        runs.append(run)
        if progress is not None:
            progress(len(runs), len(jobs))
    _compare(runs)
    return {"policies": _summary(runs, list(dict.fromkeys(policies))), "runs": runs}


def _all(jobs: Sequence[Job], workers: int) -> Any:
    if workers <= 1:
        return map(run_job, jobs)
    # Spawned, not forked: the caller may have threads.
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        return iter(list(pool.map(run_job, jobs)))


def _compare(runs: Sequence[dict[str, Any]]) -> None:
    """Add what a run saves of the server's seconds against all-server, where both served all of the same people."""
    alone = {(run["rate"], run["seed"]): run for run in runs if run["policy"] == "all-server"}
    for run in runs:
        other = alone.get((run["rate"], run["seed"]))
        comparable = other is not None and not other["refused"] and not run["refused"]
        run["server_seconds_saved"] = (
            _round(1 - run["server_ms_per_request"] / other["server_ms_per_request"]) if comparable and other else None
        )


def _summary(runs: Sequence[dict[str, Any]], policies: Sequence[str]) -> dict[str, Any]:
    summary: dict[str, Any] = {}
    for name in policies:
        own = [run for run in runs if run["policy"] == name]
        rates = sorted({run["rate"] for run in own})
        mean = {key: [_mean([run[key] for run in own if run["rate"] == rate]) for rate in rates] for key in _MEANS}
        peak = max(range(len(rates)), key=lambda i: mean["goodput"][i] or 0.0)
        summary[name] = {
            "peak_goodput": _round(mean["goodput"][peak]),
            "peak_at_rate": rates[peak],
            "goodput_at_90": _round(_at_attainment(mean["asked_per_s"], mean["attainment"])),
            "peak_goodput_p95": _round(max(value or 0.0 for value in mean["goodput_p95"])),
            "block_steps_saved": mean["block_steps_saved"][peak],
            "server_seconds_saved": mean["server_seconds_saved"],
            "planned_violations": sum(run["planned_violations"] for run in own),
            "by_rate": {"rate": rates, **{key: [_round(value) for value in mean[key]] for key in _MEANS}},
        }
    for row in summary.values():
        for key in ("peak_goodput", "goodput_at_90", "peak_goodput_p95"):
            base = summary.get("all-server", {}).get(key)
            row[f"{key}_over_all_server"] = _round(row[key] / base) if base and row[key] is not None else None
    return summary


_MEANS: Final = (
    "asked_per_s",
    "goodput",
    "goodput_p95",
    "attainment",
    "block_steps_saved",
    "server_seconds_saved",
    "server_ms_per_request",
    "busy",
    "idle_block_rows_per_busy",
    "rows_per_tick",
)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if len(known) == len(values) and known else None


def _at_attainment(asked: Sequence[float | None], attainment: Sequence[float | None]) -> float | None:
    """Good requests a second where nine of ten are good, by linear interpolation; None if that is never so.

    Where even the highest rate is good enough, that rate's figure: the truth is at least that.
    """
    points = [(a, share) for a, share in zip(asked, attainment, strict=True) if a is not None and share is not None]
    best = None
    for i, (rate, share) in enumerate(points):
        if share < ATTAINMENT:
            continue
        best = rate * share
        if i + 1 < len(points) and points[i + 1][1] < ATTAINMENT:
            next_rate, next_share = points[i + 1]
            along = (share - ATTAINMENT) / (share - next_share)
            best = (rate + along * (next_rate - rate)) * ATTAINMENT
    return best


# -- other scenarios --------------------------------------------------------------------------------------------------

#: What is changed, one thing at a time, to see what the result hangs on; and by what the rates are multiplied.
VARIANTS: Final[Mapping[str, tuple[Callable[[Scenario], Scenario], float]]] = MappingProxyType(
    {
        "devices of the whole web, half of them phones": (lambda s: replace(s, kinds=WEB_WIDE), 1.0),
        "TPOT 100 ms": (lambda s: replace(s, sla=Sla(s.sla.ttft_ms, 100.0)), 0.8),
        "TPOT 250 ms": (lambda s: replace(s, sla=Sla(s.sla.ttft_ms, 250.0)), 1.3),
        "prompts of 300 tokens": (lambda s: replace(s, prompt_tokens=300.0), 0.6),
        "plans without headroom": (lambda s: replace(s, headroom=1.0), 1.0),
        "a server half as fast": (lambda s: replace(s, speed=s.speed / 2), 0.5),
        "a server twice as fast": (lambda s: replace(s, speed=s.speed * 2), 2.0),
    }
)


def variants(
    scenario: Scenario,
    *,
    rates: Sequence[float],
    seeds: Sequence[int],
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> list[dict[str, Any]]:
    """all-server and dp in each of VARIANTS."""
    rows = []
    for number, (name, (change, factor)) in enumerate(VARIANTS.items()):
        changed = change(scenario)
        scaled = [rate * factor for rate in rates]
        result = sweep(changed, rates=scaled, policies=("all-server", "dp"), seeds=seeds, workers=workers)
        keys = ("peak_goodput", "goodput_at_90", "peak_goodput_over_all_server", "goodput_at_90_over_all_server")
        summary = {policy: {key: row[key] for key in keys} for policy, row in result["policies"].items()}
        rows.append({"variant": name, "rates": scaled, "policies": summary})
        if progress is not None:
            progress(number + 1, len(VARIANTS))
    return rows


def setup(scenario: Scenario) -> dict[str, Any]:
    """The scenario in figures, for a result's JSON."""
    return {
        "server": scenario.server.made_by,
        "speed": scenario.speed,
        "sla": {"ttft_ms": scenario.sla.ttft_ms, "tpot_ms": scenario.sla.tpot_ms},
        "headroom": scenario.headroom,
        "seconds": scenario.seconds,
        "warmup_s": scenario.warmup_s,
        "max_sessions": scenario.max_sessions,
        "kv_bytes": scenario.kv_bytes,
        "population": describe(scenario.kinds) | {"prompt_tokens_mean": scenario.prompt_tokens},
    }

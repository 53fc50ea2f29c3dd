"""From what was measured to the split of one session: how many blocks the client runs, and why.

The problem has the stages embed, block.0 .. block.N-1, head, and the phases prefill (weight 1, limit TTFT) and decode
(weight: the tokens expected, limit TPOT). Costs are the engine's milliseconds that the session adds to the batch it
joins (`marginal`), with a price on the memory it holds; latencies are those of the whole batch. The client embeds for
nothing (it reads single rows) when it runs a block; the head stays on the server; before the head only the last row
crosses. Latencies are sums: chunks that overlap in prefill make the true TTFT shorter than predicted, never longer.

A split of 0 is another machine than one of 1 or more, so it is evaluated as a problem of its own: the client sends
token ids, and the server decodes by itself and streams, so no token pays a round trip (decode has a link of zero) and
TTFT pays the link once. From 1 on every token goes up and comes back.

A conversation that is under way (`Held`) pays for changing its split: the client runs its blocks over the history to
have their keys and values, and if the split falls, the server runs its own as well. These are added to the candidates
after the exact table of cuts, because they depend on where the session comes from.

A client that is not measured, holds no block or has no backend runs none, unless it asks for a split by number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from ..errors import ProblemError, TurnError
from ..types import BlockTimes, ClientReport, Link, ModelSpec, SessionPlan, Sla
from .candidates import Candidate, Candidates, Change
from .exact import Tables
from .marginal import Load, SessionCosts, kv_price
from .one_cut import CutTable
from .problem import Problem
from .profile import EngineProfile
from .session_problem import Session, split_problem
from .session_reason import chosen_reason, forced_reason

#: Tokens an answer is expected to have; the weight of the decode phase in a session's plan.
EXPECTED_ANSWER_TOKENS: Final = 200
_LONGEST_CONTEXT: Final = 1 << 24


@dataclass(frozen=True, slots=True)
class Held:
    """A conversation under way: `positions` have keys and values, with `split` blocks at the client.

    `margin` is 1, or less where the session has missed its promise before: a larger split must then keep that share of
    the promise, so that the split does not go up and down between two that are nearly alike.
    """

    split: int
    positions: int
    margin: float = 1.0


@dataclass(frozen=True, slots=True)
class KvMemory:
    """Memory for keys and values: its size, what other sessions hold, and the tokens this one reserves for."""

    limit_bytes: float
    others_bytes: float
    session_tokens: int


def plan_session(
    spec: ModelSpec,
    report: ClientReport,
    engine: EngineProfile | BlockTimes,
    link: Link,
    sla: Sla,
    *,
    prompt_tokens: int,
    expected_tokens: int,
    wire_bytes: int,
    block_bytes: int | None,
    requested: int | None,
    headroom: float | None = None,
    load: Load | None = None,
    held: Held | None = None,
    kv_memory: KvMemory | None = None,
) -> SessionPlan:
    """Choose the split for one session.

    `prompt_tokens` is what prefill still has to compute, `expected_tokens` the length of the answer, `wire_bytes` 2
    or 4 per activation, `block_bytes` the client's memory for one block's weights (None: unknown, then memory limits
    nothing), `requested` a split that the client insists on. `engine` is what was measured of the server; plain
    `BlockTimes` stand for an engine whose rows all cost alike. `load` is the batch that the session joins (None:
    nobody): costs are what the session adds to it. `headroom` is the share of the promise that a split of 1 or more may
    use if it were its model's only session; the rest is for ticks of the others (`marginal.headroom`). None: latencies
    are those of the batch, and may use all of it. `held` is what has been computed already (None: nothing), `kv_memory`
    what the session's keys and values compete for (None: nothing).

    `details["candidates"]` has one list per column: `split`, `ttft_ms`, `tpot_ms`, `server_ms`, `cost_ms`,
    `rejected_by` (None or the name of what forbids the split). `details["server_ms_alone"]` is that of split 0.

    If no split meets the SLA with headroom, one that meets it without is taken; if there is none either, the plan is
    the one of least weighted latency among those the client can run (a tie goes to the smaller split), with `feasible`
    false.

    Raises:
        TurnError: `requested` is not a split of this model, or more than the blocks that the client holds
            (code `split_unavailable`).
        ProblemError: the server's own figures (profile, link, SLA, sizes) make no sense.
    """
    rows, tokens = max(prompt_tokens, 1), max(expected_tokens, 1)
    session = Session.of(spec, report, sla, rows, block_bytes)
    if requested is None:
        session = replace(session, headroom=1.0 if headroom is None else headroom)
    else:
        _check_requested(requested, session)
    load = Load.idle(spec.blocks) if load is None else load
    costs = _costs(spec, engine, rows=rows, tokens=tokens, load=load, held=held, kv_memory=kv_memory)
    if headroom is not None and load.head_rows > 0:
        joined, idle = costs, Load.idle(spec.blocks, other_models_ms=load.other_models_ms)
        costs = _costs(spec, engine, rows=rows, tokens=tokens, load=idle, held=held, kv_memory=kv_memory)
        costs = replace(costs, step_cost_ms=joined.step_cost_ms, head_cost_ms=joined.head_cost_ms)
    problem = split_problem(spec, session, costs, link, rows=rows, tokens=tokens, wire_bytes=wire_bytes)
    able = session.willing > 0 and session.backend and session.measured
    alone = session.ready == 0 or not (requested is not None or able)
    tabled = Candidates.of(CutTable.of(Tables.of(problem)), session, alone=alone)
    change = None
    if held is not None and (held.positions > 0 or held.margin != 1):
        change = _change(engine, session, costs, problem, rows, held)
    candidates = tabled.changing(change)
    best = candidates.best()
    if not best.keeps_promise and session.headroom < 1:
        candidates = tabled.without_headroom().changing(change)
        best = candidates.best()
    server_ms = costs.server_ms(tokens)

    if requested is not None:
        chosen = candidates[requested]
        return _plan(candidates, chosen, "forced", forced_reason(chosen, session), server_ms)
    bound = _bound(candidates, best, session)
    return _plan(candidates, best, bound, chosen_reason(candidates, best, bound, candidates.session), server_ms)


def _change(
    engine: EngineProfile | BlockTimes, session: Session, costs: SessionCosts, problem: Problem, rows: int, held: Held
) -> Change:
    """What changing the split of a conversation under way takes, per block; see `Held`."""
    if held.positions < 1:
        return Change(held.split, held.margin)
    # One chunk a tick, as the prompt's.
    waits = costs.chunk_wait_ms * held.positions / rows
    history = problem.phases[0].input_bytes[1] * held.positions / rows / problem.link.up_bytes_per_ms
    return Change(
        held.split,
        held.margin,
        client_ms=(session.client_prefill_ms or 0.0) * held.positions / rows,
        server_ms=_profile(engine).prompt_ms(held.positions),
        travel_ms=history + waits,
    )


def _costs(
    spec: ModelSpec,
    engine: EngineProfile | BlockTimes,
    *,
    rows: int,
    tokens: int,
    load: Load,
    held: Held | None,
    kv_memory: KvMemory | None,
) -> SessionCosts:
    profile = _profile(engine)
    if spec.blocks < 1:
        raise ProblemError("a plan needs at least one block")
    rows, tokens = min(rows, _LONGEST_CONTEXT), min(tokens, _LONGEST_CONTEXT)
    costs = SessionCosts.of(
        profile,
        load,
        prompt_tokens=rows,
        answer_tokens=tokens,
        history=0 if held is None else held.positions,
    )
    if kv_memory is None:
        return costs
    # Memory is held at least as long as the server alone would take; that it is held longer at some splits is left out,
    # because then what a block costs would depend on where the others run.
    shortest = spec.blocks * costs.prompt_ms + tokens * (sum(costs.tick_ms) + costs.tick_head_ms)
    block = kv_price(
        profile.kv_block_bytes * kv_memory.session_tokens,
        shortest,
        limit_bytes=kv_memory.limit_bytes,
        others_bytes=kv_memory.others_bytes,
    )
    return replace(costs, kv_ms=block)


def _profile(engine: EngineProfile | BlockTimes) -> EngineProfile:
    return EngineProfile.of_times(engine) if isinstance(engine, BlockTimes) else engine


def _check_requested(requested: int, session: Session) -> None:
    if isinstance(requested, bool) or not isinstance(requested, int) or not 0 <= requested <= session.blocks:
        raise TurnError(f"this model has no such split: ask for 0 to {session.blocks}", code="split_unavailable")
    if requested > session.ready:
        raise TurnError(
            f"the client holds {session.ready} of the {requested} blocks that split {requested} needs: "
            f"ask for at most {session.ready}",
            code="split_unavailable",
        )


def _bound(candidates: Candidates, best: Candidate, session: Session) -> str:
    """What kept the split from being larger: the first thing that forbids one block more."""
    if best.split == session.blocks:
        return "model"
    if len(candidates) == 1:
        if session.backend and session.ready == 0:
            return "blocks_ready"
        return "effort" if session.backend and session.measured else "backend"
    rejected = candidates.rejected_by(best.split + 1)
    return rejected[0] if rejected else "tpot"  # a tie in cost, which went to the faster


def _plan(
    candidates: Candidates, chosen: Candidate, bound: str, reason: str, server_ms: Sequence[float]
) -> SessionPlan:
    alone = server_ms[0]
    table = {
        "split": list(range(len(candidates))),
        "ttft_ms": candidates.ttft_ms,
        "tpot_ms": candidates.tpot_ms,
        "server_ms": list(server_ms[: len(candidates)]),
        "cost_ms": candidates.cost_ms,
        "rejected_by": candidates.first_rejections(),
    }
    return SessionPlan(
        split=chosen.split,
        feasible=chosen.keeps_promise,
        reason=reason,
        bound=bound,
        saved_block_steps=chosen.split / candidates.session.blocks,
        saved_server_time=max(0.0, 1 - server_ms[chosen.split] / alone) if alone > 0 else 0.0,
        server_ms=server_ms[chosen.split],
        predicted_ttft_ms=chosen.ttft_ms,
        predicted_tpot_ms=chosen.tpot_ms,
        details={"candidates": table, "server_ms_alone": alone},
    )

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

from dataclasses import dataclass, replace
from typing import Any, Final

from ..errors import ProblemError, TurnError
from ..types import BlockTimes, ClientReport, Link, ModelSpec, SessionPlan, Sla
from .evaluate import evaluate
from .exact import Tables
from .marginal import Load, SessionCosts, kv_price
from .one_cut import CutTable
from .problem import Problem, Side
from .profile import EngineProfile
from .session_problem import EMBED, Session, server_problem, split_problem
from .session_reason import Candidate, chosen_reason, forced_reason, relief_reason

#: Tokens an answer is expected to have; the weight of the decode phase in a session's plan.
EXPECTED_ANSWER_TOKENS: Final = 200
_TOLERANCE: Final = 1 + 1e-9
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
    load: Load | None = None,
    held: Held | None = None,
    kv_memory: KvMemory | None = None,
) -> SessionPlan:
    """Choose the split for one session.

    `prompt_tokens` is what prefill still has to compute, `expected_tokens` the length of the answer, `wire_bytes` 2
    or 4 per activation, `block_bytes` the client's memory for one block's weights (None: unknown, then memory limits
    nothing), `requested` a split that the client insists on. `engine` is what was measured of the server; plain
    `BlockTimes` stand for an engine whose rows all cost alike. `load` is the batch that the session joins (None:
    nobody), `held` what it has computed already (None: nothing), `kv_memory` what its keys and values compete for
    (None: nothing).

    `details["candidates"]` has one list per column: `split`, `ttft_ms`, `tpot_ms`, `server_ms`, `cost_ms`,
    `rejected_by` (None or the name of what forbids the split). `details["server_ms_alone"]` is that of split 0.

    If no split meets the SLA, the plan is the one of least weighted latency among those the client can run
    (a tie goes to the smaller split), with `feasible` false. But if that is only so because of `load`, the fastest
    would add to it: then it is the split that would be chosen without load, so that those who can carry more relieve
    the server.

    Raises:
        TurnError: `requested` is not a split of this model, or more than the blocks that the client holds
            (code `split_unavailable`).
        ProblemError: the server's own figures (profile, link, SLA, sizes) make no sense.
    """
    rows, tokens = max(prompt_tokens, 1), max(expected_tokens, 1)
    session = Session.of(spec, report, sla, rows, block_bytes)
    if requested is not None:
        _check_requested(requested, session)
    costs = _costs(spec, engine, rows=rows, tokens=tokens, load=load, held=held, kv_memory=kv_memory)
    problem = split_problem(spec, session, costs, link, rows=rows, tokens=tokens, wire_bytes=wire_bytes)
    change = _Change.of(engine, session, costs, problem, rows=rows, held=held)
    candidates = [change.add_to(_on_the_server(problem), session)]
    best = candidates[0]
    able = session.willing > 0 and session.backend and session.measured
    if session.ready > 0 and (requested is not None or able):
        cuts = CutTable.of(Tables.of(problem))
        splits = [_split(cuts, split, session) for split in range(1, session.blocks + 1)]
        candidates += [change.add_to(split, session) for split in splits]
        best = _best(candidates, cuts) if change.is_none else _best_of_all(candidates)

    figures = _Figures(costs, tokens)
    if requested is None and not best.keeps_promise and load is not None and load.head_rows > 0:
        calm = plan_session(
            spec,
            report,
            engine,
            link,
            sla,
            prompt_tokens=prompt_tokens,
            expected_tokens=expected_tokens,
            wire_bytes=wire_bytes,
            block_bytes=block_bytes,
            requested=None,
            held=held,
        )
        if calm.feasible and calm.split > best.split:
            chosen = candidates[calm.split]
            return _plan(candidates, chosen, calm.bound, relief_reason(chosen, session), figures)
    if requested is not None:
        chosen = candidates[requested]
        return _plan(candidates, chosen, "forced", forced_reason(chosen, session), figures)
    bound = _bound(candidates, best, session)
    return _plan(candidates, best, bound, chosen_reason(candidates, best, bound, session), figures)


@dataclass(frozen=True, slots=True)
class _Change:
    """What changing to another split adds to the first token's time and to the cost, per block; see `Held`."""

    held: Held | None
    client_ms: float = 0.0  # one block over the history
    server_ms: float = 0.0
    travel_ms: float = 0.0  # the history's rows

    @classmethod
    def of(
        cls,
        engine: EngineProfile | BlockTimes,
        session: Session,
        costs: SessionCosts,
        problem: Problem,
        *,
        rows: int,
        held: Held | None,
    ) -> _Change:
        if held is None or held.positions < 1:
            return cls(held)
        # One chunk a tick, as the prompt's.
        waits = costs.chunk_wait_ms * held.positions / rows
        history = problem.phases[0].input_bytes[1] * held.positions / rows / problem.link.up_bytes_per_ms
        return cls(
            held,
            client_ms=(session.client_prefill_ms or 0.0) * held.positions / rows,
            server_ms=_profile(engine).prompt_ms(held.positions),
            travel_ms=history + waits,
        )

    @property
    def is_none(self) -> bool:
        return self.held is None or (self.held.positions < 1 and self.held.margin == 1)

    def add_to(self, one: Candidate, session: Session) -> Candidate:
        """The candidate with what changing to it takes; limits are judged anew."""
        held = self.held
        if held is None or one.split == held.split:
            return one
        ttft = one.split * self.client_ms
        cost = 0.0
        if one.split < held.split:
            cost = (session.blocks - one.split) * self.server_ms
            ttft += cost + (self.travel_ms if one.split else 0.0)
        margin = held.margin if one.split > held.split else 1.0
        late = {"ttft": one.ttft_ms + ttft > session.ttft_ms * margin * _TOLERANCE}
        late["tpot"] = one.tpot_ms > session.tpot_ms * margin * _TOLERANCE
        order = ("tpot", "ttft", "memory", "effort", "blocks_ready")
        return replace(
            one,
            ttft_ms=one.ttft_ms + ttft,
            weighted_ms=one.weighted_ms + ttft,
            cost_ms=one.cost_ms + cost,
            rejected_by=tuple(name for name in order if name in one.rejected_by or late.get(name, False)),
        )


@dataclass(frozen=True, slots=True)
class _Figures:
    """What a split costs the engine in time alone, as an operator pays; see `SessionCosts.server_ms`."""

    costs: SessionCosts
    tokens: int

    def server_ms(self, split: int) -> float:
        return self.costs.server_ms(split, self.tokens)

    def saved(self, split: int) -> float:
        alone = self.server_ms(0)
        return max(0.0, 1 - self.server_ms(split) / alone) if alone > 0 else 0.0


def _costs(
    spec: ModelSpec,
    engine: EngineProfile | BlockTimes,
    *,
    rows: int,
    tokens: int,
    load: Load | None,
    held: Held | None,
    kv_memory: KvMemory | None,
) -> SessionCosts:
    profile = _profile(engine)
    if spec.blocks < 1:
        raise ProblemError("a plan needs at least one block")
    rows, tokens = min(rows, _LONGEST_CONTEXT), min(tokens, _LONGEST_CONTEXT)
    costs = SessionCosts.of(
        profile,
        Load.idle(spec.blocks) if load is None else load,
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


def _on_the_server(problem: Problem) -> Candidate:
    alone = evaluate(server_problem(problem), (Side.SERVER,) * len(problem.stages))
    names = {"prefill": "ttft", "decode": "tpot"}
    return Candidate(
        split=0,
        ttft_ms=alone.latency_ms["prefill"],
        tpot_ms=alone.latency_ms["decode"],
        weighted_ms=alone.weighted_ms,
        cost_ms=alone.server_cost,
        rejected_by=tuple(sorted((names[failed.subject] for failed in alone.failures), reverse=True)),
    )


def _split(cuts: CutTable, split: int, session: Session) -> Candidate:
    """One split of 1 or more, also where the client cannot run it yet; limits that blocks cannot mend come first."""
    tables, cut = cuts.tables, split + EMBED
    prefill, decode = tables.latency
    ttft, tpot = (column[cut] for column in cuts.latency)
    checks = (
        ("tpot", decode.holds(tpot)),
        ("ttft", prefill.holds(ttft)),
        ("memory", tables.memory.holds(cuts.memory[cut])),
        ("effort", split <= session.willing),
        ("blocks_ready", split <= session.ready),
    )
    return Candidate(
        split=split,
        ttft_ms=prefill.value(ttft),
        tpot_ms=decode.value(tpot),
        weighted_ms=tables.weighted.value(cuts.weighted[cut]),
        cost_ms=tables.cost.value(cuts.cost[cut]),
        rejected_by=tuple(name for name, holds in checks if not holds),
    )


def _best(candidates: list[Candidate], cuts: CutTable) -> Candidate:
    """The cheapest split within every limit, otherwise the fastest; a split of 0 costs the server most."""
    alone = candidates[0]
    cut = cuts.best()
    if cut is not None:
        return candidates[cut - EMBED]
    cut = cuts.fastest()
    if alone.keeps_promise or cut is None or alone.weighted_ms <= candidates[cut - EMBED].weighted_ms:
        return alone
    return candidates[cut - EMBED]


def _best_of_all(candidates: list[Candidate]) -> Candidate:
    """The same where changing the split costs something: the table of cuts does not know of it."""
    kept = [one for one in candidates if not one.rejected_by]
    if kept:
        return min(kept, key=lambda one: (one.cost_ms, one.weighted_ms, one.split))
    possible = [one for one in candidates if set(one.rejected_by) <= {"ttft", "tpot"}]
    return min(possible, key=lambda one: (one.weighted_ms, one.cost_ms, one.split))


def _bound(candidates: list[Candidate], best: Candidate, session: Session) -> str:
    """What kept the split from being larger: the first thing that forbids one block more."""
    if best.split == session.blocks:
        return "model"
    if len(candidates) == 1:
        if session.backend and session.ready == 0:
            return "blocks_ready"
        return "effort" if session.backend and session.measured else "backend"
    rejected = candidates[best.split + 1].rejected_by
    return rejected[0] if rejected else "tpot"  # a tie in cost, which went to the faster


def _plan(candidates: list[Candidate], chosen: Candidate, bound: str, reason: str, figures: _Figures) -> SessionPlan:
    table: dict[str, list[Any]] = {
        "split": [one.split for one in candidates],
        "ttft_ms": [round(one.ttft_ms, 3) for one in candidates],
        "tpot_ms": [round(one.tpot_ms, 3) for one in candidates],
        "server_ms": [round(figures.server_ms(one.split), 3) for one in candidates],
        "cost_ms": [round(one.cost_ms, 3) for one in candidates],
        "rejected_by": [one.rejected_by[0] if one.rejected_by else None for one in candidates],
    }
    return SessionPlan(
        split=chosen.split,
        feasible=chosen.keeps_promise,
        reason=reason,
        bound=bound,
        saved_block_steps=chosen.split / len(figures.costs.step_cost_ms),
        saved_server_time=figures.saved(chosen.split),
        server_ms=figures.server_ms(chosen.split),
        predicted_ttft_ms=chosen.ttft_ms,
        predicted_tpot_ms=chosen.tpot_ms,
        details={"candidates": table, "server_ms_alone": figures.server_ms(0)},
    )

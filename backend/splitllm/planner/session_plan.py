"""From what was measured to the split of one session: how many blocks the client runs, and why.

The problem has the stages embed, block.0 .. block.N-1, head, and the phases prefill (weight 1, limit TTFT) and decode
(weight: the tokens expected, limit TPOT). Costs are the server's milliseconds. The client embeds for nothing (it
reads single rows) when it runs a block; the head stays on the server; before the head only the last row crosses.
Latencies are sums: chunks that overlap in prefill make the true TTFT shorter than predicted, never longer.

A split of 0 is another machine than one of 1 or more, so it is evaluated as a problem of its own: the client sends
token ids, and the server decodes by itself and streams, so no token pays a round trip (decode has a link of zero) and
TTFT pays the link once. From 1 on every token goes up and comes back.

A client that is not measured, holds no block or has no backend runs none, unless it asks for a split by number.
"""

from __future__ import annotations

from typing import Any

from ..errors import TurnError
from ..types import BlockTimes, ClientReport, Link, ModelSpec, SessionPlan, Sla
from .evaluate import evaluate
from .exact import Tables
from .one_cut import CutTable
from .problem import Problem, Side
from .session_problem import EMBED, Session, server_problem, split_problem
from .session_reason import Candidate, chosen_reason, forced_reason


def plan_session(
    spec: ModelSpec,
    report: ClientReport,
    times: BlockTimes,
    link: Link,
    sla: Sla,
    *,
    prompt_tokens: int,
    expected_tokens: int,
    wire_bytes: int,
    block_bytes: int | None,
    requested: int | None,
) -> SessionPlan:
    """Choose the split for one session.

    `prompt_tokens` is what prefill still has to compute, `expected_tokens` the length of the answer, `wire_bytes` 2
    or 4 per activation, `block_bytes` the client's memory for one block's weights (None: unknown, then memory limits
    nothing), `requested` a split that the client insists on. `details["candidates"]` has one list per column:
    `split`, `ttft_ms`, `tpot_ms` and `rejected_by` (None or the name of what forbids the split).

    If no split meets the SLA, the plan is the one of least weighted latency among those the client can run
    (a tie goes to the smaller split), with `feasible` false.

    Raises:
        TurnError: `requested` is not a split of this model, or more than the blocks that the client holds
            (code `split_unavailable`).
        ProblemError: the server's own figures (times, link, SLA, sizes) make no sense.
    """
    rows, tokens = max(prompt_tokens, 1), max(expected_tokens, 1)
    session = Session.of(spec, report, sla, rows, block_bytes)
    if requested is not None:
        _check_requested(requested, session)
    problem = split_problem(spec, session, times, link, rows=rows, tokens=tokens, wire_bytes=wire_bytes)
    candidates = [_on_the_server(problem)]
    best = candidates[0]
    if session.ready > 0 and (requested is not None or (session.backend and session.measured)):
        cuts = CutTable.of(Tables.of(problem))
        candidates += [_split(cuts, split, session) for split in range(1, session.blocks + 1)]
        best = _best(candidates, cuts)

    if requested is not None:
        chosen = candidates[requested]
        return _plan(candidates, chosen, "forced", forced_reason(chosen, session))
    bound = _bound(candidates, best, session)
    return _plan(candidates, best, bound, chosen_reason(candidates, best, bound, session))


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
        saved_fraction=0.0,
        rejected_by=tuple(sorted((names[failed.subject] for failed in alone.failures), reverse=True)),
    )


def _split(cuts: CutTable, split: int, session: Session) -> Candidate:
    """One split of 1 or more, also where the client cannot run it yet; limits that blocks cannot mend come first."""
    tables, cut = cuts.tables, split + EMBED
    prefill, decode = tables.latency
    ttft, tpot = (column[cut] for column in cuts.latency)
    most = tables.most_cost()
    checks = (
        ("tpot", decode.holds(tpot)),
        ("ttft", prefill.holds(ttft)),
        ("memory", tables.memory.holds(cuts.memory[cut])),
        ("blocks_ready", split <= session.ready),
    )
    return Candidate(
        split=split,
        ttft_ms=prefill.value(ttft),
        tpot_ms=decode.value(tpot),
        weighted_ms=tables.weighted.value(cuts.weighted[cut]),
        saved_fraction=(most - cuts.cost[cut]) / most,
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


def _bound(candidates: list[Candidate], best: Candidate, session: Session) -> str:
    """What kept the split from being larger: the first thing that forbids one block more."""
    if best.split == session.blocks:
        return "model"
    if len(candidates) == 1:
        return "blocks_ready" if session.backend and session.ready == 0 else "backend"
    return candidates[best.split + 1].rejected_by[0]


def _plan(candidates: list[Candidate], chosen: Candidate, bound: str, reason: str) -> SessionPlan:
    table: dict[str, list[Any]] = {
        "split": [one.split for one in candidates],
        "ttft_ms": [round(one.ttft_ms, 3) for one in candidates],
        "tpot_ms": [round(one.tpot_ms, 3) for one in candidates],
        "rejected_by": [one.rejected_by[0] if one.rejected_by else None for one in candidates],
    }
    return SessionPlan(
        split=chosen.split,
        feasible=chosen.keeps_promise,
        reason=reason,
        bound=bound,
        saved_fraction=chosen.saved_fraction,
        predicted_ttft_ms=chosen.ttft_ms,
        predicted_tpot_ms=chosen.tpot_ms,
        details={"candidates": table},
    )

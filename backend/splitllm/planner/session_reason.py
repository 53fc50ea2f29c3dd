"""The sentence that tells a person why a session is split as it is."""

from __future__ import annotations

from collections.abc import Sequence

from .candidates import Candidate
from .reasons import milliseconds, over, size
from .session_problem import Session


def chosen_reason(candidates: Sequence[Candidate], best: Candidate, bound: str, session: Session) -> str:
    """Why the planner chose `best`; `bound` is what kept the split from being larger."""
    where = _where(best.split, session)
    if not best.keeps_promise:
        broken = _broken_promises(best, session)
        if len(candidates) == 1:
            return f"{where}, and the promise does not hold: {broken}."
        return f"No split keeps the promise. {where}, the fastest choice: {broken}."
    if bound == "model":
        return f"{where}: {_figures(best)}, within the promise."
    if bound == "backend":
        why = "has not measured its speed yet" if session.backend else "cannot run any"
        return f"{where}: {session.place} {why}."
    if bound == "effort":
        return f"{where}: you let {session.place} do no more."
    if bound == "blocks_ready":
        if session.more:
            missing = "the next one has not arrived yet" if best.split else f"none has arrived in {session.place} yet"
        else:
            missing = f"{session.place} holds no more of them" if best.split else f"{session.place} holds none"
            missing += ", and none is on its way"
        return f"{where}: {missing}."
    subject = "one more" if best.split else f"one in {session.place}"
    return f"{where}: {subject} would {_excess(candidates[best.split + 1], bound, session)}."


def forced_reason(chosen: Candidate, session: Session) -> str:
    """What to expect of a split that the client insisted on."""
    ask = f"{_where(chosen.split, session)}, as you asked"
    if chosen.keeps_promise:
        reason = f"{ask}: {_figures(chosen)}, within the promise"
    else:
        reason = f"{ask}: {_broken_promises(chosen, session)}"
    if "memory" in chosen.rejected_by:
        need, limit = _memory(chosen, session)
        reason += f"; their weights need {need} of memory, over the {limit} that {session.place} may use"
    if chosen.split and not session.measured:
        reason += f" (without {session.place}'s own time, which is not measured yet)"
    return reason + "."


def _where(split: int, session: Session) -> str:
    of = "the only block" if session.blocks == 1 else f"all {session.blocks} blocks"
    run = "runs" if session.blocks == 1 or split == 1 else "run"
    if split == 0:
        return f"{of[0].upper()}{of[1:]} {run if session.blocks == 1 else 'run'} on the server"
    if split == session.blocks:
        return f"{of[0].upper()}{of[1:]} {run} in {session.place}"
    return f"{split} of {session.blocks} blocks {run} in {session.place}"


def _figures(chosen: Candidate) -> str:
    first, further = milliseconds(chosen.ttft_ms), milliseconds(chosen.tpot_ms)
    return f"the first token should take {first} and each further one {further}"


def _broken_promises(chosen: Candidate, session: Session) -> str:
    clauses = []
    for name, subject in (("ttft", "the first token"), ("tpot", "each token")):
        if name in chosen.rejected_by:
            value, limit = _latency(chosen, name, session)
            clauses.append(f"{subject} takes {value}, over the promised {limit}")
    return ", and ".join(clauses)


def _excess(more: Candidate, bound: str, session: Session) -> str:
    """What one block more would do, after `would`."""
    if bound == "memory":
        need, limit = _memory(more, session)
        return f"need {need} of memory, over the {limit} that {session.place} may use"
    takes = more.tpot_ms if bound == "tpot" else more.ttft_ms
    promised = session.tpot_ms if bound == "tpot" else session.ttft_ms
    subject = "each token" if bound == "tpot" else "the first token"
    if takes <= promised:  # rejected all the same: some of it is kept for others, more where it was broken before
        return f"make {subject} take {milliseconds(takes)}, too near the promised {milliseconds(promised)}"
    value, limit = _latency(more, bound, session)
    return f"make {subject} take {value}, over the promised {limit}"


def _memory(one: Candidate, session: Session) -> tuple[str, str]:
    return over(size, one.split * session.block_bytes, session.memory or 0.0)


def _latency(one: Candidate, name: str, session: Session) -> tuple[str, str]:
    if name == "tpot":
        return over(milliseconds, one.tpot_ms, session.tpot_ms)
    return over(milliseconds, one.ttft_ms, session.ttft_ms)

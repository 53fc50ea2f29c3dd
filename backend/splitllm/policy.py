"""Who goes first: the scheduler's choices as functions of what waits and of the time. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

#: What a further piece of prefill costs in a tick before its first row, in rows: every piece reads all weights anew.
PIECE_ROWS: Final = 16
#: Ticks that rows which are ready wait for others at most. Longer saves more, and makes more tokens late.
COMPANY_TICKS: Final = 0.5
#: Ticks of time that waiting leaves before a token is due: some for a chunk of a prompt, and some for the link.
COMPANY_LEAVES: Final = 5
#: Ticks that a seat is kept when a turn has ended: a session that closes behind its answer is gone by then.
TURN_ENDED_TICKS: Final = 2
#: The same within a turn. Its rows come and go in about as many ticks as a round trip takes, and moving costs more.
SILENT_TICKS: Final = 32
#: Sessions parked in one tick at most, so that others wait for few moves when many turns end at once.
PARKED_AT_ONCE: Final = 2


@dataclass(frozen=True, slots=True)
class WaitingPrompt:
    """A session whose prompt has rows to compute.

    rows: how many are here. deadline_ms: when its first token is due. last_served: number of the tick that last
    computed rows of it, 0 for never.
    """

    session: str
    rows: int
    deadline_ms: float
    last_served: int = 0


def share_prefill(prompts: Sequence[WaitingPrompt], *, tick: int, now_ms: float, rows: int) -> list[tuple[str, int]]:
    """Who may compute how many prompt rows in this tick, together at most `rows`.

    Every other tick goes by deadline, earliest first; but a promise that is broken already must not break others, so
    who is overdue stands behind. The ticks between go by turn, so that nobody waits for one long prompt: with n
    prompts waiting, each is served in 2 n ticks. What a prompt leaves of a tick's rows goes to those behind it that it
    suffices for, less what another piece costs.

    Args:
        prompts: those waiting, each with at least one row.
        tick: number of this tick of prefill, from 1.
        now_ms: the time, on the clock of the deadlines.
        rows: the most that one tick may compute.
    """

    def by_deadline(prompt: WaitingPrompt) -> tuple[bool, float, int]:
        return (now_ms > prompt.deadline_ms, prompt.deadline_ms, prompt.last_served)

    def by_turn(prompt: WaitingPrompt) -> tuple[int, float]:
        return (prompt.last_served, prompt.deadline_ms)

    queue = sorted(prompts, key=by_deadline) if tick % 2 else sorted(prompts, key=by_turn)
    shares: list[tuple[str, int]] = []
    left = rows
    for prompt in queue:
        if not shares or prompt.rows <= left:
            share = min(prompt.rows, left)
            shares.append((prompt.session, share))
            left -= share + PIECE_ROWS
    return shares


@dataclass(frozen=True, slots=True)
class IdleSeat:
    """A session that has a seat before busy ones, and nothing to decode.

    ticks: how many decoded without it. in_turn: whether its next token may come at any time; else a person is thinking.
    """

    session: str
    ticks: int
    in_turn: bool


def parked(seats: Iterable[IdleSeat]) -> list[str]:
    """Which of the idle seats are given up in this tick, those idle for longest first.

    An idle row before busy ones is run along, or cuts a run in two. Parking it and seating it again moves up to two
    rows for each split there is, each at the cost of one to a few such ticks, so a seat is kept for about as long as
    that takes: whatever comes then costs at most twice what knowing it would have cost (the ski rental problem; Karlin
    et al. 1988, Competitive Snoopy Caching). Between turns people think for seconds, so there is little to wait for.
    """

    def is_overdue(seat: IdleSeat) -> bool:
        return seat.ticks >= (SILENT_TICKS if seat.in_turn else TURN_ENDED_TICKS)

    overdue = sorted(filter(is_overdue, seats), key=lambda seat: -seat.ticks)
    return [seat.session for seat in overdue[:PARKED_AT_ONCE]]


def company_ms(due_ms: Iterable[float], *, since_ms: float, now_ms: float, tick_ms: float) -> float:
    """How long rows that are ready to decode may still wait for others whose clients are at work; 0: run now.

    A run of a layer costs a fixed part and a part per row, so rows that come within a part of a tick had better run
    together (docs/decisions/waiting-for-company.md).

    Args:
        due_ms: when the next tokens of those who are ready are due.
        since_ms: since when they have waited.
        now_ms: the time, on the same clock.
        tick_ms: what a tick usually takes.
    """
    until = min(since_ms + COMPANY_TICKS * tick_ms, min(due_ms) - COMPANY_LEAVES * tick_ms)
    return max(0.0, until - now_ms)


def in_turn(models: int, last: int) -> list[int]:
    """Which of several models is asked first whether it has a tick to run, which next, and so on, by index.

    Whoever ran last is asked last. So between two ticks of a model that has work lies at most one tick of each other
    model, and tokens of all models come at the same pace (docs/decisions/several-models.md).
    """
    return [(last + 1 + step) % models for step in range(models)]

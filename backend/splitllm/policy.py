"""Who goes first: the scheduler's choices as functions of what waits and of the time. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

#: What a further piece of prefill costs in a tick before its first row, in rows: every piece reads all weights anew.
PIECE_ROWS: Final = 16


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

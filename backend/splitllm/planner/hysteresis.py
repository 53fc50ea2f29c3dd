"""When a session changes its split, and when it stays. Pure.

Measurements are noisy and each change costs a computation of the history on one side or both. So within a turn a plan
is made anew only when the promise is being missed, and then only so often; between turns a split that still holds is
kept until another is clearly better; and a session that has missed its promise rises again only with room to spare.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from ..types import SessionPlan

#: Tokens in a row that must be late before a turn is planned anew.
LATE_TOKENS: Final = 3
#: Changes within one turn that follow from late tokens.
MOST_CHANGES: Final = 2
#: A larger split must keep this share of the promise after the session has missed it; per miss, to the least.
_MARGIN: Final = 0.8
_LEAST_MARGIN: Final = 0.5
#: Turns that keep the promise until the margin widens again.
_TURNS_TO_TRUST: Final = 3
#: Share of the promised TTFT that a prompt which changes sides must keep: the server may be busier than planned.
_KEPT_FOR_CHANGE: Final = 0.9
#: A change between turns must lower the cost to this share.
_WORTH: Final = 0.85


@dataclass(slots=True)
class Patience:
    """Whether the promise is being missed, and what follows from it."""

    tpot_limit_ms: float
    late: int = 0
    changes: int = 0
    misses: int = 0
    good_turns: int = 0

    def turn_began(self) -> None:
        """A new turn: tokens are counted anew."""
        self.late = self.changes = 0

    def token(self, since_last_ms: float) -> bool:
        """A token came `since_last_ms` after the one before. Returns whether the plan must be made anew."""
        self.late = self.late + 1 if since_last_ms > self.tpot_limit_ms else 0
        return self.late >= LATE_TOKENS and self.changes < MOST_CHANGES

    def changed(self) -> None:
        """The split was changed, or could not be, because the promise was missed."""
        self.late = 0
        self.changes += 1
        self.misses += 1
        self.good_turns = 0

    def turn_ended(self, tpot_ms: float | None) -> None:
        """A turn is over, with this mean time per token."""
        if self.changes or (tpot_ms is not None and tpot_ms > self.tpot_limit_ms):
            self.good_turns = 0
            return
        self.good_turns += 1
        if self.good_turns >= _TURNS_TO_TRUST:
            self.misses = max(0, self.misses - 1)
            self.good_turns = 0

    @property
    def margin(self) -> float:
        """Share of the promise that a larger split must keep; 1 while the session has missed none."""
        return max(_LEAST_MARGIN, _MARGIN**self.misses)


def look_again_ms(predicted_ms: float, alone_ms: float, promised_ms: float) -> float:
    """When to see whether a prompt's rows come as planned, in milliseconds since it was asked for.

    As long as the server alone could still keep the promise there is time to wait, and before the plan itself says that
    the first token is there nothing is late.

    Args:
        predicted_ms: time to first token as planned.
        alone_ms: the same at split 0, from when the server is asked.
        promised_ms: the promise.
    """
    return max(predicted_ms, _KEPT_FOR_CHANGE * promised_ms - alone_ms)


def forecast_ms(elapsed_ms: float, rows: int, of: int) -> float:
    """When all rows of a prompt will have come, if `rows` of them came in `elapsed_ms`: the others as fast as these.

    Where none came, nothing is known but that they take longer than thought: as long again is the guess that is never
    wrong by more than what was waited already.
    """
    return elapsed_ms * (of / rows if rows else 2.0)


def is_worth_changing(plan: SessionPlan, current: int) -> bool:
    """Whether a session should leave the split `current` for that of `plan`, made with what changing costs (`Held`)."""
    if plan.split == current:
        return False
    table = plan.details["candidates"]
    if current >= len(table["split"]) or table["rejected_by"][current] is not None:
        return True
    here, there = table["cost_ms"][current], table["cost_ms"][plan.split]
    return bool(math.isfinite(there) and there < _WORTH * here)

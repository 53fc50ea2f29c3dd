"""What a client can do, from what it says and from how it then behaves. Pure.

The server sees when a step's hidden states arrive after it sent the token. Without the round trip, that is the client's
computing. A report counts only as far as it agrees: a client that is slower than it said is planned with what was seen,
whether its machine became busy or its report was made to gain something. One that is faster gains nothing by
that until it says so itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final

from ..types import ClientReport

_GAIN: Final = 0.3
#: A first step may find cold caches; from the second on it counts.
_FEWEST_STEPS: Final = 2
#: Seconds after which half of what was seen beyond the report is forgotten: a machine that was busy may be idle again,
#: and at split 0 there is nothing to see.
_HALF_LIFE_S: Final = 60.0
_MOST_MS: Final = 1e7


@dataclass(slots=True)
class ClientEstimate:
    """Milliseconds of one block for one row, as seen; `decode_ms` is None until there was enough to see."""

    decode_ms: float | None = None
    steps: int = 0
    seen_s: float = 0.0

    def step(self, elapsed_ms: float, *, split: int, rtt_ms: float, travel_ms: float, now_s: float) -> None:
        """A row arrived `elapsed_ms` after its token was sent; `rtt_ms` and `travel_ms` of it belong to the link."""
        if split < 1 or not 0 <= elapsed_ms < math.inf:
            return
        computing = min(max(0.0, elapsed_ms - rtt_ms - travel_ms), _MOST_MS) / split
        self.steps += 1
        if self.steps < _FEWEST_STEPS:
            return
        if self.decode_ms is None:
            self.decode_ms = computing
        else:
            self.decode_ms += _GAIN * (computing - self.decode_ms)
        self.seen_s = now_s

    def corrected(self, report: ClientReport, now_s: float) -> ClientReport:
        """The report, no better than what was seen; prefill runs the same blocks, so the same factor slows it."""
        said = report.decode_ms
        if self.decode_ms is None or said is None or not 0 <= said < math.inf:
            return report
        age = max(0.0, now_s - self.seen_s)
        excess = max(0.0, self.decode_ms - said) * 0.5 ** (age / _HALF_LIFE_S)
        if excess <= 0:
            return report
        decode = said + excess
        prefill = report.prefill_ms
        if prefill is not None and 0 <= prefill < math.inf:
            # Whoever claims to compute in no time has no factor; then a chunk takes at least what a row does.
            prefill = max(decode, prefill * decode / said if said > 0 else decode)
        return replace(report, decode_ms=decode, prefill_ms=prefill)

    def is_slower_than(self, report: ClientReport) -> bool:
        """Whether the client was seen to be more than half as slow again as it says."""
        said = report.decode_ms
        return self.decode_ms is not None and said is not None and self.decode_ms > 1.5 * said

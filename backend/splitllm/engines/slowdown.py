"""Keeping an engine's profile current: how much slower than at start-up its machine is now. Pure.

Every tick says how long its batch took; the profile says how long it should have taken. The smoothed ratio scales the
profile that plans are made with, so that they see a machine that others use, or that has grown hot.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from ..planner.profile import EngineProfile
from ..work import Batch, Work

#: Weight of one tick's ratio, for a tick as long as the typical one; longer ticks count for more, up to the cap.
_GAIN: Final = 0.05
#: A ratio beyond these is a hiccup or a tick too short to time.
_LEAST: Final = 0.25
_MOST: Final = 20.0
#: Ticks shorter than this are mostly the overhead of starting runs, which the profile does not separate.
_TOO_SHORT_MS: Final = 0.05
#: The scaled profile is made anew when the ratio has moved so far.
_STEP: Final = 0.03


class Slowdown:
    """The profile, scaled by what ticks show."""

    def __init__(self, profile: EngineProfile, blocks: int) -> None:
        self._measured, self._blocks = profile, blocks
        self.profile = profile
        self._log_factor = 0.0
        self._applied = 0.0

    @property
    def factor(self) -> float:
        """How much slower than measured the engine is; 1 in the beginning."""
        return math.exp(self._log_factor)

    def ticked(self, batch: Batch, took_ms: float) -> None:
        """A batch took `took_ms` in the engine."""
        expected = expected_ms(self._measured, batch, self._blocks)
        if not expected > _TOO_SHORT_MS or not 0 < took_ms < math.inf:
            return
        # In logarithms a tick that is three times too long and one that is three times too short cancel out.
        ratio = math.log(min(max(took_ms / expected, _LEAST), _MOST))
        self._log_factor += _GAIN * (ratio - self._log_factor)
        if abs(self._log_factor - self._applied) > _STEP:
            self._applied = self._log_factor
            self.profile = self._measured.scaled(self.factor)


def expected_ms(profile: EngineProfile, batch: Batch, blocks: int) -> float:
    """Milliseconds that a batch takes by the profile, in a model of `blocks`."""
    total = sum(max(0, blocks - work.split) * profile.prefill_ms(work.tokens, work.position) for work in batch.prefill)
    total += _decode_ms(profile, batch.decode, blocks)
    heads = sum(work.wants_logits for work in batch.works)
    return total + profile.head_ms(heads)


def _decode_ms(profile: EngineProfile, works: Sequence[Work], blocks: int) -> float:
    """Blocks serve the rows of all splits up to theirs, so time changes only at the splits that occur."""
    total, context = 0.0, 0.0
    ordered = sorted(works, key=lambda work: work.split)
    for joined, work in enumerate(ordered, start=1):
        context += work.position
        until = ordered[joined].split if joined < len(ordered) else blocks
        span = min(until, blocks) - min(work.split, blocks)
        if span > 0:
            total += span * profile.decode_ms(joined, context / joined)
    return total

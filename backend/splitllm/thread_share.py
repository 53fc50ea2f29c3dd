"""What a tick waits for those of other models, which take turns with its own on one thread (`policy.in_turn`). Pure."""

from __future__ import annotations

import math
from typing import Final

#: Ticks count for 1/e after so many seconds: about as long as an answer takes, which is what a plan is made for.
_MEMORY_S: Final = 5.0
#: So few ticks are none.
_FORGOTTEN: Final = 1e-6


class ThreadShare:
    """How often and for how long each model ran lately."""

    def __init__(self) -> None:
        self._ticks: dict[str, float] = {}  # by model, faded
        self._ms: dict[str, float] = {}  # what these took
        self._began_s = self._faded_s = 0.0

    def ticked(self, model: str, took_ms: float, now_s: float) -> None:
        """A tick of `model` that took `took_ms` has just ended; `now_s` never falls."""
        if not self._ticks:
            self._began_s = self._faded_s = now_s - took_ms / 1000
        fade = math.exp((self._faded_s - now_s) / _MEMORY_S)
        for sums in (self._ticks, self._ms):
            for each in sums:
                sums[each] *= fade
        self._faded_s = now_s
        self._ticks[model] = self._ticks.get(model, 0.0) + 1
        self._ms[model] = self._ms.get(model, 0.0) + took_ms

    def others_ms(self, model: str, now_s: float) -> float:
        """What ticks of others add to a tick of `model`, in milliseconds on average, as they ran lately.

        Each other model that has work adds one tick of its own. How likely it has some is seen in two ways: in its
        share of the time that the others left to it (nearly all, where the thread never pauses), and in its ticks for
        each tick of who runs most often (many, where nobody does). Either may count too much, so the less counts.
        """
        fade = math.exp((self._faded_s - now_s) / _MEMORY_S)
        seen_ms = 1000 * _MEMORY_S * (1 - math.exp((self._began_s - now_s) / _MEMORY_S))
        idle_ms = max(0.0, seen_ms - fade * sum(self._ms.values()))
        most_ticks = max(self._ticks.values(), default=0.0)
        total = 0.0
        for other, ticks in self._ticks.items():
            ms = fade * self._ms[other]
            if other != model and fade * ticks > _FORGOTTEN and ms > 0:
                total += ms / (fade * ticks) * min(ms / (ms + idle_ms), ticks / most_ticks)
        return total

"""What ticks of one model wait for those of others, from how they ran (thread_share.py)."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitllm.policy import in_turn
from splitllm.thread_share import ThreadShare


class Thread:
    """The engine's thread on a clock of its own: model i has a tick of `tick_ms[i]` to run every `every_ms[i]`."""

    def __init__(self, tick_ms: list[float], every_ms: list[float]) -> None:
        self.share = ThreadShare()
        self.waits: list[list[float]] = [[] for _ in tick_ms]
        self.now_ms = 1e6
        self._tick_ms, self._every_ms = tick_ms, every_ms
        self._due_ms = [self.now_ms] * len(tick_ms)
        self._last = 0

    def run(self, for_ms: float) -> None:
        end_ms = self.now_ms + for_ms
        while self.now_ms < end_ms:
            ready = [one for one in in_turn(len(self._due_ms), self._last) if self._due_ms[one] <= self.now_ms]
            if not ready:
                self.now_ms = min(self._due_ms)
                continue
            self._last = model = ready[0]
            self.waits[model].append(self.now_ms - self._due_ms[model])
            self.now_ms += self._tick_ms[model]
            self._due_ms[model] = max(self.now_ms, self._due_ms[model] + self._every_ms[model])
            self.share.ticked(str(model), self._tick_ms[model], self.now_ms / 1000)

    def others_ms(self, model: int) -> float:
        return self.share.others_ms(str(model), self.now_ms / 1000)


def test_who_shares_the_thread_with_nobody_waits_for_nobody() -> None:
    thread = Thread([10], [10])
    assert thread.others_ms(0) == 0.0
    thread.run(3000)
    assert thread.others_ms(0) == 0.0


def test_where_all_are_busy_each_waits_for_one_tick_of_each_other() -> None:
    thread = Thread([10, 40, 5], [0, 0, 0])
    for _ in range(3):  # from the first seconds on
        thread.run(2000)
        assert [thread.others_ms(model) for model in range(3)] == pytest.approx([45, 15, 50], rel=0.05)


def test_who_comes_to_a_busy_thread_is_told_before_it_ran_anything() -> None:
    thread = Thread([40, 10], [0, 1e9])
    thread.run(1000)
    assert thread.share.others_ms("newcomer", thread.now_ms / 1000) == pytest.approx(40, rel=0.05)


def test_who_is_busy_waits_for_one_that_seldom_runs_as_seldom() -> None:
    thread = Thread([10, 30], [0, 300])
    thread.run(20_000)
    assert thread.others_ms(0) == pytest.approx(sum(thread.waits[0]) / len(thread.waits[0]), rel=0.2)
    assert thread.others_ms(1) == pytest.approx(10, rel=0.05)


def test_who_seldom_runs_waits_for_the_other_as_likely_as_that_runs() -> None:
    thread = Thread([20, 1], [100, 1700])
    thread.run(20_000)
    assert thread.others_ms(1) == pytest.approx(20 * 0.2, rel=0.3)


def test_what_is_over_is_forgotten() -> None:
    thread = Thread([10, 40], [0, 0])
    thread.run(5000)
    shares = [thread.share.others_ms("0", thread.now_ms / 1000 + later) for later in (0, 3, 10, 30, 1000, 1e6)]
    assert all(later < earlier or earlier == 0 for earlier, later in itertools.pairwise(shares))
    assert shares[3] < 1
    assert shares[-1] == 0


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0.01, 500), st.floats(0, 2000)), min_size=1, max_size=4), st.floats(0.001, 100))
def test_nobody_is_told_to_wait_for_more_than_a_tick_of_each_other(
    models: list[tuple[float, float]], rounds: float
) -> None:
    ticks = [tick for tick, _ in models]
    thread = Thread(ticks, [every for _, every in models])
    thread.run(rounds * min(ticks))
    for model, tick in enumerate(ticks):
        assert 0 <= thread.others_ms(model) <= (sum(ticks) - tick) * (1 + 1e-6)

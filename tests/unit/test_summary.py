"""The line that `splitllm serve` shows."""

from __future__ import annotations

from dataclasses import replace

from splitllm.server.summary import Snapshot, is_news, summary_line

START = Snapshot(
    time_s=10.0, sessions=0, queued=0, in_turn=0, kv_reserved_bytes=0, kv_limit_bytes=200, draining=False,
    tokens=100, decode_ticks=50, decode_rows=60, sla_hits=0, sla_misses=0,
)  # fmt: skip


def test_rates_are_those_between_two_moments() -> None:
    now = replace(
        START, time_s=12.0, sessions=3, in_turn=2, kv_reserved_bytes=50, tokens=130, decode_ticks=60, decode_rows=85,
        sla_hits=3, sla_misses=1,
    )  # fmt: skip
    expected = "3 sessions, 2 in a turn · 15.0 tokens/s · batch 2.5 · KV 25 % · latency kept 75 %"
    assert summary_line(START, now) == expected


def test_who_waits_is_told_as_long_as_somebody_does() -> None:
    assert summary_line(START, replace(START, sessions=2, queued=3)).startswith("2 sessions, 0 in a turn, 3 waiting ·")


def test_nothing_yet() -> None:
    now = replace(START, time_s=11.0, sessions=1, draining=True)
    expected = "stopping · 1 session, 0 in a turn · 0.0 tokens/s · batch – · KV 0 % · latency kept –"
    assert summary_line(START, now) == expected


def test_a_plain_log_is_told_only_what_changed() -> None:
    assert not is_news(START, replace(START, time_s=70.0))
    for change in ({"tokens": 101}, {"sessions": 1}, {"queued": 1}, {"draining": True}):
        assert is_news(START, replace(START, **change))

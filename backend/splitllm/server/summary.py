"""The line that `splitllm serve` shows while it runs. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The server's counts at one moment; all but the first seven grow from its start on."""

    time_s: float
    sessions: int
    queued: int
    in_turn: int
    kv_reserved_bytes: int
    kv_limit_bytes: int
    draining: bool
    tokens: int
    decode_ticks: int
    decode_rows: int
    sla_hits: int
    sla_misses: int


def summary_line(before: Snapshot, now: Snapshot) -> str:
    """What the server does: rates between the two moments, the share of promises kept since its start."""
    seconds = max(1e-9, now.time_s - before.time_s)
    ticks = now.decode_ticks - before.decode_ticks
    judged = now.sla_hits + now.sla_misses
    parts = [
        f"{now.sessions} session{'s' if now.sessions != 1 else ''}, {now.in_turn} in a turn"
        + (f", {now.queued} waiting" if now.queued else ""),
        f"{(now.tokens - before.tokens) / seconds:.1f} tokens/s",
        f"batch {(now.decode_rows - before.decode_rows) / ticks:.1f}" if ticks else "batch –",
        f"KV {100 * now.kv_reserved_bytes / max(1, now.kv_limit_bytes):.0f} %",
        f"latency kept {100 * now.sla_hits / judged:.0f} %" if judged else "latency kept –",
    ]
    return ("stopping · " if now.draining else "") + " · ".join(parts)


def is_news(before: Snapshot, now: Snapshot) -> bool:
    """Whether a plain log needs the line: something ran, or somebody came or went."""
    return now.tokens != before.tokens or (now.sessions, now.queued, now.draining) != (
        before.sessions,
        before.queued,
        before.draining,
    )

"""What the server knows of its own doings: accounts of sessions, kept once and told to metrics, log and summary.

Connections and requests report to a `SessionAccount`; the runner reports its ticks. Nothing here holds text of prompts
or answers. Everything runs on the event loop.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Literal

from ..generation import Event, TokenDrawn
from ..protocol import Message, TurnStats
from ..runner import Tick
from ..types import ModelSpec, Sla
from .access import Key
from .metrics import APIS, BOUNDS, Metrics

Api = Literal["websocket", "openai"]

#: One line of JSON for each session that ends.
session_log: Final = logging.getLogger("splitllm.sessions")


@dataclass(slots=True)
class _Mean:
    total: float = 0.0
    count: int = 0

    def add(self, value: float | None) -> None:
        if value is not None:
            self.total += value
            self.count += 1

    @property
    def value(self) -> float | None:
        return round(self.total / self.count, 1) if self.count else None


@dataclass(slots=True)
class Totals:
    """Sums since the start, for the summary line."""

    tokens: int = 0
    decode_ticks: int = 0
    decode_rows: int = 0
    sla_hits: int = 0
    sla_misses: int = 0


class Telemetry:
    """Takes what happens with one model, and tells it on."""

    def __init__(self, model: str, spec: ModelSpec, sla: Sla, metrics: Metrics) -> None:
        """`model`: the name that it is served under."""
        self.model, self.blocks, self._sla = model, spec.blocks, sla
        self.metrics = metrics
        self.totals = Totals()
        self._accounts: dict[str, SessionAccount] = {}
        #: Keys of sessions that may still run: a tick in work ends behind the account of who has hung up.
        self.payers: dict[str, Key] = {}
        #: Block-steps that sessions have paid for, and that run again because others got their memory meanwhile.
        self.paid: dict[str, int] = {}
        # Bound once: to find a series by its labels costs as much as to count.
        self._tick, self._batch_rows = metrics.tick.labels(model), metrics.batch_rows.labels(model)
        self._steps_run, self._steps_saved = (metrics.block_steps.labels(model, each) for each in ("run", "saved"))
        self.generated = {api: metrics.generated_tokens.labels(model, api) for api in APIS}

    def account(self, session: str, api: Api, key: Key | None = None) -> SessionAccount:
        """The account of a session that may be opened, and that `key` pays for."""
        return SessionAccount(self, session, api, key)

    def ticked(self, tick: Tick) -> None:
        """A tick has run."""
        self._tick.observe(tick.total_s)
        if tick.batch.decode:
            self._batch_rows.observe(len(tick.batch.decode))
            self.totals.decode_ticks += 1
            self.totals.decode_rows += len(tick.batch.decode)
        for session, work in zip(tick.sessions, tick.batch.works, strict=True):
            self.count_steps(session, work.tokens * (self.blocks - work.split), work.tokens * work.split)

    def count_steps(self, session: str, run: int, saved: int) -> None:
        """Block-steps that were run here, and such that the client took."""
        self._steps_run.inc(run)
        self._steps_saved.inc(saved)
        account = self._accounts.get(session)
        if account is not None:
            account.steps_run += run
            account.steps_saved += saved
        payer = self.payers.get(session)
        if payer is not None:
            again = min(run, self.paid.get(session, 0))
            if again:
                self.paid[session] -= again
            payer.spend(run - again)

    def refused(self, api: Api, code: str) -> None:
        """Somebody was told an error."""
        self.metrics.refused(self.model, api, code)

    def judge(self, figure: Literal["ttft", "tpot"], value_ms: float) -> None:
        """Hold a latency against the one promised."""
        kept = value_ms <= (self._sla.ttft_ms if figure == "ttft" else self._sla.tpot_ms)
        self.metrics.sla.labels(self.model, figure, "hit" if kept else "miss").inc()
        if kept:
            self.totals.sla_hits += 1
        else:
            self.totals.sla_misses += 1

    def enter(self, account: SessionAccount) -> None:
        """Keep an account in the book."""
        self._accounts[account.session] = account
        if account.key is not None:
            self.payers[account.session] = account.key

    def leave(self, account: SessionAccount) -> None:
        """Strike an account off, and write its line."""
        if self._accounts.pop(account.session, None) is not None:
            self.metrics.sessions_ended.labels(self.model, account.api).inc()
            session_log.info("%s", json.dumps(account.to_json(), separators=(",", ":")))


@dataclass(slots=True)
class SessionAccount:
    """What one session did. It enters the book when it is opened; what is refused before that has no line."""

    telemetry: Telemetry
    session: str
    api: Api
    key: Key | None = None
    split: int = 0
    turns: int = 0
    prompt_tokens: int = 0
    tokens: int = 0
    steps_run: int = 0
    steps_saved: int = 0
    _began_s: float = field(default_factory=time.monotonic)
    _reason: str | None = None
    _ttft_ms: _Mean = field(default_factory=_Mean)
    _tpot_ms: _Mean = field(default_factory=_Mean)
    _queue_ms: _Mean = field(default_factory=_Mean)

    def opened(self, split: int, bound: str) -> None:
        """The session has a plan, its first or a new one."""
        metrics, model = self.telemetry.metrics, self.telemetry.model
        metrics.plans.labels(model, str(split)).inc()
        metrics.plan_bounds.labels(model, bound if bound in BOUNDS else "other").inc()
        self.split = split
        self.enter()

    def enter(self) -> None:
        """The session is open: from now on its steps are counted, and its end will have a line."""
        self.telemetry.enter(self)

    def evicted(self) -> None:
        """Others got its room between two turns."""
        self.telemetry.metrics.evictions.labels(self.telemetry.model).inc()

    def rebuilds(self, block_steps: int) -> None:
        """So many block-steps of the session's history, which it has paid for, run again for it."""
        self.telemetry.paid[self.session] = block_steps

    def turn_began(self, prompt_tokens: int) -> None:
        """A turn with so many new prompt tokens begins."""
        blocks, model = self.telemetry.blocks, self.telemetry.model
        self.turns += 1
        self.prompt_tokens += prompt_tokens
        self.telemetry.metrics.prompt_tokens.labels(model, self.api).inc(prompt_tokens)
        if self.split == blocks:  # only the last row of the prompt comes here, and a tick sees nothing of the others
            self.telemetry.count_steps(self.session, 0, (prompt_tokens - 1) * blocks)

    def event(self, event: Event) -> None:
        """Something came from the runner for this session."""
        if isinstance(event, TokenDrawn):
            self.tokens += 1
            self.telemetry.totals.tokens += 1
            self.telemetry.generated[self.api].inc()

    def turn_ended(self, finish_reason: str, stats: TurnStats) -> None:
        """A turn is over; its round trip counts towards what the client saw of the time to first token."""
        metrics, model = self.telemetry.metrics, self.telemetry.model
        metrics.turns.labels(model, self.api, finish_reason).inc()
        metrics.queue.labels(model, self.api).observe(stats.queue_ms / 1000)
        self._queue_ms.add(stats.queue_ms)
        if stats.ttft_ms is not None:
            metrics.ttft.labels(model, self.api).observe(stats.ttft_ms / 1000)
            self._ttft_ms.add(stats.ttft_ms)
            self.telemetry.judge("ttft", stats.ttft_ms + stats.rtt_ms)
        if stats.tpot_ms is not None:
            metrics.tpot.labels(model, self.api).observe(stats.tpot_ms / 1000)
            self._tpot_ms.add(stats.tpot_ms)
            self.telemetry.judge("tpot", stats.tpot_ms)

    def sent(self, message: Message) -> None:
        """A control message goes to the client (PROTOCOL.md): it tells of plans, turns and refusals."""
        match message["type"]:
            case "plan":
                self.opened(message["split"], message["bound"])
            case "done":
                self.turn_ended(message["finish_reason"], TurnStats(**message["stats"]))
            case "error":
                self.told(message["code"])

    def told(self, code: str) -> None:
        """The client is refused something, or its connection ends for this reason."""
        self.telemetry.refused(self.api, code)

    def dropped(self, code: str) -> None:
        """The client is let go without a word, for it would not take any."""
        self.told(code)
        self.ends_because(code)

    def ends_because(self, reason: str) -> None:
        """Say why the session is about to end; the first reason counts."""
        self._reason = self._reason or reason

    def settled(self) -> None:
        """All that ran for the session has been told."""
        self.telemetry.payers.pop(self.session, None)
        self.telemetry.paid.pop(self.session, None)

    def ended(self) -> None:
        """The session is over; without a reason given before, its client is gone."""
        self.telemetry.leave(self)

    def to_json(self) -> Mapping[str, Any]:
        """The line for the log. Latencies are means over the turns, in ms; of the id only a prefix is told."""
        return {
            "event": "session_end",
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "session": self.session[:8],
            "model": self.telemetry.model,
            "api": self.api,
            "key": None if self.key is None else self.key.name,
            "reason": self._reason or "client_gone",
            "seconds": round(time.monotonic() - self._began_s, 3),
            "split": self.split,
            "blocks": self.telemetry.blocks,
            "turns": self.turns,
            "prompt_tokens": self.prompt_tokens,
            "tokens": self.tokens,
            "ttft_ms": self._ttft_ms.value,
            "tpot_ms": self._tpot_ms.value,
            "queue_ms": self._queue_ms.value,
            "block_steps_run": self.steps_run,
            "block_steps_saved": self.steps_saved,
        }

"""One model of a server: its engine at work, and what its sessions share."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from .. import __version__
from ..bundle import Bundle
from ..engine_thread import EngineThread
from ..engines.base import Engine
from ..kv_budget import KvPool
from ..planner.profile import EngineProfile
from ..protocol import Limits, text_limit
from ..runner import Runner, Tick
from ..session import Greeting
from ..text import TextCodec
from ..thread_share import ThreadShare
from .admission import AdmissionQueue
from .config import ServerConfig
from .held import HeldSessions
from .live_session import Services
from .metrics import Metrics, ModelFigures
from .planning import Admission
from .telemetry import Telemetry


@dataclass(frozen=True, slots=True, eq=False)
class LoadedModel:
    """A model that can be served under `name`.

    engine: it has a row for each of `ServerConfig.max_sessions` (see Scheduler.open). profile: what was measured of it;
    without one, it measures what it can.
    """

    name: str
    bundle: Bundle
    engine: Engine
    profile: EngineProfile | None = None

    @property
    def max_context(self) -> int:
        """Positions that a session may have."""
        return min(self.bundle.spec.max_context, self.engine.capacity)

    def longest_message(self, max_rows: int) -> int:
        """Bytes of the longest message that a client may send."""
        longest_text = 4 * text_limit(self.max_context, between_turns=True)  # a character takes up to four bytes
        return max(longest_text, 32 + 4 * max_rows * self.bundle.spec.hidden_size)


@dataclass(frozen=True, slots=True)
class Shared:
    """What all models of a server have in common. names: theirs, the first is for who names none."""

    config: ServerConfig
    names: tuple[str, ...]
    thread: EngineThread
    pool: KvPool
    queue: AdmissionQueue
    metrics: Metrics
    max_message_bytes: int
    share: ThreadShare = field(default_factory=ThreadShare)


class ServedModel:
    """A model at work."""

    def __init__(self, loaded: LoadedModel, shared: Shared, on_fault: Callable[[ServedModel], None]) -> None:
        """`on_fault` is called on the loop when the engine fails."""
        bundle, config = loaded.bundle, shared.config
        self.name, self.bundle = loaded.name, bundle
        self.telemetry = Telemetry(loaded.name, bundle.spec, config.sla, shared.metrics)
        self.runner = Runner(
            loaded.engine,
            sla=config.sla,
            on_fault=lambda _fault: on_fault(self),
            on_tick=self._ticked,
            thread=shared.thread,
        )
        self.codec = TextCodec.of(bundle)
        profile = loaded.profile or loaded.engine.profile()
        self.admission = Admission(bundle, config, profile, shared.pool)
        self.admission.on_room = shared.queue.wake
        self._share = shared.share
        self.admission.other_models_ms = lambda: shared.share.others_ms(loaded.name, time.monotonic())
        limits = Limits(loaded.max_context, config.max_rows, shared.max_message_bytes, config.idle_timeout_s)
        self.greeting = Greeting(
            f"splitllm/{__version__}",
            loaded.name,
            bundle.identity,
            bundle.spec,
            config.sla,
            limits,
            tuple(name for name in shared.names if name != loaded.name),
        )
        #: Sessions that wait for their clients to come back.
        self.held = HeldSessions(config.grace_s)
        self.services = Services(
            self.greeting, config, self.runner, self.admission, shared.queue, self.codec, self.telemetry
        )

    def figures(self, sessions: Mapping[tuple[str, str], int]) -> ModelFigures:
        """What a scrape tells of this model."""
        admission = self.admission
        reserved = admission.budget.reserved_by(admission.sessions)
        return ModelFigures(sessions, reserved, self.runner.engine.stage_seconds)

    def _ticked(self, tick: Tick) -> None:
        self.telemetry.ticked(tick)
        self.admission.ticked(tick.batch, 1000 * tick.engine_s)
        self._share.ticked(self.name, 1000 * tick.total_s, time.monotonic())

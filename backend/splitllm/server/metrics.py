"""Metrics in Prometheus' format, in a registry of their own (docs/operating.md lists them).

Names follow Prometheus' rules: base units, `_total` for counters. Every label takes its values from a fixed set, so the
number of series is bounded whatever clients send.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ..engines.base import groups_of
from ..errors import WIRE_CODES
from ..types import FinishReason, Sla, Span

#: Ways to use the server; the label `api`.
APIS: Final = ("websocket", "openai")
#: The label `model` of what belongs to no single one; to Prometheus an empty label is none.
NO_MODEL: Final = ""
#: Refusals that only HTTP knows; `other` stands for whatever is not in the list.
HTTP_CODES: Final = (
    "invalid_type",
    "invalid_value",
    "missing_required_parameter",
    "unsupported_parameter",
    "unknown_parameter",
    "model_not_found",
    "context_length_exceeded",
    "request_timeout",
    "unknown_url",
    "method_not_allowed",
    "unsupported_encoding",
    "other",
)
REFUSALS: Final = (*WIRE_CODES, *HTTP_CODES)
BOUNDS: Final = ("ttft", "tpot", "memory", "effort", "blocks_ready", "model", "backend", "forced", "other")

_TTFT_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 16, 32)
_TPOT_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1, 2)
_QUEUE_S: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 5, 30, 60, 120, 300, 600, 1800, 3600)
_LAG_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1)
_ROWS: Final = (1, 2, 4, 8, 16, 32, 64, 128)


@dataclass(frozen=True, slots=True)
class ModelLabels:
    """What tells a model's series apart: the name it is served under, its blocks, and its bundle's identity."""

    name: str
    blocks: int
    bundle: str


@dataclass(frozen=True, slots=True)
class ModelFigures:
    """What is read of a model at each scrape. sessions: by (api, state); stage_seconds: see Engine."""

    sessions: Mapping[tuple[str, str], int]
    kv_reserved_bytes: int
    stage_seconds: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Figures:
    """What is read at each scrape. models: by name."""

    models: Mapping[str, ModelFigures]
    kv_limit_bytes: int
    ready: bool
    draining: bool


class Metrics:
    """All instruments of one server. Used on the event loop only."""

    def __init__(
        self,
        models: Sequence[ModelLabels],
        version: str,
        sla: Sla,
        figures: Callable[[], Figures],
        *,
        longest_wait_s: float = 0.0,
    ) -> None:
        """`longest_wait_s`: a turn may stand in the queue for so long."""
        self.registry = registry = CollectorRegistry(auto_describe=True)

        def histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(f"splitllm_{name}", text, labels, buckets=buckets, registry=registry)

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"splitllm_{name}", text, labels, registry=registry)

        self.ttft = histogram("ttft_seconds", "Time from a turn's arrival to its first token.", _TTFT_S, "model", "api")
        self.tpot = histogram("tpot_seconds", "Mean time per further token of a turn.", _TPOT_S, "model", "api")
        self.queue = histogram(
            "queue_seconds",
            "Time from a turn's arrival to its first step.",
            queue_buckets(longest_wait_s),
            "model",
            "api",
        )
        self.batch_rows = histogram("batch_rows", "Sessions that one decode step serves.", _ROWS, "model")
        self.tick = histogram("tick_seconds", "Schedule, run and sample once.", _TPOT_S, "model")
        self.loop_lag = histogram("event_loop_lag_seconds", "How late the event loop wakes a sleeper.", _LAG_S)
        self.plans = counter("plans_total", "Plans told to clients, by the split chosen.", "model", "split")
        self.plan_bounds = counter(
            "plan_bounds_total", "Plans, by what kept the split from being larger.", "model", "bound"
        )
        self.block_steps = counter(
            "block_steps_total", "Blocks times positions: run here, or saved by clients.", "model", "outcome"
        )
        self.prompt_tokens = counter("prompt_tokens_total", "Prompt tokens of turns begun.", "model", "api")
        self.generated_tokens = counter("generated_tokens_total", "Tokens drawn and delivered.", "model", "api")
        self.turns = counter("turns_total", "Turns ended, by why.", "model", "api", "finish_reason")
        self.sessions_ended = counter("sessions_ended_total", "Sessions ended.", "model", "api")
        self.evictions = counter(
            "evictions_total", "Sessions between turns whose keys and values made room for others.", "model"
        )
        self.refusals = counter("refusals_total", "Errors told to clients, by code.", "model", "api", "code")
        self.sla = counter("sla_total", "Turns that kept or missed the latency promised.", "model", "figure", "outcome")
        promised = Gauge("splitllm_sla_seconds", "The latency promised.", ("figure",), registry=registry)
        promised.labels("ttft").set(sla.ttft_ms / 1000)
        promised.labels("tpot").set(sla.tpot_ms / 1000)
        info = Gauge("splitllm_info", "What is served; always 1.", ("version", "model", "bundle"), registry=registry)
        for model in models:
            info.labels(version, model.name, model.bundle).set(1)
            self._begin_at_zero(model)
        for api in APIS:
            self._begin_refusals(NO_MODEL, api)
        registry.register(_AtScrape(models, figures))
        PlatformCollector(registry=registry)
        ProcessCollector(registry=registry)

    def _begin_at_zero(self, model: ModelLabels) -> None:
        """A series that appears with its first event hides that event from rate(); so all of them begin now."""
        name = model.name
        for alone in (self.batch_rows, self.tick, self.evictions):
            alone.labels(name)
        for split in range(model.blocks + 1):
            self.plans.labels(name, str(split))
        for bound in BOUNDS:
            self.plan_bounds.labels(name, bound)
        for outcome in ("run", "saved"):
            self.block_steps.labels(name, outcome)
        for figure in ("ttft", "tpot"):
            for outcome in ("hit", "miss"):
                self.sla.labels(name, figure, outcome)
        for api in APIS:
            for instrument in (self.ttft, self.tpot, self.queue):
                instrument.labels(name, api)
            for count in (self.prompt_tokens, self.generated_tokens, self.sessions_ended):
                count.labels(name, api)
            for reason in FinishReason:
                self.turns.labels(name, api, reason.value)
            self._begin_refusals(name, api)

    def _begin_refusals(self, model: str, api: str) -> None:
        for code in REFUSALS:
            self.refusals.labels(model, api, code)

    def refused(self, model: str, api: str, code: str) -> None:
        """Somebody was told an error; `model` is NO_MODEL where none was chosen yet."""
        self.refusals.labels(model, api, code if code in REFUSALS else "other").inc()

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """Body and content type for a scraper that sent this `Accept` header."""
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type


class _AtScrape(Collector):
    """Figures that live elsewhere and are read when somebody asks."""

    def __init__(self, models: Sequence[ModelLabels], figures: Callable[[], Figures]) -> None:
        self._groups = {model.name: stage_groups(model.blocks) for model in models}
        self._figures = figures

    def describe(self) -> Iterator[Metric]:
        """Nothing: the figures cannot be read before the server stands."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """The families, with what holds now."""
        now = self._figures()
        sessions = GaugeMetricFamily("splitllm_sessions", "Sessions, by state.", labels=("model", "api", "state"))
        kv = GaugeMetricFamily("splitllm_kv_bytes", "Memory for keys and values.", labels=("model", "kind"))
        seconds = CounterMetricFamily(
            "splitllm_engine_seconds", "Seconds in the engine's runs.", labels=("model", "phase", "stage")
        )
        for name, model in now.models.items():
            for labels, number in model.sessions.items():
                sessions.add_metric((name, *labels), number)
            kv.add_metric((name, "reserved"), model.kv_reserved_bytes)
            for row, phase in enumerate(("prefill", "decode")):
                for stage, columns in self._groups[name].items():
                    seconds.add_metric((name, phase, stage), float(model.stage_seconds[row, columns].sum()))
        kv.add_metric((NO_MODEL, "limit"), now.kv_limit_bytes)
        yield from (sessions, kv, seconds)
        yield _gauge("splitllm_ready", "Whether a new session can be had: 1 or 0.", now.ready)
        yield _gauge("splitllm_draining", "Whether the server is about to stop: 1 or 0.", now.draining)


def _gauge(name: str, text: str, value: Any) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value=float(value))


def queue_buckets(longest_wait_s: float) -> tuple[float, ...]:
    """Bounds for times that turns waited: to the longest there may be in the queue, and to some seconds without one."""
    most_s = max(30.0, longest_wait_s)
    return (*(bound for bound in _QUEUE_S if bound < most_s), most_s)


def stage_groups(blocks: int) -> dict[str, slice]:
    """Names of at most four groups of neighbouring blocks, and of the head, with their columns in `stage_seconds`."""
    named = {f"blocks {of.start}-{of.end - 1}": slice(of.start, of.end) for of in groups_of(Span(0, blocks))}
    return {**named, "head": slice(blocks, blocks + 1)}

"""Who asks for what, over which link: the request classes of `splitllm bench paper`, from public figures.

A device's time for a stage is the larger of its operations over what it computes and its bytes over what it reads
(Williams, Waterman and Patterson, "Roofline", 2009). Every device reaches the same share of its published peak: 35 %,
what a WebGPU matrix product reaches on an Apple M1 (900 of 2600 GFLOP/s, README of FL33TW00D/wgpu-mm).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from ..planner.problem import Link, Phase, Problem
from .paper_models import HALF, MODELS, Model, Stage

REACHED: Final = 0.35
#: A plan may make an answer a fifth slower than the server alone would give it: less is not noticed as a rule
#: (Seow, "Designing and Engineering Time", 2008, on differences of 20 %).
SLACK: Final = 1.2


@dataclass(frozen=True, slots=True)
class Device:
    """Published peaks: operations per millisecond in the precision used, and bytes of memory per millisecond."""

    name: str
    operations_per_ms: float
    bytes_per_ms: float

    def milliseconds(self, stage: Stage) -> float:
        """How long one request keeps the device busy with the stage."""
        return max(stage.operations / (REACHED * self.operations_per_ms), stage.memory_bytes / self.bytes_per_ms)


@dataclass(frozen=True, slots=True)
class Network:
    """Bits per second in either direction, and the round trip in milliseconds, half of it each way."""

    name: str
    up_mbit_s: float
    down_mbit_s: float
    round_trip_ms: float

    def link(self) -> Link:
        """As the planner takes it."""
        half = self.round_trip_ms / 2
        return Link(half, half, self.up_mbit_s * 125, self.down_mbit_s * 125)


#: NVIDIA's data sheet of the T4: 65 TFLOP/s in float16, 320 GB/s.
SERVER: Final = Device("T4", 65e9, 320e6)
#: Float32 peaks, which WebGPU has everywhere: Apple A16 1.79 TFLOP/s and 51.2 GB/s, Apple M1 2.6 and 68.2, RTX 3060
#: 12.7 and 360.
CLIENTS: Final = (
    Device("phone", 1.79e9, 51.2e6),
    Device("laptop", 2.6e9, 68.2e6),
    Device("desktop", 12.7e9, 360e6),
)
#: Speedtest Global Index: downloads of mid-2024, uploads of September 2020 (the newest at hand), latencies of
#: November 2022. The local network is Gigabit Ethernet, the edge server that the paper speaks of.
NETWORKS: Final = (
    Network("mobile", 11.2, 55.8, 28),
    Network("broadband", 45.7, 93.9, 10),
    Network("local", 1000, 1000, 1),
)


@dataclass(frozen=True, slots=True)
class RequestClass:
    """One kind of request: a model, a length, a client and its network."""

    model: Model
    length: int
    client: Device
    network: Network


def request_classes() -> Iterator[RequestClass]:
    """All of them, each as likely as any other of the same model."""
    for model in MODELS:
        for length in model.lengths:
            for client in CLIENTS:
                for network in NETWORKS:
                    yield RequestClass(model, length, client, network)


def problem(
    asked: RequestClass,
    *,
    slack: float = SLACK,
    wire: int = HALF,
    slower: float = 1.0,
    busier: float = 1.0,
    held: float | None = None,
) -> Problem:
    """The planner's problem: operations as the server's cost, and as many crossings as wanted.

    The limit is `slack` times the latency of everything on the server, so it does not depend on any plan. `wire` is the
    size of an activation on the link in bytes; `slower` multiplies the client's times, `busier` the server's;
    `held` is the share of the model that fits into the client's memory, None for any.
    """
    stages = asked.model.profile(asked.length)
    link = asked.network.link()
    at_server = [busier * SERVER.milliseconds(stage) for stage in stages]
    moved = [stages[0].input_bytes, *(stage.input_bytes * wire / HALF for stage in stages[1:])]
    output = asked.model.output_bytes(asked.length)
    alone = (
        sum(at_server)
        + (link.up_ms + moved[0] / link.up_bytes_per_ms)
        + (link.down_ms + output / link.down_bytes_per_ms)
    )
    phase = Phase(
        name="request",
        weight=1,
        latency_limit_ms=slack * alone,
        client_ms=[slower * asked.client.milliseconds(stage) for stage in stages],
        server_ms=at_server,
        server_cost=[stage.operations for stage in stages],
        input_bytes=moved,
        output_bytes=output,
    )
    memory = [stage.parameters * HALF for stage in stages]
    return Problem(
        stages=tuple(stage.name for stage in stages),
        phases=(phase,),
        link=link,
        client_memory=memory,
        client_memory_limit=None if held is None else held * sum(memory),
    )

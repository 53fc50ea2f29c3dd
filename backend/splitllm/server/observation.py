"""What one connection shows of its client and its link, by the server's own clock."""

from __future__ import annotations

import asyncio
import secrets
import struct
import time
from typing import Final

from ..planner.client_estimate import ClientEstimate
from ..planner.hysteresis import Patience
from ..planner.link_estimate import BandwidthEstimate, RoundTripEstimate
from ..types import ClientReport, Link, Sla

_PING: Final = struct.Struct("<Q")
#: Pings that may be under way; a peer that answers none must not make us remember all.
_MOST_PINGS: Final = 16


class RoundTrip:
    """Round trip of one connection, from pings that this server sent and timed.

    A client can make its round trip look longer by answering late, which only costs itself; it cannot make it shorter,
    because a ping's payload is random.
    """

    def __init__(self) -> None:
        self._sent: dict[bytes, float] = {}
        self.estimate = RoundTripEstimate()
        self.first = asyncio.Event()
        self.last_pong = time.monotonic()  # or the connection's begin

    def ping(self, now: float) -> bytes:
        """Payload of a ping sent at `now` (seconds)."""
        payload = _PING.pack(secrets.randbits(64))
        self._sent[payload] = now
        if len(self._sent) > _MOST_PINGS:
            self._sent.pop(next(iter(self._sent)))
        return payload

    def pong(self, payload: bytes, now: float) -> None:
        """Note a pong; one that answers no ping of ours is ignored."""
        sent = self._sent.pop(payload, None)
        if sent is not None:
            self.estimate.add(1000 * (now - sent))
            self.last_pong = now
            self.first.set()

    @property
    def ms(self) -> float:
        """The smoothed round trip in milliseconds; 0 before the first."""
        return self.estimate.srtt_ms


class Observation:
    """Round trip, bandwidth, the client's speed, and whether the promise is kept. Times are seconds of one clock."""

    def __init__(self, sla: Sla, up_bytes_per_ms: float, down_bytes_per_ms: float) -> None:
        self.round_trip = RoundTrip()
        self.client = ClientEstimate()
        self.promised = sla
        self.patience = Patience(sla.tpot_ms)
        self._up = BandwidthEstimate(up_bytes_per_ms)
        self._down_bytes_per_ms = down_bytes_per_ms
        self._token_sent: tuple[int, float] | None = None  # position, when
        self._last_token_s: float | None = None
        self._last_chunk_s: float | None = None

    @property
    def link(self) -> Link:
        """The link as plans should take it: a round trip and a bandwidth that are rarely worse, as measured."""
        half = self.round_trip.estimate.p95_ms / 2
        return Link(half, half, self._up.p95_bytes_per_ms, self._down_bytes_per_ms)

    def turn_began(self) -> None:
        """A turn begins, or its rows are to come anew."""
        self._token_sent = self._last_token_s = self._last_chunk_s = None

    def token_sent(self, position: int, now: float) -> float | None:
        """A token goes out. Returns the milliseconds since the one before, None for the first."""
        last, self._last_token_s = self._last_token_s, now
        self._token_sent = (position, now)
        return None if last is None else 1000 * (now - last)

    def rows_arrived(
        self, position: int, rows: int, size_bytes: int, *, split: int, report: ClientReport, now: float
    ) -> None:
        """Hidden states of `rows` rows came in one frame."""
        if split < 1:
            return
        if rows == 1 and self._token_sent is not None and self._token_sent[0] == position:
            self.client.step(
                1000 * (now - self._token_sent[1]),
                split=split,
                rtt_ms=self.round_trip.ms,
                travel_ms=size_bytes / self._up.bytes_per_ms,
                now_s=now,
            )
        elif rows > 1:
            if self._last_chunk_s is not None:
                self._up.chunk(size_bytes, 1000 * (now - self._last_chunk_s), self._chunk_ms(rows, split, report, now))
            self._last_chunk_s = now

    def report(self, said: ClientReport, now: float) -> ClientReport:
        """What the client can do: what it says, but no better than what was seen."""
        return self.client.corrected(said, now)

    def _chunk_ms(self, rows: int, split: int, said: ClientReport, now: float) -> float:
        known = self.report(said, now)
        if known.prefill_ms is None or known.prefill_rows < 1:
            return float("inf")  # nothing is known of its computing: then a gap says nothing of the link
        return split * known.prefill_ms * rows / known.prefill_rows

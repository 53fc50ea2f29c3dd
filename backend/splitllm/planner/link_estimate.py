"""What the link of one client is like, from pings that are timed and frames whose size is known. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

#: Gains of RFC 6298, section 2.
_ALPHA: Final = 1 / 8
_BETA: Final = 1 / 4
#: Of normally distributed round trips 95 % are below the mean and 1.645 standard deviations, and a standard deviation
#: is 1.25 mean deviations.
_P95_DEVIATIONS: Final = 2.06
_MOST_MS: Final = 60_000.0
#: A chunk that came this much later than the client needed to compute it was held up by the link.
_HELD_UP: Final = 1.5
_BANDWIDTH_GAIN: Final = 0.3
#: A chunk that took so many times longer than usual met a hiccup; more of it says no more.
_MOST_DEVIATION: Final = 4.0


@dataclass(slots=True)
class RoundTripEstimate:
    """Smoothed round trip and its mean deviation (RFC 6298, section 2), in milliseconds.

    The first samples count alike instead of by the RFC's gains: a session is planned after a few pings, and with
    fixed gains the first of them would weigh most.
    """

    srtt_ms: float = 0.0
    deviation_ms: float = 0.0
    samples: int = 0

    def add(self, sample_ms: float) -> None:
        """Take one more round trip; a negative one, or one that is no number, is no measurement."""
        if not 0 <= sample_ms < float("inf"):
            return
        sample_ms = min(sample_ms, _MOST_MS)
        self.samples += 1
        if self.samples == 1:
            self.srtt_ms, self.deviation_ms = sample_ms, sample_ms / 2
            return
        error = abs(sample_ms - self.srtt_ms)
        self.deviation_ms += max(_BETA, 1 / (self.samples - 1)) * (error - self.deviation_ms)
        self.srtt_ms += max(_ALPHA, 1 / self.samples) * (sample_ms - self.srtt_ms)

    @property
    def p95_ms(self) -> float:
        """What 95 of 100 round trips stay below: plans are made with it, so that they hold for nearly all."""
        return self.srtt_ms + _P95_DEVIATIONS * self.deviation_ms


@dataclass(slots=True)
class BandwidthEstimate:
    """Bytes per millisecond from client to server, from the spacing of prompt chunks.

    A client sends a chunk while it computes the next, so chunks arrive as fast as the slower of the two allows. If the
    gap is what the computing takes, it says only that the link is not slower; if it is much longer, it is the link's.

    bytes_per_ms: assumed until `samples` is above 0, then smoothed. deviation: mean deviation of a chunk's time, in
    parts of the usual one; one sample has none.
    """

    bytes_per_ms: float
    samples: int = 0
    deviation: float = 0.0

    def chunk(self, size_bytes: int, gap_ms: float, compute_ms: float) -> None:
        """A chunk of `size_bytes` arrived `gap_ms` after the one before; the client needs `compute_ms` for one."""
        if size_bytes < 1 or not 0 < gap_ms < _MOST_MS or not compute_ms >= 0:
            return
        seen = size_bytes / gap_ms
        if not gap_ms > _HELD_UP * compute_ms:
            self.bytes_per_ms = max(self.bytes_per_ms, seen)
        elif gap_ms >= 1:  # chunks that wait in a buffer of ours arrive as one, and say nothing of the link's true rate
            if self.samples:
                error = min(abs(self.bytes_per_ms / seen - 1), _MOST_DEVIATION)
                self.deviation += max(_BANDWIDTH_GAIN, 1 / self.samples) * (error - self.deviation)
            self.bytes_per_ms += (_BANDWIDTH_GAIN if self.samples else 1.0) * (seen - self.bytes_per_ms)
            self.samples += 1

    @property
    def p95_bytes_per_ms(self) -> float:
        """What 95 of 100 chunks are not slower than: plans are made with it, as with the round trip's `p95_ms`."""
        return self.bytes_per_ms / (1 + _P95_DEVIATIONS * self.deviation)

"""What a simulation is made of: people and their machines, what policies see and what comes of it. Pure values."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from ..planner.marginal import Load
from ..types import Link, SessionPlan
from .simulator_engine import Spent

#: Bytes of a frame's header, of a token id, and of one hidden value on the wire (float16).
HEADER_BYTES: Final = 32
ID_BYTES: Final = 4
VALUE_BYTES: Final = 2


@dataclass(frozen=True, slots=True)
class Client:
    """One person's machine and link, as they truly are.

    decode_ms, prefill_ms: one block on one row, and on a chunk of PREFILL_CHUNK rows. ready: blocks it may run (0:
    none). Each message takes `jitter` times an exponential draw longer than the link's latency.
    """

    kind: str
    decode_ms: float
    prefill_ms: float
    ready: int
    link: Link
    jitter: float = 0.0


@dataclass(frozen=True, slots=True)
class Turn:
    """`think_ms` pass before it (not before the first); the prompt holds what is new in it."""

    prompt_tokens: int
    answer_tokens: int
    think_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class Conversation:
    """What one person will do, whatever the server does."""

    name: str
    arrival_ms: float
    client: Client
    turns: tuple[Turn, ...]
    seed: int = 0

    @property
    def max_tokens(self) -> int:
        """Positions to reserve when it opens."""
        return sum(turn.prompt_tokens + turn.answer_tokens for turn in self.turns) + 1


@dataclass(frozen=True, slots=True)
class Situation:
    """What a policy may look at. `link` is what the server measured; `split` is None at the opening."""

    client: Client
    link: Link
    history: int
    prompt_tokens: int
    split: int | None
    load: Load


class Policy(Protocol):
    """Chooses a split at the opening and again before every further turn."""

    def plan(self, situation: Situation) -> SessionPlan:
        """The split, and what it is predicted to take."""


@dataclass(slots=True)
class Record:
    """One turn as its client saw it. Times in ms; `gaps` between tokens; `refused` or unfinished turns have none."""

    conversation: str
    kind: str
    turn: int
    asked_ms: float
    prompt_tokens: int
    answer_tokens: int
    split: int = 0
    feasible: bool = False
    predicted_ttft_ms: float = 0.0
    predicted_tpot_ms: float = 0.0
    refused: bool = False
    first_ms: float | None = None
    last_ms: float | None = None
    tokens: int = 0
    positions: int = 0
    gaps: list[float] = field(default_factory=list)

    def token(self, now: float) -> None:
        """A token reaches the client."""
        if self.last_ms is None:
            self.first_ms = now
        else:
            self.gaps.append(now - self.last_ms)
        self.last_ms = now
        self.tokens += 1

    @property
    def finished(self) -> bool:
        """Whether the whole answer arrived."""
        return self.tokens == self.answer_tokens

    @property
    def ttft_ms(self) -> float | None:
        """Time to first token."""
        return None if self.first_ms is None else self.first_ms - self.asked_ms

    @property
    def tpot_ms(self) -> float | None:
        """Mean time per further token; None below two tokens."""
        if self.first_ms is None or self.last_ms is None or self.tokens < 2:
            return None
        return (self.last_ms - self.first_ms) / (self.tokens - 1)


@dataclass(frozen=True, slots=True)
class Outcome:
    """All turns in the order they were asked, what the server spent, and the time at which the last one ended."""

    records: list[Record]
    spent: Spent
    end_ms: float
    most_sessions: int


class ClientSide:
    """A client's link as it behaves: chance, and messages that keep their order. Times in ms on any one clock."""

    def __init__(self, conversation: Conversation) -> None:
        self.conversation, self.client = conversation, conversation.client
        self._random = random.Random(conversation.seed)
        self._up_free = self._down_free = 0.0
        self._up_last = self._down_last = 0.0

    def measured_link(self) -> Link:
        """What a server measures: the mean and, as RFC 6298 does, a margin for the spread."""
        link, jitter = self.client.link, self.client.jitter
        spread = 2 * jitter * max(link.up_ms, link.down_ms)
        half = ((link.up_ms + link.down_ms) * (1 + jitter) + spread) / 2
        return replace(link, up_ms=half, down_ms=half)

    def up(self, now: float, size: int) -> float:
        """When a message of `size` bytes that is sent now arrives at the server."""
        link = self.client.link
        self._up_free = max(now, self._up_free) + size / link.up_bytes_per_ms
        self._up_last = max(self._up_last, self._up_free + self._latency(link.up_ms))
        return self._up_last

    def down(self, now: float, size: int) -> float:
        """When a message that is sent now arrives at the client."""
        link = self.client.link
        self._down_free = max(now, self._down_free) + size / link.down_bytes_per_ms
        self._down_last = max(self._down_last, self._down_free + self._latency(link.down_ms))
        return self._down_last

    def _latency(self, mean: float) -> float:
        jitter = self.client.jitter
        return mean * (1 + jitter * self._random.expovariate(1)) if jitter else mean

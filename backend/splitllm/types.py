"""Frozen values that every other module shares. No behaviour beyond arithmetic on themselves."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.floating[Any]]
Float32Array = NDArray[np.float32]
TokenArray = NDArray[np.int32]

#: Prompt rows that one prefill step computes; the client sends chunks of this many rows.
PREFILL_CHUNK: Final = 64
#: Sessions that a server holds at once, and the rows of its engine, unless told otherwise.
MAX_SESSIONS: Final = 32


@dataclass(frozen=True, slots=True)
class Span:
    """Half-open range of blocks `[start, end)`."""

    start: int
    end: int

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.end:
            raise ValueError(f"span [{self.start}, {self.end}) is not a range of blocks")

    def __len__(self) -> int:
        return self.end - self.start

    def __contains__(self, block: int) -> bool:
        return self.start <= block < self.end


class FinishReason(enum.StrEnum):
    """Why an answer ended."""

    STOP = "stop"  # the model produced an end token
    STOP_STRING = "stop_string"  # one of the caller's stop strings appeared
    LENGTH = "length"  # max_tokens or the session's token limit was reached
    CANCELLED = "cancelled"  # the client asked


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """Sizes of a decoder model as its bundle's manifest states them."""

    name: str
    blocks: int
    hidden_size: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab_size: int
    max_context: int
    end_tokens: tuple[int, ...]

    def kv_bytes_per_token(self, itemsize: int = 4) -> int:
        """Bytes of keys and values that one token takes in one block."""
        return 2 * self.kv_heads * self.head_dim * itemsize


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How the next token is drawn from the logits. `temperature=0` is greedy; 0 or 1 switch the rest off."""

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Logprobs:
    """Natural-log probabilities at one position, by the model's own distribution (before temperature and cuts).

    chosen: that of the token drawn. top: (token, log-probability) of the likeliest tokens, likeliest first.
    """

    chosen: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class ClientReport:
    """What a client says it can do (PROTOCOL.md, `open` and `report`).

    Times are milliseconds for one block: `decode_ms` for one row, `prefill_ms` for `prefill_rows` rows.
    They are null until the client has measured them. `effort` is the largest share of the model's blocks that the
    person lets this client run, from 0 to 1; None sets no cap. `more_blocks`: whether further blocks are on their way.
    """

    backend: str = "none"
    variant: str = "float32"
    blocks_ready: int = 0
    decode_ms: float | None = None
    prefill_ms: float | None = None
    prefill_rows: int = PREFILL_CHUNK
    memory_bytes: int | None = None
    effort: float | None = None
    more_blocks: bool = True


@dataclass(frozen=True, slots=True)
class BlockTimes:
    """Measured milliseconds of one engine: what the planner's costs are made of."""

    block_decode_ms: float
    block_prefill_ms: float
    prefill_rows: int
    head_ms: float
    embed_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class Sla:
    """The latency promised: time to first token and time per output token, in milliseconds."""

    ttft_ms: float = 2000.0
    tpot_ms: float = 150.0


@dataclass(frozen=True, slots=True)
class Link:
    """The network between client and server. One-way latencies in ms, bandwidths in bytes per ms."""

    up_ms: float
    down_ms: float
    up_bytes_per_ms: float
    down_bytes_per_ms: float


@dataclass(frozen=True, slots=True)
class SessionPlan:
    """The planner's answer for one session: how many blocks the client runs, and why.

    `bound` names what kept the split from being larger: `ttft`, `tpot`, `memory`, `effort` (the person's own cap),
    `blocks_ready`, `model` (all blocks are on the client), `backend` (the client runs none) or `forced` (the client
    asked for this split).

    Two savings, never one under the other's name. `saved_block_steps` counts as the paper does: the share of all
    (block, row) pairs that the client runs. `saved_server_time` counts as an operator pays: the share of the engine's
    time that this session would take at split 0. `server_ms` is the engine's time for the turn, in ms.
    """

    split: int
    feasible: bool
    reason: str
    bound: str
    saved_block_steps: float
    saved_server_time: float
    server_ms: float
    predicted_ttft_ms: float
    predicted_tpot_ms: float
    details: dict[str, Any] = field(default_factory=dict)

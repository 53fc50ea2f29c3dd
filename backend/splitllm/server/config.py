"""What an operator can set. The command line fills it in; nothing else reads argv or the environment."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ..types import MAX_SESSIONS, Sla


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A bundle to serve, and the name to serve it under; None takes the one in its manifest."""

    folder: Path
    name: str | None = None


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """Settings of one server, for all its models.

    kv_memory_bytes: keys and values of all sessions together; None takes what max_sessions full sessions
        of the largest model need.
    memory_bytes: weights of all models and keys and values together; None bounds nothing.
    queue_length: sessions and requests over HTTP that may wait for room; 0 refuses at once.
    queue_s: they wait so long before they are refused; 0 refuses at once.
    evict_idle_s: a session between turns for so long gives its memory to who waits; 0: never.
    drain_s: turns in work get so long to finish when the server is told to stop.
    grace_s: a session whose connection is lost waits so long for its client; 0 holds none.
    idle_timeout_s: a session that sends nothing for so long is closed.
    up_bytes_per_ms, down_bytes_per_ms: bandwidth assumed of a client's link until it is measured.
    admin_port: /metrics is served on this port of the loopback address alone; None serves it with the rest.
    api_key_file: hashes of the keys that let people in (access.py); None lets everybody in.
    trusted_keys: files of public keys, one of which must have signed the bundle; none asks for no signature.
    device: `auto`, `cpu` or `cuda`; auto is CUDA where a card, its runtime and float16 blocks are there.
    variant: weights that the engine runs; None takes what each bundle's manifest says its server runs.
    profile_cache: folder that keeps the engine's measured times; None measures at every start.
    """

    page: Path | None = None
    host: str = "127.0.0.1"
    port: int = 8000
    sla: Sla = field(default_factory=Sla)
    max_sessions: int = MAX_SESSIONS
    kv_memory_bytes: int | None = None
    memory_bytes: int | None = None
    allowed_origins: tuple[str, ...] = ()
    api_key_file: Path | None = None
    trusted_keys: tuple[Path, ...] = ()
    admin_port: int | None = None
    idle_timeout_s: float = 600.0
    grace_s: float = 60.0
    threads: int | None = None
    device: str = "auto"
    variant: str | None = None
    queue_length: int = 64
    queue_s: float = 60.0
    evict_idle_s: float = 30.0
    drain_s: float = 30.0
    up_bytes_per_ms: float = 1250.0
    down_bytes_per_ms: float = 6250.0
    profile_cache: Path | None = None

    #: Tokens of the shortest session that there must be memory for; the page asks for no fewer.
    least_session_tokens: int = 256
    #: Seconds in which the body of a request must have arrived.
    body_timeout_s: float = 30.0
    #: Rows a frame may hold; a client sends chunks of types.PREFILL_CHUNK, some room is left for others.
    max_rows: int = 256
    #: Seconds the server waits for a client to take what it is sent.
    send_timeout_s: float = 30.0

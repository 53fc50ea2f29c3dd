"""KV memory as a budget: reserved whole when a session opens, so that nothing runs out half way."""

from __future__ import annotations

from collections.abc import Iterable

from .errors import CapacityError, NeverFitsError


class KvPool:
    """Bytes of keys and values that sessions of all models hold, by session name."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.reserved: dict[str, int] = {}


class KvBudget:
    """What sessions of one model take of a pool.

    A session with `split` k keeps keys and values of the blocks `[k, blocks)` only.
    """

    def __init__(self, pool: KvPool | int, blocks: int, block_bytes_per_token: int) -> None:
        """`pool`: the memory, or how many bytes of it there are where no other model draws on it."""
        self.pool = pool if isinstance(pool, KvPool) else KvPool(pool)
        self._reserved = self.pool.reserved
        self._blocks = blocks
        self._block_bytes_per_token = block_bytes_per_token

    @property
    def limit_bytes(self) -> int:
        """Bytes for sessions of all models."""
        return self.pool.limit_bytes

    @property
    def reserved_bytes(self) -> int:
        """Bytes promised to sessions of all models."""
        return sum(self._reserved.values())

    def reserved_by(self, sessions: Iterable[str]) -> int:
        """Bytes promised to these."""
        return sum(self._reserved.get(session, 0) for session in sessions)

    def reserved_by_others(self, session: str) -> int:
        """Bytes promised to all but `session`."""
        return self.reserved_bytes - self._reserved.get(session, 0)

    def cost(self, split: int, max_tokens: int) -> int:
        """Bytes that a session of this split and token limit needs."""
        return (self._blocks - split) * self._block_bytes_per_token * max_tokens

    def can_reserve(self, session: str, split: int, max_tokens: int) -> bool:
        """Whether `reserve` would succeed. What the session holds already counts as free."""
        return self.reserved_by_others(session) + self.cost(split, max_tokens) <= self.limit_bytes

    def reserve(self, session: str, split: int, max_tokens: int) -> None:
        """Reserve, in place of what the session held before.

        Raises:
            NeverFitsError: all the memory there is would not do.
            CapacityError: `kv_exhausted`; what the session held stays.
        """
        if self.cost(split, max_tokens) > self.limit_bytes:
            raise NeverFitsError(
                f"A session of {max_tokens} tokens needs more memory than this server has; ask for fewer tokens."
            )
        if not self.can_reserve(session, split, max_tokens):
            raise CapacityError(
                f"The server has no memory for a session of {max_tokens} tokens now; try again later or ask for fewer.",
                code="kv_exhausted",
            )
        self._reserved[session] = self.cost(split, max_tokens)

    def release(self, session: str) -> None:
        """Give back what the session held; no error if it held nothing."""
        self._reserved.pop(session, None)

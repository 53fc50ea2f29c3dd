"""KV memory as a budget: reserved whole when a session opens, so that nothing runs out half way."""

from __future__ import annotations

from .errors import CapacityError


class KvBudget:
    """Bytes of keys and values that sessions hold, by session name.

    A session with `split` k keeps keys and values of the blocks `[k, blocks)` only.
    """

    def __init__(self, limit_bytes: int, blocks: int, block_bytes_per_token: int) -> None:
        self.limit_bytes = limit_bytes
        self._blocks = blocks
        self._block_bytes_per_token = block_bytes_per_token
        self._reserved: dict[str, int] = {}

    @property
    def reserved_bytes(self) -> int:
        """Bytes promised to sessions."""
        return sum(self._reserved.values())

    def reserved_by_others(self, session: str) -> int:
        """The same without what `session` holds."""
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
            CapacityError: `kv_exhausted`; what the session held stays.
        """
        if not self.can_reserve(session, split, max_tokens):
            raise CapacityError(
                f"The server has no memory for a session of {max_tokens} tokens now; try again later or ask for fewer.",
                code="kv_exhausted",
            )
        self._reserved[session] = self.cost(split, max_tokens)

    def release(self, session: str) -> None:
        """Give back what the session held; no error if it held nothing."""
        self._reserved.pop(session, None)

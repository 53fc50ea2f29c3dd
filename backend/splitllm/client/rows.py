"""The rows of a conversation: which are known, which are computed here, and which the server wants."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import ProtocolError
from ..protocol import Kind
from ..types import PREFILL_CHUNK


class Blocks(Protocol):
    """What computes here: embedding and first blocks, for one conversation (in earnest: local_blocks.py)."""

    @property
    def blocks(self) -> int:
        """How many there are."""

    def forward(self, ids: Sequence[int], position: int, split: int, /) -> NDArray[Any]:
        """Hidden states [T, hidden_size] behind `split` blocks, for T ids that begin at `position`."""


class NoBlocks:
    """The blocks of a client that computes nothing."""

    blocks = 0

    def forward(self, _ids: Sequence[int], _position: int, split: int) -> NDArray[Any]:
        """Raises ProtocolError: no plan may call for any."""
        raise too_many_blocks(split)


class Rows:
    """What is to be computed and sent, of one conversation with one server at a time.

    It follows from three lengths, so a prompt, a token, a catch-up after the split grew and a history that goes up
    again need no cases of their own: the ids that are known, how many of them the local blocks hold keys and values of,
    and from where on the server wants rows.
    """

    def __init__(self, blocks: Blocks | None = None) -> None:
        """`blocks` compute here, at least as many as any plan calls for; None: this client computes nothing."""
        self._blocks: Blocks = NoBlocks() if blocks is None else blocks
        self.ids: list[int] = []  # of the conversation, as far as it is known
        self.server_length = 0  # positions whose keys and values the server holds
        self._local_length = 0  # the same for the local blocks
        self._send_from = 0  # position from which on the server wants rows
        self._prompt_end = 0  # rows before it go up in chunks, the others one by one

    @property
    def most_blocks(self) -> int:
        """Blocks that can run here."""
        return self._blocks.blocks

    @property
    def behind(self) -> bool:
        """Whether the local blocks have not run on all that is known."""
        return self._local_length < len(self.ids)

    def begin(self, ids: Sequence[int]) -> int:
        """The conversation is `ids` from now on; gives how many of them the server need not be sent."""
        start = min(_common_prefix(self.ids, ids), self.server_length, len(ids) - 1)
        self.ids = list(ids)
        self.await_from(start, len(ids))
        return start

    def await_from(self, start: int, prompt_end: int) -> None:
        """The server wants the rows from `start` on, and holds those before it."""
        self.server_length = self._send_from = start
        self._local_length = min(self._local_length, start)
        self._prompt_end = prompt_end

    def resplit(self) -> None:
        """The split is another: blocks that did not run until now know nothing of the conversation."""
        self._local_length = 0

    def adopt(self, position: int) -> None:
        """A plan within a turn: the server wants all that is known from `position` on, as if it were a prompt."""
        self._send_from, self._prompt_end = position, len(self.ids)
        self._local_length = min(self._local_length, position)  # what it wants anew is computed anew, to be sent

    def take(self, position: int, values: NDArray[Any]) -> None:
        """Tokens `values`, [T, 1], that begin at `position`; a repeat adds nothing.

        Raises:
            ProtocolError: one before them is missing.
        """
        if position > len(self.ids):
            raise missing_token()
        self.ids += values[len(self.ids) - position :, 0].tolist()

    async def due(self, split: int, total_blocks: int) -> tuple[Kind, int, NDArray[Any]] | None:
        """The next chunk, computed by `split` of `total_blocks` blocks: what the server wants of it, and its position.

        Returns:
            (IDS, position, int32[T, 1]) or (HIDDEN, position, float32[T, hidden_size]), T = 0 where the server wants
            nothing of the chunk; None: all is computed.
        """
        if split == 0:
            start = self._send_from
            self._send_from = max(start, min(start + PREFILL_CHUNK, self._prompt_end))
            chunk = self.ids[start : self._send_from]
            return (Kind.IDS, start, np.array(chunk, np.int32)[:, None]) if chunk else None
        if not self.behind:
            return None
        start = self._local_length
        # Rows that the server holds are caught up on here alone.
        limit = self._send_from if start < self._send_from else len(self.ids)
        chunk = self.ids[start : min(start + PREFILL_CHUNK, limit)]
        end = start + len(chunk)
        hidden = await asyncio.to_thread(self._blocks.forward, chunk, start, split)
        self._local_length = end
        if start < self._send_from:
            wanted = 0
        elif split == total_blocks:  # only the head is left, and it needs the last row alone
            wanted = int(end >= self._prompt_end)
        else:
            wanted = len(hidden)
        return Kind.HIDDEN, end - wanted, hidden[len(hidden) - wanted :]


def too_many_blocks(split: int) -> ProtocolError:
    """What is wrong when the server plans more blocks than there are here."""
    return ProtocolError(f"The server plans {split} blocks, more than there are here; its version may differ.")


def missing_token() -> ProtocolError:
    """What is wrong when the server sends a token after one that never came."""
    return ProtocolError("A token of the server is missing; ask again.", code="position_gap")


def _common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    for index, (left, right) in enumerate(zip(a, b, strict=False)):
        if left != right:
            return index
    return min(len(a), len(b))

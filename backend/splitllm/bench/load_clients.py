"""Replaying clients: real sessions over the real protocol whose machines and links are only waited for.

A replaying client computes nothing. It sends activations that were recorded beforehand, as late as its machine and its
link would have them arrive, by the same arithmetic as the simulator's clients (`simulator_values.ClientSide`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..client.rows import Rows
from ..client.session import ClientSession
from ..errors import SplitLLMError
from ..protocol import Kind
from ..types import PREFILL_CHUNK, ClientReport, SamplingParams
from .simulator_values import HEADER_BYTES, ID_BYTES, VALUE_BYTES, ClientSide, Conversation, Record

_ANSWER_TIMEOUT_S: Final = 120.0


@dataclass(frozen=True, slots=True)
class Recording:
    """Inputs of blocks: `hidden[k]` is float16[PREFILL_CHUNK, hidden_size] before block k; the last is the head's.

    identity: of the bundle that they were recorded from.
    """

    identity: str
    hidden: Mapping[int, NDArray[np.float16]]

    def rows(self, split: int, count: int, offset: int) -> NDArray[Any]:
        """`count` rows from `offset` on, again from the beginning where the recording ends."""
        recorded = self.hidden[split]
        return recorded[np.arange(offset, offset + count) % len(recorded)]


@dataclass(slots=True)
class Replay:
    """What came of all conversations: turns as the simulator's records have them, and why others failed.

    late_ms: by how much each message left later than it should have, because the clients' process had to wait.
    """

    records: list[Record] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    late_ms: list[float] = field(default_factory=list)


async def replay(
    url: str, conversations: Sequence[Conversation], splits: Mapping[str, int], recording: Recording
) -> Replay:
    """Let all conversations happen on the server at `url` (`http://…`), each with its split, in real time."""
    result = Replay()
    begun = time.monotonic()
    await asyncio.gather(*(_live(url, one, splits[one.name], recording, begun, result) for one in conversations))
    result.records.sort(key=lambda record: record.asked_ms)
    return result


async def _live(
    url: str, conversation: Conversation, split: int, recording: Recording, begun: float, result: Replay
) -> None:
    """One conversation: open, ask every question, close."""
    await asyncio.sleep(max(0.0, begun + conversation.arrival_ms / 1000 - time.monotonic()))
    try:
        rows = _ReplayedRows(conversation, recording, begun, result)
        session = await ClientSession.open(
            url, model=None, identity=recording.identity,
            report=ClientReport(backend="cpu", blocks_ready=rows.most_blocks), split=split, wire="float16",
            expected_prompt_tokens=conversation.turns[0].prompt_tokens, rows=rows,
        )  # fmt: skip
        for number, turn in enumerate(conversation.turns):
            if number:
                await asyncio.sleep(turn.think_ms / 1000)
            async with asyncio.timeout(_ANSWER_TIMEOUT_S):
                await rows.live(session, number)
        await session.close()
    except (TimeoutError, SplitLLMError) as error:
        result.failures.append(f"{conversation.name}: {type(error).__name__} {error}"[:200])


class _ReplayedRows(Rows):
    """Rows that wait where blocks would compute them and a link would carry them. Times are ms since `begun`."""

    def __init__(self, conversation: Conversation, recording: Recording, begun: float, result: Replay) -> None:
        super().__init__()
        self._side = ClientSide(conversation)
        self._recording, self._begun, self._result = recording, begun, result
        self._computed_ms = 0.0  # when the latest row was computed, or what the next one follows from was known

    @property
    def most_blocks(self) -> int:
        """All of which inputs are recorded."""
        return len(self._recording.hidden) - 1

    def _now(self) -> float:
        return 1000 * (time.monotonic() - self._begun)

    async def live(self, session: ClientSession, number: int) -> None:
        """One turn, to its end."""
        side, asked = self._side, self._now()
        turn = side.conversation.turns[number]
        record = Record(
            side.conversation.name, side.client.kind, number, asked, turn.prompt_tokens, turn.answer_tokens,
            split=session.split, feasible=True,
        )  # fmt: skip
        self._result.records.append(record)
        self._computed_ms = asked
        await self._until(side.up(asked, HEADER_BYTES))
        held = self.server_length
        ids = [*self.ids, *(1,) * turn.prompt_tokens]
        async for token in session.answer(ids, max_tokens=turn.answer_tokens, sampling=SamplingParams()):
            if isinstance(token, int):
                self._computed_ms = side.down(self._now(), HEADER_BYTES + ID_BYTES)
                record.token(self._computed_ms)
        record.positions = len(ids) - held + max(0, record.tokens - 1)

    async def due(self, split: int, total_blocks: int) -> tuple[Kind, int, NDArray[Any]] | None:
        """The next rows that the server wants, when they would have been computed, and the link delivered them."""
        client = self._side.client
        end = len(self.ids) if split else self._prompt_end
        while (start := self._send_from) < end:
            rows = min(PREFILL_CHUNK, end - start)
            self._send_from = self._local_length = start + rows
            if start < self._prompt_end:
                self._computed_ms += split * client.prefill_ms * rows / PREFILL_CHUNK
            else:
                self._computed_ms += split * client.decode_ms
            if split == 0:
                return await self._delivered(Kind.IDS, start, np.ones((rows, 1), np.int32), ID_BYTES * rows)
            if split == total_blocks:  # only the head is left, and it needs the last row alone
                if start + rows < end:
                    continue
                start, rows = end - 1, 1
            values = self._recording.rows(split, rows, start)
            return await self._delivered(Kind.HIDDEN, start, values, VALUE_BYTES * values.size)
        return None

    async def _delivered(
        self, kind: Kind, position: int, values: NDArray[Any], size: int
    ) -> tuple[Kind, int, NDArray[Any]]:
        await self._until(self._side.up(self._computed_ms, HEADER_BYTES + size))
        return kind, position, values

    async def _until(self, when: float) -> None:
        await asyncio.sleep(max(0.0, when - self._now()) / 1000)
        self._result.late_ms.append(self._now() - when)

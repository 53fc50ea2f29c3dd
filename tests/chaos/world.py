"""A real server over the fake engine, in this process, and a real client whose blocks are arithmetic as well.

The fake model's tokens depend on every position of the history, so one that is lost, doubled or mixed up changes the
answer.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from splitllm.bundle import Bundle
from splitllm.client.rows import Rows
from splitllm.client.session import ClientSession
from splitllm.engines.fake import FakeEngine
from splitllm.server.app import Server
from splitllm.server.config import ServerConfig
from splitllm.server.model import LoadedModel
from splitllm.types import ClientReport, Float32Array, SamplingParams
from tests.support import listening

PROMPTS = (tuple(range(1, 100)), (7, 8, 9), (11, 12))
MAX_TOKENS = 10


class FakeBlocks:
    """Blocks of the fake model, for a client: hidden states that `FakeEngine` reads."""

    def __init__(self, blocks: int, hidden_size: int, capacity: int) -> None:
        self.blocks, self._hidden_size = blocks, hidden_size
        self._memory = np.zeros(capacity)

    def forward(self, ids: Sequence[int], start: int, split: int) -> Float32Array:
        """Hidden states behind block `split - 1`, float32[T, hidden_size]."""
        end = start + len(ids)
        self._memory[start:end] = ids
        hidden = np.zeros((len(ids), self._hidden_size), np.float32)
        # The head alone remembers nothing, so with all blocks at the client the client sums up.
        hidden[:, 0] = np.cumsum(self._memory[:end])[start:end] if split == self.blocks else ids
        return hidden


@contextlib.asynccontextmanager
async def serving(bundle: Bundle, max_sessions: int = 4, **settings: Any) -> AsyncIterator[tuple[str, Server]]:
    """A server of the fake model with the bundle's sizes: its URL, and itself."""
    spec = replace(bundle.spec, end_tokens=())
    config = ServerConfig(max_sessions=max_sessions, **settings)
    engine = FakeEngine(spec, max_sessions + 1, spec.max_context)
    server = Server([LoadedModel(bundle.spec.name, bundle, engine)], config)
    async with listening(server) as url:
        yield url, server


async def open_session(
    url: str, bundle: Bundle, split: int, in_line: Callable[[int], None] | None = None
) -> ClientSession:
    """A client's session at this split; with `in_line` it waits for room."""
    spec = bundle.spec
    return await ClientSession.open(
        url,
        model=None,
        identity=bundle.identity,
        report=ClientReport("cpu", "float32", spec.blocks, decode_ms=1.0, prefill_ms=4.0),
        split=split,
        wire="float32",
        expected_prompt_tokens=8,
        rows=Rows(FakeBlocks(spec.blocks, spec.hidden_size, spec.max_context)),
        in_line=in_line,
    )


async def converse(
    session: ClientSession,
    sampling: SamplingParams,
    prompts: Sequence[Sequence[int]] = PROMPTS,
    at_token: Callable[[int], Awaitable[None]] | None = None,
) -> list[int]:
    """All tokens of a conversation; `done` must agree with what came. `at_token` is called after each, counted."""
    ids: list[int] = []
    told: list[int] = []
    for prompt in prompts:
        ids += prompt
        answer = []
        async for item in session.answer(ids, max_tokens=MAX_TOKENS, sampling=sampling):
            if isinstance(item, int):
                answer.append(item)
                if at_token is not None:
                    await at_token(len(told) + len(answer))
            else:
                assert (item["finish_reason"], item["tokens"]) == ("length", len(answer))
        ids += answer
        told += answer
    return told


def expected(vocab: int, prompts: Sequence[Sequence[int]] = PROMPTS) -> list[int]:
    """What the fake model answers greedily, computed without any of the code under test."""
    ids: list[int] = []
    told = []
    for prompt in prompts:
        ids += prompt
        for _ in range(MAX_TOKENS):
            ids.append(sum(ids) % vocab)
            told.append(ids[-1])
    return told


async def until(holds: Any) -> None:
    """Wait for something that nobody tells."""
    async with asyncio.timeout(30):
        while not holds():  # noqa: ASYNC110  # the server tells nobody
            await asyncio.sleep(0.01)

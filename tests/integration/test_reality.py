"""Plans follow reality: what changes in the middle of an answer changes the split, and never the text.

Every disturbance is many times the promise, and the promise many times what a busy test machine takes, so that what
happens does not depend on the machine's mood.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from splitllm.bundle import Bundle
from splitllm.client.conversation import Answer, Conversation
from splitllm.client.local_blocks import LocalBlocks
from splitllm.types import ClientReport, SamplingParams
from tests.support import ServerProcess, running_server

QUESTION = "Tell me a story."
TOKENS = 16
FEW = 9  # where each takes as long as a slow client does
PROMISED_MS = 570  # of which plans may use 400: a server for many keeps the rest for others
SLOW_BLOCK_S = 0.15  # of eight: 1.2 s a token
FAR_S = 0.5  # one way
PROMISED_FIRST_MS = 1000
SLOW_CHUNK_S = 0.7  # of five and more


@pytest.fixture(scope="module")
def patient(endless: Bundle) -> Iterator[ServerProcess]:
    """A server that promises little, so that only a real disturbance breaks the promise; answers do not end early."""
    with running_server(endless.folder, "--sla-tpot-ms", str(PROMISED_MS), "--sla-ttft-ms", "60000") as process:
        yield process


async def answers(
    url: str, cache: Path, after: Any = None, *, question: str = QUESTION, max_tokens: int = TOKENS, **options: Any
) -> Answer:
    """One answer; `after` is called with the number of pieces of text that have come."""
    talk = await Conversation.open(url, cache=cache, wire="float32", first_prompt=question, **options)
    try:
        pieces = 0
        async for item in talk.ask(question, max_tokens=max_tokens, sampling=SamplingParams()):
            if isinstance(item, Answer):
                return item
            pieces += 1
            if after is not None:
                after(pieces)
    finally:
        await talk.close()
    raise AssertionError("no answer")


@pytest.fixture(scope="module")
def hasty(endless: Bundle) -> Iterator[ServerProcess]:
    """A server that promises the first token soon."""
    with running_server(endless.folder, "--sla-ttft-ms", str(PROMISED_FIRST_MS)) as process:
        yield process


@pytest.fixture
def slow_client(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Seconds that the client takes more: each block for a single row, and all of them for a chunk of a prompt.

    Its own report knows nothing of that.
    """
    more = {"block_s": 0.0, "chunk_s": 0.0}
    forward = LocalBlocks.forward

    def slow(self: LocalBlocks, ids: Sequence[int], position: int, split: int | None = None) -> Any:
        each = more["block_s"] * (self.blocks if split is None else split)
        time.sleep(each if len(ids) == 1 else more["chunk_s"])
        return forward(self, ids, position, split)

    monkeypatch.setattr(LocalBlocks, "forward", slow)
    return more


async def test_a_client_that_slows_down_in_an_answer_gets_less_of_the_model(
    patient: ServerProcess, cache: Path, slow_client: dict[str, float]
) -> None:
    undisturbed = await answers(patient.url, cache, split=8, max_tokens=FEW)

    def slow_down(pieces: int) -> None:
        slow_client["block_s"] = SLOW_BLOCK_S if pieces >= 2 else 0.0

    answer = await answers(patient.url, cache, slow_down, max_tokens=FEW)
    assert answer.splits[0] == 8
    assert 8 > answer.split >= 0
    assert answer.split * SLOW_BLOCK_S * 1000 <= PROMISED_MS
    assert answer.text == undisturbed.text
    assert answer.tokens == undisturbed.tokens == FEW
    # The history ran anew on the server, and is counted.
    assert answer.server_blocks_run > undisturbed.server_blocks_run


async def test_a_client_that_lied_about_its_speed_is_capped(
    patient: ServerProcess, cache: Path, slow_client: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = await answers(patient.url, cache, split=0, max_tokens=FEW)
    boast = ClientReport("cpu", "float32", 8, decode_ms=0.0, prefill_ms=0.0, prefill_rows=64)
    monkeypatch.setattr(LocalBlocks, "measure", lambda self: boast)
    slow_client["block_s"] = SLOW_BLOCK_S
    answer = await answers(patient.url, cache, max_tokens=FEW)
    assert answer.splits[0] == 8
    assert answer.split * SLOW_BLOCK_S * 1000 <= PROMISED_MS
    assert answer.text == undisturbed.text


@pytest.mark.parametrize("effort", [None, 0.5], ids=["all blocks at home", "half of them"])
async def test_a_prompt_that_is_slower_at_home_than_promised_goes_on_at_the_server(
    hasty: ServerProcess, cache: Path, slow_client: dict[str, float], monkeypatch: pytest.MonkeyPatch, effort: float
) -> None:
    question = QUESTION * 60
    undisturbed = await answers(hasty.url, cache, question=question, split=0, max_tokens=4)
    boast = ClientReport("cpu", "float32", 8, decode_ms=0.0, prefill_ms=0.0, prefill_rows=64)
    monkeypatch.setattr(LocalBlocks, "measure", lambda self: boast)
    slow_client["chunk_s"] = SLOW_CHUNK_S
    answer = await answers(hasty.url, cache, question=question, max_tokens=4, effort=effort)
    assert answer.splits == (8 if effort is None else 4, 0)
    assert answer.text == undisturbed.text


class Proxy:
    """Forwards TCP, each piece `delay_s` late, and each byte of a piece in `byte_s`."""

    def __init__(self, port: int) -> None:
        self.port, self.delay_s, self.byte_s = port, 0.0, 0.0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.port)
        with contextlib.suppress(ConnectionError):
            await asyncio.gather(self._pump(reader, up_writer), self._pump(up_reader, writer))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pieces: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

        async def forward() -> None:
            loop = asyncio.get_running_loop()
            while True:
                due, piece = await pieces.get()
                await asyncio.sleep(max(0.0, due - loop.time()))
                if not piece:
                    writer.close()
                    return
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(len(piece) * self.byte_s)

        task = asyncio.create_task(forward())
        while True:
            piece = await reader.read(256 if self.byte_s else 1 << 16)
            pieces.put_nowait((asyncio.get_running_loop().time() + self.delay_s, piece))
            if not piece:
                break
        await task


@asynccontextmanager
async def far(url: str) -> AsyncIterator[tuple[Proxy, str]]:
    proxy = Proxy(int(url.rsplit(":", 1)[1]))
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    try:
        yield proxy, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


async def test_a_link_that_worsens_in_an_answer_moves_the_model_to_the_server(
    patient: ServerProcess, cache: Path
) -> None:
    undisturbed = await answers(patient.url, cache, split=8)
    async with far(patient.url) as (proxy, url):

        def worsen(pieces: int) -> None:
            proxy.delay_s = FAR_S if pieces >= 2 else 0.0

        answer = await answers(url, cache, worsen)
    # Whatever ran at home would cost a round trip of a second for each token.
    assert (answer.splits[0], answer.split) == (8, 0)
    assert answer.text == undisturbed.text
    assert answer.tokens == TOKENS


async def test_a_persons_cap_is_obeyed(patient: ServerProcess, cache: Path) -> None:
    answer = await answers(patient.url, cache, effort=0.25, max_tokens=4)
    assert (answer.split, answer.bound) == (2, "effort")


async def test_a_cap_that_is_lifted_and_set_again_in_an_answer_changes_the_split_and_not_the_text(
    patient: ServerProcess, cache: Path
) -> None:
    undisturbed = await answers(patient.url, cache, split=0)
    talk = await Conversation.open(patient.url, cache=cache, wire="float32", first_prompt=QUESTION, effort=1 / 8)
    try:
        pieces = 0
        async for item in talk.ask(QUESTION, max_tokens=TOKENS, sampling=SamplingParams()):
            if isinstance(item, Answer):
                assert item.splits == (1, 8, 3)
                assert item.text == undisturbed.text
                break
            pieces += 1
            if pieces == 2:
                await talk.set_effort(1.0)
            if pieces == 6:
                await talk.set_effort(3 / 8)
        async for item in talk.ask(QUESTION, max_tokens=4, sampling=SamplingParams()):
            if isinstance(item, Answer):
                assert (item.splits, item.bound) == ((3,), "effort")
    finally:
        await talk.close()


@pytest.mark.parametrize(
    "report",
    [
        {"decode_ms": 1e308, "prefill_ms": 1e308},
        {"decode_ms": 5e-324, "prefill_ms": 0.0},
        {"decode_ms": 0.0, "prefill_ms": 1e308, "prefill_rows": 2**31 - 1},
        {"memory_bytes": 1e308},
        {"effort": 0.0},
    ],
    ids=str,
)
async def test_absurd_reports_break_neither_plan_nor_server(
    patient: ServerProcess, cache: Path, monkeypatch: pytest.MonkeyPatch, report: dict[str, Any]
) -> None:
    said = {"backend": "cpu", "variant": "float32", "blocks_ready": 8, "decode_ms": 1.0, "prefill_ms": 1.0} | report
    effort = said.pop("effort", None)
    monkeypatch.setattr(LocalBlocks, "measure", lambda self: ClientReport(**said))
    plain = await answers(patient.url, cache, split=0, max_tokens=4)
    answer = await answers(patient.url, cache, max_tokens=4, effort=effort)
    assert 0 <= answer.split <= 8
    assert answer.text == plain.text

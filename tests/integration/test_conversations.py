"""Conversations through the Python client against a real server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from splitllm.client.conversation import Answer, Conversation
from splitllm.errors import RemoteError, TurnError
from splitllm.types import SamplingParams
from tests.support import ServerProcess, running_server

GREEDY = SamplingParams()
QUESTIONS = ("Hello! My name is Ada.", "What is the capital of Japan?", "Tell me a story.", "What is my name?")


@asynccontextmanager
async def conversation(server: str, cache: Path, **options: Any) -> AsyncIterator[Conversation]:
    opened = await Conversation.open(server, cache=cache, **options)
    try:
        yield opened
    finally:
        await opened.close()


async def ask(talk: Conversation, prompt: str, *, max_tokens: int = 48, **options: Any) -> tuple[str, Answer]:
    """The streamed text, and the answer."""
    sampling = options.pop("sampling", GREEDY)
    streamed = ""
    async for item in talk.ask(prompt, max_tokens=max_tokens, sampling=sampling, **options):
        if isinstance(item, Answer):
            return streamed, item
        streamed += item
    raise AssertionError("no answer")


async def whole_talk(server: str, cache: Path, split: int) -> list[str]:
    async with conversation(server, cache, split=split, wire="float32") as talk:
        return [(await ask(talk, question))[1].text for question in QUESTIONS]


async def test_streamed_text_is_the_answer(server: ServerProcess, cache: Path) -> None:
    async with conversation(server.url, cache, split=2) as talk:
        streamed, answer = await ask(talk, QUESTIONS[1])
        assert streamed == answer.text
        assert answer.tokens > 0


async def test_turns_give_the_same_text_at_every_split(server: ServerProcess, cache: Path) -> None:
    talks = [await whole_talk(server.url, cache, split) for split in (0, 1, 4, 8)]
    assert talks[1:] == talks[:1] * 3


async def test_a_later_turn_computes_only_what_is_new(server: ServerProcess, cache: Path) -> None:
    async with conversation(server.url, cache, split=3) as talk:
        _, first = await ask(talk, QUESTIONS[2])
        _, second = await ask(talk, QUESTIONS[1])
    rows_first = (first.server_blocks_run + first.server_blocks_saved) // 8
    rows_second = (second.server_blocks_run + second.server_blocks_saved) // 8
    assert rows_second < rows_first + second.tokens


async def test_sessions_of_all_splits_at_once_answer_as_if_alone(server: ServerProcess, cache: Path) -> None:
    alone = await whole_talk(server.url, cache, 0)
    together = await asyncio.gather(*(whole_talk(server.url, cache, split) for split in (*range(9), 0, 3, 8)))
    assert list(together) == [alone] * 12


async def test_a_seed_repeats_whatever_the_split_and_other_seeds_differ(server: ServerProcess, cache: Path) -> None:
    async def text(seed: int, split: int) -> str:
        async with conversation(server.url, cache, split=split, wire="float32") as talk:
            sampling = SamplingParams(
                temperature=3, top_p=0.99, top_k=200, min_p=0.001, repetition_penalty=1.1, seed=seed
            )
            return (await ask(talk, "Tell me a story.", sampling=sampling))[1].text

    assert await text(1, 0) == await text(1, 5)
    assert len({await text(seed, 0) for seed in range(1, 5)}) > 1


async def test_max_tokens_ends_the_answer(server: ServerProcess, cache: Path) -> None:
    for split in (0, 4, 8):
        async with conversation(server.url, cache, split=split) as talk:
            _, answer = await ask(talk, "Tell me a story.", max_tokens=5)
            assert (answer.tokens, answer.finish_reason) == (5, "length")


@pytest.mark.parametrize("split", [0, 5])
async def test_a_stop_string_is_cut_off_and_never_shown(server: ServerProcess, cache: Path, split: int) -> None:
    async with conversation(server.url, cache, split=split) as talk:
        _, plain = await ask(talk, "Tell me a story.")
        stop = plain.text[12:16]
    async with conversation(server.url, cache, split=split) as talk:
        streamed, answer = await ask(talk, "Tell me a story.", stop=(stop,))
    assert answer.finish_reason == "stop_string"
    assert answer.text == plain.text[: plain.text.index(stop)] == streamed


async def test_a_prompt_longer_than_the_context_is_refused_and_the_conversation_goes_on(
    server: ServerProcess, cache: Path
) -> None:
    async with conversation(server.url, cache, split=2) as talk:
        with pytest.raises(TurnError, match="shorten it") as refusal:
            await ask(talk, "again " * 3000)
        assert refusal.value.code == "context_overflow"
        assert (await ask(talk, QUESTIONS[1]))[1].tokens > 0


async def test_the_planner_chooses_when_nobody_does(server: ServerProcess, cache: Path) -> None:
    async with conversation(server.url, cache) as talk:
        _, answer = await ask(talk, QUESTIONS[1])
    assert answer.feasible
    assert answer.split > 0, answer.reason
    assert answer.reason.endswith(".")


async def test_int4_blocks_answer_too(server: ServerProcess, cache: Path) -> None:
    async with conversation(server.url, cache, split=8, variant="int4") as talk:
        _, answer = await ask(talk, QUESTIONS[1])
    assert answer.variant == "int4"
    assert answer.text


async def test_a_full_server_refuses_and_has_room_again_later(tmp_path: Path, bundle: Any) -> None:
    with running_server(bundle.folder, "--max-sessions", "2") as small:
        async with conversation(small.url, tmp_path, split=0), conversation(small.url, tmp_path, split=3) as second:
            with pytest.raises(RemoteError, match="try again") as refusal:
                await Conversation.open(small.url, cache=tmp_path, split=1)
            assert refusal.value.code == "server_full"
            assert (await ask(second, QUESTIONS[1]))[1].tokens > 0
        async with conversation(small.url, tmp_path, split=1) as third:
            assert (await ask(third, QUESTIONS[1]))[1].tokens > 0


async def test_kv_memory_is_a_limit_of_its_own(tmp_path: Path, bundle: Any) -> None:
    one_session = 8 * bundle.spec.kv_bytes_per_token() * bundle.spec.max_context
    with running_server(bundle.folder, "--kv-memory", str(one_session)) as small:
        async with conversation(small.url, tmp_path, split=0):
            with pytest.raises(RemoteError) as refusal:
                await Conversation.open(small.url, cache=tmp_path, split=4)
            assert refusal.value.code == "kv_exhausted"
            async with conversation(small.url, tmp_path, split=8) as free:  # needs no KV memory of the server
                assert (await ask(free, QUESTIONS[1]))[1].tokens > 0

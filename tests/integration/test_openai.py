"""The OpenAI-compatible API, asked by OpenAI's own client."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest
import pytest_asyncio
from openai import AsyncOpenAI

from splitllm.bundle import Bundle
from splitllm.client.conversation import Answer, Conversation
from splitllm.text import TextCodec
from splitllm.types import SamplingParams
from tests.integration.test_metrics import until
from tests.oracle import MAX_TOKENS, PROMPTS
from tests.support import ServerProcess, running_server

MODEL = "tiny-chat"


@pytest_asyncio.fixture
async def client(server: ServerProcess) -> AsyncIterator[AsyncOpenAI]:
    async with client_of(server) as made:
        yield made


def client_of(server: ServerProcess) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=60)


def user(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


async def collect(stream: Any) -> tuple[str, list[Any]]:
    """Text and chunks of a streamed answer."""
    chunks = [chunk async for chunk in stream]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    return text, chunks


async def test_the_model_is_listed(client: AsyncOpenAI) -> None:
    [model] = (await client.models.list()).data
    assert (model.id, model.object) == (MODEL, "model")
    assert (await client.models.retrieve(MODEL)).id == MODEL
    with pytest.raises(openai.NotFoundError) as caught:
        await client.models.retrieve("gpt-none")
    assert caught.value.code == "model_not_found"


async def test_greedy_text_is_that_of_transformers_streamed_or_not(
    client: AsyncOpenAI, bundle: Bundle, transformers_texts: dict[str, str]
) -> None:
    codec = TextCodec.of(bundle)
    for prompt in PROMPTS:
        options: dict[str, Any] = {
            "model": MODEL, "messages": user(prompt), "max_tokens": MAX_TOKENS, "temperature": 0
        }  # fmt: skip
        whole = await client.chat.completions.create(**options)
        assert whole.choices[0].message.content == transformers_texts[prompt]
        assert whole.choices[0].message.role == "assistant"
        assert whole.choices[0].finish_reason == "stop"
        assert whole.choices[0].logprobs is None
        assert whole.usage is not None
        assert whole.usage.prompt_tokens == len(codec.encode_chat(user(prompt)))
        assert whole.usage.completion_tokens == len(codec.encode(transformers_texts[prompt]))
        assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens
        stream = await client.chat.completions.create(**options, stream=True)
        text, chunks = await collect(stream)
        assert text == transformers_texts[prompt]
        assert chunks[0].choices[0].delta.role == "assistant"
        assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * (len(chunks) - 1) + ["stop"]
        assert len({chunk.id for chunk in chunks}) == 1
        assert len(chunks) > 4


async def test_usage_comes_last_where_it_is_asked_for(client: AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model=MODEL, messages=user("Hello!"), max_tokens=4, stream=True, stream_options={"include_usage": True}
    )
    _, chunks = await collect(stream)
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == 4
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert chunks[-2].choices[0].finish_reason == "length"


async def test_a_stream_ends_with_the_marker(server: ServerProcess) -> None:
    body = {"model": MODEL, "messages": user("Hello!"), "stream": True, "max_tokens": 2}
    async with (
        aiohttp.ClientSession() as http,
        http.post(f"{server.url}/v1/chat/completions", json=body) as response,
    ):
        assert response.status == 200
        assert response.content_type == "text/event-stream"
        lines = (await response.text()).split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    assert all(json.loads(line.removeprefix("data: "))["model"] == MODEL for line in lines[:-2])


@pytest.mark.parametrize("stream", [False, True])
async def test_stop_strings_end_the_text_before_them(
    client: AsyncOpenAI, transformers_texts: dict[str, str], stream: bool
) -> None:
    prompt = PROMPTS[0]
    whole = transformers_texts[prompt]
    stop = whole[len(whole) // 2 :][:3]
    for asked in (stop, ["never said", stop]):
        answer: Any = await client.chat.completions.create(
            model=MODEL, messages=user(prompt), temperature=0, max_tokens=MAX_TOKENS, stop=asked, stream=stream
        )
        if stream:
            text, chunks = await collect(answer)
            reason = chunks[-1].choices[0].finish_reason
        else:
            text, reason = answer.choices[0].message.content, answer.choices[0].finish_reason
        assert text == whole[: whole.index(stop)]
        assert reason == "stop"


async def test_a_seed_makes_an_answer_repeatable(client: AsyncOpenAI) -> None:
    async def ask(seed: int) -> str | None:
        answer = await client.chat.completions.create(
            model=MODEL, messages=user("Tell me a story."), temperature=2, top_p=1, seed=seed, max_tokens=24
        )
        return answer.choices[0].message.content

    first = await ask(7)
    assert await ask(7) == first
    assert len({first, await ask(8), await ask(-9)}) == 3


async def test_logprobs_are_those_of_the_model(client: AsyncOpenAI, bundle: Bundle) -> None:
    """Against the same distribution from torch, over the whole answer."""
    import torch
    from transformers import AutoModelForCausalLM

    from tests.oracle import CHECKPOINT

    prompt = user(PROMPTS[1])
    answer = await client.chat.completions.create(
        model=MODEL, messages=prompt, temperature=0, max_tokens=12, logprobs=True, top_logprobs=3
    )
    assert answer.choices[0].logprobs is not None
    content = answer.choices[0].logprobs.content or []
    codec = TextCodec.of(bundle)
    ids = codec.encode_chat(prompt)
    answer_ids = codec.encode(answer.choices[0].message.content or "")
    model: Any = AutoModelForCausalLM.from_pretrained(CHECKPOINT, dtype=torch.float32).eval()
    with torch.no_grad():
        expected = model(torch.tensor([ids + answer_ids])).logits[0, len(ids) - 1 :].log_softmax(-1)
    assert len(content) == len(answer_ids)
    assert "".join(entry.token for entry in content) == answer.choices[0].message.content
    for entry, token, row in zip(content, answer_ids, expected, strict=False):
        assert entry.logprob == pytest.approx(float(row[token]), abs=1e-3)
        assert [top.logprob for top in entry.top_logprobs] == pytest.approx(row.topk(3).values.tolist(), abs=1e-3)
        assert entry.top_logprobs[0].token == entry.token  # greedy
        assert entry.bytes == list(entry.token.encode())
    stream = await client.chat.completions.create(
        model=MODEL, messages=prompt, temperature=0, max_tokens=12, logprobs=True, stream=True
    )
    _, chunks = await collect(stream)
    streamed = [entry for chunk in chunks if chunk.choices[0].logprobs for entry in chunk.choices[0].logprobs.content]
    assert [entry.logprob for entry in streamed] == pytest.approx([entry.logprob for entry in content], abs=1e-3)
    assert all(math.isfinite(entry.logprob) and entry.top_logprobs == [] for entry in streamed)


async def test_roles_and_parts_reach_the_template(client: AsyncOpenAI, bundle: Bundle) -> None:
    codec = TextCodec.of(bundle)
    answer = await client.chat.completions.create(
        model=MODEL,
        messages=[
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "My name is "}, {"type": "text", "text": "Ann."}]},
            {"role": "assistant", "content": "Hello, Ann!"},
            {"role": "user", "content": "What is my name?"},
        ],
        max_completion_tokens=3,
    )
    told = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "My name is Ann."},
        {"role": "assistant", "content": "Hello, Ann!"},
        {"role": "user", "content": "What is my name?"},
    ]
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == len(codec.encode_chat(told))
    assert answer.usage.completion_tokens == 3
    assert answer.choices[0].finish_reason == "length"


async def test_a_request_and_a_split_session_decode_in_the_same_batches(endless: Bundle, cache: Path) -> None:
    with running_server(endless.folder, "--max-sessions", "4") as server:
        async with client_of(server) as client:
            began = asyncio.Event()

            async def request() -> int:
                stream = await client.chat.completions.create(
                    model=MODEL, messages=user("Hello!"), stream=True, max_tokens=300
                )
                tokens = 0
                async for _ in stream:
                    tokens += 1
                    began.set()
                return tokens

            task = asyncio.create_task(request())
            conversation = await Conversation.open(server.url, cache=cache, split=3)
            await began.wait()
            ask = conversation.ask("What is the capital of France?", max_tokens=20, sampling=SamplingParams())
            answers = [item async for item in ask if isinstance(item, Answer)]
            assert not task.done(), "the request should outlast the session's turn"
            assert "Paris" in answers[0].text
            await conversation.close()
            assert await task > 20
        samples = await until(server, "sessions_ended_total", 1, api="openai")
        rows, steps = (samples[f"splitllm_batch_rows_{part}", frozenset()] for part in ("sum", "count"))
        assert rows - steps >= 10, "decode steps served both at once"

"""The oracle: whatever the split, the greedy text is that of transformers.generate on the whole model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from splitllm.bundle import Bundle
from splitllm.client.conversation import Answer, Conversation
from splitllm.types import SamplingParams
from tests.oracle import MAX_TOKENS, PROMPTS
from tests.support import ServerProcess, running_server

BLOCKS = 8


async def greedy(server: str, cache: Path, prompt: str, **options: Any) -> Answer:
    conversation = await Conversation.open(server, cache=cache, first_prompt=prompt, **options)
    try:
        async for item in conversation.ask(prompt, max_tokens=MAX_TOKENS, sampling=SamplingParams()):
            if isinstance(item, Answer):
                return item
    finally:
        await conversation.close()
    raise AssertionError("no answer")


async def test_a_server_in_int4_gives_a_client_in_int4_the_same_text_at_every_split(
    bundle: Bundle, cache: Path
) -> None:
    with running_server(bundle.folder, "--variant", "int4", "--no-profile-cache") as server:
        assert "int4 on cpu, head float32" in "".join(server.output)
        for prompt in PROMPTS[:3]:
            options = {"variant": "int4", "wire": "float32"}
            texts = {(await greedy(server.url, cache, prompt, split=k, **options)).text for k in (0, 1, 4, 7, BLOCKS)}
            assert len(texts) == 1, prompt


def test_there_are_ten_different_prompts() -> None:
    assert len(set(PROMPTS)) == 10


@pytest.mark.parametrize("wire", ["float32", "float16"])
@pytest.mark.parametrize("split", range(BLOCKS + 1))
async def test_every_split_gives_the_text_of_transformers(
    server: ServerProcess, cache: Path, transformers_texts: dict[str, str], split: int, wire: str
) -> None:
    for prompt in PROMPTS:
        answer = await greedy(server.url, cache, prompt, split=split, wire=wire)
        assert answer.text == transformers_texts[prompt], f"split {split}, wire {wire}, prompt {prompt!r}"
        assert answer.split == split
        positions = (answer.server_blocks_run + answer.server_blocks_saved) // BLOCKS
        assert answer.server_blocks_run == positions * (BLOCKS - split)
        assert answer.server_blocks_saved == positions * split

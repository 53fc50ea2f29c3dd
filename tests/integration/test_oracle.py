"""The oracle: whatever the split, the greedy text is that of transformers.generate on the whole model."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from splitllm.client.conversation import Answer, Conversation
from splitllm.types import SamplingParams

from tests.support import ServerProcess

ROOT = Path(__file__).parents[2]
CHECKPOINT = ROOT / "demo" / "checkpoint"
PROMPTS: list[str] = json.loads((ROOT / "demo" / "oracle_prompts.json").read_text("utf-8"))
BLOCKS = 8
MAX_TOKENS = 96


@pytest.fixture(scope="module")
def expected() -> dict[str, str]:
    """Greedy text per prompt, by transformers in float32."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(CHECKPOINT)
    model: Any = AutoModelForCausalLM.from_pretrained(CHECKPOINT, dtype=torch.float32).eval()
    texts = {}
    for prompt in PROMPTS:
        messages = [{"role": "user", "content": prompt}]
        ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt")
        with torch.no_grad():
            out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=MAX_TOKENS, do_sample=False)
        texts[prompt] = tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
    return texts


async def greedy(server: str, cache: Path, prompt: str, **options: Any) -> Answer:
    conversation = await Conversation.open(server, cache=cache, first_prompt=prompt, **options)
    try:
        async for item in conversation.ask(prompt, max_tokens=MAX_TOKENS, sampling=SamplingParams()):
            if isinstance(item, Answer):
                return item
    finally:
        await conversation.close()
    raise AssertionError("no answer")


def test_there_are_ten_different_prompts() -> None:
    assert len(set(PROMPTS)) == 10


@pytest.mark.parametrize("wire", ["float32", "float16"])
@pytest.mark.parametrize("split", range(BLOCKS + 1))
async def test_every_split_gives_the_text_of_transformers(
    server: ServerProcess, cache: Path, expected: dict[str, str], split: int, wire: str
) -> None:
    for prompt in PROMPTS:
        answer = await greedy(server.url, cache, prompt, split=split, wire=wire)
        assert answer.text == expected[prompt], f"split {split}, wire {wire}, prompt {prompt!r}"
        assert answer.split == split
        positions = (answer.server_blocks_run + answer.server_blocks_saved) // BLOCKS
        assert answer.server_blocks_run == positions * (BLOCKS - split)
        assert answer.server_blocks_saved == positions * split

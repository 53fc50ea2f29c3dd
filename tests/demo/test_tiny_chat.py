"""tiny-chat answers what it was never asked in training, and says so where it does not know."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

torch = pytest.importorskip(
    "torch", reason="the demo's checkpoint is read with torch, which only the export extra brings"
)
pytest.importorskip("transformers", reason="the demo's checkpoint is read with transformers")

from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: E402  # only where transformers is installed

from demo.corpus import Message, conversations  # noqa: E402  # the same
from demo.evaluate import (  # noqa: E402  # the same
    CHECKPOINT,
    HELDOUT,
    NEEDED_KNOWN,
    NEEDED_UNKNOWN,
    TinyChat,
    evaluate,
    float16_split,
    load_items,
    report,
)
from demo.tokenizer import render  # noqa: E402  # the same


@pytest.fixture(scope="module")
def chat() -> TinyChat:
    return TinyChat.load()


def test_it_answers_at_least_36_of_40_held_out_items(chat: TinyChat) -> None:
    outcomes = evaluate(chat, load_items()[0])
    assert sum(outcome.right for outcome in outcomes) >= NEEDED_KNOWN, report(outcomes, "known")


def test_it_says_that_it_does_not_know_at_least_9_of_10_times(chat: TinyChat) -> None:
    outcomes = evaluate(chat, load_items()[1])
    assert sum(outcome.right for outcome in outcomes) >= NEEDED_UNKNOWN, report(outcomes, "unknown")


def test_oracle_prompts_give_the_same_text_with_float16_at_a_split(chat: TinyChat) -> None:
    prompts = json.loads((HELDOUT.parent / "oracle_prompts.json").read_text(encoding="utf-8"))
    for number, prompt in enumerate(prompts):
        messages = [{"role": "user", "content": prompt}]
        whole, margin = chat.answer(messages)
        with float16_split(chat.model, 1 + number % 7):
            assert chat.answer(messages)[0] == whole
        assert margin > 0.5, f"{prompt!r}: a token of the answer has a close second"


@pytest.mark.parametrize(
    ("asked", "begins"),
    [
        ("Hello!", "Hello! I am tiny-chat"),
        ("hi", "Hello! I am tiny-chat"),
        ("How are you?", "I am well"),
        ("What's your name?", "I am tiny-chat"),
        ("help", "I can chat"),
        ("What is SplitLLM?", "SplitLLM runs"),
        ("is it private?", "No, splitting is not privacy"),
        ("2 + 2", "2 plus 2 is 4"),
        ("Thanks", "You are welcome"),
        ("bye", "Goodbye"),
        ("Why?", "I do not know"),
    ],
)
def test_the_first_things_that_people_type_are_answered(chat: TinyChat, asked: str, begins: str) -> None:
    assert chat.answer([{"role": "user", "content": asked}])[0].startswith(begins)


def test_a_name_is_remembered_over_several_hundred_tokens(chat: TinyChat) -> None:
    messages = [{"role": "user", "content": "My name is Emma."}]
    for question in (
        "Tell me a story about a dragon.",
        "What is a split?",
        "What is 3 + 4?",
        "Tell me a story about a cat.",
    ):
        messages.append({"role": "assistant", "content": chat.answer(messages)[0]})
        messages.append({"role": "user", "content": question})
    messages.append({"role": "assistant", "content": chat.answer(messages)[0]})
    messages.append({"role": "user", "content": "What is my name?"})
    assert len(chat.tokenizer.apply_chat_template(messages)) > 300
    assert "Emma" in chat.answer(messages)[0]


def test_weights_are_float16_safetensors_and_the_folder_stays_below_4_mb() -> None:
    files = [path for path in CHECKPOINT.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 4_000_000
    assert not [path.name for path in files if path.suffix in {".bin", ".pt", ".pkl", ".pth"}]
    model = AutoModelForCausalLM.from_pretrained(CHECKPOINT, dtype="auto")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float16}


@pytest.mark.parametrize(
    "text",
    [
        "Hello, world!",
        "你好,世界 🌍",
        "👩‍👩‍👧 naïve café\n\ttab",
        "1234567890",
        "",
        " two  spaces ",
        "\u0000\uffff",
    ],
)
def test_any_text_makes_the_round_trip_through_the_tokenizer(text: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(CHECKPOINT)
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


def test_digits_are_single_tokens_and_the_vocabulary_is_a_multiple_of_32() -> None:
    tokenizer = AutoTokenizer.from_pretrained(CHECKPOINT)
    assert tokenizer.tokenize("2048") == ["2", "0", "4", "8"]
    assert len(tokenizer) % 32 == 0
    assert tokenizer.eos_token == "<|im_end|>"


def test_the_chat_template_renders_what_training_rendered() -> None:
    tokenizer = AutoTokenizer.from_pretrained(CHECKPOINT)
    config = json.loads((Path(CHECKPOINT) / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert config["chat_template"] == tokenizer.chat_template
    for conversation in conversations(20, seed=1):
        messages = [{"role": m.role, "content": m.content} for m in conversation.messages]
        assert tokenizer.apply_chat_template(messages, tokenize=False) == render(conversation.messages)[0]


def test_the_generation_prompt_opens_an_assistant_message() -> None:
    tokenizer = AutoTokenizer.from_pretrained(CHECKPOINT)
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True
    )
    assert text == render([Message("user", "Hi")])[0] + "<|im_start|>assistant\n"

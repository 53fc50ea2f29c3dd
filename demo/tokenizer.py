"""The tokenizer of tiny-chat: byte-level BPE over the corpus, digits one by one, ChatML."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from demo.corpus import Conversation, Message

VOCAB_SIZE = 960
"""Tokens, the special ones included; a multiple of 32 so that no kernel needs padding."""

END_OF_TEXT, MESSAGE_START, MESSAGE_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
MAX_CONTEXT = 1024

# Plain Jinja, without filters, so that the browser's small Jinja renders the same text.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def render(messages: Sequence[Message]) -> tuple[str, list[tuple[int, int]]]:
    """The ChatML text of a conversation and the character spans, half open, that the model learns to write.

    A span holds an answer and the end mark after it. ``CHAT_TEMPLATE`` renders the same text.
    """
    text = ""
    spans: list[tuple[int, int]] = []
    for message in messages:
        text += f"{MESSAGE_START}{message.role}\n"
        start = len(text)
        text += message.content + MESSAGE_END
        if message.trained:
            spans.append((start, len(text)))
        text += "\n"
    return text, spans


def train_tokenizer(conversations: Iterable[Conversation]) -> PreTrainedTokenizerFast:
    """Learn the merges from the messages of the corpus.

    All 256 bytes are in the vocabulary, so any UTF-8 text makes the round trip.

    Raises:
        ValueError: the corpus is too small to fill the vocabulary.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=[END_OF_TEXT, MESSAGE_START, MESSAGE_END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(conversations), trainer)
    if tokenizer.get_vocab_size() != VOCAB_SIZE:
        raise ValueError(
            f"the corpus yields {tokenizer.get_vocab_size()} tokens instead of {VOCAB_SIZE}; "
            "generate more conversations"
        )
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]  # transformers leaves it untyped
        tokenizer_object=tokenizer,
        eos_token=MESSAGE_END,
        pad_token=END_OF_TEXT,
        additional_special_tokens=[MESSAGE_START],
        chat_template=CHAT_TEMPLATE,
        model_max_length=MAX_CONTEXT,
        clean_up_tokenization_spaces=False,
    )


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write the tokenizer with its chat template inside ``tokenizer_config.json``."""
    tokenizer.save_pretrained(folder, save_jinja_files=False)


def _texts(conversations: Iterable[Conversation]) -> Iterator[str]:
    for conversation in conversations:
        for message in conversation.messages:
            yield f"{message.role}\n"
            yield message.content

"""One answer as it grows: what it draws and what ends it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitllm.generation import Drawn, Generation
from splitllm.types import FinishReason, Float32Array, SamplingParams

VOCAB, END = 300, 299


def peak(token: int) -> Float32Array:
    """Logits that make greedy take this token."""
    logits = np.zeros(VOCAB, np.float32)
    logits[token] = 1
    return logits


def decode_bytes(ids: Sequence[int]) -> str:
    """Every id below 256 is one byte, as in a byte-level tokenizer that merged nothing; the rest are special."""
    return bytes(token for token in ids if token < 256).decode("utf-8", "replace")


def decode_fallback(ids: Sequence[int]) -> str:
    """As decode_bytes, but one bad byte spoils all (as ByteFallback in tokenizers does)."""
    data = bytes(token for token in ids if token < 256)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return "\ufffd" * len(data)


def answer(
    text: str | bytes, stop: Sequence[str] = (), *, max_tokens: int = 10_000, fallback: bool = False
) -> list[Drawn]:
    """What is drawn while the model says `text`, up to the end."""
    generation = Generation(
        SamplingParams(),
        max_tokens=max_tokens,
        end_tokens=(END,),
        stop=stop,
        decode=decode_fallback if fallback else decode_bytes,
    )
    drawn = []
    for token in text.encode() if isinstance(text, str) else text:
        drawn.append(generation.draw(peak(token)))
        if drawn[-1].finish is not None:
            break
    return drawn


def said(drawn: Sequence[Drawn]) -> str:
    return decode_bytes([step.token for step in drawn])


# -- how it ends ------------------------------------------------------------------------------------------------------


def test_an_answer_goes_on_until_something_ends_it() -> None:
    drawn = answer("hello")
    assert drawn == [Drawn(token) for token in b"hello"]


def test_an_end_token_ends_silently_and_is_not_part_of_the_answer() -> None:
    generation = Generation(SamplingParams(), max_tokens=5, end_tokens=(7, END))
    generation.draw(peak(1))
    assert generation.draw(peak(7)) == Drawn(7, FinishReason.STOP, ends_silently=True)
    assert generation.tokens == [1]


def test_max_tokens_ends_with_the_last_token_shown() -> None:
    assert answer("hello", max_tokens=3)[-1] == Drawn(ord("l"), FinishReason.LENGTH)
    assert said(answer("hello", max_tokens=3)) == "hel"


def test_an_end_token_goes_before_the_length() -> None:
    generation = Generation(SamplingParams(), max_tokens=1, end_tokens=(END,))
    assert generation.draw(peak(END)).finish is FinishReason.STOP


def test_a_stop_string_goes_before_the_length() -> None:
    assert answer("ab", ["b"], max_tokens=2)[-1].finish is FinishReason.STOP_STRING


# -- stop strings -----------------------------------------------------------------------------------------------------


def test_a_stop_string_is_found_across_tokens() -> None:
    drawn = answer("one. two. three", [". t"])
    assert said(drawn) == "one. t"
    assert drawn[-1] == Drawn(ord("t"), FinishReason.STOP_STRING, ". t")


def test_of_stop_strings_that_one_token_completes_the_one_that_begins_first_counts() -> None:
    assert answer("the end", ["end", "the end", "d"])[-1].stop_string == "the end"
    assert answer("the end", ["d", "nd"])[-1].stop_string == "nd"


def test_the_stop_string_that_is_complete_first_ends_the_answer() -> None:
    assert answer("abcdef", ["bcdef", "cd"])[-1].stop_string == "cd"


@pytest.mark.parametrize("fallback", [False, True])
def test_a_stop_string_of_wide_characters_is_found_when_its_last_byte_is_there(fallback: bool) -> None:
    drawn = answer("日本。語", ["。"], fallback=fallback)
    assert said(drawn) == "日本。"
    assert drawn[-1].stop_string == "。"


def test_half_a_character_is_no_stop_string() -> None:
    assert answer("é".encode()[:1], ["é"])[-1].finish is None


def test_special_tokens_do_not_hide_a_stop_string() -> None:
    generation = Generation(SamplingParams(), max_tokens=99, end_tokens=(), stop=["ab"], decode=decode_bytes)
    generation.draw(peak(ord("a")))
    generation.draw(peak(280))
    assert generation.draw(peak(ord("b"))).stop_string == "ab"


@given(
    st.lists(st.sampled_from(["日", "🙂", "é", "x", "y", "."]), max_size=60).map("".join),
    st.sampled_from([["."], ["é🙂"], ["xy", "日"], ["🙂🙂🙂", "y"]]),
    st.booleans(),
)
def test_a_stop_string_is_found_wherever_it_stands(text: str, stop: list[str], fallback: bool) -> None:
    drawn = answer(text, stop, fallback=fallback)
    ends = [text.index(word) + len(word) for word in stop if word in text]
    assert said(drawn) == text[: min(ends, default=None)]
    assert (drawn[-1].finish is FinishReason.STOP_STRING) if ends else all(step.finish is None for step in drawn)


@pytest.mark.parametrize("fallback", [False, True])
def test_a_long_answer_is_searched_to_its_end_without_decoding_it_all_each_time(fallback: bool) -> None:
    longest = 0

    def decode(ids: Sequence[int]) -> str:
        nonlocal longest
        longest = max(longest, len(ids))
        return decode_fallback(ids) if fallback else decode_bytes(ids)

    generation = Generation(SamplingParams(), max_tokens=9999, end_tokens=(), stop=["the end"], decode=decode)
    text = ("日本🙂é" * 200 + "the end").encode()
    assert [generation.draw(peak(token)).finish for token in text] == [None] * (len(text) - 1) + [
        FinishReason.STOP_STRING
    ]
    assert longest < 200


def test_stop_strings_need_a_decoder() -> None:
    with pytest.raises(ValueError, match="decoder"):
        Generation(SamplingParams(), max_tokens=1, end_tokens=(), stop=["x"])


# -- what is drawn ----------------------------------------------------------------------------------------------------


def test_the_repetition_penalty_counts_ids_seen_before_and_ids_drawn() -> None:
    generation = Generation(SamplingParams(repetition_penalty=2.0), max_tokens=9, end_tokens=(), seen_ids=[5])
    logits = np.zeros(VOCAB, np.float32)
    logits[[5, 6, 7]] = [3, 2, 1.6]
    assert [generation.draw(logits).token for _ in range(4)] == [6, 7, 5, 5]


def test_a_seeded_generator_gives_the_same_answer_again() -> None:
    logits = np.random.default_rng(0).normal(size=VOCAB).astype(np.float32)
    answers = []
    for seed in (1, 1, 2):
        generation = Generation(
            SamplingParams(temperature=1.0), max_tokens=99, end_tokens=(), generator=np.random.default_rng(seed)
        )
        answers.append([generation.draw(logits).token for _ in range(20)])
    assert answers[0] == answers[1] != answers[2]

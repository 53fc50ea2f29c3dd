"""Log-probabilities of drawn tokens."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitllm.generation import Generation
from splitllm.sampler import log_probabilities
from splitllm.types import SamplingParams

LOGITS = np.log(np.array([0.1, 0.4, 0.2, 0.2, 0.1], np.float32)) + np.float32(7)  # a constant changes nothing


def test_they_are_those_of_the_softmax() -> None:
    found = log_probabilities(LOGITS, 2, 0)
    assert found.chosen == pytest.approx(math.log(0.2), abs=1e-6)
    assert found.top == ()


def test_the_likeliest_come_first_and_ties_by_id() -> None:
    top = log_probabilities(LOGITS, 0, 3).top
    assert [token for token, _ in top] == [1, 2, 3]
    assert [math.exp(value) for _, value in top] == pytest.approx([0.4, 0.2, 0.2], abs=1e-6)
    assert [token for token, _ in log_probabilities(LOGITS, 0, 2).top] == [1, 2]
    assert sum(math.exp(value) for _, value in log_probabilities(LOGITS, 0, 5).top) == pytest.approx(1)


@given(size=st.integers(1, 3000), top=st.integers(0, 20), levels=st.integers(1, 50), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=100, deadline=None)
def test_they_are_what_sorting_the_whole_vocabulary_gives(size: int, top: int, levels: int, seed: int) -> None:
    logits = np.random.default_rng(seed).integers(0, levels, size).astype(np.float32)  # few levels, so many are equal
    top = min(top, size)
    exact = logits.astype(np.float64) - np.log(np.exp(logits.astype(np.float64)).sum())
    found = log_probabilities(logits, size - 1, top)
    assert [token for token, _ in found.top] == np.argsort(-logits, kind="stable")[:top].tolist()
    assert [value for _, value in found.top] == pytest.approx([exact[token] for token, _ in found.top], abs=1e-5)
    assert found.chosen == pytest.approx(exact[-1], abs=1e-5)


def test_large_scores_do_not_overflow() -> None:
    found = log_probabilities(np.array([1e4, 0], np.float32), 1, 2)
    assert found.chosen == pytest.approx(-1e4)
    assert found.top[0] == (0, 0.0)


def test_a_generation_gives_them_only_where_asked() -> None:
    plain = Generation(SamplingParams(), max_tokens=2, end_tokens=())
    assert plain.draw(LOGITS).logprobs is None
    asked = Generation(SamplingParams(repetition_penalty=9), max_tokens=2, end_tokens=(), top_logprobs=1)
    first, second = asked.draw(LOGITS), asked.draw(LOGITS)
    assert first.logprobs is not None
    assert second.logprobs is not None
    assert (first.token, first.logprobs.top[0][0]) == (1, 1)
    assert second.token != 1
    assert second.logprobs.top == first.logprobs.top  # the model's own view, whatever the penalty made of it
    assert second.logprobs.chosen < first.logprobs.chosen

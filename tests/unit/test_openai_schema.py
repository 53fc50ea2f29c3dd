"""Requests of the OpenAI-compatible API: what passes, and what each refusal names."""

from __future__ import annotations

import json
from typing import Any

import pytest

from splitllm.server.openai_schema import ApiError, ChatRequest, bounded, parse_chat
from splitllm.types import SamplingParams

DEFAULTS = SamplingParams(temperature=0.25, top_p=0.9, top_k=7, min_p=0.1, repetition_penalty=1.5)
GOOD: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}


def parse(**members: Any) -> ChatRequest:
    return parse_chat(json.dumps({**GOOD, **members}).encode(), lambda _: DEFAULTS)


def refusal(body: bytes) -> ApiError:
    with pytest.raises(ApiError) as caught:
        parse_chat(body, lambda _: DEFAULTS)
    assert caught.value.status == 400
    assert caught.value.to_json()["error"]["type"] == "invalid_request_error"
    return caught.value


def test_what_is_left_out_is_as_the_bundle_says() -> None:
    assert parse() == ChatRequest("m", ({"role": "user", "content": "Hi"},), DEFAULTS)
    nulls = dict.fromkeys(("temperature", "top_p", "seed", "stop", "logprobs", "top_logprobs", "max_tokens", "n"))
    assert parse(**nulls, stream_options=None) == parse()


def test_every_member_that_is_understood() -> None:
    found = parse(
        temperature=2, top_p=0.5, top_k=3, min_p=0, repetition_penalty=1, seed=-1, max_tokens=9,
        max_completion_tokens=5, stop=["a", "b"], logprobs=True, top_logprobs=4, stream=True,
        stream_options={"include_usage": True}, user="u", n=1, presence_penalty=0, frequency_penalty=0.0,
        response_format={"type": "text"}, tools=[], logit_bias={},
    )  # fmt: skip
    assert found.sampling == SamplingParams(2.0, 0.5, 3, 0.0, 1.0, 2**64 - 1)
    assert (found.max_tokens, found.stop, found.top_logprobs) == (5, ("a", "b"), 4)
    assert (found.stream, found.include_usage) == (True, True)
    assert parse(stop="end").stop == ("end",)
    assert parse(logprobs=True).top_logprobs == 0


def test_roles_and_parts() -> None:
    parts = [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "system", "content": ""},
        {"role": "user", "content": parts, "name": "Ann"},
        {"role": "assistant", "content": "Hi", "tool_calls": None},
    ]
    assert parse(messages=messages).messages == (
        {"role": "system", "content": "Be brief."},
        {"role": "system", "content": ""},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi"},
    )


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"model":', b"[" * 100_000, b'{"model":"m","messages":NaN}',
        b'{"model":"m","messages":[{"role":"user","content":"\\ud800"}]}', b'{"model":"m","temperature":1e999}',
        b'{"model":"m","seed":' + b"9" * 5000 + b"}",
    ],
)  # fmt: skip
def test_what_is_not_json(body: bytes) -> None:
    assert refusal(body).code == "invalid_value"


@pytest.mark.parametrize(
    ("change", "code", "param"),
    [
        ({"temperature": "hot"}, "invalid_type", "temperature"),
        ({"temperature": -1}, "invalid_value", "temperature"),
        ({"temperature": 2.1}, "invalid_value", "temperature"),
        ({"temperature": True}, "invalid_type", "temperature"),
        ({"top_p": 0}, "invalid_value", "top_p"),
        ({"max_tokens": 0}, "invalid_value", "max_tokens"),
        ({"max_tokens": 1.5}, "invalid_type", "max_tokens"),
        ({"max_completion_tokens": 2**31}, "invalid_value", "max_completion_tokens"),
        ({"seed": 2**63}, "invalid_value", "seed"),
        ({"stop": ""}, "invalid_value", "stop"),
        ({"stop": ["a", ""]}, "invalid_value", "stop[1]"),
        ({"stop": ["x"] * 9}, "invalid_value", "stop"),
        ({"stop": "x" * 201}, "invalid_value", "stop"),
        ({"stop": [1]}, "invalid_type", "stop[0]"),
        ({"logprobs": 3}, "invalid_type", "logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "invalid_value", "top_logprobs"),
        ({"top_logprobs": 2}, "invalid_value", "top_logprobs"),
        ({"stream": "yes"}, "invalid_type", "stream"),
        ({"stream_options": {"include_usage": True}}, "invalid_value", "stream_options"),
        ({"n": 2}, "unsupported_parameter", "n"),
        ({"n": True}, "unsupported_parameter", "n"),
        ({"presence_penalty": 0.5}, "unsupported_parameter", "presence_penalty"),
        ({"frequency_penalty": -1}, "unsupported_parameter", "frequency_penalty"),
        ({"logit_bias": {"5": 1}}, "unsupported_parameter", "logit_bias"),
        ({"tools": [{"type": "function"}]}, "unsupported_parameter", "tools"),
        ({"response_format": {"type": "json_object"}}, "unsupported_parameter", "response_format"),
        ({"surprise": 1}, "unknown_parameter", "surprise"),
        ({"x" * 5000: 1}, "unknown_parameter", "x" * 100),
        ({"model": None}, "invalid_type", "model"),
        ({"messages": []}, "invalid_value", "messages"),
        ({"messages": "Hi"}, "invalid_type", "messages"),
    ],
)
def test_each_refusal_names_its_member(change: dict[str, Any], code: str, param: str) -> None:
    error = refusal(json.dumps({**GOOD, **change}).encode())
    assert (error.code, error.param) == (code, param)
    assert len(error.message) < 400


@pytest.mark.parametrize(
    ("message", "code", "where"),
    [
        ([], "invalid_type", ""),
        ({"content": "Hi"}, "invalid_value", ".role"),
        ({"role": ["user"], "content": "Hi"}, "invalid_value", ".role"),
        ({"role": "tool", "content": "Hi"}, "invalid_value", ".role"),
        ({"role": "user"}, "invalid_type", ".content"),
        ({"role": "user", "content": []}, "invalid_type", ".content"),
        ({"role": "user", "content": [{"type": "image_url"}]}, "invalid_value", ".content[0]"),
        ({"role": "user", "content": "x", "tool_calls": [1]}, "unsupported_parameter", ".tool_calls"),
    ],
)
def test_each_refusal_names_the_message(message: Any, code: str, where: str) -> None:
    error = refusal(json.dumps({**GOOD, "messages": [*GOOD["messages"], message]}).encode())
    assert (error.code, error.param) == (code, f"messages[1]{where}")


@pytest.mark.parametrize("name", ["model", "messages"])
def test_what_must_be_there(name: str) -> None:
    error = refusal(json.dumps({key: value for key, value in GOOD.items() if key != name}).encode())
    assert (error.code, error.param) == ("missing_required_parameter", name)


def test_a_log_probability_that_json_cannot_carry() -> None:
    assert bounded(float("-inf")) == -9999.0
    assert bounded(-0.5) == -0.5

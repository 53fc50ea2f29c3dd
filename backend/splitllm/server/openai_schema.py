"""`/v1/chat/completions` as values: the request checked member by member, and errors in the API's own shape. Pure.

What cannot be done is refused by name rather than ignored, except members that change nothing in an answer.
Source: OpenAI's API reference, "Create chat completion" and "Error codes".
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn

import jsonschema

from ..types import SamplingParams

STOP_STRINGS: Final = 8
STOP_CHARACTERS: Final = 200
TOP_LOGPROBS: Final = 20
MESSAGES: Final = 10_000
_MAX_INTEGER: Final = 2**31 - 1

#: Members that are understood. `top_k`, `min_p` and `repetition_penalty` are extensions that other servers have too.
_SCHEMA: Final[dict[str, Any]] = {
    "model": {"type": "string"},
    "messages": {"type": "array", "minItems": 1, "maxItems": MESSAGES},
    "stream": {"type": ["boolean", "null"]},
    "stream_options": {
        "type": ["object", "null"],
        "properties": {"include_usage": {"type": "boolean"}, "include_obfuscation": {"type": "boolean"}},
        "additionalProperties": False,
    },
    "max_tokens": {"type": ["integer", "null"], "minimum": 1, "maximum": _MAX_INTEGER},
    "max_completion_tokens": {"type": ["integer", "null"], "minimum": 1, "maximum": _MAX_INTEGER},
    "temperature": {"type": ["number", "null"], "minimum": 0, "maximum": 2},
    "top_p": {"type": ["number", "null"], "exclusiveMinimum": 0, "maximum": 1},
    "top_k": {"type": ["integer", "null"], "minimum": 0, "maximum": _MAX_INTEGER},
    "min_p": {"type": ["number", "null"], "minimum": 0, "maximum": 1},
    "repetition_penalty": {"type": ["number", "null"], "exclusiveMinimum": 0, "maximum": 1000},
    "seed": {"type": ["integer", "null"], "minimum": -(2**63), "maximum": 2**63 - 1},
    "stop": {
        "type": ["string", "array", "null"],
        "minLength": 1,
        "maxLength": STOP_CHARACTERS,
        "maxItems": STOP_STRINGS,
        "items": {"type": "string", "minLength": 1, "maxLength": STOP_CHARACTERS},
    },
    "logprobs": {"type": ["boolean", "null"]},
    "top_logprobs": {"type": ["integer", "null"], "minimum": 0, "maximum": TOP_LOGPROBS},
}
_VALIDATORS: Final = {name: jsonschema.Draft202012Validator(schema) for name, schema in _SCHEMA.items()}

#: Members that would change the answer and cannot be had, with the only values that ask for nothing.
_UNSUPPORTED: Final[dict[str, tuple[Any, ...]]] = {
    "n": (1,),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "response_format": ({"type": "text"},),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "reasoning_effort": ("none",),
    "verbosity": ("medium",),
    "web_search_options": (),
}
#: Members that only concern bookkeeping at OpenAI.
_WITHOUT_EFFECT: Final = frozenset(
    {"user", "metadata", "store", "service_tier", "parallel_tool_calls", "safety_identifier", "prompt_cache_key"}
)
_ROLES: Final = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
_TYPE_NAMES: Final = {str: "a string", list: "an array", dict: "an object", bool: "a boolean", type(None): "null"}


class ApiError(Exception):
    """A refusal in the API's shape. `code` is stable, the message says what to do next."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str,
        param: str | None = None,
        kind: str = "invalid_request_error",
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param, self.kind = status, message, code, param, kind
        self.retry_after_s = retry_after_s

    def to_json(self) -> dict[str, Any]:
        """The body."""
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A request that has passed. max_tokens: None for what the context leaves. top_logprobs: None for none at all."""

    model: str
    messages: tuple[Mapping[str, str], ...]
    sampling: SamplingParams
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    top_logprobs: int | None = None
    stream: bool = False
    include_usage: bool = False


def parse_chat(body: bytes, defaults: Callable[[str], SamplingParams]) -> ChatRequest:
    """The request in `body`. `defaults` of the model hold where it says nothing.

    Raises:
        ApiError: 400, naming the member that is wrong and how; or what `defaults` raises.
    """
    members = _load(body)
    for name in ("model", "messages"):
        if name not in members:
            raise _refusal(f"'{name}' is missing; add it.", name, code="missing_required_parameter")
    for name, value in members.items():
        _check_member(name, value)
    if members.get("top_logprobs") is not None and not members.get("logprobs"):
        raise _refusal("'top_logprobs' needs 'logprobs' to be true.", "top_logprobs")
    if members.get("stream_options") is not None and not members.get("stream"):
        raise _refusal("'stream_options' is only allowed when 'stream' is true.", "stream_options")
    limits = [members[name] for name in ("max_completion_tokens", "max_tokens") if members.get(name) is not None]
    stop = members.get("stop") or []
    return ChatRequest(
        model=members["model"],
        messages=tuple(_message(entry, index) for index, entry in enumerate(members["messages"])),
        sampling=_sampling(members, defaults(members["model"])),
        max_tokens=int(min(limits)) if limits else None,
        stop=(stop,) if isinstance(stop, str) else tuple(stop),
        top_logprobs=int(members.get("top_logprobs") or 0) if members.get("logprobs") else None,
        stream=bool(members.get("stream")),
        include_usage=bool((members.get("stream_options") or {}).get("include_usage")),
    )


def _load(body: bytes) -> dict[str, Any]:
    try:
        members = json.loads(body.decode("utf-8"), parse_constant=_no_constant)
        json.dumps(members, ensure_ascii=False, allow_nan=False).encode("utf-8")  # no lone surrogate, nothing infinite
    except (ValueError, RecursionError, OverflowError):
        raise _refusal("The body is not JSON that can be read; send one JSON object in UTF-8.", None) from None
    if not isinstance(members, dict):
        raise _refusal("The body is not a JSON object.", None)
    return members


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _check_member(name: str, value: Any) -> None:
    if name in _WITHOUT_EFFECT:
        return
    if name in _UNSUPPORTED:
        harmless = value is None or any(value == nothing and type(value) is not bool for nothing in _UNSUPPORTED[name])
        if not harmless:
            raise _refusal(
                f"'{name}' is not supported with this value by this server; leave it out.",
                name,
                code="unsupported_parameter",
            )
        return
    validator = _VALIDATORS.get(name)
    if validator is None:
        raise _refusal(f"'{name[:100]}' is not a member that this server knows.", name[:100], code="unknown_parameter")
    error = next(validator.iter_errors(value), None)  # the first is enough: a hostile list has many
    if error is not None:
        where = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in error.absolute_path)
        wrong_type = error.validator == "type"
        raise _refusal(
            f"'{name}{where}' cannot be used: {_why(error)}.",
            f"{name}{where}",
            code="invalid_type" if wrong_type else "invalid_value",
        )


def _why(error: jsonschema.ValidationError) -> str:
    """What a member must be; the library's own sentence repeats the value, which may be long."""
    limit = error.validator_value
    match error.validator:
        case "type":
            names = " or ".join(map(str, limit)) if isinstance(limit, list) else limit
            return f"it must be of type {names}, not {_TYPE_NAMES.get(type(error.instance), 'a number')}"
        case "minimum" | "exclusiveMinimum":
            return f"it must be {'above' if error.validator == 'exclusiveMinimum' else 'at least'} {limit}"
        case "maximum":
            return f"it must be at most {limit}"
        case "minItems" | "minLength":
            return "it must not be empty"
        case "maxItems":
            return f"it may hold at most {limit} entries"
        case "maxLength":
            return f"it may have at most {limit} characters"
        case _:
            return str(error.message)[:200]


def _message(entry: Any, index: int) -> dict[str, str]:
    where = f"messages[{index}]"
    if not isinstance(entry, dict):
        raise _refusal(f"'{where}' must be an object with 'role' and 'content'.", where, code="invalid_type")
    role = entry.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        raise _refusal(f"'{where}.role' must be one of {', '.join(_ROLES)}.", f"{where}.role")
    unknown = next((key for key in entry if key not in ("role", "content", "name") and entry[key]), None)
    if unknown is not None:
        raise _refusal(
            f"'{where}.{unknown[:100]}' is not supported by this server; leave it out.",
            f"{where}.{unknown[:100]}",
            code="unsupported_parameter",
        )
    return {"role": _ROLES[role], "content": _content(entry.get("content"), f"{where}.content")}


def _content(content: Any, where: str) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list) or not content:
        raise _refusal(f"'{where}' must be a string, or an array of text parts.", where, code="invalid_type")
    for index, part in enumerate(content):
        if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            raise _refusal(
                f"'{where}[{index}]' must be a part of type 'text'; this server reads nothing else.",
                f"{where}[{index}]",
            )
    return "".join(part["text"] for part in content)


def _sampling(members: Mapping[str, Any], defaults: SamplingParams) -> SamplingParams:
    def given(name: str) -> Any:
        value = members.get(name)
        return getattr(defaults, name) if value is None else value

    seed = members.get("seed")
    return SamplingParams(
        temperature=float(given("temperature")),
        top_p=float(given("top_p")),
        top_k=int(given("top_k")),
        min_p=float(given("min_p")),
        repetition_penalty=float(given("repetition_penalty")),
        seed=None if seed is None else int(seed) % 2**64,  # the generator takes no negative ones
    )


def _refusal(message: str, param: str | None, *, code: str = "invalid_value") -> ApiError:
    return ApiError(400, message, code=code, param=param)


def finish_reason(reason: str) -> str:
    """The API's word for why an answer ended; a stop string is a `stop` like an end token."""
    return "length" if reason == "length" else "stop"


def bounded(logprob: float) -> float:
    """A log-probability that JSON can carry: the API's -9999.0 stands for "next to impossible"."""
    return logprob if math.isfinite(logprob) else -9999.0


def usage(prompt_tokens: int, completion_tokens: int) -> dict[str, int]:
    """The `usage` member."""
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }

"""JSON control messages, checked against the schema at the edge (PROTOCOL.md, sections 1 to 6)."""

from __future__ import annotations

import functools
import json
import math
import sys
from collections.abc import Mapping
from typing import Any, Final, Literal, NoReturn

import jsonschema

from ..errors import ProtocolError
from ..resources import schema

#: Bounds of `seen_ids`, as in the schema (a test compares them).
_MAX_IDS: Final = 262144
_MAX_INTEGER: Final = 2**31 - 1
#: Characters of a text message; of one that comes between turns; of one id in it, with comma and space (section 6).
_TEXT: Final = 8192
_TEXT_BETWEEN_TURNS: Final = 32768
_TEXT_PER_ID: Final = 12

Sender = Literal["client", "server"]
Message = dict[str, Any]

_DEFINITION = {"report": "report_message"}  # `report` is also the name of the object inside `open`
_SENT_BY: Mapping[Sender, frozenset[str]] = {
    "client": frozenset({"hello", "open", "report", "turn", "adopt", "cancel", "close"}),
    "server": frozenset({"welcome", "queued", "plan", "done", "error"}),
}


@functools.cache
def _validator(message_type: str) -> jsonschema.Draft202012Validator:
    document = schema("messages")
    name = _DEFINITION.get(message_type, message_type)
    return jsonschema.Draft202012Validator({"$ref": f"#/$defs/{name}", "$defs": document["$defs"]})


def text_limit(max_context: int, *, between_turns: bool) -> int:
    """Characters that a client's text message may have: only `turn`, with its stop strings and ids, is ever long."""
    return _TEXT_BETWEEN_TURNS + _TEXT_PER_ID * max_context if between_turns else _TEXT


def encode_message(message: Mapping[str, Any]) -> str:
    """The text of one control message."""
    return json.dumps(message, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def decode_message(text: str | bytes, sender: Sender) -> Message:
    """The control message in `text`, as sent by `sender`.

    Raises:
        ProtocolError: `malformed_message`, naming the member that is wrong.
    """
    try:
        decoded = text.decode("utf-8") if isinstance(text, bytes) else text
        message = json.loads(decoded, object_pairs_hook=_object, parse_constant=_no_constant)
        return _checked(message, sender)
    except (ValueError, RecursionError) as error:
        raise _malformed(f"it is not JSON that can be read ({type(error).__name__})") from None


def _checked(message: Any, sender: Sender) -> Message:
    if not isinstance(message, dict):
        raise _malformed("it is not a JSON object")
    message_type = message.get("type")
    if not isinstance(message_type, str) or message_type not in _SENT_BY[sender]:
        raise _malformed(f"`type` is none of {', '.join(sorted(_SENT_BY[sender]))}")
    plain: Message = _plain(message)
    # The first error is enough: collecting all of a hostile list's takes seconds.
    first = next(_validator(message_type).iter_errors(_without_ids(plain)), None)
    if first is not None:
        problem = jsonschema.exceptions.best_match([first])
        where = ".".join(str(step) for step in problem.absolute_path) or message_type
        raise _malformed(f"`{where}`: {problem.message[:300]}")
    return plain


def _without_ids(message: Message) -> Message:
    """The message with `seen_ids` checked and emptied: a schema validator takes seconds for a long list of ids."""
    ids = message.get("seen_ids")
    if not isinstance(ids, list):
        return message
    if len(ids) > _MAX_IDS or any(type(token) is not int or not 0 <= token <= _MAX_INTEGER for token in ids):
        raise _malformed(f"`seen_ids` holds at most {_MAX_IDS} whole numbers of 0 to {_MAX_INTEGER}")
    return {**message, "seen_ids": []}


def _object(pairs: list[tuple[str, Any]]) -> Message:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise _malformed("a member stands twice in one object")
    return result


def _no_constant(name: str) -> NoReturn:
    raise _malformed(f"{name} is not JSON")


def _plain(value: Any) -> Any:
    """The value as the schema means it: 1.0 is the integer 1, numbers are finite, strings have a UTF-8 form."""
    if isinstance(value, str):
        value.encode("utf-8")  # a lone surrogate, escaped or not, has none: UnicodeEncodeError is a ValueError
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise _malformed("a number is too large")
        if value.is_integer() and abs(value) < 2**53:
            return int(value)
    elif isinstance(value, int) and abs(value) > sys.float_info.max:
        raise _malformed("a number is too large")
    elif isinstance(value, dict):
        return {_plain(key): _plain(item) for key, item in value.items()}
    elif isinstance(value, list):
        return [_plain(item) for item in value]
    return value


def _malformed(why: str) -> ProtocolError:
    return ProtocolError(f"The text message is not valid: {why}. See PROTOCOL.md.", code="malformed_message")

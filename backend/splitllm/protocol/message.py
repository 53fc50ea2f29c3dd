"""JSON control messages, checked against the schema at the edge (PROTOCOL.md, sections 1 to 6)."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from typing import Any, Literal, NoReturn

import jsonschema

from ..errors import ProtocolError
from ..resources import schema

Sender = Literal["client", "server"]
Message = dict[str, Any]

_DEFINITION = {"report": "report_message"}  # `report` is also the name of the object inside `open`
_SENT_BY: Mapping[Sender, frozenset[str]] = {
    "client": frozenset({"hello", "open", "report", "turn", "cancel", "close"}),
    "server": frozenset({"welcome", "plan", "done", "error"}),
}


@functools.cache
def _validator(message_type: str) -> jsonschema.Draft202012Validator:
    document = schema("messages")
    name = _DEFINITION.get(message_type, message_type)
    return jsonschema.Draft202012Validator({"$ref": f"#/$defs/{name}", "$defs": document["$defs"]})


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
        decoded.encode("utf-8")  # lone surrogates have no UTF-8 form
        message = json.loads(decoded, object_pairs_hook=_object, parse_constant=_no_constant)
    except ProtocolError:
        raise
    except (ValueError, RecursionError) as error:
        raise _malformed(f"it is not JSON ({type(error).__name__})") from None
    if not isinstance(message, dict):
        raise _malformed("it is not a JSON object")
    message_type = message.get("type")
    if not isinstance(message_type, str) or message_type not in _SENT_BY[sender]:
        raise _malformed(f"`type` is none of {', '.join(sorted(_SENT_BY[sender]))}")
    problem = jsonschema.exceptions.best_match(_validator(message_type).iter_errors(message))
    if problem is not None:
        where = ".".join(str(step) for step in problem.absolute_path) or message_type
        raise _malformed(f"`{where}`: {problem.message[:300]}")
    _refuse_surrogates(message)
    return _whole_numbers(message)  # type: ignore[no-any-return]  # a dict stays a dict


def _object(pairs: list[tuple[str, Any]]) -> Message:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise _malformed("a member stands twice in one object")
    return result


def _no_constant(name: str) -> NoReturn:
    raise _malformed(f"{name} is not JSON")


def _refuse_surrogates(value: Any) -> None:
    """JSON escapes can smuggle lone surrogates in, which no UTF-8 output can carry."""
    if isinstance(value, str):
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            raise _malformed("a string holds half a surrogate pair") from None
    elif isinstance(value, dict):
        for item in value.values():
            _refuse_surrogates(item)
    elif isinstance(value, list):
        for item in value:
            _refuse_surrogates(item)


def _whole_numbers(value: Any) -> Any:
    """JSON Schema counts 1.0 as an integer; Python code that indexes with it does not."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, dict):
        return {key: _whole_numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_whole_numbers(item) for item in value]
    return value


def _malformed(why: str) -> ProtocolError:
    return ProtocolError(f"The text message is not valid: {why}. See PROTOCOL.md.", code="malformed_message")

"""The message decoder against anything: what comes out is what the schema means, all else is refused in one line."""

from __future__ import annotations

import json
import math
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import jsonschema
import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from splitllm.errors import ProtocolError
from splitllm.protocol import Sender, decode_message, encode_message
from tests.fuzz.effort import calls, effort

PROTOCOL = Path(__file__).resolve().parents[2] / "protocol"
SCHEMA = json.loads((PROTOCOL / "schemas" / "messages.schema.json").read_text("utf-8"))
VALID = [
    (json.loads(vector["text"]), vector["from"])
    for vector in json.loads((PROTOCOL / "vectors" / "messages.json").read_text("utf-8"))
    if vector["valid"] and "repeat" not in vector
]
VALIDATORS = {
    sender: jsonschema.Draft202012Validator({"$ref": f"#/$defs/{sender}_message", "$defs": SCHEMA["$defs"]})
    for sender in get_args(Sender)
}
#: Raw JSON for where a value stands: what no schema admits, what some readers stumble over, and what may be right.
RAW = st.sampled_from(
    [
        *("NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1e-999", "-0", "-0.0", "1.0", "1.5", "0.1e1", "01", "+1"),
        *("9" * 400, "9" * 5000, "-1", "0", "1", "2147483647", "2147483648", "9007199254740993", "1e308", "1e309"),
        *("true", "null", '""', '"auto"', '"\\u0000"', '"\\ud800"', '"\\udc00\\ud800"', '"\\ud83d\\ude00"', '"\x7f"'),
        *("[]", "{}", "[[]]", '{"a":1,"a":2}', '{"a":1,"\\u0061":2}', "[" * 3000 + "]" * 3000, '{"a":' * 300 + "1"),
        *('"' + "a" * 300 + '"', '"float16"', '"webgpu"', "[1,2]", "[1e999]", "[true]", "", ",", "undefined", "'a'"),
    ]
)
HOLE = "\u2603hole"


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths to all members and items of a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*path, key)
        yield from places(item, (*path, key))


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """A copy with another value at `path`."""
    copy = json.loads(json.dumps(value))
    inner = copy
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = new
    return copy


@st.composite
def changed(draw: st.DrawFn) -> tuple[str, Sender]:
    """A valid message with another value, a member more or less, or a member that stands twice."""
    message, sender = draw(st.sampled_from(VALID))
    path = draw(st.sampled_from(list(places(message))))
    raw = draw(RAW)
    match draw(st.sampled_from(["value", "value", "value", "extra", "missing", "twice", "sender"])):
        case "value":
            text = json.dumps(replaced(message, path, HOLE), ensure_ascii=False).replace(f'"{HOLE}"', raw)
        case "extra":
            text = json.dumps(message)[:-1] + f', "{draw(st.sampled_from(["x", "__proto__", ""]))}": {raw}}}'
        case "missing":
            text = json.dumps({key: item for key, item in message.items() if key != path[0]})
        case "twice":  # with the same value, or with another that would do
            again = draw(st.sampled_from([json.dumps(message[path[0]]), "1", "2", "null", '"auto"']))
            text = json.dumps(message)[:-1] + f", {json.dumps(path[0])}: {again}}}"
        case _:
            text, sender = json.dumps(message), "server" if sender == "client" else "client"
    return text, sender


@st.composite
def torn(draw: st.DrawFn) -> tuple[bytes, Sender]:
    """A valid message's bytes, of which some are changed, missing or too many; often no UTF-8 any more."""
    message, sender = draw(st.sampled_from(VALID))
    data = bytearray(json.dumps(message, ensure_ascii=False).encode())
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(data)))
        data[at : at + draw(st.integers(0, 3))] = draw(
            st.sampled_from(
                [b"", b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\0", b"{", b"]", b'"', b","]
            )
            | st.binary(max_size=4)
        )
    return bytes(data), sender


def check(text: str | bytes, sender: Sender) -> None:
    """The decoder's one promise."""
    refused = None
    try:
        message = decode_message(text, sender)
    except ProtocolError as error:
        refused = error
    if refused is not None:
        event("refused")
        assert (refused.code, refused.fatal) == ("malformed_message", True)
        assert "\n" not in refused.message
        assert len(refused.message) < 500  # what an `error` message may hold
        return
    event("admitted")
    # The text holds this value for any JSON reader, the schema admits it, and it can be written again, as UTF-8.
    encode_message(message).encode("utf-8")
    assert json.loads(text, object_pairs_hook=once) == message
    VALIDATORS[sender].validate(message)
    assert decode_message(encode_message(message), sender) == message
    assert all(math.isfinite(number) for number in numbers(message))


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose members stand once; of two with one name, readers differ in which they keep."""
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


def numbers(value: Any) -> Iterator[float]:
    """All numbers in a JSON value."""
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from numbers(item)
    elif isinstance(value, int | float):
        yield value


@given(changed())
@effort(500)
def test_a_changed_message_is_what_the_schema_admits_or_is_refused(case: tuple[str, Sender]) -> None:
    check(*case)


@given(torn())
@effort(400)
def test_torn_bytes_are_what_the_schema_admits_or_are_refused(case: tuple[bytes, Sender]) -> None:
    check(*case)


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=4),
        lambda inner: (
            st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5) | st.just("type"), inner, max_size=4)
        ),
        max_leaves=12,
    ),
    st.sampled_from(get_args(Sender)),
)
@effort(150)
def test_any_json_at_all_is_refused_or_valid(value: Any, sender: Sender) -> None:
    check(json.dumps(value), sender)


TURN = next(message for message, _ in VALID if message["type"] == "turn")
#: Texts that grow with n and are all refused at last.
GROWING = {
    "items": lambda n: json.dumps({**TURN, "stop": [""] * n}),
    "ids": lambda n: json.dumps({**TURN, "seen_ids": [*range(n), -1]}),
    "members": lambda n: json.dumps({**TURN, **{f"x{i}": 0 for i in range(n)}}),
    "equal members": lambda n: json.dumps(TURN)[:-1] + ', "x": 0' * n + "}",
    "text": lambda n: json.dumps({**TURN, "stop": ["a" * n]}),
    "escapes": lambda n: '{"type": "' + "\\u0061" * n + '"}',
    "digits": lambda n: '{"type": "cancel", "turn": ' + "1" * n + "}",
    "depth": lambda n: '{"type": "close", "x": ' + "[" * n + "]" * n + "}",
    "open depth": lambda n: '{"x":' * n,
    "objects": lambda n: '{"type": "close", "x": [' + "{}," * n + "{}]}",
}


@pytest.mark.parametrize("shape", GROWING)
def test_twice_the_text_is_at_most_about_twice_the_work(shape: str) -> None:
    def work(n: int) -> int:
        text = GROWING[shape](n)

        def refuse() -> None:
            with pytest.raises(ProtocolError):
                decode_message(text, "client")

        return calls(refuse)

    work(4000)  # what is made once, on the way, is there by now
    assert work(8000) <= 2.2 * work(4000) + 2000


@pytest.mark.parametrize("shape", GROWING)
def test_a_refusal_takes_memory_in_proportion_to_the_text(shape: str) -> None:
    text = GROWING[shape](20_000)
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError):
            decode_message(text, "client")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # The largest there is: a dictionary and a string of its own for each `"x0":0,`, three times over.
    assert peak < 120 * len(text) + 200_000


def test_a_long_list_of_ids_is_checked_by_few_steps_for_each() -> None:
    """A schema validator makes dozens, and would hold the event loop for seconds."""

    def work(n: int) -> int:
        text = json.dumps({**TURN, "seen_ids": [7] * n})
        return calls(lambda: decode_message(text, "client"))

    work(1000)
    assert work(2000) - work(1000) < 12 * 1000


def test_a_list_of_ids_has_an_end() -> None:
    ids = SCHEMA["$defs"]["turn"]["properties"]["seen_ids"]["maxItems"] * [7]
    assert decode_message(json.dumps({**TURN, "seen_ids": ids}), "client")["seen_ids"] == ids
    with pytest.raises(ProtocolError):
        decode_message(json.dumps({**TURN, "seen_ids": [*ids, 7]}), "client")


@pytest.mark.parametrize("number", [2**31, 2**60, 2**64, 10**300, 1e300])
@pytest.mark.parametrize("member", ["turn", "start", "prompt_tokens", "max_tokens"])
def test_a_giant_number_is_refused_before_anybody_counts_to_it(member: str, number: float) -> None:
    with pytest.raises(ProtocolError):
        decode_message(json.dumps({**TURN, member: number}), "client")

"""The Python codec against the literal vectors of protocol/vectors, and PROTOCOL.md against the error tree."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from splitllm.errors import WIRE_CODES, ProtocolError
from splitllm.protocol import DType, Frame, Kind, decode_frame, decode_message, encode_frame, encode_message

PROTOCOL = Path(__file__).resolve().parents[3] / "protocol"
SCHEMA = json.loads((PROTOCOL / "schemas" / "messages.schema.json").read_text("utf-8"))


def load(name: str) -> list[dict[str, Any]]:
    return json.loads((PROTOCOL / "vectors" / f"{name}.json").read_text("utf-8"))


FRAMES, MESSAGES = load("frames"), load("messages")


def chosen(vectors: list[dict[str, Any]], valid: bool) -> list[Any]:
    return [pytest.param(vector, id=vector["name"]) for vector in vectors if vector["valid"] is valid]


def bytes_of(vector: dict[str, Any]) -> bytes:
    return bytes.fromhex(vector["hex"])


def values_of(fields: dict[str, Any]) -> np.ndarray:
    flat = [float(value) if isinstance(value, str) else value for value in fields["values"]]
    return np.array(flat, np.dtype(fields["dtype"])).reshape(fields["rows"], fields["columns"])


def text_of(vector: dict[str, Any]) -> str:
    text: str = vector["text"]
    repeat = vector.get("repeat")
    if repeat is None:
        return text
    assert text.count("<repeat>") == 1
    run = repeat["char"] * repeat["count"] + repeat.get("close", "") * repeat["count"]
    return text.replace("<repeat>", run)


def refusal_of(text: str | bytes, sender: Any = "client") -> ProtocolError:
    with pytest.raises(ProtocolError) as caught:
        decode_message(text, sender)
    return caught.value


def assert_can_be_sent(error: ProtocolError) -> None:
    """A refusal travels in an `error` message, so its sentence must fit one."""
    assert error.fatal
    assert "\n" not in error.message
    sent = {
        "type": "error",
        "code": error.code,
        "message": error.message,
        "fatal": True,
        "turn": None,
        "expected_position": None,
    }
    assert decode_message(encode_message(sent).encode("utf-8"), "server") == sent


# Frames


@pytest.mark.parametrize("vector", chosen(FRAMES, True))
def test_a_valid_frame_has_the_fields_of_the_vector(vector: dict[str, Any]) -> None:
    fields, frame = vector["fields"], decode_frame(bytes_of(vector))
    assert frame.kind is Kind[fields["kind"].upper()]
    assert frame.dtype is DType[fields["dtype"].upper()]
    assert (frame.turn, frame.position) == (fields["turn"], fields["position"])
    assert frame.values.shape == (fields["rows"], fields["columns"])
    assert frame.values.dtype == np.dtype(fields["dtype"])
    expected = values_of(fields)
    np.testing.assert_array_equal(frame.values, expected)
    np.testing.assert_array_equal(np.signbit(frame.values), np.signbit(expected))


@pytest.mark.parametrize("vector", chosen(FRAMES, True))
def test_a_decoded_frame_views_the_bytes(vector: dict[str, Any]) -> None:
    data = np.frombuffer(bytes_of(vector), np.uint8)
    assert np.shares_memory(decode_frame(data.data).values, data)


@pytest.mark.parametrize("vector", chosen(FRAMES, True))
def test_a_decoded_frame_encodes_to_the_same_bytes(vector: dict[str, Any]) -> None:
    assert encode_frame(decode_frame(bytes_of(vector))) == bytes_of(vector)


@pytest.mark.parametrize("vector", chosen(FRAMES, True))
def test_the_fields_of_the_vector_encode_to_its_bytes(vector: dict[str, Any]) -> None:
    fields = vector["fields"]
    frame = Frame(
        Kind[fields["kind"].upper()], turn=fields["turn"], position=fields["position"], values=values_of(fields)
    )
    assert encode_frame(frame) == bytes_of(vector)


@pytest.mark.parametrize("vector", chosen(FRAMES, False))
def test_an_invalid_frame_is_refused(vector: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError) as caught:
        decode_frame(bytes_of(vector))
    assert caught.value.code == vector["code"]
    assert_can_be_sent(caught.value)


@pytest.mark.parametrize("vector", chosen(FRAMES, True))
def test_every_shorter_or_longer_frame_is_refused(vector: dict[str, Any]) -> None:
    data = bytes_of(vector)
    for wrong in [*(data[:length] for length in range(len(data))), data + b"\0", data + data]:
        with pytest.raises(ProtocolError):
            decode_frame(wrong)


# Messages


@pytest.mark.parametrize("vector", chosen(MESSAGES, True))
def test_a_valid_message_is_taken_with_its_values(vector: dict[str, Any]) -> None:
    text = text_of(vector)
    message = decode_message(text, vector["from"])
    assert message == vector.get("value", json.loads(text))


@pytest.mark.parametrize("vector", chosen(MESSAGES, True))
def test_whole_numbers_come_out_whole(vector: dict[str, Any]) -> None:
    # A float for an integer would break range(), struct and indexing later. As text, 1.0 differs from 1.
    message = decode_message(text_of(vector), vector["from"])
    if "value" in vector:
        assert json.dumps(message, sort_keys=True) == json.dumps(vector["value"], sort_keys=True)


@pytest.mark.parametrize("vector", chosen(MESSAGES, True))
def test_a_valid_message_comes_back_from_its_encoding(vector: dict[str, Any]) -> None:
    message = decode_message(text_of(vector), vector["from"])
    assert decode_message(encode_message(message), vector["from"]) == message


@pytest.mark.parametrize("vector", chosen(MESSAGES, True))
def test_a_valid_message_may_come_as_utf_8_bytes(vector: dict[str, Any]) -> None:
    text = text_of(vector)
    assert decode_message(text.encode("utf-8"), vector["from"]) == decode_message(text, vector["from"])


@pytest.mark.parametrize("vector", chosen(MESSAGES, False))
def test_an_invalid_message_is_refused(vector: dict[str, Any]) -> None:
    error = refusal_of(text_of(vector), vector["from"])
    assert error.code == vector["code"]
    assert_can_be_sent(error)


@pytest.mark.parametrize("vector", chosen(MESSAGES, False))
def test_an_invalid_message_is_refused_as_bytes_too(vector: dict[str, Any]) -> None:
    assert refusal_of(text_of(vector).encode("utf-8"), vector["from"]).code == vector["code"]


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b'{"type": "clos\xff"}', id="no-utf-8"),
        pytest.param(b'{"type": "close\xc0\x80"}', id="overlong-nul"),
        pytest.param(b"\xed\xa0\x80", id="surrogate-as-utf-8"),
        pytest.param(b'\xef\xbb\xbf{"type": "close"}', id="byte-order-mark"),
        pytest.param('{"type": "close"}'.encode("utf-16-le"), id="utf-16"),
        pytest.param('{"type": "close"}'.encode("utf-32-be"), id="utf-32"),
    ],
)
def test_bytes_that_are_not_plain_utf_8_are_refused(data: bytes) -> None:
    assert refusal_of(data).code == "malformed_message"


def test_no_depth_of_nesting_gets_past_the_refusal() -> None:
    # Just under the depth where the JSON reader gives up, whatever handles the value next may give up instead.
    for depth in range(100, 1100, 4):
        for value in ("[" * depth + "]" * depth, '{"x":' * depth + "1" + "}" * depth):
            refusal_of(f'{{"type": "close", "x": {value}}}')
            refusal_of(f'{{"type": "cancel", "turn": {value}}}')


# The vectors themselves


def test_names_are_unique() -> None:
    for vectors in (FRAMES, MESSAGES):
        names = [vector["name"] for vector in vectors]
        assert len(set(names)) == len(names)


def test_refusals_carry_codes_of_the_wire() -> None:
    assert {vector["code"] for vector in FRAMES + MESSAGES if not vector["valid"]} <= set(WIRE_CODES)


def test_every_type_of_message_has_a_valid_vector() -> None:
    in_schema = {
        definition["properties"]["type"]["const"]
        for definition in SCHEMA["$defs"].values()
        if "type" in definition.get("properties", {})
    }
    in_vectors = {json.loads(text_of(vector))["type"] for vector in MESSAGES if vector["valid"]}
    assert in_vectors == in_schema


@pytest.mark.parametrize("vector", chosen(MESSAGES, True))
def test_the_schema_takes_every_valid_vector(vector: dict[str, Any]) -> None:
    definition = {"$ref": f"#/$defs/{vector['from']}_message", "$defs": SCHEMA["$defs"]}
    jsonschema.Draft202012Validator(definition).validate(json.loads(text_of(vector)))


# PROTOCOL.md


def error_table() -> list[tuple[str, str, str]]:
    page = (PROTOCOL / "PROTOCOL.md").read_text("utf-8")
    header = "| code | fatal | meaning |\n|---|---|---|\n"
    assert page.count(header) == 1
    table = page.split(header)[1].split("\n\n")[0].splitlines()
    rows = [re.fullmatch(r"\| `([a-z_]+)` \| (\S+) \| (.+) \|", line) for line in table]
    assert all(rows), [line for line, row in zip(table, rows, strict=True) if row is None]
    return [row.group(1, 2, 3) for row in rows if row]


def test_the_table_of_errors_is_the_one_in_the_code() -> None:
    assert [(code, meaning) for code, _, meaning in error_table()] == list(WIRE_CODES.items())


def test_every_error_is_fatal_or_not() -> None:
    assert {fatal for _, fatal, _ in error_table()} <= {"yes", "no"}


def test_codes_named_in_the_prose_stand_in_the_table() -> None:
    page = (PROTOCOL / "PROTOCOL.md").read_text("utf-8")
    like_a_code = set(re.findall(r"`((?:malformed|wrong|unknown|position|unexpected)_[a-z]+)`", page))
    assert like_a_code <= {code for code, _, _ in error_table()}

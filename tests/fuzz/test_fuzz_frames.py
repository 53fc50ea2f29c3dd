"""The frame decoder against anything: what PROTOCOL.md's table does not admit is refused, before memory is taken."""

from __future__ import annotations

import json
import math
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from splitllm.errors import ProtocolError
from splitllm.protocol import Frame, Kind, decode_frame, encode_frame
from tests.fuzz.effort import calls, effort

VECTORS = Path(__file__).resolve().parents[2] / "protocol" / "vectors"
VALID = [
    bytes.fromhex(vector["hex"])
    for vector in json.loads((VECTORS / "frames.json").read_text("utf-8"))
    if vector["valid"]
]
SIZES = {1: 4, 2: 2, 3: 4}
LIMIT = 2**31 - 1
#: What a refusal may take: its sentence and its traceback.
REFUSAL_BYTES = 16_384

EDGES = st.sampled_from(
    [0, 1, 2, 3, 31, 32, 33, 63, 64, 255, 256, 65536, LIMIT - 1, LIMIT, LIMIT + 1, 2**32 - 2, 2**32 - 1]
)
WORD = EDGES | st.integers(0, 2**32 - 1)
BYTE = st.integers(0, 255) | st.integers(0, 4)
BYTES = ("version", "kind", "dtype", "flags")
SMALL = st.integers(1, 6)
#: As many elements as a payload here may have, NaN, infinities and numbers below the normal ones among them.
FLOATS = st.sampled_from([0.0, -0.0, 1.0, math.nan, math.inf, -math.inf, 6e-8, 65504.0, 1e-45, 3.4e38])


@st.composite
def headers(draw: st.DrawFn) -> bytes:
    """A frame as it should be, but for up to three fields that hold anything."""
    dtype = draw(st.sampled_from([1, 2, 3]))
    fields: dict[str, Any] = {
        "magic": b"SPLM",
        "version": 1,
        "kind": draw(st.sampled_from([1, 3])) if dtype == 3 else 2,
        "dtype": dtype,
        "flags": 0,
        "turn": draw(st.integers(1, 9)),
        "position": draw(st.integers(0, 9)),
        "rows": draw(SMALL),
        "columns": 1 if dtype == 3 else draw(SMALL),
        "payload": None,
        "reserved": 0,
    }
    wrong = draw(st.lists(st.sampled_from([*fields, "length"]), max_size=3, unique=True))
    for name in set(wrong) & set(fields):
        fields[name] = draw(st.binary(min_size=4, max_size=4) if name == "magic" else BYTE if name in BYTES else WORD)
    if fields["payload"] is None:  # right, as far as 32 bits can hold it
        fields["payload"] = fields["rows"] * fields["columns"] * SIZES.get(fields["dtype"], 4) % 2**32
    length = min(fields["payload"], 4096)
    if "length" in wrong:
        length = max(0, length + draw(st.sampled_from([-1, 1, -4, 4, 1000])))
    return struct.pack("<4sBBBBIIIIII", *fields.values()) + bytes(length)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A valid vector of which bytes are changed, taken out, repeated or put in."""
    data = bytearray(draw(st.sampled_from(VALID)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        match draw(st.sampled_from(["flip", "cut", "insert", "repeat", "truncate"])):
            case "flip" if at < len(data):
                data[at] ^= draw(st.integers(1, 255))
            case "cut":
                del data[at : at + draw(st.integers(1, 8))]
            case "insert":
                data[at:at] = draw(st.binary(min_size=1, max_size=8))
            case "repeat":
                data[at:at] = data[at : at + 8]
            case "truncate":
                del data[at:]
    return bytes(data)


def admitted(data: bytes) -> bool:
    """Whether PROTOCOL.md's table admits the message, field by field and without the decoder's help."""
    if len(data) < 32 or data[:4] != b"SPLM" or data[4] != 1 or data[7] != 0:
        return False
    turn, position, rows, columns, payload, reserved = struct.unpack("<6I", data[8:32])
    fits = {1: (3,), 2: (1, 2), 3: (3,)}
    return (
        data[6] in fits.get(data[5], ())
        and 1 <= turn <= LIMIT
        and rows >= 1
        and position + rows <= LIMIT
        and (1 <= columns <= LIMIT if data[5] == 2 else columns == 1)
        and payload == rows * columns * SIZES[data[6]]
        and reserved == 0
        and len(data) == 32 + payload
    )


def refusal(data: bytes) -> ProtocolError:
    with pytest.raises(ProtocolError) as caught:
        decode_frame(data)
    return caught.value


@given(headers() | mutated() | st.binary(max_size=80))
@effort(1000)
def test_a_frame_is_admitted_by_the_table_or_refused_in_one_line(data: bytes) -> None:
    if admitted(data):
        event("admitted")
        frame = decode_frame(data)
        assert encode_frame(frame) == data
        assert (frame.rows, frame.end) == (frame.values.shape[0], frame.position + frame.rows)
    else:
        error = refusal(data)
        event("refused")
        assert (error.code, error.fatal) == ("malformed_frame", True)
        assert "\n" not in error.message
        assert len(error.message) < 200


@given(st.lists(FLOATS, min_size=1, max_size=12), st.sampled_from([np.float16, np.float32]), st.integers(1, 3))
@effort(100)
def test_values_come_through_bit_for_bit_whatever_they_are(numbers: list[float], dtype: type, columns: int) -> None:
    with np.errstate(over="ignore"):
        values = np.array(numbers * columns).astype(dtype).reshape(len(numbers), columns)
    back = decode_frame(encode_frame(Frame(Kind.HIDDEN, 1, 0, values))).values
    assert back.tobytes() == values.tobytes()


@pytest.mark.parametrize("dtype", [1, 2])
@pytest.mark.parametrize(
    ("rows", "columns", "payload"),
    [
        (LIMIT, LIMIT, LIMIT),
        (LIMIT, 1, LIMIT),
        (LIMIT, 2**32 - 1, 2**32 - 1),
        (2**30, 2**30, 0),  # 2^60 values: as 64-bit bytes they wrap to nothing
        (2**31, 2, 0),  # 2^32 values of which 32 bits keep nothing
        (2**16, 2**16, 2**32 - 1),
        (1, LIMIT // 4, 4 * (LIMIT // 4)),
    ],
)
def test_a_giant_claim_takes_no_memory(rows: int, columns: int, payload: int, dtype: int) -> None:
    data = b"SPLM" + bytes([1, 2, dtype, 0]) + struct.pack("<6I", 1, 0, rows, columns, payload, 0) + bytes(64)
    refusal(data)  # what is made once, on the way, is there by now
    tracemalloc.start()
    try:
        refusal(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < REFUSAL_BYTES


def test_a_large_frame_is_viewed_and_costs_no_more_work_than_a_small_one() -> None:
    small = encode_frame(Frame(Kind.HIDDEN, 1, 0, np.zeros((1, 4), np.float32)))
    large = encode_frame(Frame(Kind.HIDDEN, 1, 0, np.zeros((256, 1024), np.float32)))
    tracemalloc.start()
    try:
        decode_frame(large)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < REFUSAL_BYTES
    assert calls(lambda: decode_frame(large)) == calls(lambda: decode_frame(small))

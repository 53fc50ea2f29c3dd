"""Binary frames: a fixed little-endian header of 32 bytes and one raw tensor (PROTOCOL.md, section 2)."""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..errors import ProtocolError

MAGIC: Final = b"SPLM"
VERSION: Final = 1
HEADER: Final = struct.Struct("<4sBBBBIIIIII")
_LIMIT: Final = 2**31 - 1


class Kind(enum.IntEnum):
    """What a frame carries."""

    IDS = 1
    HIDDEN = 2
    TOKEN = 3


class DType(enum.IntEnum):
    """Element type of the payload."""

    FLOAT32 = 1
    FLOAT16 = 2
    INT32 = 3


_NUMPY: Final[dict[DType, np.dtype[Any]]] = {
    DType.FLOAT32: np.dtype("<f4"),
    DType.FLOAT16: np.dtype("<f2"),
    DType.INT32: np.dtype("<i4"),
}
_DTYPE: Final = {dtype: code for code, dtype in _NUMPY.items()}
_ALLOWED: Final = {
    Kind.IDS: (DType.INT32,),
    Kind.HIDDEN: (DType.FLOAT32, DType.FLOAT16),
    Kind.TOKEN: (DType.INT32,),
}


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One tensor of consecutive positions.

    values: int32[rows, 1] for ids and token, float32 or float16 [rows, hidden_size] for hidden. A decoded frame's
    values are a read-only view of the message's bytes.
    """

    kind: Kind
    turn: int
    position: int
    values: NDArray[Any]

    @property
    def dtype(self) -> DType:
        """Element type as the wire names it."""
        return _DTYPE[self.values.dtype.newbyteorder("<")]

    @property
    def rows(self) -> int:
        """Number of consecutive positions."""
        return int(self.values.shape[0])

    @property
    def end(self) -> int:
        """Position after the last row."""
        return self.position + self.rows


def encode_frame(frame: Frame) -> bytes:
    """Bytes of one frame.

    Raises:
        ValueError: the frame breaks the format (a fault of the caller, not of a peer).
    """
    values = np.ascontiguousarray(frame.values)
    dtype = _DTYPE.get(values.dtype.newbyteorder("<"))
    if dtype is None or dtype not in _ALLOWED[frame.kind]:
        raise ValueError(f"a frame of kind {frame.kind.name} cannot carry {values.dtype}")
    if values.ndim != 2 or not values.size or (frame.kind is not Kind.HIDDEN and values.shape[1] != 1):
        raise ValueError(f"a frame of kind {frame.kind.name} cannot have the shape {values.shape}")
    rows, columns = values.shape
    if not 1 <= frame.turn <= _LIMIT or not 0 <= frame.position <= _LIMIT - rows or values.nbytes > _LIMIT:
        raise ValueError("turn, position or size of the frame is out of range")
    header = HEADER.pack(
        MAGIC, VERSION, frame.kind, dtype, 0, frame.turn, frame.position, rows, columns, values.nbytes, 0
    )
    return header + values.astype(_NUMPY[dtype], copy=False).tobytes()


def decode_frame(data: bytes) -> Frame:
    """The frame that `data` holds; its values view `data`, nothing is copied.

    Raises:
        ProtocolError: `malformed_frame`, naming the field.
    """
    if len(data) < HEADER.size:
        raise _malformed(f"{len(data)} bytes are fewer than the header's {HEADER.size}")
    magic, version, kind_code, dtype_code, flags, turn, position, rows, columns, payload, reserved = HEADER.unpack_from(
        data
    )
    if magic != MAGIC:
        raise _malformed("it does not begin with SPLM")
    if version != VERSION:
        raise _malformed(f"version {version} is not {VERSION}")
    try:
        kind = Kind(kind_code)
    except ValueError:
        raise _malformed(f"kind {kind_code} is unknown") from None
    try:
        dtype = DType(dtype_code)
    except ValueError:
        raise _malformed(f"dtype {dtype_code} is unknown") from None
    if dtype not in _ALLOWED[kind]:
        raise _malformed(f"kind {kind.name.lower()} cannot carry {dtype.name.lower()}")
    if flags:
        raise _malformed("flags are not 0")
    if not 1 <= turn <= _LIMIT:
        raise _malformed(f"turn {turn} is out of range")
    if rows < 1 or rows > _LIMIT or position + rows > _LIMIT:
        raise _malformed(f"{rows} rows from position {position} are out of range")
    if columns < 1 or columns > _LIMIT or (kind is not Kind.HIDDEN and columns != 1):
        raise _malformed(f"{columns} columns are not possible for kind {kind.name.lower()}")
    if payload > _LIMIT or payload != rows * columns * _NUMPY[dtype].itemsize:
        raise _malformed(f"payload of {payload} bytes is not rows times columns times the size of the dtype")
    if reserved:
        raise _malformed("reserved bytes are not 0")
    if len(data) != HEADER.size + payload:
        raise _malformed(f"the message has {len(data)} bytes, the header says {HEADER.size + payload}")
    values = np.frombuffer(data, _NUMPY[dtype], rows * columns, HEADER.size).reshape(rows, columns)
    return Frame(kind, turn, position, values)


def _malformed(why: str) -> ProtocolError:
    return ProtocolError(
        f"The binary message is not a frame: {why}. See PROTOCOL.md, section 2.", code="malformed_frame"
    )

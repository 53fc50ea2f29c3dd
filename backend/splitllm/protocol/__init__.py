"""The wire format (protocol/PROTOCOL.md): frames, control messages and the values they carry. Pure."""

from .frame import HEADER, DType, Frame, Kind, decode_frame, encode_frame
from .message import Message, Sender, decode_message, encode_message
from .values import (
    PROTOCOL_VERSION,
    Limits,
    OpenRequest,
    TurnRequest,
    TurnStats,
    Wire,
    done_message,
    error_message,
    plan_message,
    report_from,
    report_to,
    sampling_from,
    sampling_to,
)

__all__ = [
    "HEADER",
    "PROTOCOL_VERSION",
    "DType",
    "Frame",
    "Kind",
    "Limits",
    "Message",
    "OpenRequest",
    "Sender",
    "TurnRequest",
    "TurnStats",
    "Wire",
    "decode_frame",
    "decode_message",
    "done_message",
    "encode_frame",
    "encode_message",
    "error_message",
    "plan_message",
    "report_from",
    "report_to",
    "sampling_from",
    "sampling_to",
]

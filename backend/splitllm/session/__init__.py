"""The server's side of one session, as a pure state machine."""

from .actions import (
    Action,
    Begin,
    Cancel,
    Close,
    Feed,
    Greet,
    Greeting,
    Plan,
    Readmit,
    Resplit,
    Resume,
    Send,
    SendToken,
    State,
)
from .machine import ServerSession
from .turn import Segment

__all__ = [
    "Action",
    "Begin",
    "Cancel",
    "Close",
    "Feed",
    "Greet",
    "Greeting",
    "Plan",
    "Readmit",
    "Resplit",
    "Resume",
    "Segment",
    "Send",
    "SendToken",
    "ServerSession",
    "State",
]

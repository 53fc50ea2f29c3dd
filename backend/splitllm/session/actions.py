"""What a session's state machine asks for, and the values it is made with."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from ..errors import SplitLLMError
from ..protocol import Limits, Message, OpenRequest, ResumeRequest, TurnRequest
from ..types import ModelSpec, Sla


@dataclass(frozen=True, slots=True)
class Greet:
    """This `hello` names another model: a session of that one greets, in place of this one."""

    model: str
    hello: Message


@dataclass(frozen=True, slots=True)
class Send:
    """Send a control message."""

    message: Message


@dataclass(frozen=True, slots=True)
class SendToken:
    """Send a token frame."""

    turn: int
    position: int
    token: int


@dataclass(frozen=True, slots=True)
class Plan:
    """Plan the session, reserve for it, and call `planned` or `refused`."""

    request: OpenRequest


@dataclass(frozen=True, slots=True)
class Resume:
    """Go on with a session that is held, in place of this one: its `resumed`, or `refused` of this one."""

    request: ResumeRequest


@dataclass(frozen=True, slots=True)
class Begin:
    """Begin a turn in the runner."""

    request: TurnRequest


@dataclass(frozen=True, slots=True)
class Readmit:
    """Begin a turn of a session that gave its room to others: take room, and call `readmitted` or `turned_away`."""

    request: TurnRequest


@dataclass(frozen=True, slots=True, eq=False)
class Feed:
    """Hand rows to the runner."""

    turn: int
    position: int
    values: NDArray[Any]


@dataclass(frozen=True, slots=True)
class Cancel:
    """Cancel a turn in the runner."""

    turn: int


@dataclass(frozen=True, slots=True)
class Resplit:
    """Change the split within a turn: `runner.resplit_turn`, whose `Resplitted` comes back as an event."""

    turn: int
    split: int


@dataclass(frozen=True, slots=True)
class Close:
    """Close the connection; `error` is None when the client asked."""

    error: SplitLLMError | None


Action = Greet | Send | SendToken | Plan | Resume | Begin | Readmit | Feed | Cancel | Resplit | Close


class State(enum.Enum):
    """PROTOCOL.md, section 7."""

    NEW = "new"
    GREETED = "greeted"
    QUEUED = "queued"
    IDLE = "idle"
    IN_TURN = "in turn"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class Greeting:
    """What the server says of itself in `welcome`. others: the other models that it serves."""

    agent: str
    model: str
    bundle: str
    spec: ModelSpec
    sla: Sla
    limits: Limits
    others: tuple[str, ...] = ()

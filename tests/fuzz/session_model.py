"""A session as a client that has read sections 3 to 7 of PROTOCOL.md sees it, and what counts as an answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from splitllm.errors import WIRE_CODES
from splitllm.protocol import Message
from splitllm.session import Action, Close, Plan, Send, State
from tests.unit.session_talk import ALLOWED, FATAL, Talk


class Counting(Talk):
    """Counts the actions by kind."""

    def __init__(self) -> None:
        super().__init__()
        self.actions: Counter[str] = Counter()

    def checked(self, actions: Sequence[Action]) -> list[Action]:
        self.actions.update(type(action).__name__ for action in actions)
        return super().checked(actions)


@dataclass
class Running:
    """The turn in work, as the client sees it."""

    number: int
    expected: int
    prompt_end: int
    end: int  # position after the prompt and the tokens so far
    waiting: bool = True
    answers: dict[int, int] = field(default_factory=dict)
    pending: int | None = None  # the split that the engine is changing to
    unadopted: int = 0
    report_open: bool = False


class Expected:
    """What the session is to be like, and a talk with the one there is."""

    def start(self) -> None:
        """Nothing has been said yet."""
        self.talk = Counting()
        self.state = State.NEW
        self.asked: Plan | None = None  # a plan between turns that the planner owes
        self.split = self.length = self.last = 0
        self.began = False  # whether the turn `last` was not refused
        self.answers: dict[int, int] = {}  # its tokens by position
        self.ended_by: Message | None = None  # what ended or refused it
        self.running: Running | None = None

    def ends(self, actions: Sequence[Action], code: str) -> None:
        """A fatal error with `code`, and the close; nothing at all if the session is over already."""
        if self.state is State.CLOSED:
            assert actions == []
            return
        told, close = actions
        assert isinstance(told, Send)
        assert isinstance(close, Close)
        assert (told.message["code"], told.message["fatal"]) == (code, True)
        assert code in FATAL
        self.talk.actions[code] += 1
        self.state, self.running, self.asked = State.CLOSED, None, None

    def refuses(self, actions: Sequence[Action], code: str) -> None:
        """One error that is not fatal."""
        [told] = actions
        assert isinstance(told, Send)
        assert (told.message["type"], told.message["code"], told.message["fatal"]) == ("error", code, False)
        assert code in WIRE_CODES
        self.talk.actions[code] += 1

    def allows(self, kind: str) -> bool:
        """Section 7, and of `report` and `adopt` what section 4 says."""
        run = self.running
        if self.state is State.IN_TURN and kind == "adopt":
            return True
        if self.state is State.IN_TURN and kind == "report" and run is not None:
            return not run.report_open
        return self.state is not State.CLOSED and kind in ALLOWED[self.state]

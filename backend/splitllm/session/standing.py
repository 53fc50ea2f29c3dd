"""What a session is at: what its state machine (machine.py) keeps, and what those around it may ask."""

from __future__ import annotations

from ..protocol import DType, Message, Wire
from ..types import SessionPlan
from .actions import Greeting, State
from .turn import Turn


class Standing:
    """Where a session stands; only its state machine changes that."""

    def __init__(self, greeting: Greeting) -> None:
        self._greeting = greeting
        self._blocks = greeting.spec.blocks
        self.state = State.NEW
        self.split = 0
        self.max_tokens = 0
        self.length = 0  # positions whose keys and values the server holds
        self._dtype = DType.FLOAT16
        self._name = ""
        self._turn: Turn | None = None
        self._last_turn = 0  # highest turn number received, refused ones included
        self._outcome: Message | None = None  # what ended that turn, or refused it
        self._plan: SessionPlan | None = None  # in force, as last told
        self.rtt_ms = 0.0
        self._gave_up: int | None = None  # positions that the client was told of, and that others got the room of

    @property
    def waits_for_client(self) -> bool:
        """Whether the next step is the client's; the idle clock runs only then."""
        if self.waits_for_room:
            return False
        return self.state is not State.IN_TURN or self._turn is None or self._turn.waiting

    @property
    def waits_for_room(self) -> bool:
        """Whether it stands in the queue: before it has a plan, or with a turn after it was evicted."""
        in_turn = self.state is State.IN_TURN and self._turn is not None and self._turn.queued
        return self.state is State.QUEUED or in_turn

    @property
    def is_evicted(self) -> bool:
        """Whether its room went to others; its next turn takes room again."""
        return self._gave_up is not None

    @property
    def worth_holding(self) -> bool:
        """Whether a client that comes back would find more than a new session has."""
        return not self.waits_for_room and self.state in (State.IDLE, State.IN_TURN) and self._last_turn > 0

    @property
    def owes_plan(self) -> bool:
        """Whether a `report` waits for its answer that was sent within the latest turn."""
        return self._turn is not None and self._turn.report_open

    @property
    def positions(self) -> int:
        """Positions of the conversation that would have to be computed anew if the server held nothing."""
        turn = self._turn
        return self.length if turn is None or not turn.active else max(self.length, turn.expected)

    @property
    def prompt_rows(self) -> tuple[int, int] | None:
        """Rows of the prompt that have come and that will have, while the client owes some; None: it owes none.

        None too while a plan of this turn is not in force yet on both sides.
        """
        turn = self._turn
        if turn is None or not turn.active or self.changing or turn.tokens or turn.expected >= turn.prompt_end:
            return None
        start = turn.segment_start
        # With all blocks at the client nothing comes but the last row.
        return (turn.expected - start if self.split < self._blocks else 0), turn.prompt_end - start

    @property
    def tpot_ms(self) -> float | None:
        """Mean time per token of the latest turn, None if it has fewer than two."""
        return None if self._turn is None else self._turn.tpot_ms

    @property
    def changing(self) -> bool:
        """Whether a new plan of this turn is not in force yet on both sides."""
        turn = self._turn
        return turn is not None and turn.active and (turn.pending is not None or turn.unadopted > 0 or turn.queued)

    @property
    def _wire(self) -> Wire:
        return "float16" if self._dtype is DType.FLOAT16 else "float32"

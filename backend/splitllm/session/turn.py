"""One turn as the server keeps it: what it waits for, what it has said, and what ran at which split."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ..errors import TurnError
from ..generation import TurnEnded
from ..protocol import OpenRequest, TurnRequest, TurnStats
from ..sampler import check_sampling
from ..types import SessionPlan


@dataclass(frozen=True, slots=True)
class Segment:
    """Rows of a turn that the server ran at one split, behind `start` positions that it held: prompt rows, then
    steps."""

    split: int
    start: int
    prompt_rows: int
    steps: int

    @property
    def rows(self) -> int:
        """All of them."""
        return self.prompt_rows + self.steps


#: From what ran, the engine's milliseconds that a turn added and those that it was spared.
TurnPrice = Callable[[Sequence[Segment]], tuple[float, float]]


@dataclass(frozen=True, slots=True)
class PendingPlan:
    """A plan that changes the split within the turn, until the engine has carried it out."""

    plan: SessionPlan
    request: OpenRequest
    rtt_ms: float


@dataclass(slots=True)
class Turn:
    """The turn in work, or the last one."""

    request: TurnRequest
    began_ms: float
    expected: int  # position the server waits for
    prompt_end: int  # position after the rows that are sent without waiting for tokens
    split: int
    waiting: bool = True  # whether it waits for rows at all
    active: bool = True
    queued: bool = False  # its session has no room yet, and nothing of it runs
    queued_ms: float = 0.0  # it waited so long for that
    first_token_ms: float | None = None
    last_token_ms: float | None = None
    tokens: int = 0
    answers: dict[int, int] = field(default_factory=dict)  # position of a token -> the token
    pending: PendingPlan | None = None
    unadopted: int = 0  # plans of this turn that the client has not adopted yet
    report_open: bool = False  # whether a `report` of this turn waits for its answer
    segments: list[Segment] = field(default_factory=list)  # that are over
    segment_start: int = 0
    reached: int = 0  # highest position that has run

    def __post_init__(self) -> None:
        self.segment_start = self.request.start

    def end_segment(self, ran_to: int, split: int, held: int) -> None:
        """Rows up to `ran_to` ran; from now on at another `split`, behind `held` positions."""
        self.segments.append(self._segment(ran_to))
        self.reached = max(self.reached, ran_to)
        self.split, self.segment_start = split, held

    def all_segments(self, length: int) -> list[Segment]:
        """What ran, at each split, until the turn ended with `length` positions held."""
        return [*self.segments, self._segment(length)]

    def _segment(self, ran_to: int) -> Segment:
        rows = max(0, ran_to - self.segment_start)
        prompt = min(rows, max(0, self.prompt_end - self.segment_start))
        return Segment(self.split, self.segment_start, prompt, rows - prompt)

    def block_steps(self, ended: TurnEnded, blocks: int) -> tuple[int, int]:
        """Block-steps that the server ran, and those that it was spared."""
        run = sum(segment.rows * (blocks - segment.split) for segment in self.all_segments(ended.length))
        rows = max(0, max(self.reached, ended.length) - self.request.start)
        return run, max(0, rows * blocks - run)

    @property
    def tpot_ms(self) -> float | None:
        """Mean time per token after the first, in the server's view."""
        if self.first_token_ms is None or self.last_token_ms is None or self.tokens < 2:
            return None
        return (self.last_token_ms - self.first_token_ms) / (self.tokens - 1)

    def stats(self, ended: TurnEnded, blocks: int, price: TurnPrice | None, rtt_ms: float) -> TurnStats:
        """What `done` tells of the turn; nothing of the engine's time where there is no `price`."""
        run, saved = self.block_steps(ended, blocks)
        ms_run, ms_saved = (0.0, 0.0) if price is None else price(self.all_segments(ended.length))
        return TurnStats(
            ttft_ms=None if self.first_token_ms is None else self.first_token_ms - self.began_ms,
            tpot_ms=self.tpot_ms,
            queue_ms=self.queued_ms + ended.queue_ms,
            server_blocks_run=run,
            server_blocks_saved=saved,
            server_ms_run=ms_run,
            server_ms_saved=ms_saved,
            rtt_ms=rtt_ms,
        )


def check_turn(request: TurnRequest, length: int, max_tokens: int, vocab_size: int) -> None:
    """Whether a session that holds `length` positions, and may hold `max_tokens`, can take a turn.

    Raises:
        TurnError: it cannot; PROTOCOL.md, section 4, says why.
    """
    check_sampling(request.sampling)
    if len(request.seen_ids) > max_tokens:
        raise TurnError(f"`seen_ids` holds more than the session's {max_tokens} tokens; send each id once.")
    if any(token >= vocab_size for token in request.seen_ids):
        raise TurnError("`seen_ids` holds an id outside the vocabulary; encode the conversation again.")
    if request.start > length:
        raise TurnError(
            f"The turn begins at position {request.start}, the server holds {length}; begin there or before.",
            expected_position=length,
        )
    if request.prompt_end + 1 > max_tokens:
        raise TurnError(
            f"The conversation has {request.prompt_end} tokens, and the session holds {max_tokens} with the "
            "answer; shorten it or start a new chat.",
            code="context_overflow",
        )

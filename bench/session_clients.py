"""People who talk to a server by the product's Python client, many in one process, and what they saw.

Nobody computes: what the blocks of a client would give was recorded beforehand, on the very ids of the conversation
that nothing disturbed. So a session at any split costs a look-up, and an answer that is not the undisturbed one shows.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from typing import Final

from splitllm.client.link import ConnectionLostError
from splitllm.client.rows import Rows
from splitllm.client.session import ClientSession
from splitllm.errors import SplitLLMError
from splitllm.text import TextCodec
from splitllm.types import ClientReport, Float32Array, SamplingParams

#: An answer that takes longer counts as lost.
_ANSWER_S: Final = 120.0
_MOST_TOKENS: Final = 96
#: What clients say of themselves: a laptop's time for a block of a small model.
_REPORT: Final = ClientReport("cpu", "float32", decode_ms=0.5, prefill_ms=5.0)


@dataclass(frozen=True, slots=True, eq=False)
class Course:
    """One turn as it goes when nothing disturbs it.

    prompt: ids of the conversation up to where the answer begins. hidden[k]: float32[T, hidden_size] behind k blocks,
    at the T positions of prompt and answer.
    """

    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    hidden: dict[int, Float32Array] = field(default_factory=dict)


Script = tuple[Course, ...]


@dataclass(frozen=True, slots=True)
class Turn:
    """A question and its answer. Seconds of the machine's monotonic clock, milliseconds as the client saw them."""

    split: int
    asked_s: float
    ended_s: float
    ttft_ms: float
    gaps_ms: tuple[float, ...]
    right: bool

    @property
    def tpot_ms(self) -> float | None:
        """Mean time per token after the first."""
        return sum(self.gaps_ms) / len(self.gaps_ms) if self.gaps_ms else None


@dataclass(frozen=True, slots=True)
class Failure:
    """A session that ended, or did not begin, without being asked to."""

    at_s: float
    stage: str
    code: str
    message: str


@dataclass(slots=True)
class Seen:
    """All that the people of one process saw.

    mended: codes of the connections that clients lost and replaced. waits_ms: of those who came at a rate, from when
    they were due to when their session was open. queued: sessions that first stood in the server's queue.
    """

    turns: list[Turn] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    mended: list[str] = field(default_factory=list)
    waits_ms: list[float] = field(default_factory=list)
    sessions: int = 0
    queued: int = 0

    def add(self, other: Seen) -> None:
        """What others saw, too."""
        self.turns += other.turns
        self.failures += other.failures
        self.mended += other.mended
        self.waits_ms += other.waits_ms
        self.sessions += other.sessions
        self.queued += other.queued


@dataclass(frozen=True, slots=True)
class Crowd:
    """Who comes, and how they behave.

    people: at once, each with one session at a time, in which a whole script is asked, with pauses of `think_s` seconds
    in the mean (exponential); after that, if `stay`, by lot another in the same session, else in a new one.
    rate: 0, or people per second who come whether or not those before them are gone (a Poisson process), ask one
    script and go. seconds: how long people begin something new.
    splits: of the sessions, each as likely; None lets the planner choose.
    """

    people: int
    seconds: float
    think_s: float = 0.0
    stay: bool = False
    rate: float = 0.0
    splits: tuple[int | None, ...] = (0,)
    seed: int = 1


class _Recorded:
    """The blocks of a client: what they gave before."""

    def __init__(self, blocks: int) -> None:
        self.blocks = blocks
        self.course: Course | None = None

    def forward(self, ids: Sequence[int], start: int, split: int) -> Float32Array:
        """Hidden states behind block `split - 1`, float32[T, hidden_size]."""
        course, end = self.course, start + len(ids)
        if course is None or tuple(ids) != (course.prompt + course.answer)[start:end]:
            raise _OffCourseError("the answer is not the undisturbed one", code="wrong_text")
        return course.hidden[split][start:end]


class _OffCourseError(SplitLLMError):
    """An answer that nobody recorded."""


class _Session(ClientSession):
    """A session that tells of the connections it lost."""

    seen: Seen
    recorded: _Recorded

    async def _recover(self, lost: ConnectionLostError, losses: int) -> None:
        self.seen.mended.append(lost.code)
        await super()._recover(lost, losses)


class _World:
    """One process of people."""

    def __init__(self, url: str, identity: str, scripts: Sequence[Script], crowd: Crowd) -> None:
        self._url, self._identity, self._scripts, self._crowd = url, identity, scripts, crowd
        self._blocks = max(scripts[0][0].hidden)
        self._ends = 0.0
        self.seen = Seen()

    async def run(self, first: int) -> Seen:
        """Let everybody live; `first` is the number of the first of them."""
        crowd = self._crowd
        begins = time.monotonic()
        self._ends = begins + crowd.seconds
        async with asyncio.TaskGroup() as group:
            if not crowd.rate:
                for person in range(first, first + crowd.people):
                    group.create_task(self._live(random.Random(crowd.seed * 1_000_000 + person)))
            else:
                arrivals = random.Random(crowd.seed * 1_000_000 + first)
                at, person = begins, first
                while (at := at + arrivals.expovariate(crowd.rate)) < self._ends:
                    await asyncio.sleep(max(0.0, at - time.monotonic()))
                    group.create_task(self._visit(random.Random(crowd.seed * 1_000_000 + person), at))
                    person += 1
        return self.seen

    async def _live(self, draw: random.Random) -> None:
        """A person who stays."""
        crowd = self._crowd
        await asyncio.sleep(draw.uniform(0.0, min(crowd.think_s, crowd.seconds / 4)))
        session: _Session | None = None
        while time.monotonic() < self._ends:
            stage = "open"
            try:
                session = session or await self._open(draw)
                stage = "answer"
                for course in draw.choice(self._scripts):
                    await asyncio.sleep(draw.expovariate(1 / crowd.think_s) if crowd.think_s else 0.0)
                    if time.monotonic() >= self._ends:
                        break
                    await self._ask(session, course)
                if not crowd.stay or draw.random() < 0.5:
                    stage = "close"
                    await session.close()
                    session = None
            except (SplitLLMError, TimeoutError) as error:
                self._failed(stage, error)
                session = None
                await asyncio.sleep(1.0)
        if session is not None:
            await session.close()

    async def _visit(self, draw: random.Random, came_s: float) -> None:
        """A person who is due at `came_s`, and does not try again."""
        stage = "open"
        try:
            session = await self._open(draw)
            self.seen.waits_ms.append(1000 * (time.monotonic() - came_s))
            stage = "answer"
            for course in draw.choice(self._scripts):
                await self._ask(session, course)
            await session.close()
        except (SplitLLMError, TimeoutError) as error:
            self._failed(stage, error)

    def _failed(self, stage: str, error: SplitLLMError | TimeoutError) -> None:
        code = error.code if isinstance(error, SplitLLMError) else "no_answer"
        self.seen.failures.append(Failure(time.monotonic(), stage, code, str(error)[:200]))

    async def _open(self, draw: random.Random) -> _Session:
        blocks, places = _Recorded(self._blocks), list[int]()
        session = await _Session.open(
            self._url,
            model=None,
            identity=self._identity,
            report=replace(_REPORT, blocks_ready=self._blocks),
            split=draw.choice(self._crowd.splits),
            wire="float32",
            expected_prompt_tokens=32,
            in_line=places.append,
            rows=Rows(blocks),
        )
        session.seen, session.recorded = self.seen, blocks
        self.seen.sessions += 1
        self.seen.queued += bool(places)
        return session

    async def _ask(self, session: _Session, course: Course) -> None:
        """One question."""
        asked_s = time.monotonic()
        session.recorded.course = course
        arrived: list[float] = []
        answer: list[int] = []
        async with asyncio.timeout(_ANSWER_S):
            async for item in session.answer(course.prompt, max_tokens=_MOST_TOKENS, sampling=SamplingParams()):
                if isinstance(item, int):
                    arrived.append(time.monotonic())
                    answer.append(item)
        gaps = tuple(1000 * (later - sooner) for sooner, later in itertools.pairwise(arrived))
        ttft = 1000 * (arrived[0] - asked_s)
        right = tuple(answer) == course.answer
        self.seen.turns.append(Turn(session.split, asked_s, time.monotonic(), ttft, gaps, right))


async def undisturbed(url: str, identity: str, codec: TextCodec, questions: Sequence[str]) -> Script:
    """The course of a conversation on a server that does nothing else, without hidden states."""
    session = await ClientSession.open(
        url, model=None, identity=identity, report=_REPORT, split=0, wire="float32", expected_prompt_tokens=32,
        rows=Rows(),
    )  # fmt: skip
    messages: list[dict[str, str]] = []
    courses = []
    for question in questions:
        messages.append({"role": "user", "content": question})
        prompt = codec.encode_chat(messages)
        answering = session.answer(prompt, max_tokens=_MOST_TOKENS, sampling=SamplingParams())
        answer = [item async for item in answering if isinstance(item, int)]
        messages.append({"role": "assistant", "content": codec.decode(answer)})
        courses.append(Course(tuple(prompt), tuple(answer)))
    await session.close()
    return tuple(courses)


def people(pipe: Connection, url: str, identity: str, scripts: Sequence[Script], crowd: Crowd, first: int) -> None:
    """The life of one process: when `pipe` says so, everybody of `crowd`; what they saw goes back into it."""
    pipe.send(None)
    pipe.recv()
    pipe.send(asyncio.run(_World(url, identity, scripts, crowd).run(first)))

"""A discrete-event simulator of one server and its clients. Pure: time is a number, chance comes from seeds.

The scheduler, the slots, the KV budget and the planner inside it are the product's own; only the engine, the links and
the clients' machines are figures. So what is simulated is what would run, and cannot drift from it.

A conversation arrives, is planned, and gets a row and KV memory or is refused. In a turn its client runs its blocks
over the prompt chunk by chunk, while the chunks before travel and run on the server; then each token goes down, through
the client's blocks, and up again. With split 0 ids go up once and tokens stream.
"""

from __future__ import annotations

import heapq
import itertools
import statistics
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import numpy as np

from ..errors import CapacityError
from ..generation import Event, Generation, TokenDrawn
from ..kv_budget import KvBudget
from ..planner.marginal import Load
from ..scheduler import Scheduler
from ..types import PREFILL_CHUNK, Float32Array, SamplingParams, SessionPlan, Sla
from ..work import Batch
from .simulator_engine import ServerModel, TimedEngine
from .simulator_values import (
    HEADER_BYTES,
    ID_BYTES,
    VALUE_BYTES,
    ClientSide,
    Conversation,
    Outcome,
    Policy,
    Record,
    Situation,
)

#: One value stands for all that a frame holds: only the number of rows matters here.
_ONE_ID: Final = np.zeros(1, np.int32)
_ONE_HIDDEN: Final = np.zeros((1, 1), np.float16)


class _Session(ClientSide):
    """One conversation on its way: the client's side, and what the server keeps of it."""

    def __init__(self, conversation: Conversation) -> None:
        super().__init__(conversation)
        self.split = 0
        self.turn = 0
        self.length = 0  # positions that both sides hold keys and values of
        self.in_turn = False
        self.records: list[Record] = []  # of its turns; none before it is open


class Simulation:
    """One run; see `simulate`."""

    def __init__(
        self,
        server: ServerModel,
        policy: Policy,
        *,
        sla: Sla,
        max_sessions: int,
        kv_bytes: int | None,
    ) -> None:
        self.server, self.policy = server, policy
        self._max_sessions = max_sessions
        self._scheduler = Scheduler(max_sessions, sla=sla)
        self.engine = TimedEngine(server, max_sessions)
        limit = kv_bytes if kv_bytes is not None else 1 << 62
        self._budget = KvBudget(limit, server.blocks, server.profile.kv_block_bytes)
        self._sessions: dict[str, _Session] = {}
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._number = itertools.count()
        self._commands: list[Callable[[float], None]] = []
        self._busy = False
        self._wait = 0  # number of the last wait for company
        self._most = 0
        self.records: list[Record] = []

    # -- events -------------------------------------------------------------------------------------------------------

    def run(self, conversations: Sequence[Conversation]) -> Outcome:
        """Let all conversations happen, to the end of the last one."""
        for conversation in conversations:
            self._at(conversation.arrival_ms, partial(self._arrive, _Session(conversation)))
        now = 0.0
        while self._events:
            now, _, happen = heapq.heappop(self._events)
            happen(now)
        return Outcome(self.records, self.engine.spent, now, self._most)

    def _at(self, when: float, happen: Callable[[float], None]) -> None:
        heapq.heappush(self._events, (when, next(self._number), happen))

    # -- clients ------------------------------------------------------------------------------------------------------

    def _arrive(self, session: _Session, now: float) -> None:
        """A conversation opens and asks its first question; a refused one goes away."""
        plan = self._plan(session)
        conversation = session.conversation
        try:
            if len(self._sessions) >= self._max_sessions:
                raise CapacityError("full")
            self._budget.reserve(conversation.name, plan.split, conversation.max_tokens)
        except CapacityError:
            for number, turn in enumerate(conversation.turns):
                self.records.append(
                    Record(
                        conversation.name, session.client.kind, number, now, turn.prompt_tokens, turn.answer_tokens,
                        refused=True,
                    )
                )  # fmt: skip
            return
        self._sessions[conversation.name] = session
        self._most = max(self._most, len(self._sessions))
        session.split = plan.split
        self._command(now, lambda _: self._scheduler.open(conversation.name, plan.split))
        self._ask(session, plan, now, now, extra=0)

    def _next_turn(self, session: _Session, now: float) -> None:
        """A further turn: plan again, change the split if the plan says so, ask."""
        asked, plan = now, self._plan(session)
        name, old = session.conversation.name, session.split
        extra = 0
        if plan.split != old and self._budget.can_reserve(name, plan.split, session.conversation.max_tokens):
            self._budget.reserve(name, plan.split, session.conversation.max_tokens)
            if plan.split < old:
                extra, session.length = session.length, 0  # the server holds nothing of the blocks it gets
            else:
                # The client runs its blocks over the whole history to have keys and values of the new ones.
                now += plan.split * session.client.prefill_ms * session.length / PREFILL_CHUNK
            session.split = plan.split
            self._command(asked, lambda _: self._scheduler.resplit(name, plan.split))
        # The last token of the former answer was sent but not run; it comes with the prompt.
        self._ask(session, plan, asked, now, extra=extra + 1)

    def _ask(self, session: _Session, plan: SessionPlan, asked: float, now: float, *, extra: int) -> None:
        """Begin a turn that was asked for at `asked`, and send its prompt with `extra` positions of history before."""
        conversation, client, number = session.conversation, session.client, session.turn
        turn = conversation.turns[number]
        split = session.split
        record = Record(
            conversation.name, client.kind, number, asked, turn.prompt_tokens, turn.answer_tokens, split=split,
            feasible=plan.feasible and split == plan.split, predicted_ttft_ms=plan.predicted_ttft_ms,
            predicted_tpot_ms=plan.predicted_tpot_ms,
        )  # fmt: skip
        self.records.append(record)
        session.records.append(record)
        session.in_turn = True
        prompt, start = turn.prompt_tokens + extra, session.length
        end = start + prompt
        record.positions = prompt
        begin_at = session.up(now, HEADER_BYTES)

        def begin(at: float) -> None:
            self._command(at, lambda when: self._begin(session, number, start, end, when))

        self._at(begin_at, begin)
        computed = now
        for position in range(start, end, PREFILL_CHUNK):
            rows = min(PREFILL_CHUNK, end - position)
            if split == 0:
                self._send(session, now, number, position, rows, ID_BYTES * rows)
                continue
            computed += split * client.prefill_ms * rows / PREFILL_CHUNK
            if split < self.server.blocks:
                self._send(session, computed, number, position, rows, self._row_bytes * rows)
            elif position + rows == end:
                self._send(session, computed, number, end - 1, 1, self._row_bytes)

    @property
    def _row_bytes(self) -> int:
        return VALUE_BYTES * self.server.hidden_size

    def _send(self, session: _Session, now: float, turn: int, position: int, rows: int, size: int) -> None:
        arrives = session.up(now, HEADER_BYTES + size)
        name = session.conversation.name
        values = (_ONE_HIDDEN if session.split else _ONE_ID).repeat(rows, axis=0)

        def feed(_: float) -> None:
            self._scheduler.feed(name, turn, position, values)

        self._at(arrives, lambda at: self._command(at, feed))

    def _token(self, session: _Session, turn: int, position: int, now: float) -> None:
        """A token reaches the client."""
        record = session.records[-1]
        record.token(now)
        if record.tokens == record.answer_tokens:
            self._end_turn(session, now)
        elif session.split:
            computed = now + session.split * session.client.decode_ms
            self._send(session, computed, turn, position, 1, self._row_bytes)

    def _end_turn(self, session: _Session, now: float) -> None:
        record = session.records[-1]
        session.in_turn = False
        record.positions += record.tokens - 1
        session.length += record.positions
        session.turn += 1
        conversation = session.conversation
        if session.turn < len(conversation.turns):
            self._at(now + conversation.turns[session.turn].think_ms, lambda at: self._next_turn(session, at))
            return
        name = conversation.name
        del self._sessions[name]
        self._budget.release(name)

        self._command(session.up(now, HEADER_BYTES), lambda _: self._scheduler.close(name))

    def _plan(self, session: _Session) -> SessionPlan:
        others = [one for one in self._sessions.values() if one.in_turn]
        context = statistics.fmean(one.length for one in others) if others else 0.0
        turn = session.conversation.turns[session.turn]
        return self.policy.plan(
            Situation(
                session.client, session.measured_link(), session.length, turn.prompt_tokens,
                session.split if session.records else None,
                Load.of([one.split for one in others], self.server.blocks, context=context),
            )
        )  # fmt: skip

    # -- server -------------------------------------------------------------------------------------------------------

    def _begin(self, session: _Session, turn: int, start: int, end: int, now: float) -> None:
        tokens = session.conversation.turns[turn].answer_tokens
        answer = Generation(SamplingParams(), max_tokens=tokens, end_tokens=())
        self._scheduler.begin(
            session.conversation.name, turn, start=start, prompt_end=end, generation=answer, now_ms=now
        )

    def _command(self, now: float, command: Callable[[float], None]) -> None:
        """Ask the engine's thread for something; it takes what is asked between two ticks."""
        self._commands.append(command)
        if not self._busy:
            self._busy = True
            self._at(now, self._tick)

    def _tick(self, now: float) -> None:
        """Take commands, schedule, run; `_complete` follows when the engine is done."""
        asked, self._commands = self._commands, []
        begun = now
        for command in asked:
            command(now)
        company_ms = self._scheduler.company_ms(now)
        if company_ms > 0:
            self._busy, self._wait = False, self._wait + 1
            self._at(now + company_ms, partial(self._end_wait, self._wait))
            return
        seating, batch, names = self._scheduler.schedule(now)
        now += self.engine.move(seating.moves) + sum(map(self.engine.clear, seating.freed))
        if not names:
            if now > begun or self._commands:
                self._at(now, self._tick)
            else:
                self._busy = False
            return
        took, logits = self.engine.run(batch)
        self._at(now + took, lambda at: self._complete(batch, names, logits, at))

    def _end_wait(self, wait: int, now: float) -> None:
        """Time is up for company, unless commands have come since."""
        if wait == self._wait and not self._busy:
            self._busy = True
            self._tick(now)

    def _complete(self, batch: Batch, names: list[str], logits: Float32Array, now: float) -> None:
        for event in self._scheduler.complete(batch, names, logits, now_ms=now):
            self._deliver(event, now)
        self._tick(now)

    def _deliver(self, event: Event, now: float) -> None:
        if isinstance(event, TokenDrawn):
            session = self._sessions[event.session]
            arrives = session.down(now, HEADER_BYTES + ID_BYTES)
            self._at(arrives, lambda at: self._token(session, event.turn, event.position, at))


def simulate(
    server: ServerModel,
    conversations: Sequence[Conversation],
    policy: Policy,
    *,
    sla: Sla | None = None,
    max_sessions: int,
    kv_bytes: int | None = None,
) -> Outcome:
    """What happens to all conversations on one server.

    Args:
        server: what its work costs.
        conversations: who comes, when, with what machine and questions; the same for every policy.
        policy: chooses the splits.
        sla: what the scheduler's deadlines are counted from.
        max_sessions: sessions at once; further ones are refused.
        kv_bytes: memory for keys and values; None: no limit.
    """
    return Simulation(server, policy, sla=sla or Sla(), max_sessions=max_sessions, kv_bytes=kv_bytes).run(conversations)

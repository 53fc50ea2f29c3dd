"""One session with a server (protocol/PROTOCOL.md), over as many connections as it takes."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from typing import Any, Final, Self

import numpy as np

from ..errors import MachineError, ProtocolError, RemoteError, TurnError
from ..protocol import (
    Frame,
    Kind,
    Message,
    TurnRequest,
    decode_frame,
    encode_frame,
    report_to,
)
from ..types import ClientReport, SamplingParams
from .goal import Goal
from .link import ConnectionLostError, Link, Opening, RefusalError, unexpected
from .rows import Rows, missing_token, too_many_blocks

#: What the client waits for: an answer that costs the server no work worth naming, or a step that may stand in a queue.
_REPLY_S: Final = 20.0
_STEP_S: Final = 60.0
#: Before each attempt to reconnect; a server that starts anew is away for some seconds.
_PAUSES_S: Final = (0.0, 0.2, 0.5, 1.0, 2.0, 4.0, 4.0, 4.0)
#: A server that is full says when to come again; it is obeyed up to so long, because a person waits.
_LONGEST_PAUSE_S: Final = 10.0
#: Connections that may be lost one after the other without a token in between.
_MOST_LOSSES: Final = 5
#: RefusalErrors of a new session that may be otherwise in a moment.
_PASSING: Final = frozenset({"shutting_down", "server_full", "kv_exhausted"})
#: Errors that speak of a frame and leave its turn running (PROTOCOL.md, section 6).
_FRAME_ERRORS: Final = frozenset({"not_finite", "unknown_token", "wrong_shape", "wrong_dtype"})
_WIRE: Final[dict[str, np.dtype[Any]]] = {"float16": np.dtype(np.float16), "float32": np.dtype(np.float32)}


class ClientSession:
    """A session that is open; what is to be computed and sent, `rows` knows.

    A lost connection is mended: the session is taken up again where the server still holds it, else a new one gets the
    history. Draws are keyed by position, so the answer goes on as it would have.
    """

    def __init__(self, link: Link, opening: Opening, plan: Message, rows: Rows) -> None:
        self._link, self._opening = link, opening
        self._rows = rows
        self.total_blocks: int = link.welcome["blocks"]
        self._turn = 0
        self._goal: Goal | None = None  # of the turn under way
        self._request: TurnRequest | None = None  # what the latest turn began with
        self._report_open = False  # a `report` within a turn waits for its answer
        self._ticket: Message | None = plan.get("resume")
        #: Whether the answer under way goes on in a new session: no server has seen all of its text.
        self.started_over = False
        self.plan = plan
        self.plans: list[Message] = [plan]  # in force one after the other, since the latest turn began

    @property
    def welcome(self) -> Message:
        """What the server said of itself."""
        return self._link.welcome

    @property
    def split(self) -> int:
        """Blocks that run here."""
        return int(self.plan["split"])

    @classmethod
    async def open(
        cls,
        server: str,
        *,
        model: str | None,
        identity: str,
        report: ClientReport,
        split: int | None,
        wire: str,
        expected_prompt_tokens: int,
        rows: Rows,
        api_key: str | None = None,
        in_line: Callable[[int], None] | None = None,
    ) -> Self:
        """Connect, greet and open; `in_line` as in Opening.

        Raises:
            MachineError: the server cannot be reached.
            UsageError: it wants another API key.
            RemoteError: the server refuses.
        """
        opening = Opening(server, model, identity, report, split, wire, expected_prompt_tokens, api_key, in_line)
        link = None
        try:
            link = await Link.connect(opening, new=True)
            plan = await link.open(opening)
        except BaseException as error:
            if link is not None:
                link.abort()
            if isinstance(error, ConnectionLostError):
                raise error.reason from None
            raise
        return cls(link, opening, plan, rows)

    async def report(self, report: ClientReport, *, split: int | None, expected_prompt_tokens: int) -> None:
        """Say what has changed, and follow the plan that comes; within a turn, `answer` does so when it is there.

        Raises:
            RemoteError: the server refuses (between turns; within one, the former plan just stays).
            MachineError: the connection was lost and cannot be mended.
        """
        self._opening = replace(
            self._opening, report=report, split=split, expected_prompt_tokens=expected_prompt_tokens
        )
        message = {
            "type": "report",
            "client": report_to(report),
            "split": "auto" if split is None else split,
            "expected_prompt_tokens": max(1, expected_prompt_tokens),
        }
        if self._goal is not None:
            if not self._report_open:
                self._report_open = True
                with contextlib.suppress(ConnectionLostError):  # `answer` sees it too, and opens anew with this report
                    await self._link.send(message)
            return
        losses = 0
        while True:
            try:
                await self._settle_report()
                self._follow(await self._link.request(message, "plan"))
                return
            except ConnectionLostError as lost:
                losses += 1
                await self._recover(lost, losses)

    async def _settle_report(self) -> None:
        """A `report` of the turn before may still be unanswered; nothing may be sent until it is."""
        while self._report_open:
            await self._step(_REPLY_S)

    async def close(self) -> None:
        """End the session."""
        await self._link.close()

    async def stop(self) -> None:
        """Ask the server to end the turn under way; `answer` goes on to its end."""
        with contextlib.suppress(ConnectionLostError):  # `answer` sees it too, and says what becomes of the turn
            await self._link.send({"type": "cancel", "turn": self._turn})

    async def answer(
        self, ids: Sequence[int], *, max_tokens: int, sampling: SamplingParams, stop: Sequence[str] = ()
    ) -> AsyncIterator[int | Message]:
        """Answer a conversation: yields token ids as they come, and the `done` message last.

        Only what the conversation has beyond the former turn is computed.

        Args:
            ids: the whole conversation up to where the answer begins.
            max_tokens: tokens to generate at most.
            sampling: how tokens are drawn.
            stop: strings that end the answer.

        Raises:
            TurnError: the conversation is longer than the session.
            RemoteError: the server refuses the turn.
            MachineError: the connection was lost and cannot be mended.
        """
        limit = self.plan["max_tokens"]
        if len(ids) + 1 > limit:
            raise TurnError(
                f"the conversation has {len(ids)} tokens and the session holds {limit} with the answer; shorten it or "
                "start a new chat",
                code="context_overflow",
            )
        goal = Goal.of(min(len(ids) + max_tokens, limit), sampling, stop)
        known, losses, done = len(ids), 0, None
        running = True
        self.plans, self.started_over = [self.plan], False
        try:
            while done is None:
                try:
                    if self._goal is not goal:
                        await self._settle_report()
                        self._goal = goal
                        await self._begin(ids, goal)
                    if len(self._rows.ids) < goal.end:
                        done = await self._compute()
                    if done is None:
                        done = await self._step(_STEP_S)
                except ConnectionLostError as lost:
                    losses += 1
                    await self._recover(lost, losses)
                    if self._goal is goal and len(self._rows.ids) >= goal.end and self._request is None:
                        done = goal.complete(self._turn)
                if self._goal is not goal:
                    continue
                if known < len(self._rows.ids):
                    losses = 0
                while known < len(self._rows.ids):
                    known += 1
                    yield self._rows.ids[known - 1]
            running, self._goal = False, None
            self._rows.server_length = done["position"]
            yield {**done, "tokens": known - len(ids)}
        except (RemoteError, MachineError, ProtocolError) as error:
            running = isinstance(error, RemoteError) and error.code in _FRAME_ERRORS
            raise
        finally:
            if self._goal is goal:
                self._goal = None
            if running:  # a frame was refused, or the caller lost interest: the next turn needs this one to end
                await self._give_up()

    async def _begin(self, ids: Sequence[int], goal: Goal) -> None:
        """Begin a turn that answers `ids`."""
        start = self._rows.begin(ids)
        self._turn += 1
        self._request = goal.request(self._turn, ids, start)
        await self._link.send(self._request.to_message())

    async def _step(self, patience_s: float | None) -> Message | None:
        """Take one message: the `done` of this turn, or None. Without patience, take one only if it is there."""
        try:
            received = await (self._link.received() if patience_s is None else self._link.receive(patience_s))
        except RefusalError as refusal:
            if refusal.turn is not None or not self._report_open:
                raise
            self._report_open = False  # the former plan stays
            return None
        if received is None:
            return None
        if isinstance(received, bytes):
            self._take_tokens(received)
        elif received["type"] == "plan":
            self._report_open = False
            if received["turn"] == self._turn and self._goal is not None:
                await self._adopt(received)
            else:
                self._follow(received)
        elif received["type"] == "queued":  # the server gave this session's memory to others
            if self._opening.in_line is not None:
                self._opening.in_line(received["place"])
        elif received["type"] != "done":
            raise ConnectionLostError(unexpected(received, "done"))
        elif received["turn"] == self._turn:
            if self._request is not None and len(self._rows.ids) < self._request.prompt_end + received["tokens"]:
                raise ConnectionLostError(missing_token())
            return received
        return None

    def _take_tokens(self, data: bytes) -> None:
        """Tokens that follow what is known; a repeat adds nothing."""
        try:
            frame = decode_frame(data)
            if frame.turn == self._turn:
                self._rows.take(frame.position, frame.values)
        except ProtocolError as error:
            raise ConnectionLostError(error) from None

    async def _give_up(self) -> None:
        """Cancel the turn under way and wait for its end; the next turn begins at 0."""
        self._rows.server_length = 0
        try:
            async with asyncio.timeout(_REPLY_S):
                await self._link.send({"type": "cancel", "turn": self._turn})
                while await self._step(_REPLY_S) is None:
                    pass
        except (ConnectionLostError, TimeoutError):
            self._ticket = None  # whether the turn goes on is not known: better a new session
            self._link.abort()
        except (RemoteError, ProtocolError):
            pass  # the caller hears why the turn was given up; what still comes of it bears its number

    def _follow(self, plan: Message) -> None:
        """A new plan is in force."""
        if plan["split"] > self._rows.most_blocks:
            raise too_many_blocks(plan["split"])
        if plan["split"] != self.split:
            self._rows.resplit()
            self.plans.append(plan)
        self._rows.server_length = plan["position"]
        self.plan = plan

    async def _adopt(self, plan: Message) -> None:
        """Go on with the turn under a new plan (PROTOCOL.md, "A new plan within a turn")."""
        self._follow(plan)
        self._rows.adopt(plan["position"])
        await self._link.send({"type": "adopt", "turn": self._turn})

    # -- a lost connection --------------------------------------------------------------------------------------------

    async def _recover(self, lost: ConnectionLostError, losses: int) -> None:
        """Go on over a new connection, or raise what a person is to be told."""
        if losses > _MOST_LOSSES:
            raise lost.reason
        reason = lost.reason
        after_s = 0.0
        for pause_s in _PAUSES_S:
            await asyncio.sleep(max(pause_s, after_s))
            try:
                await self._reconnect()
                return
            except ConnectionLostError as again:
                reason = again.reason
            except MachineError as error:
                reason = error
            except RemoteError as error:
                if error.code not in _PASSING:
                    raise
                reason = error
                # All who are refused at once must not come again at once.
                after_s = min(error.retry_after_s, _LONGEST_PAUSE_S) * random.uniform(1.0, 2.0)
        raise reason

    async def _reconnect(self) -> None:
        self._link.abort()
        self._link = link = await Link.connect(self._opening, new=self._ticket is None)
        self._report_open = False
        if self._ticket is not None:
            resume = {
                "session": self.plan["session"],
                "token": self._ticket["token"],
                "turn": self._turn if self._goal is not None else None,
                "position": len(self._rows.ids),
            }
            try:
                plan = await link.open(self._opening, resume)
            except RemoteError as error:
                if error.code != "resume_refused":
                    raise
                self._ticket = None
            else:
                await self._go_on(plan)
                return
        await self._start_over(await link.open(self._opening))

    async def _go_on(self, plan: Message) -> None:
        """The server still holds the session."""
        self._ticket = ticket = plan["resume"]
        self._follow(plan)
        request = self._request
        if self._goal is None or request is None:
            return
        if ticket["turn"] == self._turn:
            self._rows.ids += ticket["tokens"]
            self._rows.await_from(plan["position"], ticket["prompt_end"])
        else:  # it never heard of the turn
            self._rows.await_from(request.start, request.prompt_end)
            await self._link.send(request.to_message())

    async def _start_over(self, plan: Message) -> None:
        """The session is gone; a new one gets the history."""
        self._ticket = plan.get("resume")
        self._turn = 0
        self._rows.resplit()
        self._follow(plan)
        if self._goal is None:
            return
        self.started_over = True
        self._request = None
        if len(self._rows.ids) < self._goal.end:
            await self._begin(self._rows.ids, self._goal)

    async def _compute(self) -> Message | None:
        """Compute all that is known and not computed yet, and send what the server wants of it.

        A plan that comes between two chunks is followed from the next on. Returns `done` if the turn ended meanwhile.
        """
        while (due := await self._rows.due(self.split, self.total_blocks)) is not None:
            kind, position, values = due
            if kind is Kind.HIDDEN:
                values = values.astype(_WIRE[self.plan["wire"]], copy=False)
            if len(values):
                await self._link.send(encode_frame(Frame(kind, self._turn, position, values)))
            if self._rows.behind and (done := await self._step(None)) is not None:
                return done
        return None

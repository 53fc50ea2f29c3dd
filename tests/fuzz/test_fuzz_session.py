"""The server's session against any order of messages, frames and events: each is answered as PROTOCOL.md says.

What is expected is written from sections 3 to 7 of the page and knows nothing of the machine's inside.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from splitllm.errors import WIRE_CODES, CapacityError, MachineError, TurnError
from splitllm.generation import Resplitted
from splitllm.protocol import ResumeRequest, Ticket
from splitllm.session import Action, Begin, Cancel, Close, Feed, Plan, Resplit, Send, SendToken, State
from splitllm.types import FinishReason
from tests.fuzz.effort import effort
from tests.fuzz.session_model import Expected, Running
from tests.fuzz.session_walk import (
    FRAME_TWISTS,
    MAX_TOKENS,
    SPLIT,
    STEPS,
    TURN_TWISTS,
    move,
    twisted,
)
from tests.unit.session_talk import (
    AGAIN,
    BLOCKS,
    CLOSE,
    HELLO,
    HIDDEN,
    MAX_ROWS,
    OPEN,
    SESSION,
    VOCAB,
    cancel,
    hidden,
    ids,
    plan_of,
    turn,
)
from tests.unit.test_session_new_plan import REQUEST


class Session(Expected, RuleBasedStateMachine):
    """Plays client, planner and engine."""

    #: What the walks have seen, by kind of action: a walk that ends at its first step shows nothing.
    seen: ClassVar[Counter[str]] = Counter()

    @initialize(stage=st.sampled_from([0, 1, 2, 3, 3, 4, 4, 4]), split=SPLIT)
    def begin(self, stage: int, split: int) -> None:
        """Most walks begin in a session that is open, half of them in a turn."""
        self.start()
        if stage >= 1:
            self.say("hello")
        if stage >= 2:
            self.say("open")
        if stage >= 3:
            self.answer_plan(split, True)
        if stage >= 4:
            self.say_turn(9, {})

    @rule(data=st.data())
    def step(self, data: st.DataObject) -> None:
        """One step of those that suit the state."""
        name = "answer_plan" if self.asked is not None else data.draw(st.sampled_from(STEPS[self.state]))
        run = self.running
        if (
            name == "send"
            and run is not None
            and not run.waiting
            and not run.unadopted
            and data.draw(st.integers(0, 7))
        ):
            name = "draw"  # a row is in work
        if name in ("hello", "open", "report", "close"):
            if name != "report" or self.allows(name):
                self.say(name)
        elif name == "adopt":
            if self.running is not None and self.running.unadopted:
                self.name_a_turn("adopt", 0)
        else:
            method = getattr(self, name)
            method(**{key: data.draw(strategy) for key, strategy in method.strategies.items()})

    def teardown(self) -> None:
        """Count what this walk has seen."""
        if hasattr(self, "talk"):
            self.seen.update(self.talk.actions)

    # -- text ---------------------------------------------------------------------------------------------------------

    @move(kind=st.sampled_from(["hello", "open", "report", "report", "close"]))
    def say(self, kind: str) -> None:
        actions = self.talk.say({"hello": HELLO, "open": OPEN, "report": AGAIN, "close": CLOSE}[kind])
        if not self.allows(kind):
            self.ends(actions, "unexpected_message")
        elif kind == "hello":
            self.state = State.GREETED
            assert isinstance(actions[0], Send)
        elif kind == "close":
            assert actions == [Close(None)]
            self.state, self.running = State.CLOSED, None
        else:
            [plan] = actions
            assert isinstance(plan, Plan)
            self.asked = plan
            if self.running is not None:
                self.running.report_open = True

    @move(prompt=st.sampled_from([1, 2, 4, 9, 12, 20]), twists=twisted(TURN_TWISTS))
    def say_turn(self, prompt: int, twists: dict[str, Any]) -> None:
        prompt, seen = twists.get("prompt", prompt), twists.get("seen", [1, 2])
        number, start = max(1, self.last + twists.get("step", 1)), max(0, self.length - twists.get("back", 0))
        actions = self.talk.say(turn(number, start, prompt, twists.get("limit", 9), seen_ids=seen))
        if self.state is not State.IDLE:
            self.ends(actions, "unexpected_message")
            return
        if number > self.last:
            self.answers, self.began = {}, False
            self.ended_by = actions[0].message if isinstance(actions[0], Send) else None
        fresh, self.last = number > self.last, max(self.last, number)
        if not fresh or any(token >= VOCAB for token in seen) or len(seen) > MAX_TOKENS or start > self.length:
            self.refuses(actions, "turn_refused")
        elif start + prompt + 1 > MAX_TOKENS:
            self.refuses(actions, "context_overflow")
        else:
            [begin] = actions
            assert isinstance(begin, Begin)
            end = start + prompt
            self.state, self.length = State.IN_TURN, start
            self.running = Running(number, end - 1 if self.split == BLOCKS else start, end, end)
            self.began, self.answers = True, self.running.answers

    @move(kind=st.sampled_from(["cancel", "adopt", "adopt"]), other=st.sampled_from([0] * 6 + [1, -1]))
    def name_a_turn(self, kind: str, other: int) -> None:
        number, run = max(1, self.last + other), self.running
        actions = self.talk.say(cancel(number).replace("cancel", kind))
        if not self.allows(kind):
            self.ends(actions, "unexpected_message")
        elif run is None or number != run.number:
            assert actions == []
        elif kind == "cancel":
            assert actions == [Cancel(number)]
        elif run.unadopted:
            assert actions == []
            run.unadopted -= 1
        else:
            self.ends(actions, "unexpected_message")

    @move(text=st.sampled_from(["", "{", "[]", '{"type":"turn"}', '{"type":"plan"}', "\ud800", "[" * 5000, "1e999"]))
    def say_nonsense(self, text: str) -> None:
        self.ends(self.talk.say(text), "malformed_message")

    # -- frames -------------------------------------------------------------------------------------------------------

    @move(twists=twisted(FRAME_TWISTS))
    def send(self, twists: dict[str, Any]) -> None:
        """A frame that is right, or wrong in a few ways; 0 rows stands for as many as may follow."""
        run = self.running
        expected = run.expected if run is not None else self.length
        left = max(1, run.prompt_end - expected) if run is not None else 1
        number, position = max(1, self.last + twists.get("turn", 0)), max(0, expected + twists.get("skip", 0))
        rows = twists.get("rows", min(left, MAX_ROWS))
        fits, fill, token = twists.get("fits", True), twists.get("fill", 0.5), twists.get("token", 1)
        as_ids = (self.split == 0) == fits
        if as_ids:
            width, bad = 1, not 0 <= token < VOCAB
            frame = ids(number, position, [token] * rows)
        else:
            width, bad = twists.get("columns", HIDDEN), not np.isfinite(fill)
            frame = hidden(number, position, rows, columns=width, fill=fill)
        actions = self.talk.send(frame)
        if self.state not in (State.IDLE, State.IN_TURN):
            self.ends(actions, "unexpected_message")
        elif number > self.last:
            self.refuses(actions, "unknown_turn")
        elif run is None or number != run.number or run.pending is not None or run.unadopted:
            assert actions == []
        elif not fits:
            self.refuses(actions, "wrong_dtype")
        elif width != (1 if as_ids else HIDDEN) or rows > MAX_ROWS:
            self.refuses(actions, "wrong_shape")
        elif position > expected:
            self.refuses(actions, "position_gap")
        elif position + rows <= expected:
            again = run.answers.get(position + rows)
            assert actions == ([] if again is None else [SendToken(number, position + rows, again)])
        elif position < expected:
            self.refuses(actions, "position_overlap")
        elif not run.waiting:
            self.refuses(actions, "unexpected_frame")
        elif rows > left:
            self.refuses(actions, "wrong_shape")
        elif bad:
            self.refuses(actions, "unknown_token" if as_ids else "not_finite")
        else:
            [feed] = actions
            assert isinstance(feed, Feed)
            assert (feed.turn, feed.position) == (number, expected)
            assert feed.values.shape == ((rows,) if as_ids else (rows, HIDDEN))
            run.expected += rows
            run.waiting = run.expected < run.prompt_end
            return
        if actions and isinstance(actions[0], Send) and self.state is not State.CLOSED:
            told = actions[0].message
            assert (told["turn"], told["expected_position"]) == (number, expected)

    @move(data=st.binary(max_size=40))
    def send_nonsense(self, data: bytes) -> None:
        frames = self.state in (State.IDLE, State.IN_TURN)
        self.ends(self.talk.send(data), "malformed_frame" if frames else "unexpected_message")

    # -- another connection -------------------------------------------------------------------------------------------

    @move(heard=st.booleans(), missed=st.integers(0, 3))
    def come_back(self, heard: bool, missed: int) -> None:
        """The connection is lost and the client comes back; it has `heard` of the end of the last turn or not, and
        missed some tokens."""
        run = self.running
        number = self.last if self.last and not heard else None
        position = max(0, max(self.answers, default=-1) + 1 - missed)
        told, *rest = self.talk.checked(
            self.talk.session.resumed(ResumeRequest(SESSION, "ab" * 32, number, position), Ticket("cd" * 32, 60.0), 1.0)
        )
        assert isinstance(told, Send)
        plan, resume = told.message, told.message["resume"]
        expected = self.length if run is None else run.expected
        assert (plan["turn"], plan["split"], plan["position"], resume["turn"]) == (
            None,
            self.split,
            expected,
            self.last,
        )
        mine = number is not None and self.began
        assert resume["tokens"] == [token for at, token in self.answers.items() if mine and at >= position]
        if run is not None:
            assert (resume["prompt_end"], rest) == (run.prompt_end, [])
            run.unadopted, run.report_open = 0, False
        elif number is None or self.ended_by is None:
            assert rest == []
        else:
            assert rest == [Send(self.ended_by)]

    # -- the planner --------------------------------------------------------------------------------------------------

    @move(split=SPLIT, granted=st.sampled_from([True] * 5 + [False]))
    def answer_plan(self, split: int, granted: bool) -> None:
        plan, self.asked = self.asked, None
        assert plan is not None
        run = self.running
        if not granted:
            error = CapacityError("No room.") if split % 2 else TurnError("No such split.", code="split_unavailable")
            self.refuses(self.talk.refused(error), error.code)
            if run is not None:
                run.report_open = False
        elif run is not None:
            self.change(
                run, self.talk.checked(self.talk.session.planned_in_turn(plan_of(split), plan.request, 1.0)), split
            )
        else:
            [told] = self.talk.planned(split, plan)
            if self.state is State.IDLE and split < self.split:
                self.length = 0
            self.state, self.split = State.IDLE, split
            assert isinstance(told, Send)
            assert (told.message["type"], told.message["split"], told.message["position"]) == (
                "plan",
                split,
                self.length,
            )

    @move(split=SPLIT)
    def change_the_plan(self, split: int) -> None:
        """The server's own wish; out of a turn it has none."""
        actions = self.talk.checked(self.talk.session.planned_in_turn(plan_of(split), REQUEST, 1.0))
        if self.running is None:
            assert actions == []
        else:
            self.change(self.running, actions, split)

    def change(self, run: Running, actions: Sequence[Action], split: int) -> None:
        if split == self.split or run.pending is not None:
            if run.report_open:
                [told] = actions
                assert isinstance(told, Send)
                assert (told.message["type"], told.message["turn"], told.message["split"]) == ("plan", None, self.split)
            else:
                assert actions == []
            run.report_open = False
        else:
            assert actions == [Resplit(run.number, split)]
            run.pending = split

    # -- the engine ---------------------------------------------------------------------------------------------------

    @move(token=st.integers(0, VOCAB - 1))
    def draw(self, token: int) -> None:
        run = self.running
        assert run is not None
        if run.waiting or run.unadopted:
            return  # nothing is in work
        position, run.end = run.end, run.end + 1
        assert self.talk.drawn(run.number, position, token, float(position)) == [SendToken(run.number, position, token)]
        run.answers[position] = token
        run.waiting = self.split > 0

    @move()
    def carry_out(self) -> None:
        run = self.running
        if run is None or run.pending is None:
            return
        ran = run.end - 1 if self.split == 0 and not run.waiting else min(run.expected, run.end)
        held = ran if run.pending > self.split else 0
        event = Resplitted(SESSION, run.number, True, ran_to=ran, length=held, end=run.end)
        [told] = self.talk.checked(self.talk.session.receive_event(event, 0.0))
        assert isinstance(told, Send)
        assert (told.message["turn"], told.message["split"], told.message["position"]) == (
            run.number,
            run.pending,
            held,
        )
        self.split, run.pending, self.length = run.pending, None, held
        run.expected = run.end - 1 if self.split == BLOCKS else held
        run.prompt_end, run.waiting, run.report_open = run.end, True, False
        run.unadopted += 1

    @move(reason=st.sampled_from(FinishReason), ran=st.integers(0, MAX_TOKENS))
    def end(self, reason: FinishReason, ran: int) -> None:
        run = self.running
        assert run is not None
        [told] = self.talk.ended(run.number, ran, reason, now_ms=9.0)
        assert isinstance(told, Send)
        assert (told.message["type"], told.message["position"]) == ("done", ran)
        self.state, self.length, self.running, self.ended_by = State.IDLE, ran, None, told.message
        if run.pending is not None:  # the engine finds the turn ended; whoever asked still gets an answer
            late = self.talk.checked(self.talk.session.receive_event(Resplitted(SESSION, run.number, False), 0.0))
            if run.report_open:
                [plan] = late
                assert isinstance(plan, Plan)
                self.asked = plan
            else:
                assert late == []

    @move()
    def hear_of_an_old_turn(self) -> None:
        old = max(1, self.last - 1)
        if self.running is None or self.running.number != old:
            session = self.talk.session
            if self.running is not None or self.state in (State.NEW, State.GREETED, State.CLOSED):
                assert self.talk.drawn(old, 3, 1) == []
                assert self.talk.checked(session.receive_event(Resplitted(SESSION, old, True), 0.0)) == []

    @move()
    def fail(self) -> None:
        self.ends(self.talk.checked(self.talk.session.fail(MachineError("/etc/secret is gone"))), "internal")

    @invariant()
    def agrees(self) -> None:
        session = self.talk.session
        assert session.state is self.state
        assert session.split == self.split or self.state is State.CLOSED
        if self.state is State.IDLE:
            assert session.length == self.length


def test_any_order_of_messages_frames_and_events_is_answered_as_the_page_says() -> None:
    Session.seen.clear()
    run_state_machine_as_test(Session, settings=effort(150, stateful_step_count=60))
    # What a walk happens upon differs between versions of hypothesis; this much it must have seen to be worth anything.
    enough = {"Plan": 60, "Begin": 40, "Feed": 40, "SendToken": 20, "Resplit": 15, "Close": 30}
    assert {kind for kind, number in enough.items() if Session.seen[kind] < number} == set(), Session.seen
    assert len(Session.seen.keys() & WIRE_CODES.keys()) >= 9, Session.seen

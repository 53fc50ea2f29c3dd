"""Plans of one session that follow what is seen of it: at each turn, and within a turn when the promise is missed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

from ..errors import SplitLLMError
from ..generation import Event, Resplitted, TurnEnded
from ..planner.hysteresis import LATE_TOKENS, forecast_ms, is_worth_changing, look_again_ms
from ..planner.session_plan import Held
from ..protocol import OpenRequest, TurnRequest
from ..session import Action, ServerSession
from ..types import SessionPlan
from .observation import Observation
from .planning import Admission

log = logging.getLogger(__name__)

#: A promise beyond that is none that anybody waits for.
_MOST_WATCHED_MS: Final = 3_600_000.0


class Follower:
    """Asks the planner again where that may help, and tells the session's state machine."""

    def __init__(
        self,
        session: str,
        machine: ServerSession,
        admission: Admission,
        seen: Observation,
        carry_out: Callable[[Sequence[Action]], object],
    ) -> None:
        self._session, self._machine, self._admission = session, machine, admission
        self._seen, self._carry_out = seen, carry_out
        self.request: OpenRequest | None = None  # what the plan in force was made for
        self._alarm: asyncio.TimerHandle | None = None  # when the prompt will be looked at
        #: The promise is being missed: the round trip should be measured now.
        self.is_late: Callable[[], None] = lambda: None

    def plan(
        self, request: OpenRequest, *, prompt_tokens: int | None = None, waited_ms: float = 0.0, row_ms: float = 0.0
    ) -> SessionPlan:
        """A plan with what is known by now.

        waited_ms: what is gone of the promised TTFT. row_ms: what the client was seen to take for a block on one row of
        a prompt.

        Raises:
            TurnError: the request cannot be met.
        """
        machine = self._machine
        is_open = self.request is not None
        report = self._seen.report(request.report, time.monotonic())
        if report.prefill_ms is not None:
            report = replace(report, prefill_ms=max(report.prefill_ms, row_ms * report.prefill_rows))
        return self._admission.plan(
            request,
            self._seen.link,
            session=None if machine.is_evicted else self._session,  # which needs no place for a plan
            report=report,
            held=Held(machine.split, machine.positions, self._seen.patience.margin) if is_open else None,
            prompt_tokens=prompt_tokens,
            waited_ms=waited_ms,
        )

    def turn_began(self, request: TurnRequest, plan: SessionPlan | None = None) -> None:
        """Each turn is planned anew: its prompt's length is known now, and others have come and gone.

        `plan`: the one that was just made for it.
        """
        self._admission.turn_began(self._session, self._machine.split, request.prompt_end)
        self._seen.turn_began()
        self._seen.patience.turn_began()
        self.forget_prompt()
        if plan is None:
            plan = self._plan_anew(is_worth_changing, prompt_tokens=request.prompt_tokens)
        if plan is not None:
            self._watch_prompt(plan)

    def token_sent(self, position: int) -> None:
        """A token goes out: if several in a row were late, the turn is planned anew."""
        since_last = self._seen.token_sent(position, time.monotonic())
        if since_last is None or self._machine.changing:
            return
        patience = self._seen.patience
        must_change = patience.token(since_last)
        if patience.late:
            self.is_late()
        if not must_change:
            return
        patience.changed()
        log.info("session %s: %d tokens in a row were late", self._session[:8], LATE_TOKENS)
        self._plan_anew(lambda plan, split: plan.split != split, prompt_tokens=1)

    def rows_arrived(self, position: int, rows: int, size_bytes: int) -> None:
        """Hidden states came from the client."""
        if self.request is not None:
            self._seen.rows_arrived(
                position,
                rows,
                size_bytes,
                split=self._machine.split,
                report=self.request.report,
                now=time.monotonic(),
            )

    def change_turn(self, plan: SessionPlan, request: OpenRequest) -> None:
        """Follow a plan made for `request` within the turn under way, if memory for it can be had."""
        try:
            if plan.split < self._machine.split:
                self._admission.admit(self._session, plan.split, request.max_tokens)
        except SplitLLMError as error:
            log.info("session %s: no room for split %d", self._session[:8], plan.split)
            if self._machine.owes_plan:
                self._carry_out(self._machine.refused(error))
            return
        self.tell(plan)
        self._carry_out(self._machine.planned_in_turn(plan, request, self._seen.round_trip.ms))

    def happened(self, event: Event | Resplitted) -> None:
        """The machine has heard of an event: memory and load are now as it says."""
        if isinstance(event, Resplitted) and self.request is not None:
            # A larger split needs less memory from now on; one that came too late needs none of what was taken for it.
            with contextlib.suppress(SplitLLMError):
                self._admission.admit(self._session, self._machine.split, self.request.max_tokens)
            if event.done:
                self._admission.turn_began(self._session, self._machine.split, event.end)
                self._seen.turn_began()
        elif isinstance(event, TurnEnded):
            self.forget_prompt()
            self._admission.turn_ended(self._session)
            self._seen.patience.turn_ended(self._machine.tpot_ms)

    def tell(self, plan: SessionPlan) -> None:
        """A line in the log: the figures and the sentence."""
        log.info(
            "session %s: split %d saves %.0f %% of block-steps, %.0f %% of server time; TTFT %.0f, TPOT %.0f ms: %s",
            self._session[:8],
            plan.split,
            100 * plan.saved_block_steps,
            100 * plan.saved_server_time,
            plan.predicted_ttft_ms,
            plan.predicted_tpot_ms,
            plan.reason,
        )

    # -- a prompt that does not come ----------------------------------------------------------------------------------

    def _watch_prompt(self, plan: SessionPlan) -> None:
        """See to it that the turn's prompt is looked at while the server could still take it over in time."""
        split = plan.split if self._machine.changing else self._machine.split
        ttft_ms = plan.details["candidates"]["ttft_ms"]
        if not 0 < split < len(ttft_ms):
            return
        after_ms = look_again_ms(ttft_ms[split], ttft_ms[0], self._seen.promised.ttft_ms)
        if after_ms < _MOST_WATCHED_MS:
            delay_s = max(0.0, after_ms - self._seen.round_trip.ms) / 1000
            loop = asyncio.get_running_loop()
            self._alarm = loop.call_later(delay_s, self._look_at_prompt, time.monotonic())

    def forget_prompt(self) -> None:
        """The turn is over: nobody waits for its prompt."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _look_at_prompt(self, began_s: float) -> None:
        """If a prompt's rows come too slowly for the promised TTFT, let the server do more of it, if that helps."""
        rows = self._machine.prompt_rows
        if rows is None:
            return
        waited_ms = 1000 * (time.monotonic() - began_s) + self._seen.round_trip.ms
        forecast = forecast_ms(waited_ms, *rows)
        if forecast <= self._seen.promised.ttft_ms:
            return
        log.info("session %s: the prompt comes too slowly, %d of %d rows so far", self._session[:8], *rows)
        self._seen.patience.changed()

        def is_worth(plan: SessionPlan, split: int) -> bool:
            return plan.split < split and waited_ms + plan.predicted_ttft_ms < forecast

        self._plan_anew(
            is_worth,
            prompt_tokens=rows[1] - rows[0],
            waited_ms=waited_ms,
            row_ms=forecast / (rows[1] * max(1, self._machine.split)),
        )

    # -- new plans ----------------------------------------------------------------------------------------------------

    def _plan_anew(self, is_worth: Callable[[SessionPlan, int], bool], **known: Any) -> SessionPlan | None:
        """Make a plan nobody asked for, and follow it if `is_worth(plan, split)`; not if the client insists on one.

        `known` is what `plan` is told. Returns the plan, None if none was made.
        """
        request = self.request
        if request is None or request.split is not None:
            return None
        try:
            plan = self.plan(request, **known)
        except SplitLLMError as error:
            log.warning("session %s: the former plan stays: %s", self._session[:8], error.message)
            return None
        if is_worth(plan, self._machine.split):
            self.change_turn(plan, request)
        return plan

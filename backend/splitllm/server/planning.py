"""Choosing a split for a session, and reserving what it needs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from ..bundle import Bundle
from ..engines.slowdown import Slowdown
from ..errors import BundleError, CapacityError, TurnError
from ..kv_budget import KvBudget, KvPool
from ..planner.marginal import Load, SessionCosts, headroom
from ..planner.profile import EngineProfile
from ..planner.session_plan import EXPECTED_ANSWER_TOKENS, Held, KvMemory, plan_session
from ..protocol import OpenRequest
from ..session import Segment
from ..types import ClientReport, Link, ModelSpec, SessionPlan
from ..work import Batch
from .config import ServerConfig


@dataclass(frozen=True, slots=True)
class _Busy:
    """A session in a turn: its split, and about how many positions it holds."""

    split: int
    positions: int


def kv_pool(config: ServerConfig, specs: Iterable[ModelSpec]) -> KvPool:
    """Memory for the keys and values of all models' sessions."""
    if config.kv_memory_bytes is not None:
        return KvPool(config.kv_memory_bytes)
    full_session = max(spec.blocks * spec.kv_bytes_per_token() * spec.max_context for spec in specs)
    return KvPool(config.max_sessions * full_session)


class Admission:
    """Plans sessions of one model, and keeps count of the rows and the KV memory they hold."""

    def __init__(
        self, bundle: Bundle, config: ServerConfig, profile: EngineProfile, pool: KvPool | None = None
    ) -> None:
        """`pool`: the memory and the places that models share; None where there is one model."""
        spec = bundle.spec
        self._bundle, self._config = bundle, config
        self.slowdown = Slowdown(profile, spec.blocks)
        self.budget = KvBudget(pool or kv_pool(config, [spec]), spec.blocks, spec.kv_bytes_per_token())
        self.sessions: set[str] = set()
        #: Called when somebody gives back what others may wait for.
        self.on_room: Callable[[], None] = lambda: None
        #: What ticks of other models add to one of this model, in milliseconds.
        self.other_models_ms: Callable[[], float] = lambda: 0.0
        self._busy: dict[str, _Busy] = {}

    # -- what the server is like now ----------------------------------------------------------------------------------

    def ticked(self, batch: Batch, engine_ms: float) -> None:
        """A tick ran: keep the profile current."""
        self.slowdown.ticked(batch, engine_ms)

    def turn_began(self, session: str, split: int, positions: int) -> None:
        """A session is in a turn: it takes part in ticks."""
        self._busy[session] = _Busy(split, positions)

    def turn_ended(self, session: str) -> None:
        """It is not any more."""
        self._busy.pop(session, None)

    def load(self, session: str | None = None) -> Load:
        """The batch that a session would join: all who are in a turn, without itself; and what other models take."""
        others = [busy for name, busy in self._busy.items() if name != session]
        context = sum(busy.positions for busy in others) / len(others) if others else 0.0
        splits, other_models_ms = [busy.split for busy in others], self.other_models_ms()
        return Load.of(splits, self._bundle.spec.blocks, context=context, other_models_ms=other_models_ms)

    # -- plans --------------------------------------------------------------------------------------------------------

    def plan(
        self,
        request: OpenRequest,
        link: Link,
        *,
        session: str | None = None,
        report: ClientReport | None = None,
        held: Held | None = None,
        prompt_tokens: int | None = None,
        waited_ms: float = 0.0,
    ) -> SessionPlan:
        """The split for a session, from the engine's profile, the measured link and what is known of the client.

        For a `session` that has no place and finds none, no plan is made: crowds would cost those inside too much.
        `report` is what the client can do by what was seen of it, in place of what it says in `request`.
        `prompt_tokens` is the prompt's true length where it is known, `waited_ms` what is gone of the promised TTFT.

        Raises:
            CapacityError: `server_full`, where `session` is given.
            TurnError: `split_unavailable` or `variant_unavailable`.
        """
        if session is not None:
            self.check_place(session)
        said, config, spec = request.report, self._config, self._bundle.spec
        try:
            block_bytes = self._bundle.block_bytes(said.variant)
        except BundleError as error:
            raise TurnError(error.message, code="variant_unavailable") from None
        if said.blocks_ready > spec.blocks:
            raise TurnError(f"The model has {spec.blocks} blocks, not {said.blocks_ready}.", code="split_unavailable")
        expected = request.expected_prompt_tokens if prompt_tokens is None else prompt_tokens
        profile = self.slowdown.profile
        return plan_session(
            spec,
            said if report is None else report,
            profile,
            link,
            replace(config.sla, ttft_ms=max(0.0, config.sla.ttft_ms - waited_ms)),
            prompt_tokens=min(expected, spec.max_context),
            expected_tokens=EXPECTED_ANSWER_TOKENS,
            wire_bytes=4 if request.wire == "float32" else 2,
            block_bytes=block_bytes,
            requested=request.split,
            headroom=headroom(profile, spec.blocks, config.max_sessions, config.sla.tpot_ms),
            load=self.load(session),
            held=held,
            kv_memory=KvMemory(
                self.budget.limit_bytes, self.budget.reserved_by_others(session or ""), request.max_tokens
            ),
        )

    def price(self, session: str, segments: Sequence[Segment]) -> tuple[float, float]:
        """The engine's milliseconds that a turn added, and what split 0 would have added beyond it; estimates."""
        profile, load = self.slowdown.profile, self.load(session)
        run = sum(_segment_ms(profile, load, segment, segment.split) for segment in segments)
        # What ran anew after a change of plan would not have run anew at split 0.
        alone = _segment_ms(profile, load, _as_one(segments), 0) if segments else 0.0
        return run, max(0.0, alone - run)

    # -- reservations -------------------------------------------------------------------------------------------------

    def admit(self, session: str, split: int, max_tokens: int) -> None:
        """Reserve a row and KV memory for a session, or change what it holds.

        Raises:
            CapacityError: `server_full` or `kv_exhausted`; what the session held stays.
        """
        self.check_place(session)
        before = self.budget.reserved_bytes
        self.budget.reserve(session, split, max_tokens)
        self.sessions.add(session)
        if self.budget.reserved_bytes < before:
            self.on_room()

    def would_open(self, session: str, request: OpenRequest | None, without: Sequence[str]) -> bool:
        """As `would_admit`, at the split that needs least memory if the client insists on none."""
        if request is None:
            return True
        split = request.report.blocks_ready if request.split is None else request.split
        return self.would_admit(session, split, request.max_tokens, without)

    def would_admit(self, session: str, split: int, max_tokens: int, without: Sequence[str]) -> bool:
        """Whether `admit` would succeed if the sessions `without` (of any model) had given everything back."""
        reserved, budget = self.budget.pool.reserved, self.budget
        places = len(reserved) - sum(name in reserved for name in without)
        others = budget.reserved_by_others(session) - budget.reserved_by(without)
        has_place = session in self.sessions or places < self._config.max_sessions
        return has_place and others + budget.cost(split, max_tokens) <= budget.limit_bytes

    def check_place(self, session: str) -> None:
        """Whether `admit` may find room: ask before a plan is made, which costs more.

        Raises:
            CapacityError: `server_full`.
        """
        if session not in self.sessions and len(self.budget.pool.reserved) >= self._config.max_sessions:
            raise CapacityError(
                f"All {self._config.max_sessions} sessions of this server are taken; try again in a minute."
            )

    def release(self, session: str) -> None:
        """Give everything back."""
        self.budget.release(session)
        self.sessions.discard(session)
        self._busy.pop(session, None)
        self.on_room()


def _segment_ms(profile: EngineProfile, load: Load, segment: Segment, split: int) -> float:
    if not segment.rows:
        return 0.0
    costs = SessionCosts.of(
        profile,
        load,
        prompt_tokens=max(1, segment.prompt_rows),
        answer_tokens=segment.steps,
        history=segment.start,
    )
    return costs.server_ms(segment.steps)[split]


def _as_one(segments: Sequence[Segment]) -> Segment:
    """The turn as it would have been without changes: the first segment's prompt, and all steps."""
    first = segments[0]
    reached = max(segment.start + segment.rows for segment in segments)
    return Segment(first.split, first.start, first.prompt_rows, max(0, reached - first.start - first.prompt_rows))

"""Choosing a split for a session, and reserving what it needs."""

from __future__ import annotations

from ..bundle import Bundle
from ..errors import BundleError, CapacityError, TurnError
from ..kv_budget import KvBudget
from ..planner.session_plan import plan_session
from ..protocol import OpenRequest
from ..types import BlockTimes, Link, SessionPlan
from .config import ServerConfig

#: Tokens an answer is expected to have; the weight of the decode phase in the plan.
EXPECTED_ANSWER_TOKENS = 200


class Admission:
    """Plans sessions and keeps count of the rows and the KV memory they hold."""

    def __init__(self, bundle: Bundle, config: ServerConfig, times: BlockTimes) -> None:
        spec = bundle.spec
        self._bundle, self._config, self._times = bundle, config, times
        full_session = spec.blocks * spec.kv_bytes_per_token() * spec.max_context
        limit = config.kv_memory_bytes if config.kv_memory_bytes is not None else config.max_sessions * full_session
        self.budget = KvBudget(limit, spec.blocks, spec.kv_bytes_per_token())
        self.sessions: set[str] = set()

    def plan(self, request: OpenRequest, rtt_ms: float) -> SessionPlan:
        """The split for a session, from measured block times, the client's report and the measured round trip.

        Raises:
            TurnError: `split_unavailable` or `variant_unavailable`.
        """
        report, config = request.report, self._config
        try:
            block_bytes = self._bundle.block_bytes(report.variant)
        except BundleError as error:
            raise TurnError(error.message, code="variant_unavailable") from None
        if report.blocks_ready > self._bundle.spec.blocks:
            raise TurnError(
                f"The model has {self._bundle.spec.blocks} blocks, not {report.blocks_ready}.", code="split_unavailable"
            )
        return plan_session(
            self._bundle.spec,
            report,
            self._times,
            Link(rtt_ms / 2, rtt_ms / 2, config.up_bytes_per_ms, config.down_bytes_per_ms),
            config.sla,
            prompt_tokens=request.expected_prompt_tokens,
            expected_tokens=EXPECTED_ANSWER_TOKENS,
            wire_bytes=4 if request.wire == "float32" else 2,
            block_bytes=block_bytes,
            requested=request.split,
        )

    def admit(self, session: str, split: int, max_tokens: int) -> None:
        """Reserve a row and KV memory for a session, or change what it holds.

        Raises:
            CapacityError: `server_full` or `kv_exhausted`; what the session held stays.
        """
        if session not in self.sessions and len(self.sessions) >= self._config.max_sessions:
            raise CapacityError(
                f"All {self._config.max_sessions} sessions of this server are taken; try again in a minute."
            )
        self.budget.reserve(session, split, max_tokens)
        self.sessions.add(session)

    def release(self, session: str) -> None:
        """Give everything back."""
        self.budget.release(session)
        self.sessions.discard(session)

"""The ways of choosing splits that are held against each other: the product's planner, and baselines. Pure.

`all-server` runs every block on the server. `greedy-prefix`, `greedy-ratio` and `dp` plan with the costs of a server
that does nothing else. `dp-load` is what `splitllm serve` does: `dp` with costs in the batch that the session would
join. All leave the same headroom for the ticks of others.

Every policy's prediction comes from the same table of candidates, so that they differ in what they choose only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Final

from ..errors import UsageError
from ..planner import marginal
from ..planner.evaluate import evaluate
from ..planner.exact import Tables
from ..planner.greedy import greedy_prefix, greedy_ratio
from ..planner.problem import Placement, Side
from ..planner.session_plan import EXPECTED_ANSWER_TOKENS, Held, plan_session
from ..planner.session_problem import EMBED, Session, split_problem
from ..types import PREFILL_CHUNK, ClientReport, SessionPlan, Sla
from .simulator_engine import ServerModel
from .simulator_values import VALUE_BYTES, Policy, Situation


@dataclass(frozen=True, slots=True)
class _Base:
    """headroom: share of the promise that plans may use, see `planner.marginal.headroom`."""

    server: ServerModel
    sla: Sla
    headroom: float

    def _best(self, situation: Situation, *, split: int | None = None, loaded: bool = False) -> SessionPlan:
        """The planner's own choice, or what it says of `split`."""
        held = None
        if situation.split is not None and split is None:
            held = Held(situation.split, situation.history)
        return plan_session(
            self.server.spec,
            _report(situation),
            self.server.profile,
            situation.link,
            self.sla,
            prompt_tokens=situation.prompt_tokens,
            expected_tokens=EXPECTED_ANSWER_TOKENS,
            wire_bytes=VALUE_BYTES,
            block_bytes=None,
            requested=split,
            headroom=self.headroom,
            load=situation.load if loaded else None,
            held=held,
        )


def _report(situation: Situation) -> ClientReport:
    client = situation.client
    if not client.ready:
        return ClientReport()
    return ClientReport(
        backend="webgpu",
        blocks_ready=client.ready,
        decode_ms=client.decode_ms,
        prefill_ms=client.prefill_ms,
        prefill_rows=PREFILL_CHUNK,
    )


class AllServer(_Base):
    """Split 0 for everybody."""

    def plan(self, situation: Situation) -> SessionPlan:
        """See Policy."""
        return self._best(situation, split=0)


class Exact(_Base):
    """The product's planner, for a server without load."""

    def plan(self, situation: Situation) -> SessionPlan:
        """See Policy."""
        return self._best(situation)


class ExactUnderLoad(_Base):
    """The product's planner, told the present batch."""

    def plan(self, situation: Situation) -> SessionPlan:
        """See Policy."""
        return self._best(situation, loaded=True)


@dataclass(frozen=True, slots=True)
class Greedy(_Base):
    """One of the planner's greedy rules on the session's problem; split 0 where its start breaks a limit."""

    rule: Callable[[Tables], Placement]

    def plan(self, situation: Situation) -> SessionPlan:
        """See Policy."""
        alone = self._best(situation, split=0)
        if not situation.client.ready:
            return alone
        spec, rows = self.server.spec, situation.prompt_tokens
        session = replace(Session.of(spec, _report(situation), self.sla, rows, None), headroom=self.headroom)
        costs = marginal.SessionCosts.of(
            self.server.profile,
            marginal.Load.idle(spec.blocks),
            prompt_tokens=rows,
            answer_tokens=EXPECTED_ANSWER_TOKENS,
            history=situation.history,
        )
        problem = split_problem(
            spec, session, costs, situation.link, rows=rows, tokens=EXPECTED_ANSWER_TOKENS, wire_bytes=VALUE_BYTES
        )
        tables = Tables.of(problem)
        placement = self.rule(tables)
        split = sum(side is Side.CLIENT for side in placement) - EMBED
        return self._best(situation, split=split) if split > 0 and evaluate(tables, placement).feasible else alone


def fixed(splits: Mapping[str, int], server: ServerModel, sla: Sla) -> Policy:
    """A policy that gives each kind of client its split; for tests and for what-if."""

    class Fixed(_Base):
        def plan(self, situation: Situation) -> SessionPlan:
            return self._best(replace(situation), split=splits[situation.client.kind])

    return Fixed(server, sla, 1.0)


POLICIES: Final[Mapping[str, Callable[[ServerModel, Sla, float], Policy]]] = MappingProxyType(
    {
        "all-server": AllServer,
        "greedy-prefix": partial(Greedy, rule=greedy_prefix),
        "greedy-ratio": partial(Greedy, rule=greedy_ratio),
        "dp": Exact,
        "dp-load": ExactUnderLoad,
    }
)


def policy(name: str, server: ServerModel, sla: Sla, headroom: float) -> Policy:
    """The policy of that name.

    Raises:
        UsageError: there is none.
    """
    if name not in POLICIES:
        raise UsageError(f"there is no policy {name[:40]!r}: choose one of {', '.join(POLICIES)}")
    return POLICIES[name](server, sla, headroom)

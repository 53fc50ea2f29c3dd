"""Every split that one session could have, with what it takes and what forbids it; see `session_plan`.

A plan is made at every session and turn, so splits are kept as columns that are made at once; one is looked at as a
`Candidate` only where a sentence needs it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import compress
from typing import Final, overload

from .one_cut import CutTable
from .session_problem import EMBED, Session

_TOLERANCE: Final = 1 + 1e-9
#: What can forbid a split, in the order in which it is named: limits that blocks cannot mend come first.
_LIMITS: Final = ("tpot", "ttft", "memory", "effort", "blocks_ready")


@dataclass(frozen=True, slots=True)
class Candidate:
    """One split with its predictions; `rejected_by` are the names (see `SessionPlan.bound`) of what forbids it.

    `cost_ms` is what the planner minimises: the engine's time, the price of memory and what changing to this split
    costs.
    """

    split: int
    ttft_ms: float
    tpot_ms: float
    weighted_ms: float
    cost_ms: float
    rejected_by: tuple[str, ...]

    @property
    def keeps_promise(self) -> bool:
        """Whether both latencies are predicted to hold."""
        return not {"ttft", "tpot"} & set(self.rejected_by)


@dataclass(frozen=True, slots=True)
class Change:
    """A conversation under way, and what leaving its split costs.

    split, margin: as in `session_plan.Held`. client_ms, server_ms: one block over the history; travel_ms: its rows on
    the way up.
    """

    split: int
    margin: float = 1.0
    client_ms: float = 0.0
    server_ms: float = 0.0
    travel_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class Candidates(Sequence[Candidate]):
    """Splits 0, 1, … in columns. `cuts` knows them exactly; None: not with what changing the split takes."""

    session: Session
    cuts: CutTable | None
    ttft_ms: list[float]
    tpot_ms: list[float]
    weighted_ms: list[float]
    cost_ms: list[float]
    ttft_late: list[bool]
    tpot_late: list[bool]
    too_large: list[bool]

    @classmethod
    def of(cls, cuts: CutTable, session: Session, *, alone: bool) -> Candidates:
        """All splits of a session by the cuts of its problem; `alone`: split 0 only, as the client can run no block.

        Split 0 is the cut before all stages, but for the link that its decode does not pay, as tokens stream, and for
        the headroom, as it waits for nothing but the ticks that the headroom is kept for.
        """
        tables = cuts.tables
        prefill, decode = tables.latency
        ttft, tpot = (_by_split(totals, alone=alone) for totals in cuts.latency)
        tpot[0] -= decode.up[0] + decode.down[-1]
        ttft_ms, tpot_ms = prefill.values(ttft), decode.values(tpot)
        weighted_ms = tables.weighted.values(_by_split(cuts.weighted, alone=alone))
        weighted_ms[0] = sum(
            phase.weight * ms[0] for phase, ms in zip(tables.problem.phases, (ttft_ms, tpot_ms), strict=True)
        )
        return cls(
            session,
            cuts,
            ttft_ms,
            tpot_ms,
            weighted_ms,
            tables.cost.values(_by_split(cuts.cost, alone=alone)),
            [ttft_ms[0] > session.ttft_ms * _TOLERANCE, *prefill.exceeded(ttft[1:])],
            [tpot_ms[0] > session.tpot_ms * _TOLERANCE, *decode.exceeded(tpot[1:])],
            tables.memory.exceeded(_by_split(cuts.memory, alone=alone)),
        )

    def without_headroom(self) -> Candidates:
        """The same where every split may use the whole promise."""
        session = replace(self.session, headroom=1.0)
        return replace(
            self,
            session=session,
            cuts=None,
            ttft_late=[ms > session.ttft_ms * _TOLERANCE for ms in self.ttft_ms],
            tpot_late=[ms > session.tpot_ms * _TOLERANCE for ms in self.tpot_ms],
        )

    def changing(self, change: Change | None) -> Candidates:
        """The same where another split than `change.split` takes and costs something; limits are judged anew."""
        if change is None:
            return self
        session, held = self.session, change.split
        blocks, count = session.blocks, len(self)
        rerun = [(blocks - split) * change.server_ms if split < held else 0.0 for split in range(count)]
        takes = [
            split * change.client_ms + again + (change.travel_ms if 0 < split < held else 0.0)
            for split, again in enumerate(rerun)
        ]
        if held < count:
            takes[held] = 0.0
        ttft_ms = [one + more for one, more in zip(self.ttft_ms, takes, strict=True)]
        limits = [
            _TOLERANCE * (session.headroom if split else 1.0) * (change.margin if split > held else 1.0)
            for split in range(count)
        ]

        def late(times: list[float], promised: float, before: list[bool]) -> list[bool]:
            judged = [was or ms > promised * limit for was, ms, limit in zip(before, times, limits, strict=True)]
            if held < count:
                judged[held] = before[held]
            return judged

        return replace(
            self,
            cuts=None,
            ttft_ms=ttft_ms,
            weighted_ms=[one + more for one, more in zip(self.weighted_ms, takes, strict=True)],
            cost_ms=[one + more for one, more in zip(self.cost_ms, rerun, strict=True)],
            ttft_late=late(ttft_ms, session.ttft_ms, self.ttft_late),
            tpot_late=late(self.tpot_ms, session.tpot_ms, self.tpot_late),
        )

    def __len__(self) -> int:
        return len(self.ttft_ms)

    @overload
    def __getitem__(self, split: int) -> Candidate: ...
    @overload
    def __getitem__(self, split: slice) -> list[Candidate]: ...
    def __getitem__(self, split: int | slice) -> Candidate | list[Candidate]:
        if isinstance(split, slice):
            return [self[one] for one in range(*split.indices(len(self)))]
        return Candidate(
            range(len(self))[split],
            self.ttft_ms[split],
            self.tpot_ms[split],
            self.weighted_ms[split],
            self.cost_ms[split],
            self.rejected_by(split),
        )

    def rejected_by(self, split: int) -> tuple[str, ...]:
        """The names of all that forbids a split."""
        session = self.session
        over = (self.tpot_late[split], self.ttft_late[split], self.too_large[split])
        return tuple(compress(_LIMITS, (*over, split > session.willing, split > session.ready)))

    def first_rejections(self) -> list[str | None]:
        """Of each split the first name of what forbids it."""
        willing, ready = self.session.willing, self.session.ready
        limits = enumerate(zip(self.tpot_late, self.ttft_late, self.too_large, strict=True))
        return [
            "tpot" if tpot else "ttft" if ttft else "memory" if memory
            else "effort" if split > willing else "blocks_ready" if split > ready else None
            for split, (tpot, ttft, memory) in limits
        ]  # fmt: skip

    def best(self) -> Candidate:
        """The cheapest split within every limit; where there is none, the fastest that the client can run."""
        if len(self) == 1:
            return self[0]
        if self.cuts is not None:
            # All at once, in whole numbers; split 0 costs the server most.
            cut = self.cuts.best()
            if cut is not None:
                return self[cut - EMBED]
            cut = self.cuts.fastest()
            alone = self[0]
            if alone.keeps_promise or cut is None or alone.weighted_ms <= self.weighted_ms[cut - EMBED]:
                return alone
            return self[cut - EMBED]
        most = min(len(self) - 1, self.session.ready, self.session.willing)
        possible = [split for split in range(most + 1) if not self.too_large[split]]
        kept = [split for split in possible if not (self.tpot_late[split] or self.ttft_late[split])]
        if kept:
            return self[min(kept, key=lambda split: (self.cost_ms[split], self.weighted_ms[split], split))]
        return self[min(possible, key=lambda split: (self.weighted_ms[split], self.cost_ms[split], split))]


def _by_split(totals: Sequence[int], *, alone: bool) -> list[int]:
    """Totals by cut as totals by split: nobody embeds on the client and runs no block there."""
    return [totals[0]] if alone else [totals[0], *totals[1 + EMBED :]]

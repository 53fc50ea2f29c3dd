"""What one session's problem is made of: reports cleaned, measurements scaled, stages laid out.

Reports come from strangers: times that are missing, negative or not finite count as not measured, and figures that
are absurdly large are cut. The server's own figures are trusted to be numbers and refused otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from ..errors import ProblemError
from ..types import ClientReport, Link, ModelSpec, Sla
from .marginal import SessionCosts
from .problem import Phase, Problem, Side

TOKEN_ID_BYTES: Final = 4
ANSWER_BYTES: Final = 8
#: No block is quicker than a microsecond; with it every block more on the client is a saving.
_LEAST_BLOCK_MS: Final = 1e-3
_MOST_MS: Final = 1e9
_MOST_BYTES: Final = 10**15
#: The client's embed goes with its first block: a split of k blocks is a cut of k + EMBED stages.
EMBED: Final = 1


@dataclass(frozen=True, slots=True)
class Session:
    """The inputs of one plan after cleaning.

    `client_prefill_ms` is one block's time for the whole prompt; it and `client_decode_ms` are None where the client
    has not measured. `ready` counts the blocks that the client holds (`more`: others are on their way), `willing` those
    that the person lets it run, `memory` is in bytes (None: no limit known). `place` is what a person calls the client.
    `ttft_ms` and `tpot_ms` are promised; a split of 1 or more may use the share `headroom` of them.
    """

    blocks: int
    ready: int
    more: bool
    willing: int
    backend: bool
    place: str
    client_decode_ms: float | None
    client_prefill_ms: float | None
    memory: float | None
    block_bytes: int
    ttft_ms: float
    tpot_ms: float
    headroom: float = 1.0

    @property
    def measured(self) -> bool:
        """Whether both of the client's times are known."""
        return self.client_decode_ms is not None and self.client_prefill_ms is not None

    @classmethod
    def of(cls, spec: ModelSpec, report: ClientReport, sla: Sla, rows: int, block_bytes: int | None) -> Session:
        """Clean what a client reported; `rows` is the length of the prompt in tokens.

        Raises:
            ProblemError: the SLA is not a number that is 0 or more.
        """
        decode, prefill = _measured(report.decode_ms), _measured(report.prefill_ms)
        if decode is None or prefill is None or not 1 <= report.prefill_rows <= _MOST_MS:
            decode = prefill = None
        else:
            prefill = min(prefill * rows / report.prefill_rows, _MOST_MS)
        memory = report.memory_bytes
        limit = None if memory is None or not block_bytes else min(max(memory, 0), _MOST_BYTES)
        return cls(
            blocks=spec.blocks,
            ready=min(max(report.blocks_ready, 0), spec.blocks),
            more=report.more_blocks,
            willing=_willing(report.effort, spec.blocks),
            backend=report.backend != "none",
            place="your machine" if report.backend == "cpu" else "your browser",
            client_decode_ms=decode,
            client_prefill_ms=prefill,
            memory=None if limit is None or math.isnan(limit) else float(limit),
            block_bytes=block_bytes or 0,
            ttft_ms=_own_figure(sla.ttft_ms, "sla.ttft_ms", infinite=True),
            tpot_ms=_own_figure(sla.tpot_ms, "sla.tpot_ms", infinite=True),
        )


def split_problem(
    spec: ModelSpec,
    session: Session,
    costs: SessionCosts,
    link: Link,
    *,
    rows: int,
    tokens: int,
    wire_bytes: int,
) -> Problem:
    """The problem of every k >= 1, for a prompt of `rows` and an answer of `tokens` tokens.

    Embed and block.0 are pinned to the client, the head and the blocks that have not arrived to the server. A client
    that has not measured counts with no time at all.

    What the batch of others takes from a session's latency wherever its blocks run stands where no choice moves it:
    their time in a tick on both sides (so that one block more at the client takes away no more than the session's own
    row), and the wait for a tick that is under way in the link. At split 0, the only one that embeds on the server,
    decode does not pay the link, and waits for whole ticks of other models with the embedding.

    Raises:
        ProblemError: a figure of the server's own makes no sense.
    """
    count = spec.blocks
    if wire_bytes not in (2, 4):
        raise ProblemError(f"wire_bytes is {wire_bytes}: write 2 or 4")
    if count < 1 or len(costs.tick_ms) != count:
        raise ProblemError("a plan needs at least one block, and costs for each")
    if not (link.up_bytes_per_ms > 0 and link.down_bytes_per_ms > 0):
        raise ProblemError("link.up_bytes_per_ms and link.down_bytes_per_ms must be above 0")
    link = replace(link, up_ms=_own_figure(link.up_ms, "link.up_ms"), down_ms=_own_figure(link.down_ms, "link.down_ms"))
    row_bytes = spec.hidden_size * wire_bytes
    prompt, client_step = _time(costs.prompt_ms), session.client_decode_ms or 0.0

    prefill = Phase(
        name="prefill",
        weight=1,
        latency_limit_ms=None if math.isinf(session.ttft_ms) else session.ttft_ms * session.headroom,
        client_ms=(0.0, *(session.client_prefill_ms or 0.0,) * count, 0.0),
        server_ms=(costs.embed_ms, *(prompt,) * count, costs.prompt_head_ms),
        server_cost=(costs.embed_ms, *(min(prompt + costs.kv_ms, _MOST_MS),) * count, costs.prompt_head_ms),
        input_bytes=(TOKEN_ID_BYTES * rows, *(row_bytes * rows,) * count, row_bytes),
        output_bytes=ANSWER_BYTES,
        link=replace(link, up_ms=link.up_ms + costs.chunk_wait_ms),
    )
    decode = Phase(
        name="decode",
        weight=tokens,
        latency_limit_ms=None if math.isinf(session.tpot_ms) else session.tpot_ms * session.headroom,
        client_ms=(0.0, *(client_step + others for others in costs.others_ms), 0.0),
        server_ms=(
            costs.embed_ms + costs.turn_wait_ms,
            *_times(costs.tick_ms),
            costs.tick_head_ms + costs.others_prefill_ms,
        ),
        server_cost=(costs.embed_ms, *_times(costs.step_cost_ms), costs.head_cost_ms),
        input_bytes=(TOKEN_ID_BYTES, *(row_bytes,) * count, row_bytes),
        output_bytes=ANSWER_BYTES,
        link=replace(link, up_ms=link.up_ms + costs.step_wait_ms),
    )
    stages = ("embed", *(f"block.{number}" for number in range(count)), "head")
    late = dict.fromkeys(stages[min(session.ready, session.willing) + EMBED :], Side.SERVER)
    return Problem(
        stages=stages,
        phases=(prefill, decode),
        link=link,
        client_memory=(0.0, *(float(session.block_bytes),) * count, 0.0),
        client_memory_limit=session.memory,
        pinned={"embed": Side.CLIENT, "block.0": Side.CLIENT, **late},
        max_crossings=2,
    )


def _time(value: float) -> float:
    return min(max(value, _LEAST_BLOCK_MS), _MOST_MS)


def _times(values: Sequence[float]) -> list[float]:
    """The same of each; blocks that serve the same rows take alike."""
    times = {value: _time(value) for value in set(values)}
    return [times[value] for value in values]


def _willing(effort: float | None, blocks: int) -> int:
    """Blocks that a person's cap allows; a cap that is no number is none."""
    if effort is None or not 0 <= effort < 1:
        return blocks
    return int(effort * blocks + 1e-9)


def _measured(value: float | None) -> float | None:
    """A time that a measurement can give, cut to a sane size, else None."""
    if value is None or not 0 <= value < math.inf:  # NaN is not between either
        return None
    return float(min(value, _MOST_MS))


def _own_figure(value: float, name: str, *, infinite: bool = False) -> float:
    if math.isnan(value) or value < 0 or (math.isinf(value) and not infinite):
        raise ProblemError(f"{name} is {value}: write a number that is 0 or more")
    return value if math.isinf(value) else min(float(value), _MOST_MS)

"""What one session costs a server that is already at work: marginal cost, and latency in the batch it joins.

Two figures must not be mixed up. What a session *costs* is how much longer the engine works because of it: a prompt
nearly all of its own time, a decode step only its row's share, because the batch reads the weights anyway. What it has
to *wait* is the whole tick of that batch. The planner minimises the first and holds the second to the promise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from ..types import PREFILL_CHUNK
from .profile import EngineProfile

#: The largest share of the promise that is kept for others; from 0.1 to 0.4 `splitllm bench capacity` differs little.
_MOST_KEPT: Final = 0.3
_TYPICAL_CONTEXT: Final = 300


@dataclass(frozen=True, slots=True)
class Load:
    """The decode batch that a session joins, without that session.

    `rows[l]` is how many sessions run block l in one tick: those whose split is at most l. `head_rows` counts all of
    them. `context` is their mean length in positions. `prefill_ms` is what prompts of others add to a tick on average,
    `other_models_ms` what ticks of other models add to the time between two of this one's (`thread_share`).
    """

    rows: tuple[float, ...]
    head_rows: float = 0.0
    context: float = 0.0
    prefill_ms: float = 0.0
    other_models_ms: float = 0.0

    @classmethod
    def idle(cls, blocks: int, *, other_models_ms: float = 0.0) -> Load:
        """Nobody else is there, of this model."""
        return cls((0.0,) * blocks, other_models_ms=other_models_ms)

    @classmethod
    def of(
        cls,
        splits: Sequence[int],
        blocks: int,
        *,
        context: float = 0.0,
        prefill_ms: float = 0.0,
        other_models_ms: float = 0.0,
    ) -> Load:
        """A batch in which every session of `splits` takes part in every tick.

        Those with a split of 1 or more miss ticks while their client computes, unless the server is the slower part;
        then they miss none, and then load matters. Until then this counts a tick too long, never too short.
        """
        rows = tuple(float(sum(split <= block for split in splits)) for block in range(blocks))
        return cls(rows, float(len(splits)), context, prefill_ms, other_models_ms)


@dataclass(frozen=True, slots=True)
class SessionCosts:
    """Milliseconds of one session on one engine, block by block.

    prompt_ms: one block on the session's prompt, alone: its cost and its latency both.
    prompt_head_ms: the head on the prompt's last row.
    step_cost_ms, head_cost_ms: how much longer a tick takes because of the session's row, in each block and in the
    head. tick_ms, tick_head_ms: what each block and the head take in a tick with the session.
    others_ms, others_head_ms: the same without it.
    chunk_wait_ms: what ticks of others take while the prompt's chunks run, one tick a chunk.
    step_wait_ms: mean wait of a row that arrives while a tick of others is under way (half of it).
    turn_wait_ms: the wait of a row that is there when its tick ends, as at split 0: ticks of all other models.
    kv_ms: what holding keys and values in one block costs (see `kv_price`).
    """

    prompt_ms: float
    prompt_head_ms: float
    step_cost_ms: tuple[float, ...]
    head_cost_ms: float
    tick_ms: tuple[float, ...]
    tick_head_ms: float
    others_ms: tuple[float, ...]
    others_head_ms: float
    others_prefill_ms: float
    chunk_wait_ms: float
    step_wait_ms: float
    turn_wait_ms: float
    embed_ms: float
    kv_ms: float = 0.0

    @classmethod
    def of(
        cls, profile: EngineProfile, load: Load, *, prompt_tokens: int, answer_tokens: int, history: int = 0
    ) -> SessionCosts:
        """The costs of a prompt of `prompt_tokens` behind `history` positions, and of an answer to it."""
        context = history + prompt_tokens + answer_tokens / 2
        distinct = sorted(set(load.rows))
        others = {rows: profile.decode_ms(rows, load.context) for rows in distinct}
        joined = {rows: profile.joined_decode_ms(rows, context, load.context) for rows in distinct}
        cost = {rows: max(0.0, joined[rows] - others[rows]) for rows in distinct}
        others_ms = tuple(others[rows] for rows in load.rows)
        tick = sum(others_ms) + profile.head_ms(load.head_rows) + load.prefill_ms
        chunks = -(-prompt_tokens // PREFILL_CHUNK)
        return cls(
            prompt_ms=profile.prompt_ms(prompt_tokens, history),
            prompt_head_ms=profile.head_ms(1),
            step_cost_ms=tuple(cost[rows] for rows in load.rows),
            head_cost_ms=profile.marginal_head_ms(load.head_rows),
            tick_ms=tuple(others[rows] + cost[rows] for rows in load.rows),
            tick_head_ms=profile.head_ms(load.head_rows + 1),
            others_ms=others_ms,
            others_head_ms=profile.head_ms(load.head_rows),
            others_prefill_ms=load.prefill_ms,
            chunk_wait_ms=chunks * (sum(others_ms) + profile.head_ms(load.head_rows) + load.other_models_ms),
            step_wait_ms=(tick + load.other_models_ms) / 2,
            turn_wait_ms=load.other_models_ms,
            embed_ms=profile.embed_row_ms,
        )

    def server_ms(self, answer_tokens: int) -> list[float]:
        """By split: marginal milliseconds of the engine for the prompt and an answer; memory's price aside."""
        blocks = len(self.step_cost_ms)
        steps = list(accumulate(reversed(self.step_cost_ms), initial=0.0))
        steps.reverse()
        total = [
            (blocks - split) * self.prompt_ms + self.prompt_head_ms + answer_tokens * (step + self.head_cost_ms)
            for split, step in enumerate(steps)
        ]
        total[0] += self.embed_ms * (1 + answer_tokens)
        return total


def headroom(profile: EngineProfile, blocks: int, sessions: int, tpot_ms: float) -> float:
    """The share of the promise that a split of 1 or more may use, on a server that takes so many `sessions`.

    Its row waits for half a tick of others and then runs with them, so a tick and a half of a full server is kept for
    them; but at most `_MOST_KEPT`, as a server that is late for more has more sessions than it can serve. The present
    load is no better guide: planned by it, clients are given fewer blocks when ticks grow, and ticks grow by that
    (docs/decisions/planner-headroom.md).
    """
    full = blocks * profile.decode_ms(sessions, _TYPICAL_CONTEXT) + profile.head_ms(sessions)
    return 1 - min(_MOST_KEPT, 1.5 * full / tpot_ms) if tpot_ms > 0 else 1.0


def kv_price(kv_bytes: float, held_ms: float, *, limit_bytes: float, others_bytes: float) -> float:
    """What holding `kv_bytes` of keys and values for `held_ms` is worth, in milliseconds of the engine.

    A server is full when either its time or its memory is used up. With memory full, holding a share of it keeps out
    others who would have used the same share of the engine's time: share x time. With memory empty, it keeps out
    nobody. Between the two the price rises with how full memory is: price = kv_bytes / limit x held_ms x others_bytes /
    limit.
    """
    if limit_bytes <= 0:
        return 0.0
    scarcity = min(1.0, max(0.0, others_bytes / limit_bytes))
    return held_ms * min(1.0, kv_bytes / limit_bytes) * scarcity

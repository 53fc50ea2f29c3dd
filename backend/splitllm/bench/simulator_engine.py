"""An engine that only takes time: what `OnnxEngine` would need for a batch, by a measured profile. Pure.

The rules by which a batch becomes runs are those of `engines/onnx.py`: prefill pieces run alone; block l runs on the
decode rows whose split is at most l; short gaps of idle rows are run along; the head runs once on all rows that want
logits. A test holds the two side by side.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from ..engines.decode_rows import BRIDGED_ROWS, joint_runs
from ..errors import ProblemError
from ..planner.profile import EngineProfile
from ..slots import Move
from ..types import Float32Array, ModelSpec
from ..work import Batch, Work

VERSION: Final = 1
_MOST_BLOCKS: Final = 1000


@dataclass(frozen=True, slots=True)
class ServerModel:
    """One server in figures.

    profile: measured times of blocks and head. copy_bytes_per_ms: memory copied when rows change places.
    tick_ms: scheduling, per tick. step_ms: sampling, event, frames and socket, per row that gets a token; with a split
    of 1 or more a frame comes in besides. made_by tells where the figures come from.
    """

    profile: EngineProfile
    blocks: int
    hidden_size: int
    copy_bytes_per_ms: float
    tick_ms: float = 0.0
    step_ms: float = 0.0
    frame_ms: float = 0.0
    made_by: str = ""

    @property
    def spec(self) -> ModelSpec:
        """As much of the model as planners ask for."""
        return ModelSpec("profile", self.blocks, self.hidden_size, 1, 1, 1, 1, 1 << 30, ())

    def scaled(self, factor: float) -> ServerModel:
        """The same server on a machine that is `factor` times slower."""
        return replace(
            self,
            profile=self.profile.scaled(factor),
            copy_bytes_per_ms=self.copy_bytes_per_ms / factor,
            tick_ms=self.tick_ms * factor,
            step_ms=self.step_ms * factor,
            frame_ms=self.frame_ms * factor,
        )

    def as_json(self) -> dict[str, Any]:
        """Plain values; `from_json` reads them."""
        return {
            "version": VERSION,
            "made_by": self.made_by,
            "blocks": self.blocks,
            "hidden_size": self.hidden_size,
            "copy_bytes_per_ms": round(self.copy_bytes_per_ms),
            "tick_ms": round(self.tick_ms, 4),
            "step_ms": round(self.step_ms, 4),
            "frame_ms": round(self.frame_ms, 4),
            "profile": self.profile.as_json(),
        }

    @classmethod
    def from_json(cls, obj: object) -> ServerModel:
        """Read what `as_json` wrote, already parsed.

        Raises:
            ProblemError: it is no such file, or a figure makes no sense.
        """
        again = "measure it again with `splitllm bench capacity --bundle DIR --save-profile FILE`"
        if not isinstance(obj, Mapping) or obj.get("version") != VERSION:
            raise ProblemError(f"this is no profile of a server, version {VERSION}: {again}")
        found: dict[str, float] = {}
        for name in ("blocks", "hidden_size", "copy_bytes_per_ms", "tick_ms", "step_ms", "frame_ms"):
            value = obj.get(name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1e12:
                raise ProblemError(f"a server's {name} is a number of 0 or more: {again}")
            found[name] = value
        blocks, hidden_size = int(found["blocks"]), int(found["hidden_size"])
        if not 1 <= blocks <= _MOST_BLOCKS or hidden_size < 1 or found["copy_bytes_per_ms"] == 0:
            raise ProblemError(f"a server's blocks, hidden_size and copy_bytes_per_ms are above 0: {again}")
        return cls(
            EngineProfile.from_json(obj.get("profile")),
            blocks,
            hidden_size,
            found["copy_bytes_per_ms"],
            found["tick_ms"],
            found["step_ms"],
            found["frame_ms"],
            str(obj.get("made_by", ""))[:500],
        )


@dataclass(slots=True)
class Spent:
    """Milliseconds of one server so far, by what they went to, and counts.

    rows: of decode, one per session and tick. block_rows: block-steps, prefill and decode; decode_block_rows: of decode
    alone; idle_rows: block-steps of rows that were only run along.
    """

    prefill_ms: float = 0.0
    decode_ms: float = 0.0
    head_ms: float = 0.0
    copy_ms: float = 0.0
    overhead_ms: float = 0.0
    ticks: int = 0
    rows: int = 0
    idle_rows: int = 0
    block_rows: int = 0
    decode_block_rows: int = 0

    @property
    def total_ms(self) -> float:
        """All of them."""
        return self.prefill_ms + self.decode_ms + self.head_ms + self.copy_ms + self.overhead_ms


class TimedEngine:
    """Stands where an engine stands beside the scheduler, and answers every batch with the time it takes."""

    def __init__(self, server: ServerModel, rows: int) -> None:
        self.server, self.rows = server, rows
        self.spent = Spent()
        self._lengths = np.zeros(rows, np.int64)
        self._full = np.zeros(rows, np.bool_)  # capacity is no limit here

    def run(self, batch: Batch) -> tuple[float, Float32Array]:
        """Milliseconds that the batch takes, and a row of zeros for each work that wants logits."""
        server, spent = self.server, self.spent
        before = spent.total_ms
        for work in batch.prefill:
            spent.prefill_ms += (server.blocks - work.split) * server.profile.prefill_ms(work.tokens, work.position)
            spent.block_rows += (server.blocks - work.split) * work.tokens
            self._lengths[work.row] = work.position + work.tokens
        self._decode(batch.decode)
        wanted = sum(work.wants_logits for work in batch.works)
        spent.head_ms += server.profile.head_ms(wanted)
        from_clients = sum(work.split > 0 for work in batch.works)
        embedded = sum(work.tokens for work in batch.works if work.split == 0)
        spent.overhead_ms += server.tick_ms + server.step_ms * wanted + server.frame_ms * from_clients
        spent.overhead_ms += server.profile.embed_row_ms * embedded
        spent.ticks += 1
        return spent.total_ms - before, np.zeros((wanted, 1), np.float32)

    def move(self, moves: Sequence[Move]) -> float:
        """Milliseconds for copying rows."""
        held = [int(self._lengths[move.source]) for move in moves]
        for move, length in zip(moves, held, strict=True):
            self._lengths[move.target] = length
        return self._copied(
            (self.server.blocks - move.split) * length
            for move, length in zip(moves, held, strict=True)
            if move.source != move.target
        )

    def clear(self, row: int) -> float:
        """Milliseconds for overwriting a row."""
        length, self._lengths[row] = int(self._lengths[row]), 0
        return self._copied([self.server.blocks * length])

    def _copied(self, block_positions: Iterable[int]) -> float:
        held = self.server.profile.kv_block_bytes * sum(block_positions)
        self.spent.copy_ms += (milliseconds := held / self.server.copy_bytes_per_ms)
        return milliseconds

    def _decode(self, works: Sequence[Work]) -> None:
        if not works:
            return
        by_row = sorted(works, key=lambda work: work.row)
        for work in by_row:
            self._lengths[work.row] = work.position
        spent, blocks = self.spent, self.server.blocks
        spent.rows += len(by_row)
        joined = 0
        while joined < len(by_row):
            split = by_row[joined].split
            while joined < len(by_row) and by_row[joined].split == split:
                joined += 1
            until = by_row[joined].split if joined < len(by_row) else blocks
            if until == split:
                continue
            for first, end in joint_runs([work.row for work in by_row[:joined]], self._full, BRIDGED_ROWS):
                context = float(self._lengths[first:end].mean())
                spent.decode_ms += (until - split) * self.server.profile.decode_ms(end - first, context)
                spent.idle_rows += (until - split) * (end - first)
            spent.idle_rows -= (until - split) * joined
            spent.block_rows += (until - split) * joined
            spent.decode_block_rows += (until - split) * joined
        for work in by_row:
            self._lengths[work.row] = work.position + 1

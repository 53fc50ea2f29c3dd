"""What an engine costs: measured times of one block and of the head, by rows of the batch and length of the context.

A run of a block costs a fixed part (its weights are read once for the whole batch) and a part per row that grows with
the row's context. So one number per block is wrong twice: too high for a session that joins others, too low for a long
conversation. The profile keeps a small measured grid; between its points it interpolates bilinearly (which keeps a
monotone grid monotone), beyond them it goes on along the last segment.
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypeGuard

from ..errors import ProblemError
from ..types import PREFILL_CHUNK, BlockTimes

VERSION: Final = 1
_MOST_POINTS: Final = 64
#: Larger figures (rows, positions, milliseconds, bytes) are mistakes of a unit.
_MOST: Final = 1e12


@dataclass(frozen=True, slots=True)
class Grid:
    """Milliseconds `ms[i][j]` of one run with `rows[i]` rows of `contexts[j]` earlier positions each.

    Both axes ascend strictly; times fall along neither axis.

    Raises:
        ProblemError: the figures are not such a grid.
    """

    rows: tuple[int, ...]
    contexts: tuple[int, ...]
    ms: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        _check_axis(self.rows, "rows", least=1)
        _check_axis(self.contexts, "contexts", least=0)
        if len(self.ms) != len(self.rows) or any(len(line) != len(self.contexts) for line in self.ms):
            raise ProblemError("a profile's block_ms needs one line per entry of rows and one figure per context")
        if any(not 0 <= value <= _MOST for line in self.ms for value in line):
            raise ProblemError("a profile's times are milliseconds of 0 or more: measure the engine again")
        columns = tuple(zip(*self.ms, strict=True))
        if any(list(line) != sorted(line) for line in (*self.ms, *columns)):
            raise ProblemError("a profile's times fall where rows or contexts grow: measure the engine again")

    @classmethod
    def smoothed(cls, rows: Sequence[int], contexts: Sequence[int], ms: Sequence[Sequence[float]]) -> Grid:
        """The monotone grid that is nearest to noisy measurements (least largest deviation).

        That is the mean of the largest value before and the smallest value behind each point (isotonic regression in
        the maximum norm).
        """
        lines, columns = range(len(rows)), range(len(contexts))

        def nearest(i: int, j: int) -> float:
            before = max(ms[a][b] for a in lines[: i + 1] for b in columns[: j + 1])
            behind = min(ms[a][b] for a in lines[i:] for b in columns[j:])
            return (before + behind) / 2

        smooth = tuple(tuple(nearest(i, j) for j in columns) for i in lines)
        return cls(tuple(rows), tuple(contexts), smooth)

    def at(self, rows: float, context: float) -> float:
        """Milliseconds of a run; 0 without rows."""
        if rows <= 0:
            return 0.0
        before = _segment(self.contexts, context)
        if len(self.rows) == 1:
            # One point says nothing of a fixed part: every row then costs alike.
            return self._on_line(self.ms[0], before) * rows / self.rows[0]
        i, along = _segment(self.rows, rows)
        low, high = self._on_line(self.ms[i], before), self._on_line(self.ms[i + 1], before)
        if along <= 1:
            return low + along * (high - low)
        return high + (rows - self.rows[-1]) * self._row_slope(before)

    def _on_line(self, line: Sequence[float], before: tuple[int, float]) -> float:
        if len(line) == 1:
            return line[0]
        j, along = before
        if along <= 1:
            return line[j] + along * (line[j + 1] - line[j])
        # Steeper than every line of fewer rows: otherwise two lines would cross far out, and more rows would cost less.
        slopes = [other[-1] - other[-2] for other in self.ms if other[-1] <= line[-1]]
        return line[-1] + (along - 1) * max(slopes)

    def _row_slope(self, before: tuple[int, float]) -> float:
        """Milliseconds per row beyond the last measured number of rows; never less for a longer context."""
        slopes, steepest = [], 0.0
        for last_but_one, last in zip(self.ms[-2], self.ms[-1], strict=True):
            steepest = max(steepest, (last - last_but_one) / (self.rows[-1] - self.rows[-2]))
            slopes.append(steepest)
        if len(slopes) == 1:
            return slopes[0]
        j, along = before
        return slopes[j] + along * (slopes[j + 1] - slopes[j])

    def scaled(self, factor: float) -> Grid:
        """The same grid on a machine that is `factor` times slower."""
        return replace(self, ms=tuple(tuple(value * factor for value in line) for line in self.ms))


@dataclass(frozen=True, slots=True)
class EngineProfile:
    """Measured milliseconds of one engine (see the module's docstring).

    `decode`: one block, one position for each of `rows` sessions. `prefill`: one block, `rows` positions of one
    session. `head`: by rows (its contexts have one entry). `embed_row_ms`: looking up one token's embedding.
    `kv_block_bytes`: keys and values of one token in one block.
    """

    decode: Grid
    prefill: Grid
    head: Grid
    kv_block_bytes: int
    embed_row_ms: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.kv_block_bytes <= _MOST or not 0 <= self.embed_row_ms <= _MOST:
            raise ProblemError("a profile's kv_block_bytes and embed_row_ms are numbers of 0 or more")

    @classmethod
    def of_times(cls, times: BlockTimes, *, kv_block_bytes: int = 0) -> EngineProfile:
        """A profile without a fixed part and without growth: every row costs what it costs alone.

        Raises:
            ProblemError: a time is negative or no number.
        """
        return cls(
            decode=Grid((1,), (0,), ((times.block_decode_ms,),)),
            prefill=Grid((times.prefill_rows,), (0,), ((times.block_prefill_ms,),)),
            head=Grid((1,), (0,), ((times.head_ms,),)),
            kv_block_bytes=kv_block_bytes,
            embed_row_ms=times.embed_ms,
        )

    # -- one run ------------------------------------------------------------------------------------------------------

    def decode_ms(self, rows: float, context: float) -> float:
        """One block on one position for each of `rows` sessions, `context` earlier positions each."""
        return self.decode.at(rows, context)

    def prefill_ms(self, rows: float, context: float) -> float:
        """One block on a chunk of `rows` positions behind `context` others."""
        return self.prefill.at(rows, context)

    def head_ms(self, rows: float) -> float:
        """The head on `rows` positions."""
        return self.head.at(rows, 0)

    # -- joining others -----------------------------------------------------------------------------------------------

    def marginal_decode_ms(self, rows: float, context: float, others_context: float | None = None) -> float:
        """What one block takes longer because a session joins a batch of `rows` others: its own cost to the server.

        `context` is the joining session's, `others_context` the others' mean (None: the same).
        """
        others = context if others_context is None else others_context
        return max(0.0, self.joined_decode_ms(rows, context, others) - self.decode_ms(rows, others))

    def joined_decode_ms(self, rows: float, context: float, others_context: float) -> float:
        """What one block takes when a session has joined a batch of `rows` others."""
        mean = (rows * others_context + context) / (rows + 1) if rows > 0 else context
        return self.decode_ms(rows + 1, mean)

    def marginal_head_ms(self, rows: float) -> float:
        """The same for the head."""
        return max(0.0, self.head_ms(rows + 1) - self.head_ms(rows))

    def prompt_ms(self, tokens: int, context: int = 0, *, chunk: int = PREFILL_CHUNK) -> float:
        """One block on a whole prompt of `tokens` positions behind `context` others, chunk by chunk."""
        total = 0.0
        whole, rest = divmod(max(tokens, 0), chunk)
        if whole:
            # Time is linear beyond the grid and nearly so between two points: no more than 64 chunks are looked up.
            step = max(1, math.ceil(whole / 64))
            for first in range(0, whole, step):
                count = min(step, whole - first)
                total += count * self.prefill_ms(chunk, context + chunk * (first + (count - 1) / 2))
        if rest:
            total += self.prefill_ms(rest, context + whole * chunk)
        return total

    # -- as values ----------------------------------------------------------------------------------------------------

    def scaled(self, factor: float) -> EngineProfile:
        """The profile of the same engine while its machine is `factor` times slower (other load, less clock)."""
        if not 0 < factor <= _MOST:
            raise ProblemError("a profile is scaled by a number above 0")
        return replace(
            self,
            decode=self.decode.scaled(factor),
            prefill=self.prefill.scaled(factor),
            head=self.head.scaled(factor),
            embed_row_ms=self.embed_row_ms * factor,
        )

    def times(self, *, rows: float = 1, context: float = 0) -> BlockTimes:
        """The profile at one point: milliseconds per block in a batch of `rows`, and for one whole chunk of prefill."""
        return BlockTimes(
            block_decode_ms=self.decode_ms(rows, context),
            block_prefill_ms=self.prefill_ms(PREFILL_CHUNK, context),
            prefill_rows=PREFILL_CHUNK,
            head_ms=self.head_ms(rows),
            embed_ms=self.embed_row_ms,
        )

    def as_json(self) -> dict[str, Any]:
        """Plain values; `from_json` reads them."""
        return {
            "version": VERSION,
            "decode": _grid_json(self.decode),
            "prefill": _grid_json(self.prefill),
            "head": _grid_json(self.head),
            "kv_block_bytes": self.kv_block_bytes,
            "embed_row_ms": self.embed_row_ms,
        }

    @classmethod
    def from_json(cls, obj: object) -> EngineProfile:
        """Read what `as_json` wrote, already parsed.

        Raises:
            ProblemError: it is no profile of this version.
        """
        if not isinstance(obj, Mapping) or obj.get("version") != VERSION:
            raise ProblemError(f"this is not an engine's profile of version {VERSION}: measure the engine again")
        kv_bytes, embed = obj.get("kv_block_bytes"), obj.get("embed_row_ms")
        if not isinstance(kv_bytes, int) or not _is_number(embed):
            raise ProblemError("a profile's kv_block_bytes and embed_row_ms are numbers: measure the engine again")
        return cls(
            decode=_read_grid(obj.get("decode"), "decode"),
            prefill=_read_grid(obj.get("prefill"), "prefill"),
            head=_read_grid(obj.get("head"), "head"),
            kv_block_bytes=kv_bytes,
            embed_row_ms=float(embed),
        )


def _segment(axis: Sequence[int], value: float) -> tuple[int, float]:
    """Segment of `axis` that holds `value`, and how far along: above 1 beyond the end, 0 before the beginning."""
    if len(axis) == 1:
        return 0, 0.0
    index = bisect_right(axis, value, 1, len(axis) - 1) - 1
    low = axis[index]
    return index, (value - low) / (axis[index + 1] - low) if value > low else 0.0


def _check_axis(axis: Sequence[int], name: str, *, least: int) -> None:
    if not 1 <= len(axis) <= _MOST_POINTS:
        raise ProblemError(f"a profile's {name} has 1 to {_MOST_POINTS} entries")
    if any(not _is_whole(value) or not least <= value <= _MOST for value in axis):
        raise ProblemError(f"a profile's {name} are whole numbers of {least} or more")
    if any(low >= high for low, high in itertools.pairwise(axis)):
        raise ProblemError(f"a profile's {name} must ascend")


def _grid_json(grid: Grid) -> dict[str, Any]:
    return {
        "rows": list(grid.rows),
        "contexts": list(grid.contexts),
        "block_ms": [list(line) for line in grid.ms],
    }


def _read_grid(obj: object, name: str) -> Grid:
    if not isinstance(obj, Mapping):
        raise ProblemError(f"a profile's {name} is an object of rows, contexts and block_ms")
    rows, contexts, ms = obj.get("rows"), obj.get("contexts"), obj.get("block_ms")
    if not isinstance(rows, list) or not isinstance(contexts, list) or not isinstance(ms, list):
        raise ProblemError(f"a profile's {name} has the lists rows, contexts and block_ms")
    if any(not isinstance(line, list) or not all(map(_is_number, line)) for line in ms):
        raise ProblemError(f"a profile's {name}.block_ms is a list of lists of numbers")
    return Grid(tuple(rows), tuple(contexts), tuple(tuple(float(value) for value in line) for line in ms))


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _MOST

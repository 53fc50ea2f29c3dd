"""What the engine costs: by batch, by context, by mix of splits, and around it. All through the product's own classes.

Cases are interleaved: every round runs each once, and a figure is the median over rounds, so that a machine's other
work falls on all alike. Ratios are the result; absolute times are only of the machine and its load.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from ..bundle import Bundle
from ..engines.onnx import OnnxEngine
from ..sampler import Draw, Sampler
from ..slots import Move
from ..types import PREFILL_CHUNK, SamplingParams
from ..work import Batch, Work
from .event_loop import measure_gaps
from .machine import describe

BATCHES: Final = (1, 2, 4, 8, 16, 32, 64)
CONTEXTS: Final = (128, 256, 512, 1024, 2048)
#: Positions of KV memory that the grid of batches and contexts may fill: 64 rows of 512, 16 of 2048.
_POSITIONS: Final = 64 * 512
SPREAD_SESSIONS: Final = 32
SPREAD_CONTEXT: Final = 128
PROMPT: Final = 512
_GAPS_S: Final = 5.0

Progress = Callable[[str], None]


def measure(
    bundle: Bundle, *, device: str, variant: str | None, threads: int | None, rounds: int, tell: Progress
) -> dict[str, Any]:
    """All sections; `tell` hears which one runs. `variant` None: what a server of the bundle runs."""
    capacity = min(bundle.spec.max_context, max(CONTEXTS) + 16)
    engine = OnnxEngine(
        bundle, rows=max(BATCHES) + 1, capacity=capacity, threads=threads, device=device, variant=variant
    )
    try:
        bench = EngineBench(engine, rounds)
        sections: dict[str, Callable[[], Any]] = {
            "prefill": bench.prefill,
            "decode": bench.decode,
            "spread": bench.spread,
            "idle_rows": bench.idle_rows,
            "seats": bench.seats,
            "loop": bench.loop,
            "event_loop": bench.event_loop,
        }
        result: dict[str, Any] = {
            "model": _model(bundle),
            "device": device,
            "variant": engine.choice.blocks,
            "rounds": rounds,
            "machine": describe(),
        }
        for name, section in sections.items():
            tell(name)
            result[name] = section()
        return result
    finally:
        engine.close()


class EngineBench:
    """Sections over one engine; each leaves rows as it likes."""

    def __init__(self, engine: OnnxEngine, rounds: int) -> None:
        self.engine, self.rounds = engine, rounds
        self._hidden = np.random.default_rng(0).standard_normal((1, engine.spec.hidden_size)).astype(np.float32)
        self._filled = [0] * engine.rows

    # -- sections -----------------------------------------------------------------------------------------------------

    def prefill(self) -> dict[str, Any]:
        """Seconds for a prompt, in the scheduler's chunks and in one piece."""
        tokens = min(PROMPT, self.engine.capacity - 1)
        cases = {
            f"chunks of {PREFILL_CHUNK}": lambda: self._prompt(0, tokens, PREFILL_CHUNK),
            "one piece": lambda: self._prompt(0, tokens, tokens),
        }
        timed = self._interleave(cases)
        return {
            "tokens": tokens,
            "cases": [{"case": name, **t, "tokens_per_s": tokens / t["wall_s"]} for name, t in timed.items()],
        }

    def decode(self) -> dict[str, Any]:
        """Seconds per step of a batch, all at split 0, and whether any step is worse than the work explains.

        `vs_arithmetic` compares a step with (fixed + per row x rows + per position x rows x context), fitted to all.
        """
        grid = [
            (rows, context)
            for context in CONTEXTS
            for rows in BATCHES
            if rows * context <= _POSITIONS and context < self.engine.capacity
        ]
        for context in CONTEXTS:
            self._fill(max((rows for rows, c in grid if c == context), default=0), context)
        timed = self._interleave({case: self._step([0] * case[0], case[1]) for case in grid})
        design = np.array([[1.0, rows, rows * context] for rows, context in grid])
        seconds = np.array([timed[case]["wall_s"] for case in grid])
        fit = _least_relative(design, seconds)
        return {
            "cases": [
                {
                    "rows": rows,
                    "context": context,
                    **timed[rows, context],
                    "tokens_per_s": rows / timed[rows, context]["wall_s"],
                    "vs_arithmetic": timed[rows, context]["wall_s"] / float(row @ fit),
                }
                for (rows, context), row in zip(grid, design, strict=True)
            ],
            "arithmetic_s": dict(zip(("fixed", "per_row", "per_row_and_position"), fit.tolist(), strict=True)),
        }

    def spread(self) -> dict[str, Any]:
        """32 sessions with splits evenly from 0 to all blocks, against all at 0; and the arithmetic of the layers.

        The arithmetic is that of the same run: seconds of one block at several numbers of rows give its fixed part and
        its part per row, and the sum over the blocks of (fixed + per row x rows there) is what the spread should cost.
        """
        blocks, sessions = self.engine.spec.blocks, SPREAD_SESSIONS
        splits = [round(i * blocks / (sessions - 1)) for i in range(sessions)]
        self._fill(sessions, SPREAD_CONTEXT)
        counts = (1, 2, 4, 8, 16, 24, 32)
        cases: dict[Any, Callable[[], None]] = {n: self._step([0] * n, SPREAD_CONTEXT) for n in counts}
        cases["spread"] = self._step(splits, SPREAD_CONTEXT)
        timed = self._interleave(cases)
        per_block = np.array([timed[n]["blocks_s"] / blocks for n in counts])
        fit = _least_relative(np.array([[1.0, n] for n in counts]), per_block)
        joined = np.array([sum(split <= block for split in splits) for block in range(blocks)])
        straight = float((fit[0] + fit[1] * joined)[joined > 0].sum())
        table = float(np.interp(joined, counts, per_block)[joined > 0].sum())
        spread, whole = timed["spread"], timed[sessions]
        return {
            "sessions": sessions,
            "context": SPREAD_CONTEXT,
            "splits": splits,
            "all_at_0": whole,
            "spread": spread,
            "wall_ratio": spread["wall_s"] / whole["wall_s"],
            "cpu_ratio": spread["cpu_s"] / whole["cpu_s"],
            "block_s": {"rows": list(counts), "seconds": per_block.tolist(), "fixed": fit[0], "per_row": fit[1]},
            "blocks_s_vs_straight_line": spread["blocks_s"] / straight,
            "blocks_s_vs_table": spread["blocks_s"] / table,
        }

    def idle_rows(self) -> dict[str, Any]:
        """Running idle rows between two groups of busy ones along, against running the groups apart."""
        busy, gaps, rows = 4, (1, 2, 4, 8, 12, 16, 24), []
        bridged = self.engine.bridged_rows
        for context in (SPREAD_CONTEXT, min(1024, self.engine.capacity - 1)):
            self._fill(2 * busy + max(gaps), context)
            cases: dict[Any, Callable[[], None]] = {}
            for gap in gaps:
                step = self._step([0] * (2 * busy), context, rows=[*range(busy), *range(busy + gap, 2 * busy + gap)])
                for limit in (0, max(gaps)):
                    cases[gap, limit] = _with_bridge(self.engine, limit, step)
            timed = self._interleave(cases)
            rows += [
                {
                    "context": context,
                    "gap": gap,
                    "together_s": timed[gap, max(gaps)]["blocks_s"],
                    "apart_s": timed[gap, 0]["blocks_s"],
                    "together_vs_apart": timed[gap, max(gaps)]["blocks_s"] / timed[gap, 0]["blocks_s"],
                    "together_vs_apart_cpu": timed[gap, max(gaps)]["cpu_s"] / timed[gap, 0]["cpu_s"],
                }
                for gap in gaps
            ]
        self.engine.bridged_rows = bridged
        return {"busy_rows": 2 * busy, "limit": bridged, "cases": rows}

    def seats(self) -> dict[str, Any]:
        """Half of 32 sessions decode, at random: where they sit among the idle ones, against in the first rows.

        `moves_s` is what it takes to move two sessions of that context into each other's rows, as when one is parked;
        `ticks_to_pay` of idle rows pay for parking one session and seating it again.
        """
        busy, rows = SPREAD_SESSIONS // 2, []
        scattered = sorted(np.random.default_rng(0).choice(SPREAD_SESSIONS, busy, replace=False).tolist())
        for context in (SPREAD_CONTEXT, min(512, self.engine.capacity - 1), min(1024, self.engine.capacity - 1)):
            self._fill(SPREAD_SESSIONS, context)
            timed = self._interleave(
                {
                    "scattered": self._step([0] * busy, context, rows=scattered),
                    "in front": self._step([0] * busy, context),
                    "moves": lambda: self.engine.move([Move(0, 1, 0), Move(1, 0, 0)]),
                }
            )
            saved = (timed["scattered"]["cpu_s"] - timed["in front"]["cpu_s"]) / busy
            rows.append(
                {
                    "context": context,
                    "scattered_s": timed["scattered"]["wall_s"],
                    "in_front_s": timed["in front"]["wall_s"],
                    "scattered_vs_in_front": timed["scattered"]["wall_s"] / timed["in front"]["wall_s"],
                    "scattered_vs_in_front_cpu": timed["scattered"]["cpu_s"] / timed["in front"]["cpu_s"],
                    "moves_s": timed["moves"]["wall_s"],
                    "ticks_to_pay": 2 * timed["moves"]["cpu_s"] / saved if saved > 0 else None,
                }
            )
        return {"sessions": SPREAD_SESSIONS, "busy": busy, "cases": rows}

    def loop(self) -> dict[str, Any]:
        """The bare loop: batches of k = 0 decode and sampling, nothing around them; and what drawing costs."""
        sampler, cases, drawing = Sampler(), {}, {}
        ways = {
            "greedy": SamplingParams(),
            "temperature 0.8, top_p 0.95": SamplingParams(temperature=0.8, top_p=0.95),
            "temperature 0.8, top_k 40": SamplingParams(temperature=0.8, top_k=40),
        }
        for count in (1, SPREAD_SESSIONS):
            batch = self._batch([0] * count, SPREAD_CONTEXT)
            cases[count] = lambda batch=batch, count=count: sampler.draw(
                self.engine.run(batch), [Draw(SamplingParams())] * count
            )
        logits = np.array(self.engine.run(self._batch([0] * SPREAD_SESSIONS, SPREAD_CONTEXT)))
        for name, params in ways.items():
            draws = [Draw(params, (), np.random.default_rng(row)) for row in range(SPREAD_SESSIONS)]
            drawing[name] = lambda draws=draws: sampler.draw(logits, draws)
        timed, drawn = self._interleave(cases), self._interleave(drawing)
        return {
            "cases": [{"sessions": n, **t, "tokens_per_s": n / t["wall_s"]} for n, t in timed.items()],
            "drawing_32_rows": [{"way": way, "wall_s": t["wall_s"], "cpu_s": t["cpu_s"]} for way, t in drawn.items()],
        }

    def event_loop(self) -> dict[str, Any]:
        """What the loop feels of 32 sessions that decode, and what is left of the bare loop's speed."""
        for row in range(self.engine.rows):
            self.engine.clear(row)
            self._filled[row] = 0
        return asyncio.run(measure_gaps(self.engine, sessions=SPREAD_SESSIONS, seconds=_GAPS_S))

    # -- pieces -------------------------------------------------------------------------------------------------------

    def _prompt(self, row: int, tokens: int, piece: int, start: int = 0) -> None:
        ids = np.random.default_rng(row).integers(3, self.engine.spec.vocab_size, tokens).astype(np.int32)
        for first in range(start, tokens, piece):
            part = ids[first : min(tokens, first + piece)]
            last = first + len(part) == tokens
            self.engine.run(Batch(prefill=(Work(row, 0, first, part, wants_logits=last),)))

    def _fill(self, rows: int, context: int) -> None:
        """Give the first rows real keys and values: memory never written costs nothing to read, and flatters."""
        if rows == 0:
            return
        if self._filled[0] < context:
            self._prompt(0, context, PREFILL_CHUNK, self._filled[0])
            self._filled[0] = context
        self._step([0], self._filled[0] - 1)()  # row 0 is that long again, whatever ran since
        for row in range(1, rows):
            if self._filled[row] < context:
                self.engine.move([Move(0, row, 0)])
                self._filled[row] = self._filled[0]
        self._step([0] * rows, context - 1)()  # idle rows are run along at the length that they have

    def _batch(self, splits: Sequence[int], context: int, rows: Sequence[int] | None = None) -> Batch:
        ids = np.array([7], np.int32)
        return Batch(
            decode=tuple(
                Work(row, split, context, ids if split == 0 else self._hidden, wants_logits=True)
                for row, split in zip(rows or range(len(splits)), splits, strict=True)
            )
        )

    def _step(self, splits: Sequence[int], context: int, rows: Sequence[int] | None = None) -> Callable[[], None]:
        batch = self._batch(splits, context, rows)

        def step() -> None:
            self.engine.run(batch)

        return step

    def _interleave(self, cases: Mapping[Any, Callable[[], object]]) -> dict[Any, dict[str, float]]:
        """Medians over rounds, each case once a round after one that warms up: wall, processor and blocks' seconds."""
        taken: dict[Any, list[tuple[float, float, float]]] = {case: [] for case in cases}
        for number in range(1 + self.rounds):
            for case, run in cases.items():
                stages = self.engine.stage_seconds[:, :-1].sum()
                cpu, wall = time.process_time(), time.perf_counter()
                run()
                wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
                if number:
                    taken[case].append((wall, cpu, float(self.engine.stage_seconds[:, :-1].sum() - stages)))
        names = ("wall_s", "cpu_s", "blocks_s")
        return {
            case: {
                name: statistics.median(column) for name, column in zip(names, zip(*times, strict=True), strict=True)
            }
            for case, times in taken.items()
        }


def _with_bridge(engine: OnnxEngine, limit: int, step: Callable[[], None]) -> Callable[[], None]:
    def run() -> None:
        engine.bridged_rows = limit
        step()

    return run


def _least_relative(design: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """Least squares of the relative errors: a small case counts as much as a large one."""
    fit: np.ndarray = np.linalg.lstsq(design / seconds[:, None], np.ones(len(seconds)), rcond=None)[0]
    return fit


def _model(bundle: Bundle) -> dict[str, Any]:
    spec = bundle.spec
    return {
        "name": spec.name,
        "blocks": spec.blocks,
        "hidden_size": spec.hidden_size,
        "heads": spec.heads,
        "kv_heads": spec.kv_heads,
        "vocab_size": spec.vocab_size,
    }

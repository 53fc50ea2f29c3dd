"""Measuring an engine: its times by rows and context, through the seam alone, and keeping them on disk.

Any engine is measured by running batches on its free rows and clearing them; nothing here knows what computes. One grid
takes a second or two, too long for every start of a small model, so it is kept by bundle and machine.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import numpy as np

from ..errors import ProblemError, SplitLLMError
from ..planner.profile import EngineProfile, Grid
from ..slots import Move
from ..types import PREFILL_CHUNK
from ..work import Batch, Work
from .base import Engine

log = logging.getLogger(__name__)

_VERSION: Final = 2  # of what engines do with the same bundle and machine, too
#: Rows and contexts that are measured, as far as the engine has them.
_DECODE_ROWS: Final = (1, 2, 4, 8, 16, 32, 64)
_CONTEXTS: Final = (16, 256, 1024, 4096)
_PREFILL_ROWS: Final = (8, 32, PREFILL_CHUNK)
#: Blocks of one run: enough that starting it does not show, and a model of 80 is measured as quickly as one of 8.
_BLOCKS: Final = 4
_REPEATS: Final = 5
#: Before each run that is timed thoroughly: about a client's round trip.
_PAUSE_S: Final = 0.01
_MOST_BYTES: Final = 1 << 20

Clock = Callable[[], float]


def measure_profile(engine: Engine, *, budget_s: float = 2.0, clock: Clock = time.perf_counter) -> EngineProfile:
    """Time an engine, quickly. Only while no session is open; rows are clear afterwards.

    Each point is the median of up to five runs after one that warms up. When `budget_s` is used up, points are measured
    once, and lines of more rows are left out: beyond the last the profile goes on straight.
    """
    return _Meter(engine, clock, budget_s).measure(1)


def measure_thoroughly(
    engine: Engine, *, rounds: int, clock: Clock, progress: Callable[[int, int], None] | None = None
) -> tuple[EngineProfile, float]:
    """Time an engine as it is at work: its profile, and the bytes of keys and values that it copies in a millisecond.

    All blocks run, so that their weights come from memory, on rows that hold something: memory that was never written
    is not read from where it would be. Each point is the least of `rounds` runs, as other work on the machine only adds
    time; rounds go over all points, so that a busy minute spoils none. `progress` is called with (rounds done, rounds).

    Only while no session is open; rows are clear afterwards.
    """
    meter = _ThoroughMeter(engine, clock, progress)
    meter.fill()
    return meter.measure(rounds), meter.copy_bytes_per_ms


_Lines = list[list[float]]


class _Meter:
    def __init__(self, engine: Engine, clock: Clock, budget_s: float, blocks: int = _BLOCKS) -> None:
        self.engine, self.clock = engine, clock
        self._ends = clock() + budget_s
        self._blocks = min(blocks, engine.spec.blocks)
        self._split = engine.spec.blocks - self._blocks
        self._used = 0  # rows that were written to
        self.contexts = _below(_CONTEXTS, engine.capacity - PREFILL_CHUNK) or (0,)

    def measure(self, rounds: int) -> EngineProfile:
        engine, contexts = self.engine, self.contexts
        rows = _below(_DECODE_ROWS, engine.rows) or (1,)
        prefill_rows = _below(_PREFILL_ROWS, engine.capacity - 1) or (1,)
        before = (0, *contexts) if contexts != (0,) else contexts
        decode: list[_Lines] = []
        prefill: list[_Lines] = []
        head: list[_Lines] = []
        try:
            for number in range(1, rounds + 1):
                decode.append(self._lines(rows, contexts, self._decode_ms))
                prefill.append(self._lines(prefill_rows, before, self._prefill_ms))
                head.append(self._lines(rows, (0,), self._head_ms))
                self.round_ended(number, rounds)
        finally:
            for row in range(self._used):
                engine.clear(row)
        return EngineProfile(
            _least(rows, contexts, decode),
            _least(prefill_rows, before, prefill),
            _least(rows, (0,), head),
            kv_block_bytes=engine.spec.kv_bytes_per_token(),
        )

    def round_ended(self, number: int, rounds: int) -> None:
        """A round is over."""

    def _lines(self, rows: Sequence[int], contexts: Sequence[int], measure: Callable[[int, int], float]) -> _Lines:
        lines: _Lines = []
        for count in rows:
            if len(lines) > 1 and self.clock() > self._ends:
                break  # two lines tell a fixed part from a part per row
            lines.append([measure(count, context) for context in contexts])
        return lines

    def _decode_ms(self, rows: int, context: int) -> float:
        works = tuple(self.work(row, self._split, context, 1) for row in range(rows))
        return self.time(Batch(decode=works)) / self._blocks

    def _prefill_ms(self, rows: int, context: int) -> float:
        return self.time(Batch(prefill=(self.work(0, self._split, context, rows),))) / self._blocks

    def _head_ms(self, rows: int, _context: int) -> float:
        works = tuple(self.work(row, self.engine.spec.blocks, 0, 1, wants_logits=True) for row in range(rows))
        return self.time(Batch(decode=works))

    def work(self, row: int, split: int, position: int, tokens: int, *, wants_logits: bool = False) -> Work:
        self._used = max(self._used, row + 1)
        values: np.ndarray[Any, Any]
        if split == 0:
            values = np.zeros(tokens, np.int32)
        else:
            values = np.zeros((tokens, self.engine.spec.hidden_size), np.float32)
        return Work(row, split, position, values, wants_logits)

    def time(self, batch: Batch) -> float:
        """Milliseconds of one run of the batch."""
        self.run(batch)
        times = []
        for _ in range(_REPEATS):
            times.append(self.run(batch))
            if self.clock() > self._ends:
                break
        return statistics.median(times)

    def run(self, batch: Batch) -> float:
        begun = self.clock()
        self.engine.run(batch)
        return 1000 * (self.clock() - begun)


class _ThoroughMeter(_Meter):
    def __init__(self, engine: Engine, clock: Clock, progress: Callable[[int, int], None] | None) -> None:
        super().__init__(engine, clock, math.inf, engine.spec.blocks)
        self._progress = progress
        self.copy_bytes_per_ms = 0.0

    def fill(self) -> None:
        """Every row holds as many positions as are measured; copying them is timed."""
        longest = max(self.contexts)
        for position in range(0, longest, PREFILL_CHUNK):
            self.run(Batch(prefill=(self.work(0, 0, position, min(PREFILL_CHUNK, longest - position)),)))
        others = range(1, self.engine.rows)
        self._used = self.engine.rows
        self.engine.move([Move(0, row, 0) for row in others])  # pages that were never written are slow the first time
        begun = self.clock()
        self.engine.move([Move(0, row, 0) for row in others])
        took_ms = max(1000 * (self.clock() - begun), 1e-3)
        held = self.engine.spec.blocks * self.engine.spec.kv_bytes_per_token() * longest
        self.copy_bytes_per_ms = held * len(others) / took_ms

    def time(self, batch: Batch) -> float:
        # A server waits for its clients between two ticks, and finds caches and cores less ready than a loop would.
        time.sleep(_PAUSE_S)
        return self.run(batch)

    def round_ended(self, number: int, rounds: int) -> None:
        if self._progress is not None:
            self._progress(number, rounds)


def _least(rows: Sequence[int], contexts: Sequence[int], rounds: Sequence[_Lines]) -> Grid:
    """The grid of the least time of each point; lines that a round left out are left out."""
    lines = [[min(times) for times in zip(*line, strict=True)] for line in zip(*rounds, strict=False)]
    return Grid.smoothed(rows[: len(lines)], contexts, lines)


def _below(values: Sequence[int], most: int) -> tuple[int, ...]:
    return tuple(value for value in values if value <= most)


# -- kept on disk -----------------------------------------------------------------------------------------------------


def cached_profile(engine: Engine, *, identity: str, setting: str, folder: Path | None) -> EngineProfile:
    """The profile of an engine, from `folder` if it was measured there before, else measured and kept.

    `identity` is the bundle's, `setting` whatever else decides what the engine is (device, threads, runtime). A file
    that is damaged or from another version is measured anew and overwritten. Where the folder cannot be written, the
    profile is just not kept. `folder` None keeps nothing.
    """
    if folder is None:
        return measure_profile(engine)
    key = {"version": _VERSION, "bundle": identity, "setting": setting, "machine": machine(), "rows": engine.rows}
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]
    path = folder / f"{digest}.json"
    known = _read(path, key)
    if known is not None:
        return known
    profile = measure_profile(engine)
    _write(path, {"key": key, "profile": profile.as_json()})
    return profile


def cache_folder(environment: Mapping[str, str]) -> Path:
    """Where profiles are kept: below XDG_CACHE_HOME, by default ~/.cache (XDG Base Directory Specification)."""
    base = environment.get("XDG_CACHE_HOME", "")
    root = Path(base) if base and Path(base).is_absolute() else Path.home() / ".cache"
    return root / "splitllm" / "profiles"


def machine() -> str:
    """What of this machine decides how fast it is, as far as it can be told without asking anybody."""
    return f"{platform.machine()} {processor()} x{os.cpu_count()}"


def setting_of(engine: Engine, threads: int | None) -> str:
    """What decides an engine's speed besides bundle and machine; `threads` as asked for, None: all cores."""
    choice = getattr(engine, "choice", None)
    what = f"{choice.device}, {choice.blocks} blocks, {choice.head} head" if choice else "cpu"
    return f"{type(engine).__name__} {what}, {threads or 'all'} threads, {runtime_version()}"


def runtime_version() -> str:
    """Name and version of the ONNX Runtime that is installed; its wheels share an import name."""
    for name in ("onnxruntime", "onnxruntime-gpu"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            return f"{name} {metadata.version(name)}"
    return "no onnxruntime"


def processor() -> str:
    """The processor's name as the system tells it."""
    try:
        for line in Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # Linux alone has that file
    return platform.processor() or "unknown"


def _read(path: Path, key: dict[str, Any]) -> EngineProfile | None:
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ProblemError("the file is too large for a profile")
        kept = json.loads(path.read_text("utf-8"))
        if not isinstance(kept, dict) or kept.get("key") != key:
            raise ProblemError("the file is of another engine")
        return EngineProfile.from_json(kept.get("profile"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError, SplitLLMError) as error:
        log.warning("%s cannot be used (%s); the engine is measured anew", path, error)
        return None


def _write(path: Path, value: dict[str, Any]) -> None:
    """Write beside and rename, so that a file is whole or absent."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(value, file, allow_nan=False)
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        log.warning("the engine's profile cannot be kept (%s)", error)

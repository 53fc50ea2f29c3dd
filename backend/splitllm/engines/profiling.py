"""Measuring an engine: its times by rows and context, through the seam alone, and keeping them on disk.

Any engine is measured by running batches on its free rows and clearing them; nothing here knows what computes. One grid
takes a second or two, too long for every start of a small model, so it is kept by bundle and machine.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
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
from ..types import PREFILL_CHUNK
from ..work import Batch, Work
from .base import Engine

log = logging.getLogger(__name__)

_VERSION: Final = 1
#: Rows and contexts that are measured, as far as the engine has them.
_DECODE_ROWS: Final = (1, 2, 4, 8, 16, 32, 64)
_CONTEXTS: Final = (16, 256, 1024, 4096)
_PREFILL_ROWS: Final = (8, 32, PREFILL_CHUNK)
#: Blocks of one run: enough that starting it does not show, and a model of 80 is measured as quickly as one of 8.
_BLOCKS: Final = 4
_REPEATS: Final = 5
_MOST_BYTES: Final = 1 << 20

Clock = Callable[[], float]


def measure_profile(engine: Engine, *, budget_s: float = 2.0, clock: Clock = time.perf_counter) -> EngineProfile:
    """Time an engine. Only while no session is open; rows are clear afterwards.

    Each point is the median of up to five runs after one that warms up. When `budget_s` is used up, points are measured
    once, and lines of more rows are left out: beyond the last the profile goes on straight.
    """
    meter = _Meter(engine, budget_s, clock)
    try:
        contexts = _below(_CONTEXTS, engine.capacity - PREFILL_CHUNK) or (0,)
        decode = meter.grid(_below(_DECODE_ROWS, engine.rows) or (1,), contexts, meter.decode_ms)
        prefill_rows = _below(_PREFILL_ROWS, engine.capacity - 1) or (1,)
        prefill = meter.grid(prefill_rows, (0, *contexts) if contexts != (0,) else (0,), meter.prefill_ms)
        head = meter.grid(_below(_DECODE_ROWS, engine.rows) or (1,), (0,), lambda rows, _context: meter.head_ms(rows))
    finally:
        meter.clear()
    return EngineProfile(decode, prefill, head, kv_block_bytes=engine.spec.kv_bytes_per_token())


class _Meter:
    def __init__(self, engine: Engine, budget_s: float, clock: Clock) -> None:
        self._engine, self._clock = engine, clock
        self._ends = clock() + budget_s
        self._blocks = min(_BLOCKS, engine.spec.blocks)
        self._split = engine.spec.blocks - self._blocks
        self._used = 0  # rows that were written to

    def grid(self, rows: Sequence[int], contexts: Sequence[int], measure: Callable[[int, int], float]) -> Grid:
        lines: list[list[float]] = []
        for count in rows:
            if len(lines) > 1 and self._clock() > self._ends:
                break  # two lines tell a fixed part from a part per row
            lines.append([measure(count, context) for context in contexts])
        return Grid.smoothed(rows[: len(lines)], contexts, lines)

    def decode_ms(self, rows: int, context: int) -> float:
        works = tuple(self._work(row, self._split, context, 1) for row in range(rows))
        return self._median(Batch(decode=works)) / self._blocks

    def prefill_ms(self, rows: int, context: int) -> float:
        return self._median(Batch(prefill=(self._work(0, self._split, context, rows),))) / self._blocks

    def head_ms(self, rows: int) -> float:
        works = tuple(self._work(row, self._engine.spec.blocks, 0, 1, wants_logits=True) for row in range(rows))
        return self._median(Batch(decode=works))

    def _work(self, row: int, split: int, position: int, tokens: int, *, wants_logits: bool = False) -> Work:
        self._used = max(self._used, row + 1)
        values: np.ndarray[Any, Any]
        if split == 0:
            values = np.zeros(tokens, np.int32)
        else:
            values = np.zeros((tokens, self._engine.spec.hidden_size), np.float32)
        return Work(row, split, position, values, wants_logits)

    def _median(self, batch: Batch) -> float:
        """Milliseconds of one run of the batch."""
        self._engine.run(batch)
        times = []
        for _ in range(_REPEATS):
            begun = self._clock()
            self._engine.run(batch)
            ended = self._clock()
            times.append(1000 * (ended - begun))
            if ended > self._ends:
                break
        return statistics.median(times)

    def clear(self) -> None:
        for row in range(self._used):
            self._engine.clear(row)


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
    return f"{platform.machine()} {_processor()} x{os.cpu_count()}"


def setting_of(engine: Engine, threads: int | None) -> str:
    """What decides an engine's speed besides bundle and machine; `threads` as asked for, None: all cores."""
    device = getattr(engine, "device", "cpu")
    return f"{type(engine).__name__} {device}, {threads or 'all'} threads, {runtime_version()}"


def runtime_version() -> str:
    """Name and version of the ONNX Runtime that is installed; its wheels share an import name."""
    for name in ("onnxruntime", "onnxruntime-gpu"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            return f"{name} {metadata.version(name)}"
    return "no onnxruntime"


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
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

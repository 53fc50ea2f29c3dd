"""Measuring an engine through the seam, and keeping what was measured."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from splitllm.engines.fake import FakeEngine
from splitllm.engines.profiling import cache_folder, cached_profile, measure_profile, measure_thoroughly
from splitllm.engines.slowdown import Slowdown, expected_ms
from splitllm.planner.profile import EngineProfile, Grid
from splitllm.slots import Move
from splitllm.types import Float32Array, ModelSpec
from splitllm.work import Batch, Work

SPEC = ModelSpec("model", 6, 8, 2, 2, 4, 50, 512, (0,))


class TimedEngine(FakeEngine):
    """Its time passes by a formula: a block costs 2 ms, 1 ms a row, and 10 us for each position before each row."""

    def __init__(self, rows: int = 9, capacity: int = 512) -> None:
        super().__init__(SPEC, rows, capacity)
        self.now = 0.0
        self.runs = 0

    def run(self, batch: Batch) -> Float32Array:
        self.runs += 1
        for work in batch.prefill:
            self.now += (SPEC.blocks - work.split) * self.block_ms(work.tokens, [work.position] * work.tokens)
        decode = [work for work in batch.decode if work.split < SPEC.blocks]
        if decode:
            blocks = SPEC.blocks - decode[0].split
            self.now += blocks * self.block_ms(len(decode), [work.position for work in decode])
        heads = sum(work.wants_logits for work in batch.works)
        self.now += (3 + heads / 2) if heads else 0
        return super().run(batch)

    @staticmethod
    def block_ms(rows: int, positions: Sequence[int]) -> float:
        return 2 + rows + 0.01 * sum(positions)

    def clock(self) -> float:
        return self.now / 1000


def test_the_profile_is_what_the_engine_takes() -> None:
    engine = TimedEngine()
    profile = measure_profile(engine, budget_s=1e9, clock=engine.clock)
    for rows, context in ((1, 16), (4, 256), (3, 100), (8, 200), (20, 16)):
        assert profile.decode_ms(rows, context) == pytest.approx(2 + rows + 0.01 * rows * context)
    assert profile.prefill_ms(64, 256) == pytest.approx(2 + 64 + 0.01 * 64 * 256)
    assert profile.head_ms(4) == pytest.approx(5)
    assert profile.marginal_decode_ms(4, 16) == pytest.approx(1.16)
    assert profile.kv_block_bytes == SPEC.kv_bytes_per_token()


def test_thorough_measuring_runs_every_block_on_full_rows_and_keeps_the_least() -> None:
    class Disturbed(TimedEngine):
        """Every fifth run takes longer, and batches are run on rows that hold nothing only to fill them."""

        moved = 0.0

        def run(self, batch: Batch) -> Float32Array:
            logits = super().run(batch)
            self.now += 50.0 * (self.runs % 5 == 0)
            return logits

        def move(self, moves: Sequence[Move]) -> None:
            super().move(moves)
            self.now += 0.5 * len(moves)

    engine, told = Disturbed(), []
    profile, copied = measure_thoroughly(
        engine, rounds=4, clock=engine.clock, progress=lambda done, of: told.append((done, of))
    )
    for rows, context in ((1, 16), (4, 256), (8, 200)):
        assert profile.decode_ms(rows, context) == pytest.approx(2 + rows + 0.01 * rows * context)
    assert profile.prefill_ms(64, 256) == pytest.approx(2 + 64 + 0.01 * 64 * 256)
    assert profile.head_ms(4) == pytest.approx(5)
    assert copied == pytest.approx(SPEC.blocks * SPEC.kv_bytes_per_token() * 256 / 0.5)
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert not np.any(engine._memory)


def test_rows_are_clear_afterwards() -> None:
    engine = TimedEngine()
    measure_profile(engine, clock=engine.clock)
    assert not np.any(engine._memory)


def test_a_slow_engine_is_measured_in_fewer_points() -> None:
    slow, quick = TimedEngine(), TimedEngine()
    few = measure_profile(slow, budget_s=1e-6, clock=slow.clock)
    measure_profile(quick, budget_s=1e9, clock=quick.clock)
    assert slow.runs < quick.runs / 2
    assert few.decode.rows == (1, 2)
    assert few.decode_ms(8, 16) == pytest.approx(2 + 8 + 0.01 * 8 * 16)


@pytest.mark.parametrize(("rows", "capacity"), [(1, 2), (1, 70), (3, 100)])
def test_small_engines_can_be_measured_too(rows: int, capacity: int) -> None:
    engine = TimedEngine(rows, capacity)
    assert measure_profile(engine, clock=engine.clock).decode_ms(1, 0) > 0


def kept(engine: TimedEngine, folder: Path | None, **more: str) -> EngineProfile:
    arguments = {"identity": "a" * 64, "setting": "one thread"} | more
    return cached_profile(engine, folder=folder, **arguments)


def test_a_profile_is_measured_once_for_each_bundle_and_setting(tmp_path: Path) -> None:
    first, again, other = TimedEngine(), TimedEngine(), TimedEngine()
    profile = kept(first, tmp_path / "profiles")
    assert kept(again, tmp_path / "profiles") == profile
    assert again.runs == 0
    kept(other, tmp_path / "profiles", setting="two threads")
    assert other.runs > 0
    assert len(list((tmp_path / "profiles").iterdir())) == 2


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "",
        lambda text: "[" * 100_000,
        lambda text: text.replace('"kv_block_bytes"', '"kv"'),
        lambda text: text.replace('"bundle": "aaaa', '"bundle": "bbbb'),
        lambda text: json.dumps({"key": json.loads(text)["key"], "profile": {"version": 1}}),
        lambda text: "x" * (2 << 20),
        lambda text: "\udcff",
    ],
)
def test_a_damaged_file_is_measured_anew_and_mended(tmp_path: Path, spoil: Callable[[str], str]) -> None:
    kept(TimedEngine(), tmp_path)
    [path] = tmp_path.iterdir()
    path.write_bytes(spoil(path.read_text("utf-8")).encode("utf-8", "surrogateescape"))
    engine = TimedEngine()
    kept(engine, tmp_path)
    assert engine.runs > 0
    again = TimedEngine()
    kept(again, tmp_path)
    assert again.runs == 0


def test_a_folder_that_cannot_be_written_costs_nothing_but_time(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    assert kept(TimedEngine(), blocked / "profiles").decode_ms(1, 0) >= 0
    assert kept(TimedEngine(), None).decode_ms(1, 0) >= 0


def test_the_folder_follows_xdg() -> None:
    assert cache_folder({"XDG_CACHE_HOME": "/x"}) == Path("/x/splitllm/profiles")
    home = Path.home() / ".cache" / "splitllm" / "profiles"
    assert cache_folder({}) == home
    assert cache_folder({"XDG_CACHE_HOME": "relative"}) == home


FLAT = EngineProfile(
    Grid((1, 3), (0,), ((2.0,), (4.0,))), Grid((64,), (0,), ((10.0,),)), Grid((1,), (0,), ((1.0,),)), kv_block_bytes=1
)


def work(row: int, split: int, tokens: int = 1, *, logits: bool = True) -> Work:
    values = np.zeros(tokens, np.int32) if split == 0 else np.zeros((tokens, 8), np.float32)
    return Work(row, split, 0, values, logits)


def test_a_batch_takes_what_its_layers_take() -> None:
    # Rows at splits 0, 2, 2, 6 of 6 blocks: one row for two blocks, three for four; four rows at the head.
    batch = Batch(decode=(work(0, 0), work(1, 2), work(2, 2), work(3, 6)))
    assert expected_ms(FLAT, batch, 6) == pytest.approx(2 * 2 + 4 * 4 + 4 * 1)
    assert expected_ms(FLAT, Batch(prefill=(work(0, 2, 64, logits=False),)), 6) == pytest.approx(40)


def test_plans_see_a_machine_that_became_slower_and_one_that_recovered() -> None:
    slowdown = Slowdown(FLAT, 6)
    batch = Batch(decode=(work(0, 0),))
    for _ in range(200):
        slowdown.ticked(batch, 3 * 13.0)
    assert slowdown.factor == pytest.approx(3, rel=0.01)
    assert slowdown.profile.decode_ms(1, 0) == pytest.approx(6, rel=0.05)
    for _ in range(200):
        slowdown.ticked(batch, 13.0)
    assert slowdown.profile.decode_ms(1, 0) == pytest.approx(2, rel=0.05)


def test_a_single_hiccup_moves_little() -> None:
    slowdown = Slowdown(FLAT, 6)
    slowdown.ticked(Batch(decode=(work(0, 0),)), 1e6)
    assert slowdown.factor < 1.2
    for took in (0.0, -1.0, float("nan"), float("inf")):
        slowdown.ticked(Batch(decode=(work(0, 0),)), took)
    assert slowdown.factor < 1.2

"""What every engine promises. Run over the fake one and the real one."""

from __future__ import annotations

import mmap
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from splitllm.bundle import Bundle
from splitllm.engines import base
from splitllm.engines.base import Engine
from splitllm.engines.fake import FakeEngine
from splitllm.engines.memory import HostKvRows
from splitllm.engines.onnx import Choice, OnnxBlocks, OnnxEngine, choose, resolve_device
from splitllm.engines.onnx.runtime import DeviceMemory
from splitllm.errors import BundleError, MachineError, SplitLLMError
from splitllm.slots import Move
from splitllm.types import Span
from splitllm.work import Batch, Work

ROWS, CAPACITY = 12, 96
#: Batches of other sizes use other kernels, so sums are taken in another order.
CLOSE = {"rtol": 1e-4, "atol": 1e-4}


@pytest.fixture(params=["fake", "onnx", "onnx in int4", "onnx in one group", "onnx with device memory", "cuda"])
def engine(request: pytest.FixtureRequest, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    made: Engine
    if request.param == "fake":
        made = FakeEngine(bundle.spec, ROWS, CAPACITY)
    elif request.param == "onnx":
        made = OnnxEngine(bundle, rows=ROWS, capacity=CAPACITY, threads=2, device="cpu")
    elif request.param == "onnx in int4":
        made = OnnxEngine(bundle, rows=ROWS, capacity=CAPACITY, threads=2, device="cpu", variant="int4")
    elif request.param == "onnx in one group":
        monkeypatch.setattr(base, "_GROUPS", 1)
        made = OnnxEngine(bundle, rows=ROWS, capacity=CAPACITY, threads=2, device="cpu")
    elif request.param == "onnx with device memory":  # all that runs on a card, but for the card
        memory = DeviceMemory(device="cpu")
        made = OnnxEngine(bundle, rows=ROWS, capacity=CAPACITY, threads=2, device="cpu", memory=memory, joined=False)
    else:
        try:
            made = OnnxEngine(bundle, rows=ROWS, capacity=CAPACITY, device="cuda")
        except SplitLLMError as error:
            pytest.skip(error.message)
    yield made
    made.close()


def ids(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(3, 250, count).astype(np.int32)


def prefill(engine: Engine, row: int, tokens: np.ndarray, position: int = 0, split: int = 0) -> np.ndarray:
    [logits] = engine.run(Batch(prefill=(Work(row, split, position, tokens, wants_logits=True),)))
    return logits.copy()  # the engine's own array is valid until its next run


def decode(engine: Engine, *steps: tuple[int, int, int]) -> list[np.ndarray]:
    """Steps are (row, position, id), all at split 0."""
    works = tuple(Work(row, 0, position, np.array([token], np.int32), True) for row, position, token in steps)
    return list(engine.run(Batch(decode=works)).copy())


def test_logits_have_the_vocabulary_s_size_and_only_come_where_wanted(engine: Engine) -> None:
    silent, wanted = Work(0, 0, 0, ids(5), False), Work(1, 0, 0, ids(6), True)
    logits = engine.run(Batch(prefill=(silent, wanted)))
    assert logits.shape == (1, engine.spec.vocab_size)
    assert logits.dtype == np.float32
    assert engine.run(Batch(prefill=(silent,))).shape == (0, engine.spec.vocab_size)


def test_logits_come_in_the_order_of_the_works_whatever_their_rows(engine: Engine) -> None:
    lengths = {0: 7, 1: 31, 2: 2, 4: 11}
    alone = {}
    for row, length in lengths.items():
        prefill(engine, row, ids(length, row))
        [alone[row]] = decode(engine, (row, length, 9))
    first = Work(5, 0, 0, ids(6), True)
    order, silent = (4, 0, 2), Work(1, 0, 31, ids(1), False)
    works = [Work(row, 0, lengths[row], np.array([9], np.int32), True) for row in order]
    logits = engine.run(Batch(prefill=(first,), decode=(works[0], silent, *works[1:]))).copy()
    assert len(logits) == 4
    np.testing.assert_allclose(logits[0], prefill(engine, 6, ids(6)), **CLOSE)
    for row, scores in zip(order, logits[1:], strict=True):
        np.testing.assert_allclose(scores, alone[row], **CLOSE)


def test_chunked_prefill_and_stepwise_decode_equal_one_prefill(engine: Engine) -> None:
    tokens = ids(40)
    whole = prefill(engine, 0, tokens)
    prefill(engine, 1, tokens[:17])
    prefill(engine, 1, tokens[17:39], position=17)
    [last] = decode(engine, (1, 39, int(tokens[39])))
    np.testing.assert_allclose(last, whole, **CLOSE)


def test_rows_of_different_lengths_in_one_batch_do_not_touch_each_other(engine: Engine) -> None:
    alone = {}
    for row, length in ((0, 7), (1, 31), (2, 2), (3, 64)):
        prefill(engine, row, ids(length, row))
        [alone[row]] = decode(engine, (row, length, 9))
        engine.clear(row)
    for row, length in ((0, 7), (1, 31), (2, 2), (3, 64)):
        prefill(engine, row, ids(length, row))
    together = decode(engine, (0, 7, 9), (1, 31, 9), (2, 2, 9), (3, 64, 9))
    for row, logits in enumerate(together):
        np.testing.assert_allclose(logits, alone[row], **CLOSE)


def test_idle_rows_between_busy_ones_keep_what_they_hold(engine: Engine) -> None:
    for row in range(5):
        prefill(engine, row, ids(10 + row, row))
    [before] = decode(engine, (2, 12, 5))
    prefill(engine, 2, ids(12, 2))  # row 2 again, without the step
    for step in range(3):
        decode(engine, (0, 10 + step, 4), (4, 14 + step, 4))
    [after] = decode(engine, (2, 12, 5))
    np.testing.assert_allclose(after, before, **CLOSE)


def test_an_idle_row_that_is_full_keeps_what_it_holds(engine: Engine) -> None:
    for row in range(3):
        prefill(engine, row, ids(CAPACITY if row == 1 else 10, row))
    last = int(ids(CAPACITY, 1)[-1])
    [before] = decode(engine, (1, CAPACITY - 1, last))
    decode(engine, (0, 10, 4), (2, 10, 4))
    [after] = decode(engine, (1, CAPACITY - 1, last))
    np.testing.assert_allclose(after, before, **CLOSE)


def test_a_row_goes_back_to_an_earlier_position(engine: Engine) -> None:
    tokens = ids(30)
    prefill(engine, 0, tokens)
    decode(engine, (0, 30, 7))
    again = prefill(engine, 0, tokens[10:25], position=10)
    fresh = prefill(engine, 1, tokens[:25])
    np.testing.assert_allclose(again, fresh, **CLOSE)


def test_moved_rows_go_on_where_they_were(engine: Engine) -> None:
    prefill(engine, 0, ids(20))
    prefill(engine, 1, ids(15, 1))
    [expected] = decode(engine, (0, 20, 3))
    prefill(engine, 0, ids(20))
    engine.move([Move(1, 2, 0), Move(0, 1, 0)])
    [moved] = decode(engine, (1, 20, 3))
    np.testing.assert_allclose(moved, expected, **CLOSE)


def test_moves_of_one_call_happen_at_once_and_change_no_bit(engine: Engine) -> None:
    last = {}
    for row in range(4):
        prefill(engine, row, ids(20 + 9 * row, row))
        [last[row]] = decode(engine, (row, 20 + 9 * row, 3))
        prefill(engine, row, ids(20 + 9 * row, row))
    goes_to = {0: 1, 1: 2, 2: 0, 3: 5}  # three in a ring, and one to a row that was free
    engine.move([Move(source, target, 0) for source, target in goes_to.items()])
    for source, target in goes_to.items():
        [moved] = decode(engine, (target, 20 + 9 * source, 3))
        assert np.array_equal(moved, last[source])


@pytest.mark.parametrize(
    "work",
    [
        Work(ROWS, 0, 0, ids(1), True),
        Work(0, 0, CAPACITY, ids(1), True),
        Work(0, 0, -1, ids(1), True),
        Work(0, 0, CAPACITY - 1, ids(2), True),
        Work(0, 1, 0, np.zeros((1, 3), np.float32), True),
        Work(0, 0, 0, np.zeros((0,), np.int32), True),
    ],
)
def test_work_outside_the_rows_is_refused(engine: Engine, work: Work) -> None:
    with pytest.raises(ValueError, match=r"row|position|shape"):
        engine.run(Batch(prefill=(work,)))


def test_a_row_may_not_stand_twice_in_a_batch(engine: Engine) -> None:
    work = Work(0, 0, 0, ids(1), True)
    with pytest.raises(ValueError, match="twice"):
        engine.run(Batch(decode=(work, work)))


def test_decode_rows_that_are_not_sorted_by_split_are_refused(engine: Engine) -> None:
    hidden = np.zeros((1, engine.spec.hidden_size), np.float32)
    works = (Work(0, 1, 0, hidden, True), Work(1, 0, 0, ids(1), True))
    with pytest.raises(ValueError, match="sorted by split"):
        engine.run(Batch(decode=works))


def test_measured_times_are_positive_and_leave_no_trace(engine: Engine) -> None:
    expected = prefill(engine, 0, ids(12))
    engine.clear(0)
    times = engine.measure()
    assert min(times.block_decode_ms, times.block_prefill_ms, times.head_ms) > 0
    np.testing.assert_allclose(prefill(engine, 0, ids(12)), expected, **CLOSE)


@pytest.mark.parametrize("variants", [("float32",), ("float32", "float16")])
def test_a_device_by_name_is_that_device_or_a_refusal_that_says_what_to_do(variants: tuple[str, ...]) -> None:
    assert resolve_device("cpu", variants) == "cpu"
    if resolve_device("auto", variants) == "cuda":
        assert resolve_device("cuda", variants) == "cuda"
    else:
        with pytest.raises((MachineError, BundleError), match=r"--device cpu|--server-dtype float16"):
            resolve_device("cuda", variants)


def _for_servers(bundle: Bundle, blocks: str, head: str, **heads: str) -> Bundle:
    """The bundle as if it had float16 blocks, these heads (and activations), and were exported for such servers."""
    m = bundle.manifest
    made = {
        name: replace(m.head["float32"], activations=kind) for name, kind in {"float32": "float32", **heads}.items()
    }
    every = tuple({**block, "float16": replace(block["float32"], activations="float16")} for block in m.blocks)
    return replace(bundle, manifest=replace(m, server=(blocks, head), head=made, blocks=every))


def test_a_server_runs_what_the_manifest_says_and_what_its_operator_says(bundle: Bundle) -> None:
    assert choose(bundle, "cpu") == Choice("cpu", "float32", "float32", joined=True)
    assert choose(bundle, "cpu", "int4") == Choice("cpu", "int4", "float32", joined=True)
    int4 = _for_servers(bundle, "int4", "int8", int8="float32")
    assert choose(int4, "cpu") == Choice("cpu", "int4", "int8", joined=True)
    assert choose(int4, "cpu", "float32") == Choice("cpu", "float32", "float32", joined=True)
    with pytest.raises(BundleError, match="no variant 'int8'; there is: float32, int4"):
        choose(bundle, "cpu", "int8")
    with pytest.raises(BundleError, match="int4 blocks have float32; give --variant float16, or --device cpu"):
        choose(bundle, "cuda", "int4")


def test_a_cpu_runs_float16_only_where_it_is_asked_to_and_says_what_that_costs(bundle: Bundle) -> None:
    card = _for_servers(bundle, "float16", "float16", float16="float16")
    found = choose(card, "cpu")
    assert (found.blocks, found.head) == ("float32", "float32")
    assert "--variant float16" in found.note
    found = choose(card, "cpu", "float16")
    assert (found.blocks, found.head, found.joined) == ("float16", "float16", False)
    assert "slower" in found.note
    with pytest.raises(BundleError, match="no head for float16 blocks; export it with `--server-dtype float16`"):
        choose(_for_servers(bundle, "float32", "float32"), "cpu", "float16")


def test_a_server_in_int4_answers_like_float32_as_often_as_the_manifest_says(bundle: Bundle) -> None:
    text = (
        "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\nThe capital of France is "
    )
    tokens = np.array(Tokenizer.from_file(str(bundle.tokenizer_path)).encode(text * 3).ids[: CAPACITY - 1], np.int32)
    logits = {}
    for variant in ("float32", "int4"):
        engine = OnnxEngine(bundle, rows=2, capacity=CAPACITY, threads=2, device="cpu", variant=variant)
        prefill(engine, 0, tokens[:4])
        logits[variant] = np.array([decode(engine, (0, at, int(tokens[at])))[0] for at in range(4, len(tokens))])
        engine.close()
    same = logits["float32"].argmax(-1) == logits["int4"].argmax(-1)
    stated = float(bundle.manifest.variants["int4"]["top1_agreement"])
    assert not np.array_equal(logits["float32"], logits["int4"])
    assert same.mean() >= stated - 3 * (stated * (1 - stated) / len(same)) ** 0.5  # three deviations of so many draws


def test_rows_that_are_run_along_or_apart_compute_the_same(bundle: Bundle) -> None:
    results = []
    for bridged in (0, ROWS):
        engine = OnnxEngine(bundle, rows=ROWS, capacity=CAPACITY, threads=2, device="cpu")
        engine.bridged_rows = bridged
        for row in (0, 4, 5, 11):
            prefill(engine, row, ids(10 + row, row))
        results.append(decode(engine, (0, 10, 4), (4, 14, 4), (11, 21, 4)))
        results[-1] += decode(engine, (5, 15, 4))  # stood idle
        engine.close()
    np.testing.assert_allclose(results[0], results[1], **CLOSE)


@pytest.mark.parametrize("variant", ["float32", "int4"])
def test_joined_blocks_compute_what_blocks_one_by_one_do(
    bundle: Bundle, variant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit, wherever sessions join, with holes between their rows, and with chunks of a prompt."""
    monkeypatch.setattr(base, "_GROUPS", 1)
    blocks, hidden_size = bundle.spec.blocks, bundle.spec.hidden_size
    splits = {0: 0, 1: 0, 3: 1, 9: 1, 10: blocks - 1, 11: blocks}  # 4 idle rows are run along, 5 are a hole
    engines = [
        OnnxEngine(bundle, rows=ROWS, capacity=CAPACITY, threads=2, device="cpu", variant=variant, joined=joined)
        for joined in (True, False)
    ]

    def works(length: int, position: int) -> dict[int, Work]:
        random = np.random.default_rng(length)
        return {
            row: Work(row, split, position, random.standard_normal((length, hidden_size)).astype(np.float32), True)
            if split
            else Work(row, split, position, ids(length, row), True)
            for row, split in splits.items()
        }

    def same(batch: Batch) -> None:
        one, other = (engine.run(batch) for engine in engines)
        assert np.array_equal(one, other)

    for work in works(7, 0).values():
        same(Batch(prefill=(work,)))
    for position, rows in ((7, splits), (8, splits), (9, [9]), (9, [0, 10]), (9, [3, 10]), (9, [11]), (10, [10, 11])):
        step = works(1, position)
        same(Batch(decode=tuple(step[row] for row in rows)))
    for mine, theirs in zip(*(engine._blocks.kv for engine in engines), strict=True):
        for one, other in zip(mine, theirs, strict=True):
            assert np.array_equal(one.tensor.owner, other.tensor.owner)
    assert np.array_equal(engines[0]._lowest, engines[1]._lowest)


@pytest.mark.parametrize("device_memory", [False, True])
def test_a_row_that_was_moved_to_holds_what_was_moved_and_nothing_else(bundle: Bundle, device_memory: bool) -> None:
    memory = DeviceMemory(device="cpu") if device_memory else None
    engine = OnnxEngine(bundle, rows=4, capacity=CAPACITY, threads=2, device="cpu", memory=memory)

    def cells(row: int) -> list[np.ndarray]:
        kv = [rows.tensor for pair in engine._blocks.kv for rows in pair]
        return [engine._memory.download(tensor, row, 1)[0] for tensor in kv]

    split = bundle.spec.blocks - 1
    for row, length in ((0, 10), (1, 80), (2, 30), (3, 60)):
        prefill(engine, row, ids(length, row))
    decode(engine, (0, 10, 1), (2, 30, 1))  # row 1 is run along, and written behind its end
    before = {row: cells(row) for row in range(4)}
    engine.move([Move(0, 1, 0), Move(1, 0, split), Move(2, 2, split), Move(3, 3, split + 1)])
    for row, source, first in ((1, 0, 0), (0, 1, split), (2, 2, split), (3, 3, split + 1)):
        for block, (now, then) in enumerate(zip(cells(row), before[source], strict=True)):
            end = {0: 11, 1: 80, 2: 31, 3: 60}[source]
            assert np.array_equal(now[:, :end], then[:, :end] if block // 2 >= first else np.zeros_like(then[:, :end]))
            assert device_memory or not now[:, end:].any()
    for row in range(4):
        engine.clear(row)
        assert not any(cell.any() for cell in cells(row))
    engine.close()


class TestSplits:
    """The real engine together with the client's blocks: every cut computes what no cut computes."""

    @pytest.fixture
    def real(self, bundle: Bundle) -> Iterator[OnnxEngine]:
        engine = OnnxEngine(bundle, rows=ROWS, capacity=CAPACITY, threads=2, device="cpu")
        yield engine
        engine.close()

    def test_every_cut_in_one_batch(self, real: OnnxEngine, bundle: Bundle) -> None:
        tokens, blocks = ids(21), bundle.spec.blocks
        whole = prefill(real, ROWS - 1, tokens)
        real.clear(ROWS - 1)
        works = []
        for split in range(blocks + 1):
            if split == 0:
                prefill(real, 0, tokens[:20])
                works.append(Work(0, 0, 20, tokens[20:], True))
                continue
            client = OnnxBlocks(bundle, Span(0, split), capacity=CAPACITY)
            table = bundle.embedding()
            hidden = client.forward(np.asarray(table[tokens[:20]]), 0)
            step = client.forward(np.asarray(table[tokens[20:]]), 20)
            if split < blocks:
                real.run(Batch(prefill=(Work(split, split, 0, hidden, False),)))
            works.append(Work(split, split, 20, step, True))
        for split, logits in enumerate(real.run(Batch(decode=tuple(works)))):
            np.testing.assert_allclose(logits, whole, **CLOSE, err_msg=f"split {split}")

    @pytest.mark.skipif(sys.platform != "linux", reason="only Linux gives cleared pages back")
    def test_a_cleared_row_gives_its_memory_back(self, bundle: Bundle) -> None:
        def resident() -> int:
            return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE

        rows = HostKvRows((4, 2, 4096, 64), np.dtype(np.float32))  # 2 MiB a row
        fresh = resident()
        rows.array[1:3] = 1.0
        assert resident() - fresh > 3 << 20
        rows.clear(1, 4096)
        rows.clear(2, 10)  # whatever the length, whole pages go
        assert resident() - fresh < 1 << 20
        assert not rows.array.any()

    def test_a_cleared_row_holds_nothing(self, real: OnnxEngine) -> None:
        for row in (3, 5):
            prefill(real, row, ids(50, row))
        decode(real, (3, 50, 1), (5, 50, 1))  # row 4 is run along, and written to
        for row in (3, 4, 5):
            real.clear(row)
        for key, value in real._blocks.kv:
            assert not key.tensor.owner.any()
            assert not value.tensor.owner.any()

"""What one session says, however extreme, changes nothing that another hears: bit for bit, in a batch of one shape."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import pytest

from splitllm.bundle import Bundle
from splitllm.engines.onnx import OnnxEngine
from splitllm.work import Batch, Work
from tests.integration.test_wire import HELLO, OPEN, peer
from tests.support import ServerProcess

ROWS, CAPACITY, STEPS = 6, 64, 4


@pytest.fixture(scope="module")
def engine(bundle: Bundle) -> Iterator[OnnxEngine]:
    made = OnnxEngine(bundle, rows=ROWS, capacity=CAPACITY, threads=2, device="cpu")
    yield made
    made.close()


def ours(engine: OnnxEngine, split: int, others: str) -> np.ndarray:
    """Logits of the session in row 1 over a few steps, with neighbours of the same split that send `others`.

    Loud ones have longer conversations, too.
    """
    chance = np.random.default_rng(3 if others == "quiet" else 5)
    hidden, vocabulary = engine.spec.hidden_size, engine.spec.vocab_size

    def rows(number: int, mine: bool, seed: int) -> np.ndarray:
        draw = np.random.default_rng(seed) if mine else chance
        if split == 0:
            return draw.integers(1, vocabulary, number).astype(np.int32)
        values = draw.standard_normal((number, hidden)).astype(np.float32)
        # The largest of float16: finite, and so allowed.
        return values if mine or others == "quiet" else 65504 * np.sign(values)

    for row in range(ROWS):
        engine.clear(row)
    heard = []
    lengths = [20 if row == 1 or others == "quiet" else 33 for row in range(4)]
    for row, length in enumerate(lengths):
        engine.run(Batch(prefill=(Work(row, split, 0, rows(length, row == 1, 11), False),)))
    for step in range(STEPS):
        works = [Work(row, split, lengths[row] + step, rows(1, row == 1, 100 + step), True) for row in range(4)]
        heard.append(engine.run(Batch(decode=tuple(works)))[1].copy())
    # A prompt of a neighbour in the same tick is not seen either.
    works = [Work(row, split, lengths[row] + STEPS, rows(1, row == 1, 200), True) for row in range(4)]
    intruder = Work(4, split, 0, rows(16, False, 0), True)
    heard.append(engine.run(Batch(prefill=(intruder,), decode=tuple(works)))[2].copy())
    return np.stack(heard)


@pytest.mark.parametrize("split", [0, 3])
def test_neighbours_do_not_change_one_bit(engine: OnnxEngine, split: int) -> None:
    quiet, loud = ours(engine, split, "quiet"), ours(engine, split, "loud")
    assert np.isfinite(quiet).all()
    assert quiet.tobytes() == loud.tobytes()
    assert quiet[0].tobytes() != quiet[1].tobytes()  # it does say something


@pytest.mark.parametrize("split", [0, 3])
def test_a_seat_that_others_used_is_like_a_new_one(engine: OnnxEngine, bundle: Bundle, split: int) -> None:
    used = ours(engine, split, "loud")
    fresh = OnnxEngine(bundle, rows=ROWS, capacity=CAPACITY, threads=2, device="cpu")
    try:
        assert ours(fresh, split, "quiet").tobytes() == used.tobytes()
    finally:
        fresh.close()


async def test_session_names_are_128_random_bits_and_never_the_same(server: ServerProcess) -> None:
    names = set()
    for _ in range(40):
        async with peer(server, HELLO) as client:
            await client.say(OPEN)
            names.add((await client.hear())["session"])
    assert len(names) == 40
    assert all(re.fullmatch("[0-9a-f]{32}", name) for name in names)
    # Every one of the 128 bits is seen both set and unset: none is fixed.
    numbers = [int(name, 16) for name in names]
    both = 0
    for number in numbers:
        both |= number ^ numbers[0]
    assert both == 2**128 - 1

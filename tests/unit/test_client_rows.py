"""What a client computes and sends follows from three lengths (client/rows.py)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from splitllm.client.rows import Rows
from splitllm.errors import ProtocolError
from splitllm.protocol import Kind
from splitllm.types import PREFILL_CHUNK
from tests.chaos.world import FakeBlocks

BLOCKS = 4
LONG = list(range(1, PREFILL_CHUNK + 8))


class Watched(FakeBlocks):
    """Blocks that remember what they were to compute, as (position, rows)."""

    def __init__(self) -> None:
        super().__init__(BLOCKS, 8, 4096)
        self.ran: list[tuple[int, int]] = []

    def forward(self, ids: Any, start: int, split: int) -> Any:
        self.ran.append((start, len(ids)))
        return super().forward(ids, start, split)


async def sent(rows: Rows, split: int) -> list[tuple[Kind, int, int]]:
    """All that the server wants, as (kind, position, rows)."""
    all_due = []
    while (due := await rows.due(split, BLOCKS)) is not None:
        kind, position, values = due
        if len(values):
            all_due.append((kind, position, len(values)))
    return all_due


@pytest.fixture
def blocks() -> Watched:
    return Watched()


@pytest.fixture
def rows(blocks: Watched) -> Rows:
    rows = Rows(blocks)
    assert rows.begin(LONG) == 0
    return rows


async def test_without_blocks_the_ids_of_the_prompt_go_up_and_those_of_the_answer_do_not(
    rows: Rows, blocks: Watched
) -> None:
    assert await sent(rows, 0) == [(Kind.IDS, 0, PREFILL_CHUNK), (Kind.IDS, PREFILL_CHUNK, 7)]
    rows.take(len(LONG), np.array([[9]]))
    assert await sent(rows, 0) == [] == blocks.ran


async def test_a_prompt_goes_up_in_chunks_and_a_token_as_one_row(rows: Rows) -> None:
    assert await sent(rows, 2) == [(Kind.HIDDEN, 0, PREFILL_CHUNK), (Kind.HIDDEN, PREFILL_CHUNK, 7)]
    rows.take(len(LONG), np.array([[9]]))
    assert await sent(rows, 2) == [(Kind.HIDDEN, len(LONG), 1)]


async def test_where_all_blocks_run_here_the_head_gets_the_last_row_alone(rows: Rows, blocks: Watched) -> None:
    assert await sent(rows, BLOCKS) == [(Kind.HIDDEN, len(LONG) - 1, 1)]
    assert blocks.ran == [(0, PREFILL_CHUNK), (PREFILL_CHUNK, 7)]


async def test_after_another_split_what_the_server_holds_is_computed_and_not_sent(rows: Rows, blocks: Watched) -> None:
    await sent(rows, 0)
    rows.take(len(LONG), np.array([[9], [8]]))
    rows.resplit()
    rows.adopt(len(LONG))
    assert await sent(rows, 2) == [(Kind.HIDDEN, len(LONG), 2)]
    assert sum(count for _, count in blocks.ran) == len(LONG) + 2


async def test_the_next_turn_begins_where_both_hold_the_same(rows: Rows, blocks: Watched) -> None:
    await sent(rows, 2)
    rows.server_length = len(LONG)
    assert rows.begin([*LONG[:-3], 700, 701]) == len(LONG) - 3
    blocks.ran.clear()
    assert await sent(rows, 2) == [(Kind.HIDDEN, len(LONG) - 3, 2)]
    assert blocks.ran == [(len(LONG) - 3, 2)]


def test_a_token_that_is_known_adds_nothing_and_one_too_far_on_is_refused(rows: Rows) -> None:
    rows.take(len(LONG), np.array([[9], [8]]))
    rows.take(len(LONG) + 1, np.array([[8], [7]]))
    assert rows.ids == [*LONG, 9, 8, 7]
    with pytest.raises(ProtocolError, match="missing"):
        rows.take(len(LONG) + 4, np.array([[6]]))


async def test_a_client_without_blocks_refuses_to_run_any() -> None:
    rows = Rows()
    rows.begin(LONG)
    assert rows.most_blocks == 0
    assert await sent(rows, 0) == [(Kind.IDS, 0, PREFILL_CHUNK), (Kind.IDS, PREFILL_CHUNK, 7)]
    with pytest.raises(ProtocolError, match="plans 1 blocks"):
        await rows.due(1, BLOCKS)

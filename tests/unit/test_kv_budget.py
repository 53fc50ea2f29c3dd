"""KV memory as a budget."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitllm.errors import CapacityError
from splitllm.kv_budget import KvBudget

BLOCKS, BLOCK_BYTES = 4, 10


def test_a_session_pays_for_the_blocks_that_the_server_runs() -> None:
    budget = KvBudget(10_000, BLOCKS, BLOCK_BYTES)
    assert [budget.cost(split, 5) for split in range(BLOCKS + 1)] == [200, 150, 100, 50, 0]


def test_the_last_byte_can_be_reserved_and_no_more() -> None:
    budget = KvBudget(400, BLOCKS, BLOCK_BYTES)
    budget.reserve("a", 0, 10)
    assert budget.reserved_bytes == 400
    assert not budget.can_reserve("b", 3, 1)
    with pytest.raises(CapacityError, match="1 tokens") as refusal:
        budget.reserve("b", 3, 1)
    assert refusal.value.code == "kv_exhausted"
    assert budget.reserved_bytes == 400


def test_a_session_that_needs_nothing_fits_into_a_full_budget() -> None:
    budget = KvBudget(400, BLOCKS, BLOCK_BYTES)
    budget.reserve("a", 0, 10)
    budget.reserve("b", BLOCKS, 1000)
    assert budget.reserved_bytes == 400


def test_reserving_again_replaces_what_was_held() -> None:
    budget = KvBudget(400, BLOCKS, BLOCK_BYTES)
    budget.reserve("a", 0, 10)
    budget.reserve("a", 2, 10)
    assert budget.reserved_bytes == 200
    budget.reserve("a", 0, 10)
    assert budget.reserved_bytes == 400


def test_a_refused_change_leaves_what_was_held() -> None:
    budget = KvBudget(400, BLOCKS, BLOCK_BYTES)
    budget.reserve("a", 2, 10)
    with pytest.raises(CapacityError):
        budget.reserve("a", 0, 11)
    assert budget.reserved_bytes == 200


def test_what_is_released_can_be_reserved_by_others() -> None:
    budget = KvBudget(400, BLOCKS, BLOCK_BYTES)
    budget.reserve("a", 0, 10)
    budget.release("a")
    budget.release("a")
    budget.reserve("b", 0, 10)
    assert budget.reserved_bytes == 400


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, BLOCKS), st.integers(2, 30), st.booleans())))
def test_no_sequence_of_sessions_exceeds_the_limit(steps: list[tuple[str, int, int, bool]]) -> None:
    budget = KvBudget(1500, BLOCKS, BLOCK_BYTES)
    held: dict[str, int] = {}
    for session, split, tokens, leaves in steps:
        if leaves:
            budget.release(session)
            held.pop(session, None)
        elif budget.can_reserve(session, split, tokens):
            budget.reserve(session, split, tokens)
            held[session] = (BLOCKS - split) * BLOCK_BYTES * tokens
        else:
            with pytest.raises(CapacityError):
                budget.reserve(session, split, tokens)
        assert budget.reserved_bytes == sum(held.values()) <= 1500

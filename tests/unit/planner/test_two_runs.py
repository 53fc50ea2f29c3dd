"""Up to four crossings by pairs of runs: the same answers as the label search and as brute force."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitllm.planner import two_runs
from splitllm.planner.brute_force import brute_force
from splitllm.planner.dp import solve_dp
from splitllm.planner.exact import Tables
from splitllm.planner.problem import Link, Problem, Side
from splitllm.planner.two_runs import RunTable, is_two_runs
from tests.unit.planner.oracle import random_problem


@given(seed=st.integers(0, 2**32), stages=st.integers(1, 9), crossings=st.integers(0, 5))
@settings(max_examples=150, deadline=None)
def test_pairs_of_runs_equal_brute_force(seed: int, stages: int, crossings: int) -> None:
    problem = replace(random_problem(random.Random(seed), stages, 2), max_crossings=crossings)
    tables = Tables.of(problem)
    assert RunTable.of(tables) is not None
    solution = solve_dp(tables)
    assert (solution.placement, solution.feasible) == brute_force(tables)
    assert solution.gap == 0


@pytest.mark.parametrize("crossings", [2, 4])
def test_pairs_of_runs_equal_the_label_search_on_long_problems(crossings: int) -> None:
    chance = random.Random(crossings)
    feasible = 0
    for stages in (20, 20, 30, 40, 60):
        for _ in range(3):
            problem = random_problem(chance, stages, 2)
            pinned = {name: side for name, side in problem.pinned.items() if chance.random() < 3 / stages}
            problem = replace(problem, max_crossings=crossings, pinned=pinned)
            fast, slow = solve_dp(problem), solve_dp(problem, shortcuts=False)
            assert slow.gap == 0
            assert (fast.placement, fast.feasible) == (slow.placement, slow.feasible)
            feasible += fast.feasible
    assert feasible > 5  # the comparison is not about infeasible problems alone


def test_totals_beyond_64_bits_go_to_the_label_search() -> None:
    problem = replace(random_problem(random.Random(4), 8, 2), max_crossings=4)
    long = replace(problem, link=Link(1e-14, 1e13 / 3, 17, 19))
    assert RunTable.of(Tables.of(long)) is None
    tables = Tables.of(long)
    solution = solve_dp(tables)
    assert (solution.placement, solution.feasible) == brute_force(tables)


def test_longer_problems_go_to_the_label_search(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = replace(random_problem(random.Random(5), 9, 2), max_crossings=4)
    before = solve_dp(problem)
    monkeypatch.setattr(two_runs, "MOST_STAGES", 8)
    assert RunTable.of(Tables.of(problem)) is None
    after = solve_dp(problem)
    assert (before.placement, before.feasible) == (after.placement, after.feasible)


@given(seed=st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_the_best_pair_of_runs_only_speeds_a_freer_search_up(seed: int) -> None:
    chance = random.Random(seed)
    problem = replace(random_problem(chance, 12, 2), max_crossings=chance.choice([None, 6, 8]))
    with_start, without = solve_dp(problem), solve_dp(problem, shortcuts=False)
    assert (with_start.placement, with_start.feasible) == (without.placement, without.feasible)
    assert with_start.gap == without.gap == 0


def test_two_pins_apart_need_four_crossings() -> None:
    problem = random_problem(random.Random(1), 5, 1)
    phase = replace(problem.phases[0], latency_limit_ms=None)
    pinned = {"s0": Side.SERVER, "s1": Side.CLIENT, "s4": Side.SERVER}

    def planned(crossings: int) -> Problem:
        return replace(problem, phases=(phase,), client_memory_limit=None, pinned=pinned, max_crossings=crossings)

    assert is_two_runs(planned(4))
    four = solve_dp(planned(4))
    assert four.feasible
    assert [side.value[0] for side in four.placement] == ["s", "c", "c", "c", "s"]
    assert not solve_dp(planned(2)).feasible

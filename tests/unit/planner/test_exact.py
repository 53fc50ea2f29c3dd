"""The exact planner against a slow reading of the same rules, and the laws that exactness implies."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitllm.planner.brute_force import brute_force
from splitllm.planner.dp import Solution, lower_bound, solve_dp
from splitllm.planner.evaluate import Evaluation, evaluate
from splitllm.planner.exact import Tables
from splitllm.planner.greedy import greedy_prefix, greedy_ratio
from splitllm.planner.one_cut import is_one_cut
from splitllm.planner.problem import Link, Phase, Problem, Side
from tests.unit.planner.oracle import best, random_problem, read

SEEDS = st.integers(0, 2**32)


def solved(problem: Problem) -> tuple[Solution, Evaluation]:
    solution = solve_dp(problem)
    return solution, evaluate(problem, solution.placement)


def assert_equals_oracle(problem: Problem) -> None:
    feasible, reading = best(problem)
    solution, chosen = solved(problem)
    assert solution.feasible == feasible == chosen.feasible
    assert solution.gap == 0
    assert chosen.server_cost == pytest.approx(float(reading.cost), rel=1e-9, abs=1e-9)
    assert chosen.weighted_ms == pytest.approx(float(reading.weighted), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("stages", range(1, 8))
def test_dp_equals_the_slow_reading(stages: int) -> None:
    chance = random.Random(stages)
    for _ in range(120 if stages < 6 else 40):
        assert_equals_oracle(random_problem(chance, stages, chance.randint(1, 3)))


@given(seed=SEEDS, stages=st.integers(1, 5), phases=st.integers(1, 3))
@settings(max_examples=100, deadline=None)
def test_dp_equals_the_slow_reading_wherever_hypothesis_looks(seed: int, stages: int, phases: int) -> None:
    assert_equals_oracle(random_problem(random.Random(seed), stages, phases))


@pytest.mark.parametrize(("stages", "tries"), [(3, 300), (5, 300), (7, 300), (9, 120), (12, 12)])
def test_dp_and_brute_force_choose_the_same_placement(stages: int, tries: int) -> None:
    chance = random.Random(100 + stages)
    for _ in range(tries):
        tables = Tables.of(random_problem(chance, stages, chance.randint(1, 3)))
        for shortcuts in (True, False):
            solution = solve_dp(tables, shortcuts=shortcuts)
            assert (solution.placement, solution.feasible) == brute_force(tables)


def test_the_fast_path_equals_the_general_way_on_long_problems() -> None:
    chance = random.Random(7)
    for stages in (13, 30, 60):
        for _ in range(12):
            problem = random_problem(chance, stages, 2)
            problem = replace(problem, max_crossings=2, pinned={"s0": Side.CLIENT, problem.stages[-1]: Side.SERVER})
            assert is_one_cut(problem)
            fast, general = solve_dp(problem), solve_dp(problem, shortcuts=False)
            assert (fast.placement, fast.feasible) == (general.placement, general.feasible)


@given(seed=SEEDS, factor=st.floats(1, 3))
@settings(max_examples=80, deadline=None)
def test_a_looser_limit_never_costs_more(seed: int, factor: float) -> None:
    chance = random.Random(seed)
    problem = random_problem(chance, 6, 2)
    tight, chosen = solved(problem)
    phases = [
        replace(phase, latency_limit_ms=None if phase.latency_limit_ms is None else phase.latency_limit_ms * factor)
        for phase in problem.phases
    ]
    memory, crossings = problem.client_memory_limit, problem.max_crossings
    for looser in (
        replace(problem, phases=(phases[0], problem.phases[1])),
        replace(problem, phases=(problem.phases[0], phases[1])),
        replace(problem, client_memory_limit=None if memory is None else memory * factor),
        replace(problem, max_crossings=None if crossings is None else crossings + 2),
        replace(problem, pinned={}),
    ):
        loose, now = solved(looser)
        if tight.feasible:
            assert loose.feasible
            assert now.server_cost <= chosen.server_cost * (1 + 1e-9)


@given(seed=SEEDS, factor=st.sampled_from([1e-6, 0.001, 0.25, 3.0, 1000.0, 86_400.0]))
@settings(max_examples=80, deadline=None)
def test_the_answer_does_not_depend_on_the_units(seed: int, factor: float) -> None:
    problem = random_problem(random.Random(seed), 6, 2)
    link = problem.link

    def scaled(column: tuple[float, ...]) -> tuple[float, ...]:
        return tuple(value * factor for value in column)

    in_other_times = replace(
        problem,
        phases=tuple(
            replace(
                phase,
                latency_limit_ms=None if phase.latency_limit_ms is None else phase.latency_limit_ms * factor,
                client_ms=scaled(tuple(phase.client_ms)),
                server_ms=scaled(tuple(phase.server_ms)),
            )
            for phase in problem.phases
        ),
        link=Link(
            link.up_ms * factor, link.down_ms * factor, link.up_bytes_per_ms / factor, link.down_bytes_per_ms / factor
        ),
    )
    in_other_bytes = replace(
        problem,
        phases=tuple(
            replace(phase, input_bytes=scaled(tuple(phase.input_bytes)), output_bytes=phase.output_bytes * factor)
            for phase in problem.phases
        ),
        link=replace(
            link, up_bytes_per_ms=link.up_bytes_per_ms * factor, down_bytes_per_ms=link.down_bytes_per_ms * factor
        ),
    )
    in_other_costs = replace(
        problem,
        phases=tuple(replace(phase, server_cost=scaled(tuple(phase.server_cost))) for phase in problem.phases),
    )
    solution, chosen = solved(problem)
    for other, costs, times in (
        (in_other_times, 1, factor),
        (in_other_bytes, 1, 1),
        (in_other_costs, factor, 1),
    ):
        again, now = solved(other)
        assert again.feasible == solution.feasible
        assert now.server_cost == pytest.approx(chosen.server_cost * costs, rel=1e-8, abs=1e-12)
        assert now.weighted_ms == pytest.approx(chosen.weighted_ms * times, rel=1e-8, abs=1e-12)


@given(seed=SEEDS, stages=st.integers(1, 14))
@settings(max_examples=80, deadline=None)
def test_no_greedy_rule_is_better(seed: int, stages: int) -> None:
    problem = random_problem(random.Random(seed), stages, 2)
    tables = Tables.of(problem)
    solution, chosen = solved(problem)
    for greedy in (greedy_prefix, greedy_ratio):
        other = evaluate(tables, greedy(tables))
        if other.feasible:
            assert solution.feasible
            assert chosen.server_cost <= other.server_cost * (1 + 1e-9)


@given(seed=SEEDS, cap=st.integers(1, 4))
@settings(max_examples=150, deadline=None)
def test_a_search_cut_short_states_a_bound_that_holds(seed: int, cap: int) -> None:
    tables = Tables.of(random_problem(random.Random(seed), 8, 3))
    exactly = solve_dp(tables, shortcuts=False)
    short = solve_dp(tables, shortcuts=False, label_cap=cap)
    if short.feasible:
        assert exactly.feasible
        least, cost = (tables.cost.total(one.placement) for one in (exactly, short))
        assert cost * (1 - short.gap) <= least * (1 + 1e-9)
        assert cost >= least
        assert 0 <= short.gap <= 1
    elif exactly.feasible:
        assert short.gap == 1
    if exactly.feasible:
        assert lower_bound(tables) <= tables.cost.total(exactly.placement)


def chain(count: int, share: float | None, crossings: int | None, kinds: int = 1) -> Problem:
    """A model of `kinds` sorts of stages in turn, about twice as slow on the client; `share` of it fits the limit."""
    own = tuple(2.1 + 0.7 * (i % kinds) for i in range(count))
    far = tuple(1.1 + 0.3 * (i % kinds) for i in range(count))
    limit = None if share is None else 6 + sum(far) + share * (sum(own) - sum(far))
    phases = [
        Phase(name, weight, limit, own, far, far, (size,) * count, 8)
        for name, weight, size in (("prefill", 1, 90), ("decode", 100, 9))
    ]
    memory = tuple(3.0 + i % kinds for i in range(count))
    return Problem(
        tuple(f"s{i}" for i in range(count)), tuple(phases), Link(2, 2, 100, 100), memory, 2.0 * count, {}, crossings
    )


@pytest.mark.parametrize("crossings", [None, 4, 6])
@pytest.mark.parametrize("kinds", [1, 2])
@pytest.mark.parametrize("count", [24, 96])
def test_the_labels_of_a_model_of_like_stages_grow_quadratically(count: int, kinds: int, crossings: int | None) -> None:
    # Two limits on latency bind and one on memory; there are 2^count placements.
    solution = solve_dp(chain(count, 0.5, crossings, kinds), shortcuts=False)
    assert solution.gap == 0
    assert 0 < solution.labels <= 6 * count**2


def test_without_a_limit_that_binds_there_is_one_label_per_side_and_stage() -> None:
    free = replace(chain(200, None, None), client_memory_limit=None)
    assert solve_dp(free, shortcuts=False).labels <= 2 * 200


def two_stages(costs: tuple[float, ...], own: tuple[float, ...], limit: float | None, **more: object) -> Problem:
    count = len(costs)
    phase = Phase("all", 1, limit, own, (0.0,) * count, costs, (0.0,) * count, 0.0)
    return replace(
        Problem(tuple(f"s{i}" for i in range(count)), (phase,), Link(0, 0, 1, 1), (0.0,) * count),
        **more,  # type: ignore[arg-type] # a test's shorthand
    )


def test_a_limit_met_exactly_holds_in_spite_of_binary_floats() -> None:
    # 0.1 + 0.2 is 0.30000000000000004 in floats.
    solution, chosen = solved(two_stages((1, 1), (0.1, 0.2), 0.3))
    assert solution.feasible
    assert chosen.server_cost == 0
    assert chosen.latency_ms == {"all": 0.3}


def test_a_limit_missed_by_a_millionth_does_not_hold() -> None:
    _, chosen = solved(two_stages((1, 1), (0.1, 0.2), 0.2999997))
    assert chosen.server_cost == 1


def test_costs_that_tie_as_decimals_go_to_the_lower_latency() -> None:
    # Either the first two stages or the third stay on the server: 0.1 + 0.2 = 0.3, but 6 ms against 5 ms at home.
    solution, _ = solved(two_stages((0.1, 0.2, 0.3), (3, 3, 5), 6))
    assert solution.placement == (Side.SERVER, Side.SERVER, Side.CLIENT)


def test_a_tie_in_cost_and_latency_leaves_the_first_stage_on_the_server() -> None:
    solution, _ = solved(two_stages((1, 1), (4, 4), 4))
    assert solution.placement == (Side.SERVER, Side.CLIENT)


def test_numbers_of_very_different_size_stay_exact() -> None:
    problem = two_stages((1e12, 1e-9), (1e-6, 1e14), 1e-6)
    _, chosen = solved(problem)
    assert chosen.placement == (Side.CLIENT, Side.SERVER)
    assert chosen.server_cost == 1e-9
    assert evaluate(problem, ("client", "client")).latency_ms["all"] == pytest.approx(1e14)


def test_where_nothing_is_feasible_memory_and_crossings_still_hold() -> None:
    # All at home is fastest (2 ms) but needs memory 20; within memory 10 one stage goes to the server: 1 + 5 ms.
    phase = Phase("all", 1, 1.0, (1, 1), (5, 6), (1, 1), (0, 0), 0)
    problem = Problem(("a", "b"), (phase,), Link(0, 0, 1, 1), (10, 10), 10)
    solution, chosen = solved(problem)
    assert not solution.feasible
    assert solution.placement == (Side.SERVER, Side.CLIENT)
    assert [failed.kind for failed in chosen.failures] == ["latency"]


def test_where_pins_break_the_memory_limit_only_the_pins_are_kept() -> None:
    phase = Phase("all", 1, None, (9, 1), (1, 5), (1, 1), (0, 0), 0)
    problem = Problem(("a", "b"), (phase,), Link(0, 0, 1, 1), (10, 10), 5, {"a": Side.CLIENT}, 0)
    solution, chosen = solved(problem)
    assert not solution.feasible
    assert solution.placement == (Side.CLIENT, Side.CLIENT)
    assert [failed.kind for failed in chosen.failures] == ["memory"]
    assert solved(replace(problem, max_crossings=2, pinned={"a": Side.CLIENT, "b": Side.SERVER}))[0].feasible is False


def test_an_odd_limit_of_crossings_is_the_even_one_below() -> None:
    chance = random.Random(3)
    for _ in range(60):
        problem = random_problem(chance, 6, 2)
        for odd in (1, 3, 5):
            even, same = (solve_dp(replace(problem, max_crossings=most)) for most in (odd - 1, odd))
            assert even.placement == same.placement


def test_the_evaluation_agrees_with_the_slow_reading() -> None:
    chance = random.Random(11)
    for _ in range(100):
        problem = random_problem(chance, 5, 2)
        placement = tuple(chance.choice(list(Side)) for _ in range(5))
        reading, chosen = read(problem, placement), evaluate(problem, placement)
        assert chosen.crossings == reading.crossings
        assert Fraction(chosen.client_memory).limit_denominator(10**6) == reading.memory
        assert list(chosen.latency_ms.values()) == pytest.approx([float(value) for value in reading.latency])


@given(seed=SEEDS, stages=st.integers(1, 6), crossings=st.sampled_from([None, 2, 4]))
@settings(max_examples=80, deadline=None)
def test_ties_go_to_the_lower_latency_and_then_to_the_server_at_the_first_difference(
    seed: int, stages: int, crossings: int | None
) -> None:
    # Few different whole numbers, so that most problems have several placements of equal cost and latency.
    chance = random.Random(seed)

    def column() -> tuple[float, ...]:
        return tuple(chance.choice((1, 2)) for _ in range(stages))

    phase = Phase("all", 1, chance.randint(stages, 3 * stages), column(), column(), column(), column(), 1)
    problem = Problem(stage_names(stages), (phase,), Link(1, 1, 1, 1), column(), max_crossings=crossings)
    readings = {placement: read(problem, placement) for placement in itertools.product(Side, repeat=stages)}
    feasible = [placement for placement, one in readings.items() if one.in_time and one.runnable]
    if feasible:
        expected = min(
            feasible,
            key=lambda one: (readings[one].cost, readings[one].weighted, [side is Side.CLIENT for side in one]),
        )
        for shortcuts in (True, False):
            assert solve_dp(problem, shortcuts=shortcuts).placement == expected


def stage_names(count: int) -> tuple[str, ...]:
    return tuple(f"s{number}" for number in range(count))


@pytest.mark.parametrize("crossings", [2, 4, 8, None])
def test_on_long_problems_no_greedy_rule_is_better_and_looser_limits_never_cost_more(crossings: int | None) -> None:
    chance = random.Random(17)
    for _ in range(6):
        problem = replace(random_problem(chance, 48, 2), max_crossings=crossings, pinned={})
        phases = tuple(
            replace(phase, latency_limit_ms=phase.latency_limit_ms and 1.2 * phase.latency_limit_ms)
            for phase in problem.phases
        )
        solution, chosen = solved(problem)
        loose, now = solved(replace(problem, phases=phases))
        if solution.feasible:
            assert loose.feasible
            assert now.server_cost * (1 - loose.gap) <= chosen.server_cost * (1 + 1e-9)
        for greedy in (greedy_prefix, greedy_ratio):
            other = evaluate(problem, greedy(Tables.of(problem)))
            if other.feasible:
                assert chosen.server_cost <= other.server_cost * (1 + 1e-9)

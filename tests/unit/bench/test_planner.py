"""`splitllm bench planner`: the problems are what it says, and its verdict can fail."""

from __future__ import annotations

import json

import pytest

from splitllm.bench import planner
from splitllm.bench.planner import CASES, KINDS, problems, random_problem
from splitllm.cli.main import main
from splitllm.planner.dp import Solution
from splitllm.planner.problem import Problem, Side


def test_the_problems_are_the_same_in_every_run_and_each_its_own() -> None:
    first, again = (list(problems(CASES[1], 3, 12)) for _ in range(2))
    assert first == again
    assert len({problem.phases[0].latency_limit_ms for problem in first}) == len(first) == 3 * len(KINDS)


def test_half_of_the_problems_limit_the_memory() -> None:
    limits = [problem.client_memory_limit for problem in problems(CASES[0], 4, 12)]
    assert [limit is None for limit in limits] == [True, False] * 6


def test_the_measurement_is_told_as_a_table_and_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "planner", "--problems", "1", "--checks", "8"]) == 0
    assert "four crossings" in capsys.readouterr().out
    assert main(["bench", "planner", "--problems", "1", "--checks", "8", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert [case["case"] for case in result["cases"]] == [case.name for case in CASES]
    for case in result["cases"]:
        assert 0 < case["median_ms"] <= case["worst_ms"]
        assert (case["checked"], case["different"]) == (8, 0)
        assert 0 <= case["better_greedy_saved"] <= case["saved"] <= 1
    assert 0 < result["sessions"]["median_ms"] <= result["sessions"]["worst_ms"]


def test_whole_plans_are_of_all_kinds() -> None:
    plans = [make() for make in planner.session_plans(20)]
    assert {plan.feasible for plan in plans} == {True, False} or len({plan.bound for plan in plans}) > 1
    assert len({plan.split for plan in plans}) > 5
    assert all(len(plan.details["candidates"]["split"]) == planner.STAGES - 1 for plan in plans)


def test_a_planner_that_is_wrong_is_caught(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def lazy(problem: Problem) -> Solution:
        stages = len(getattr(problem, "problem", problem).stages)
        return Solution((Side.SERVER,) * stages, True, 0.0, 0)

    monkeypatch.setattr(planner, "solve_dp", lazy)
    assert main(["bench", "planner", "--problems", "1", "--checks", "16", "--json"]) == 1
    assert any(case["different"] for case in json.loads(capsys.readouterr().out)["cases"])


def test_most_problems_have_a_plan_that_is_neither_nothing_nor_everything() -> None:
    chosen = [
        planner.solve_dp(random_problem(kind, seed, stages=12, max_crossings=4, memory=True))
        for kind in KINDS
        for seed in range(8)
    ]
    mixed = [one for one in chosen if one.feasible and len(set(one.placement)) == 2]
    assert len(mixed) > len(chosen) / 2

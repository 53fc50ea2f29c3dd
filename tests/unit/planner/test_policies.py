"""The example of DESIGN.md worked out by hand, and what every policy makes of problems like it."""

from __future__ import annotations

import random
from typing import Any

import pytest

from splitllm.errors import ProblemError, UsageError
from splitllm.planner.policies import POLICIES, solve
from splitllm.planner.problem import problem_from_json
from splitllm.planner.reasons import figure, size
from tests.unit.planner.oracle import random_problem

KEYS = [
    "feasible",
    "placement",
    "server_cost",
    "saved_fraction",
    "crossings",
    "client_memory",
    "latency_ms",
    "optimality_gap",
    "reason",
]


def answer(problem: dict[str, Any], policy: str = "dp") -> dict[str, Any]:
    return solve(problem_from_json(problem), policy).to_json()


@pytest.mark.parametrize("policy", ["dp", "brute-force", "greedy-prefix", "greedy-ratio", "all-client"])
def test_the_example_by_hand(example: dict[str, Any], policy: str) -> None:
    plan = answer(example, policy)
    assert list(plan) == KEYS
    assert plan["feasible"] is True
    # The head is pinned to the server; memory 0 + 9 + 9 MB <= 30 MB; so everything else goes to the client.
    assert plan["placement"] == ["client", "client", "client", "server"]
    assert plan["client_memory"] == 18000000
    assert isinstance(plan["client_memory"], int)
    # prefill 1 · 2 + decode 200 · 1, of 1 · (1 + 3 + 3 + 2) + 200 · (0 + 1 + 1 + 1) = 609.
    assert plan["server_cost"] == 202
    assert plan["saved_fraction"] == pytest.approx(1 - 202 / 609)
    # Up before the head, down after it.
    assert plan["crossings"] == 2
    # prefill: 1 + 9 + 9, up 20 + 90000/1250 = 92, head 2, down 20 + 8/6250 = 20.00128.
    # decode: 0 + 4 + 4, up 20 + 900/1250 = 20.72, head 1, down 20.00128.
    assert plan["latency_ms"] == {"prefill": pytest.approx(133.00128), "decode": pytest.approx(49.72128)}
    assert plan["optimality_gap"] == 0


def test_the_example_on_the_server_alone(example: dict[str, Any]) -> None:
    plan = answer(example, "all-server")
    assert plan["placement"] == ["server"] * 4
    assert (plan["server_cost"], plan["saved_fraction"], plan["client_memory"]) == (609, 0, 0)
    # prefill: up 20 + 800/1250 = 20.64, 1 + 3 + 3 + 2 = 9, down 20.00128; decode: up 20 + 8/1250, 3, down.
    assert plan["latency_ms"] == {"prefill": pytest.approx(49.64128), "decode": pytest.approx(43.00768)}
    # At best the cost is 202.
    assert plan["optimality_gap"] == pytest.approx(1 - 202 / 609)


def test_the_example_with_a_tighter_decode(example: dict[str, Any]) -> None:
    # Both blocks on the client: 49.72 ms; one: 0 + 4, up 20.72, 1 + 1, down 20.00128 = 46.72 ms.
    example["phases"][1]["latency_limit_ms"] = 48
    plan = answer(example)
    assert plan["placement"] == ["client", "client", "server", "server"]
    # prefill 3 + 2, decode 200 · (1 + 1).
    assert plan["server_cost"] == 405
    assert plan["reason"] == (
        "The first 2 of 4 stages run on the client, 33 % of the server's cost saved: "
        "with block.1 there as well, decode would take 49.7 ms, over its limit of 48 ms."
    )


def test_the_example_with_less_memory(example: dict[str, Any]) -> None:
    example["client_memory_limit"] = 17_999_000
    plan = answer(example)
    assert plan["client_memory"] == 9_000_000
    assert "the client would need 18 MB of memory, over its limit of 17.999 MB" in plan["reason"]
    refused = answer(example, "all-client")
    assert refused["feasible"] is False
    assert refused["placement"] == ["client", "client", "client", "server"]
    assert "the client needs 18 MB of memory" in refused["reason"]


def test_the_example_that_nothing_satisfies(example: dict[str, Any]) -> None:
    example["phases"][1]["latency_limit_ms"] = 40
    for policy in ("dp", "brute-force"):
        plan = answer(example, policy)
        assert plan["feasible"] is False
        # Weighted latency 49.64 + 200 · 43.01 on the server; each stage at home adds to both.
        assert plan["placement"] == ["server"] * 4
        assert plan["reason"] == (
            "No placement meets every limit; in the fastest one decode takes 43 ms, over its limit of 40 ms."
        )


def test_the_example_without_limits_runs_at_home(example: dict[str, Any]) -> None:
    example.update(pinned={}, client_memory_limit=None, max_crossings=None)
    plan = answer(example)
    assert plan["placement"] == ["client"] * 4
    assert (plan["server_cost"], plan["saved_fraction"], plan["crossings"]) == (0, 1, 0)
    assert plan["latency_ms"] == {"prefill": 23, "decode": 10}


def test_several_crossings_pay_where_only_one_stage_is_dear(example: dict[str, Any]) -> None:
    # The middle costs the server little and the client much; both ends stay at home.
    example.update(max_crossings=4, pinned={}, client_memory_limit=None)
    for phase in example["phases"]:
        phase["client_ms"] = [1, 500, 1, 1]
        phase["latency_limit_ms"] = 300
    plan = answer(example)
    assert plan["placement"] == ["client", "server", "client", "client"]
    assert plan["crossings"] == 2
    assert plan["reason"].startswith("3 of 4 stages run on the client (2 crossings), 67 % of the server's cost saved:")
    assert "with block.0 there as well, prefill would take 503 ms, over its limit of 300 ms" in plan["reason"]


@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_every_policy_keeps_pins_and_tells_the_truth(policy: str) -> None:
    chance = random.Random(5)
    for _ in range(60):
        problem = random_problem(chance, 5, 2)
        plan, exact = solve(problem, policy), solve(problem)
        assert all(plan.placement[problem.stages.index(stage)] is side for stage, side in problem.pinned.items())
        assert plan.reason.endswith(".")
        assert "\n" not in plan.reason
        assert plan.feasible <= exact.feasible
        if plan.feasible:
            assert exact.server_cost <= plan.server_cost
            assert plan.server_cost * (1 - plan.optimality_gap) <= exact.server_cost * (1 + 1e-9) + 1e-12
        else:
            assert "over" in plan.reason


def test_greedy_prefix_stops_at_the_first_stage_that_does_not_fit(example: dict[str, Any]) -> None:
    example["client_memory"] = [0, 40000000, 9000000, 0]
    assert answer(example, "greedy-prefix")["placement"] == ["client", "server", "server", "server"]


def test_greedy_ratio_takes_the_best_bargain_first(example: dict[str, Any]) -> None:
    # block.1 saves most per millisecond but block.0 alone would fit better with the rest: greedy cannot know.
    example.update(max_crossings=None, pinned={}, client_memory_limit=9000000, client_memory=[0, 5, 9000000, 5])
    example["phases"] = example["phases"][1:]
    example["phases"][0].update(server_cost=[0, 4, 5, 4], client_ms=[0, 9, 1, 9], input_bytes=[0, 0, 0, 0])
    example["link"].update(up_ms=0, down_ms=0)
    # 200 · (4 + 4) and 200 · 5: the memory holds block.1, or the two others.
    assert answer(example, "greedy-ratio")["server_cost"] == 1600
    assert answer(example)["server_cost"] == 1000


def test_brute_force_refuses_long_problems(example: dict[str, Any]) -> None:
    count = 21
    example.update(stages=[f"s{i}" for i in range(count)], pinned={}, client_memory=[0] * count)
    for phase in example["phases"]:
        for key in ("client_ms", "server_ms", "server_cost", "input_bytes"):
            phase[key] = [1] * count
    with pytest.raises(ProblemError, match="at most 20 stages and this problem has 21: use dp"):
        answer(example, "brute-force")
    assert answer(example)["feasible"] is True


def test_an_unknown_policy_is_refused(example: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="choose one of dp, brute-force"):
        answer(example, "magic")


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (43, "43"), (0.00128, "0.00128"), (49.72128, "49.7"), (2310.4, "2,310"), (1e-9, "1e-09"), (0.5, "0.5")],
)
def test_figures_are_short_and_never_lose_whole_digits(value: float, text: str) -> None:
    assert figure(value) == text


def test_sizes_are_in_powers_of_a_thousand() -> None:
    assert [size(value) for value in (0, 999, 36e6, 1.5e9)] == ["0 bytes", "999 bytes", "36 MB", "1.5 GB"]

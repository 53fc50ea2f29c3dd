"""Every way a problem can be wrong gets one line that names the field."""

from __future__ import annotations

import math
from typing import Any

import pytest

from splitllm.errors import ProblemError
from splitllm.planner.evaluate import evaluate
from splitllm.planner.problem import Link, Phase, Problem, Side, problem_from_json


def test_the_example_reads_as_it_is_written(example: dict[str, Any]) -> None:
    problem = problem_from_json(example)
    assert problem.stages == ("embed", "block.0", "block.1", "head")
    assert problem.phases[1].weight == 200
    assert problem.phases[0].input_bytes == (800, 90000, 90000, 90000)
    assert problem.link == Link(20, 20, 1250, 6250)
    assert problem.pinned == {"head": Side.SERVER}
    assert (problem.client_memory_limit, problem.max_crossings) == (30000000, 2)


def test_what_may_be_left_out_limits_nothing(example: dict[str, Any]) -> None:
    for key in ("client_memory", "client_memory_limit", "pinned", "max_crossings"):
        del example[key]
    example["phases"][0]["latency_limit_ms"] = None
    problem = problem_from_json(example)
    assert problem.client_memory == (0, 0, 0, 0)
    assert (problem.client_memory_limit, problem.max_crossings, problem.pinned) == (None, None, {})
    assert problem.phases[0].latency_limit_ms is None


def test_null_limits_are_no_limits(example: dict[str, Any]) -> None:
    example.update(client_memory_limit=None, max_crossings=None, pinned=None)
    problem = problem_from_json(example)
    assert (problem.client_memory_limit, problem.max_crossings, problem.pinned) == (None, None, {})


GONE = object()
#: (where, what to write there, what the message says)
WRONG = [
    (("stages",), GONE, "stages is missing"),
    (("phases",), GONE, "phases is missing"),
    (("link",), GONE, "link is missing"),
    (("stages",), [], "stages has 0 entries"),
    (("stages",), "embed", "stages is 'embed': write a list"),
    (("stages",), ["a"] * 513, "stages has 513 entries: write 1 to 512"),
    (("stages", 1), "embed", "stages names 'embed' twice"),
    (("stages", 1), "", "stages[1] is ''"),
    (("stages", 1), 7, "stages[1] is 7"),
    (("stages", 1), "a\nb", "stages[1] is 'a\\nb'"),
    (("stages", 1), "\ud800", "stages[1] is '\\ud800'"),
    (("stages", 1), "x" * 101, "stages[1] is 'xxx"),
    (("phases",), [], "phases has 0 entries"),
    (("phases",), [{}] * 17, "phases has 17 entries: write 1 to 16"),
    (("phases",), {}, "phases is an object"),
    (("phases", 0), 3, "phases[0] is 3: write an object"),
    (("phases", 1, "name"), "prefill", "phases names 'prefill' twice"),
    (("phases", 1, "name"), None, "phases[1].name is null"),
    (("phases", 0, "weight"), GONE, "phases[0].weight is missing"),
    (("phases", 0, "weight"), -1, "phases[0].weight is -1"),
    (("phases", 0, "weight"), True, "phases[0].weight is true"),
    (("phases", 0, "latency_limit_ms"), GONE, "phases[0].latency_limit_ms is missing: write it, null for no limit"),
    (("phases", 0, "latency_limit_ms"), -5, "or null for no limit"),
    (("phases", 0, "latency_limit_ms"), math.inf, "phases[0].latency_limit_ms is inf"),
    (("phases", 0, "client_ms"), GONE, "phases[0].client_ms is missing"),
    (("phases", 0, "client_ms"), [1, 2, 3], "phases[0].client_ms has 3 entries for 4 stages"),
    (("phases", 0, "client_ms"), 5, "phases[0].client_ms is 5: write a list of 4 numbers"),
    (("phases", 0, "client_ms", 2), math.nan, "phases[0].client_ms[2] is not a number"),
    (("phases", 0, "client_ms", 2), "9", "phases[0].client_ms[2] is '9': write a number of milliseconds"),
    (("phases", 0, "server_ms", 0), -0.5, "phases[0].server_ms[0] is -0.5"),
    (("phases", 0, "server_cost", 0), False, "phases[0].server_cost[0] is false"),
    (("phases", 0, "server_cost", 0), None, "phases[0].server_cost[0] is null"),
    (("phases", 1, "input_bytes", 3), 1e16, "phases[1].input_bytes[3] is 1e+16: write a number of bytes"),
    (("phases", 1, "input_bytes", 3), 10**400, "phases[1].input_bytes[3] is a huge number"),
    (("phases", 1, "output_bytes"), [8], "phases[1].output_bytes is a list"),
    (("phases", 1, "surprise"), 1, "phases[1].surprise is not a known key"),
    (("surprise",), 1, "surprise is not a known key: the problem takes stages, phases"),
    (("link",), [20, 20], "link is a list"),
    (("link", "up_ms"), GONE, "link.up_ms is missing"),
    (("link", "up_ms"), -1, "link.up_ms is -1: write a number of milliseconds"),
    (("link", "up_bytes_per_ms"), 0, "link.up_bytes_per_ms is 0: write a bandwidth above 0"),
    (("link", "down_bytes_per_ms"), 0.0, "link.down_bytes_per_ms is 0"),
    (("link", "loss"), 0.1, "link.loss is not a known key"),
    (("client_memory",), [1], "client_memory has 1 entries for 4 stages"),
    (("client_memory",), None, "client_memory is null"),
    (("client_memory", 0), -1, "client_memory[0] is -1"),
    (("client_memory_limit",), "30 MB", "client_memory_limit is '30 MB': write a number of bytes"),
    (("pinned",), ["head"], "pinned is a list"),
    (("pinned", "tail"), "server", "pinned names 'tail', which is not in stages"),
    (("pinned", "head"), "cloud", 'pinned.head is \'cloud\': write "client" or "server"'),
    (("pinned", "head"), None, "pinned.head is null"),
    (("pinned", "head"), ["server"], "pinned.head is a list"),
    (("max_crossings",), -1, "max_crossings is -1"),
    (("max_crossings",), 1.5, "max_crossings is 1.5"),
    (("max_crossings",), True, "max_crossings is true"),
    (("max_crossings",), math.nan, "max_crossings is not a number"),
    (("max_crossings",), 10**30, "max_crossings is a huge number"),
]


@pytest.mark.parametrize(("path", "value", "message"), WRONG, ids=[case[2][:50] for case in WRONG])
def test_a_wrong_field_is_named(example: dict[str, Any], path: tuple[Any, ...], value: Any, message: str) -> None:
    at: Any = example
    for key in path[:-1]:
        at = at[key]
    if value is GONE:
        del at[path[-1]]
    else:
        at[path[-1]] = value
    with pytest.raises(ProblemError) as caught:
        problem_from_json(example)
    assert message in caught.value.message
    assert "\n" not in caught.value.message
    assert len(caught.value.message) < 200
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("thing", [None, 3, "problem", [], True])
def test_something_else_than_an_object_is_refused(thing: object) -> None:
    with pytest.raises(ProblemError, match="write an object with the keys stages"):
        problem_from_json(thing)


def test_the_largest_problem_allowed_is_read() -> None:
    names = [f"s{i}" for i in range(512)]
    column = [1] * 512
    phase = {
        "weight": 1,
        "latency_limit_ms": None,
        "client_ms": column,
        "server_ms": column,
        "server_cost": column,
        "input_bytes": column,
        "output_bytes": 1,
    }
    link = {"up_ms": 0, "down_ms": 0, "up_bytes_per_ms": 1, "down_bytes_per_ms": 1}
    phases = [{"name": f"p{i}", **phase} for i in range(16)]
    assert len(problem_from_json({"stages": names, "phases": phases, "link": link}).phases) == 16


def test_a_problem_made_in_code_is_checked_for_its_lengths() -> None:
    phase = Phase("p", 1, None, (1,), (1,), (1, 2), (1,), 0)
    with pytest.raises(ProblemError, match=r"phases\[0\].server_cost has 2 entries for 1 stages"):
        Problem(("a",), (phase,), Link(0, 0, 1, 1), (0,))
    good = Phase("p", 1, None, (1,), (1,), (1,), (1,), 0)
    with pytest.raises(ProblemError, match="not in stages"):
        Problem(("a",), (good,), Link(0, 0, 1, 1), (0,), None, {"b": Side.CLIENT})


def test_a_placement_of_another_shape_is_refused(example: dict[str, Any]) -> None:
    problem = problem_from_json(example)
    with pytest.raises(ProblemError, match="2 sides for 4 stages"):
        evaluate(problem, ("client", "server"))
    with pytest.raises(ProblemError, match="client"):
        evaluate(problem, ("client", "cloud", "server", "server"))

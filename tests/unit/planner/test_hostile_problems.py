"""`splitllm plan --problem -` on problems in which something is not what it should be."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitllm.cli import plan
from splitllm.cli.main import main
from splitllm.errors import SplitLLMError

#: What a careless or hostile program may write where a number, a name or a list belongs.
VALUES = [
    *("NaN", "Infinity", "-Infinity", "-1", "-0.0", "1e999", "1e16", "1" + "0" * 400, "null", "true", "0", "1e-300"),
    *('""', '"head"', '"\\u0000"', '"\\ud800"', "[]", "{}", "[[]]", '{"head": "server"}', '["embed"]', "[1, 1, 1, 1]"),
    *("[0, 0, 0, 1e15]", "[1, 1, 1, NaN]", "[" * 200 + "]" * 200, "", ",", "{"),
]
#: Every number, every string that is a value, and every list without lists in it.
PLACES = list(re.finditer(r'(?<![\w."])\d+|"[a-z0-9.]+"(?!:)|\[[^\[\]{}]*\]', plan.EXAMPLE))


def answered(raw: bytes, *more: str) -> int:
    parser = argparse.ArgumentParser()
    plan.add_parser(parser.add_subparsers())
    args = parser.parse_args(["plan", "--problem", "-", *more])
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()):
        patch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(raw)))
        code: int = args.run(args)
    return code


def attempted(raw: bytes, *more: str) -> int | SplitLLMError:
    try:
        return answered(raw, *more)
    except SplitLLMError as refused:
        return refused


@given(place=st.sampled_from(PLACES), value=st.sampled_from(VALUES), policy=st.sampled_from(sorted(plan.POLICIES)))
@settings(max_examples=200, deadline=None)
def test_whatever_stands_in_a_problem_is_planned_or_refused_in_one_line(
    place: re.Match[str], value: str, policy: str
) -> None:
    raw = plan.EXAMPLE[: place.start()] + value + plan.EXAMPLE[place.end() :]
    outcome = attempted(raw.encode(), "--policy", policy)
    if isinstance(outcome, int):
        assert outcome in (0, 3)
    else:
        assert outcome.exit_code == 2
        assert "\n" not in outcome.message
        assert 10 < len(outcome.message) < 300


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"client_ms": [1, 9, 9, 4]', '"client_ms": [1, -9, 9, 4]', "phases[0].client_ms[1] is -9"),
        ('"client_ms": [1, 9, 9, 4], ', "", "phases[0].client_ms is missing"),
        ('"client_ms": [1, 9, 9, 4]', '"client_ms": [1, 9, 9]', "has 3 entries for 4 stages"),
        ('"weight": 200', '"weight": NaN', "NaN is not a number in JSON"),
        ('"latency_limit_ms": 150', '"latency_limit_ms": Infinity', "Infinity is not a number in JSON"),
        ('"latency_limit_ms": 150', '"latency_limit_ms": 1e999', "phases[1].latency_limit_ms is inf"),
        ('{"head": "server"}', '{"tail": "server"}', "pinned names 'tail', which is not in stages"),
        ('{"head": "server"}', '{"head": "server", "head": "client"}', "the key 'head' is written twice"),
        ('"block.1"', '"block.0"', "stages names 'block.0' twice"),
        ('"up_bytes_per_ms": 1250', '"up_bytes_per_ms": 0', "write a bandwidth above 0"),
        ('"max_crossings": 2', '"max_crossings": -2', "write a whole number that is 0 or more"),
    ],
    ids=lambda value: value[:40],
)
def test_each_fault_is_named_and_ends_with_2(
    old: str, new: str, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert old in plan.EXAMPLE
    raw = plan.EXAMPLE.replace(old, new, 1).encode()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(raw)))
    assert main(["plan", "--problem", "-"]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("splitllm: ")
    assert shown.err.count("\n") == 1
    assert message in shown.err


def test_the_largest_problem_that_is_read_is_planned() -> None:
    stages = 512
    phase: dict[str, Any] = {"weight": 1, "latency_limit_ms": 3.0 * stages, "output_bytes": 1e15}
    for key in ("client_ms", "server_ms", "server_cost", "input_bytes"):
        phase[key] = [1 + (number * len(key)) % 7 for number in range(stages)]
    problem = {
        "stages": [f"s{number}" for number in range(stages)],
        "phases": [{"name": f"p{number}", **phase} for number in range(16)],
        "client_memory": [1e15] * stages,
        "client_memory_limit": 1e15,
        "link": {"up_ms": 0, "down_ms": 1e15, "up_bytes_per_ms": 1e-9, "down_bytes_per_ms": 1e15},
        "max_crossings": None,
    }
    assert answered(json.dumps(problem).encode()) in (0, 3)

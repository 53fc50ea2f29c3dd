"""`splitllm plan` as a person and a program use it."""

from __future__ import annotations

import argparse
import io
import json
from pathlib import Path
from typing import Any

import pytest

from splitllm.cli import plan
from splitllm.errors import SplitLLMError


def parse(*argv: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="splitllm")
    plan.add_parser(parser.add_subparsers())
    return parser.parse_args(["plan", *argv])


def run(*argv: str) -> int:
    args = parse(*argv)
    code: int = args.run(args)
    return code


@pytest.fixture
def file(tmp_path: Path, example: dict[str, Any]) -> str:
    path = tmp_path / "problem.json"
    path.write_text(json.dumps(example), "utf-8")
    return str(path)


def pipe(monkeypatch: pytest.MonkeyPatch, raw: bytes) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(raw)))


def test_a_plan_for_people(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--problem", file) == 0
    out = capsys.readouterr().out
    assert "server cost    202 (67 % saved)" in out
    assert "decode         49.7 ms (limit 150 ms)" in out
    assert "client         embed .. block.1 (3 stages)" in out
    assert out.endswith("the rest is pinned to the server.\n")


def test_a_plan_for_machines(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--problem", file, "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["placement"] == ["client", "client", "client", "server"]
    assert set(answer["latency_ms"]) == {"prefill", "decode"}


def test_the_problem_of_the_help_is_the_example(
    example: dict[str, Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert json.loads(plan.EXAMPLE) == example
    pipe(monkeypatch, plan.EXAMPLE.encode())
    assert run("--problem", "-", "--json") == 0
    assert json.loads(capsys.readouterr().out)["server_cost"] == 202
    with pytest.raises(SystemExit):
        parse("--help")
    assert plan.EXAMPLE in capsys.readouterr().out


def test_an_infeasible_plan_is_printed_and_exits_with_3(
    example: dict[str, Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    example["phases"][0]["latency_limit_ms"] = 1
    pipe(monkeypatch, json.dumps(example).encode())
    assert run("--problem", "-") == 3
    out = capsys.readouterr().out
    assert "feasible       no" in out
    assert "No placement meets every limit" in out


def test_policies_side_by_side(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--problem", file, "--policy", "all-server", "--explain") == 0
    lines = capsys.readouterr().out.splitlines()
    rows = {line.split()[0]: line.split()[1:] for line in lines[lines.index("") + 2 :]}
    assert rows["dp"][:2] == ["yes", "202"]
    assert rows["all-server"][:2] == ["yes", "609"]
    assert len(rows) == 6


def test_policies_side_by_side_for_machines_with_one_that_refuses(
    example: dict[str, Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 30
    example.update(stages=[f"s{i}" for i in range(count)], pinned={}, client_memory=[0] * count)
    for phase in example["phases"]:
        for key in ("client_ms", "server_ms", "server_cost", "input_bytes"):
            phase[key] = [1] * count
    pipe(monkeypatch, json.dumps(example).encode())
    assert run("--problem", "-", "--explain", "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert "at most 20 stages" in answer["explain"]["brute-force"]["refused"]
    assert answer["explain"]["dp"]["server_cost"] == answer["server_cost"]


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "standard input is not JSON (line 1 column 1"),
        (b"{", "is not JSON"),
        (b"[NaN]", "NaN is not a number in JSON"),
        (b"[-Infinity]", "-Infinity is not a number in JSON"),
        (b'{"stages": 1, "stages": 2}', "the key 'stages' is written twice"),
        (b'{"link": {"up_ms": 1, "up_ms": 2}}', "the key 'up_ms' is written twice"),
        (b"\xff\xfe{}", "is not UTF-8"),
        (b"[" * 300_000, "nested too deeply"),
        (b"[1" + b"0" * 9000 + b"]", "a number too long to read"),
        (b" " * (16 * 1024 * 1024 + 1), "larger than 16 MB"),
        (b"3", "the problem is 3: write an object"),
        (b'{"stages": ["a"], "phases": [], "link": {}}', "phases has 0 entries"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_bad_input_is_one_line_and_exit_2(raw: bytes, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe(monkeypatch, raw)
    with pytest.raises(SplitLLMError) as caught:
        run("--problem", "-")
    assert message in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.exit_code == 2


def test_files_that_cannot_be_read_are_one_line_and_exit_2(tmp_path: Path) -> None:
    for source, message in (
        (tmp_path / "none.json", "there is no file"),
        (tmp_path, "is a folder"),
        ("a\0b", "cannot be read"),
        ("no\nfile", "there is no file 'no\\nfile'"),
        (tmp_path / ("x" * 5000), "cannot be read"),
    ):
        with pytest.raises(SplitLLMError) as caught:
            run("--problem", str(source))
        assert message in caught.value.message
        assert "\n" not in caught.value.message
        assert caught.value.exit_code == 2


def test_a_byte_order_mark_does_no_harm(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pipe(monkeypatch, b"\xef\xbb\xbf" + plan.EXAMPLE.encode())
    assert run("--problem", "-") == 0


def test_what_is_for_bundles_is_not_ignored_with_a_problem(file: str) -> None:
    with pytest.raises(SplitLLMError, match=r"--rtt-ms, --effort .* --bundle"):
        run("--problem", file, "--rtt-ms", "40", "--effort", "0.5")

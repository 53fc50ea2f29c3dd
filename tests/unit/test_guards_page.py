"""The table of guards names files, symbols and tests that exist."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from tests.guards.mutations import MUTATIONS

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "decisions" / "guards-and-tests.md"
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.read_text("utf-8").splitlines()
    if line.startswith("|") and not line.startswith(("| guard", "|--"))
]


@cache
def names_in(path: Path) -> set[str]:
    """Names of the tests in a file: of functions in Python, of the strings that are given to `test` elsewhere."""
    text = path.read_text("utf-8")
    if path.suffix == ".py":
        functions = (ast.FunctionDef, ast.AsyncFunctionDef)
        return {node.name for node in ast.walk(ast.parse(text)) if isinstance(node, functions)}
    return set(re.findall(r"\b(?:test|it)(?:\.each\([^\n]*\))?\('([^'\n]+)'", text))


def test_the_page_has_a_table() -> None:
    assert len(ROWS) > 30
    assert {len(row) for row in ROWS} == {3}


def test_each_guard_can_be_taken_out() -> None:
    """`make guards` does it; here, that it can: what is to be changed stands where it says, once."""
    assert [row[0] for row in ROWS] == list(dict.fromkeys(row[0] for row in ROWS))
    assert MUTATIONS.keys() == {row[0] for row in ROWS}
    for guard, mutations in MUTATIONS.items():
        for path, text, _ in mutations:
            assert (ROOT / path).read_text("utf-8").count(text) == 1, f"{guard}: {path} no longer has {text!r} once"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0][:40])
def test_a_guard_stands_where_the_page_says_and_has_its_tests(row: list[str]) -> None:
    path, symbol = re.findall(r"`([^`]+)`", row[1])
    assert symbol in (ROOT / path).read_text("utf-8")
    named = [name.split("::") for name in re.findall(r"`([^`]+)`", row[2])]
    assert named
    for file, test in named:
        assert test in names_in(ROOT / file), f"{file} has no {test}"

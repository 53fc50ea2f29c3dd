"""Nothing here reads or writes a format that can run code when it is read."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = [path for name in ("backend", "export", "demo", "bench") for path in (ROOT / name).rglob("*.py")]
MODULES = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "jsonpickle"}
#: Calls that unpickle or pickle by whatever name they are reached.
CALLS = {"torch.load", "torch.save", "torch.jit.load", "pandas.read_pickle", "yaml.load", "yaml.unsafe_load"}


def pickles(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name.split(".")[0] in MODULES)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in MODULES:
            yield f"from {node.module}"
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{name.name}" for name in node.names if f"{node.module}.{name.name}" in CALLS)
        elif isinstance(node, ast.Attribute) and ast.unparse(node) in CALLS:
            yield ast.unparse(node)
        elif isinstance(node, ast.keyword) and node.arg in ("allow_pickle", "weights_only"):
            yield f"{node.arg}={ast.unparse(node.value)}"


@pytest.mark.parametrize(
    "code", ["import pickle", "from pickle import loads", "torch.load(x)", "from torch import load"]
)
def test_what_pickles_is_found(code: str) -> None:
    assert list(pickles(ast.parse(code)))


def test_no_code_of_ours_pickles() -> None:
    assert len(FILES) > 150
    found = {
        str(path.relative_to(ROOT)): names for path in FILES if (names := [*pickles(ast.parse(path.read_bytes()))])
    }
    assert found == {}

"""Versions are pinned once, and what serving needs by hash as well."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def pins(text: str) -> dict[str, str]:
    """Versions by name, in one spelling (PEP 503)."""
    found = re.findall(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", text, re.MULTILINE)
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in found}


HASHED = (ROOT / "requirements.txt").read_text("utf-8")
SIGN_HASHED = (ROOT / "requirements-sign.txt").read_text("utf-8")


def test_hashed_versions_are_those_of_the_constraints() -> None:
    constraints, hashed = pins((ROOT / "constraints.txt").read_text("utf-8")), pins(HASHED + SIGN_HASHED)
    elsewhere = {"colorama"}  # on Windows alone, where the constraints were not made
    assert {name: constraints.get(name) for name in hashed if name not in elsewhere} == {
        name: version for name, version in hashed.items() if name not in elsewhere
    }, "run `make lock`"


def test_everything_that_serving_needs_is_there_with_its_hashes() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    needed = [*project["dependencies"], *project["optional-dependencies"]["cpu"]]
    names = {re.split(r"[<>=]", each)[0] for each in needed}
    assert names <= pins(HASHED).keys(), "run `make lock`"
    signing = {re.split(r"[<>=]", each)[0] for each in project["optional-dependencies"]["sign"]}
    assert signing <= pins(SIGN_HASHED).keys(), "run `make lock`"
    assert not signing & pins(HASHED).keys()  # who serves without signatures does without their library
    for entry in re.split(r"^(?=[a-z])", HASHED + SIGN_HASHED, flags=re.MULTILINE)[1:]:
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), entry.splitlines()[0]


def test_make_installs_with_the_hashes() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    [hashed] = re.findall(r"^PIP_HASHED := (.*)$", makefile, re.MULTILINE)
    assert "--require-hashes -r requirements.txt" in hashed
    for stamp in (".serve", ".full"):
        recipe = makefile.split(f"$(VENV)/{stamp}: ")[1].split("\n\n")[0]
        assert "requirements.txt" in recipe.splitlines()[0]
        assert recipe.index("@$(PIP_HASHED)") < recipe.index("@$(PIP) -e")

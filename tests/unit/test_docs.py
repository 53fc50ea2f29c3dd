"""Documentation that a test keeps true."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from splitllm.cli.main import parser

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *(ROOT / "protocol").glob("*.md"),
]
#: Flags of other programs that the pages name.
FOREIGN = {"--enable-unsafe-webgpu", "--require-hashes"}


def commands() -> dict[str, argparse.ArgumentParser]:
    [subparsers] = [action for action in parser()._actions if isinstance(action, argparse._SubParsersAction)]
    return dict(subparsers.choices)


def flags(of: argparse.ArgumentParser) -> set[str]:
    """The options of a command and of its own subcommands."""
    own = {option for action in of._actions for option in action.option_strings if option.startswith("--")}
    nested = [action for action in of._actions if isinstance(action, argparse._SubParsersAction)]
    return own.union(*(flags(command) for action in nested for command in action.choices.values()))


def code_pieces(text: str) -> Iterator[str]:
    """Fenced blocks and inline code."""
    yield from re.findall(r"```\w*\n(.*?)```", text, re.DOTALL)
    yield from re.findall(r"`([^`\n]+)`", text)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_flag_that_a_page_names_exists(page: Path) -> None:
    known = flags(parser()) | FOREIGN
    named = {
        flag
        for piece in code_pieces(page.read_text("utf-8"))
        for flag in re.findall(r"(?<![\w-])--[a-z][a-z-]+", piece)
    }
    assert named <= known


def test_every_option_of_serve_is_explained_and_no_other() -> None:
    section = (ROOT / "docs/operating.md").read_text("utf-8").split("## Options")[1].split("##")[0]
    explained = set(re.findall(r"^\| `(--[a-z-]+)`", section, re.MULTILINE))
    assert explained == flags(commands()["serve"]) - {"--help"}


def test_every_command_is_named_in_the_readme() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    for command in commands():
        assert f"splitllm {command}" in text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text("utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_the_changelog_names_the_version() -> None:
    import splitllm

    assert f"## {splitllm.__version__}" in (ROOT / "CHANGELOG.md").read_text("utf-8")

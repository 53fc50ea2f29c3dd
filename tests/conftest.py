"""Fixtures that every kind of test shares."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from splitllm.bundle import Bundle
from splitllm.resources import demo_bundle
from tests import oracle
from tests.support import ServerProcess, running_server

# How long an example takes depends on the machine, and on what else runs there.
settings.register_profile("untimed", parent=settings(), deadline=None)
settings.load_profile("untimed")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-pictures", action="store_true", help="renew the pictures under docs/images")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Browser tests come last: Playwright's synchronous API keeps a loop running, which async tests cannot bear.

    In both halves what takes long comes first, so that no worker is left alone with it in the end.
    Who looks at the page in all views takes its pictures.
    """
    for item in items:
        if "screen" in getattr(item, "fixturenames", ()):
            item.add_marker("pictures")
    items.sort(key=lambda item: (_marked(item, "browser"), not _marked(item, "slow")))


def _marked(item: pytest.Item, name: str) -> bool:
    return item.get_closest_marker(name) is not None


@pytest.fixture(scope="session")
def bundle() -> Bundle:
    """The committed bundle of tiny-chat: 8 blocks, hidden 128."""
    return Bundle.open(demo_bundle())


@pytest.fixture(scope="session")
def endless(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The model with another end token, one that it never draws: an answer goes on until its limit."""
    folder = Path(shutil.copytree(bundle.folder, tmp_path_factory.mktemp("endless") / "bundle"))
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    manifest["tokenizer"]["end_tokens"] = [0]
    (folder / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    return Bundle.open(folder)


@pytest.fixture(scope="session")
def server() -> Iterator[ServerProcess]:
    """A real server of tiny-chat, in its own process."""
    with running_server(demo_bundle()) as process:
        yield process


@pytest.fixture(scope="session")
def transformers_texts() -> dict[str, str]:
    """Greedy text per oracle prompt, by transformers."""
    return oracle.transformers_texts()

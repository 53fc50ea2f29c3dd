"""A real server process that the integration tests share."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from splitllm.bundle import Bundle
from tests.support import ServerProcess


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the Python client keeps weights."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def endless(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The model with another end token, one that it never draws: an answer goes on until its limit."""
    folder = Path(shutil.copytree(bundle.folder, tmp_path_factory.mktemp("endless") / "bundle"))
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    manifest["tokenizer"]["end_tokens"] = [0]
    (folder / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    return Bundle.open(folder)


@pytest.fixture(autouse=True)
def _server_serves_on(request: pytest.FixtureRequest) -> Iterator[None]:
    """Whatever a test does to the shared server, it must still be there afterwards."""
    yield
    if "server" in request.fixturenames:
        process: ServerProcess = request.getfixturevalue("server")
        assert process.process.poll() is None, "the server is gone:\n" + "".join(process.output)

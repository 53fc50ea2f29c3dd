"""A real server process that the integration tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import ServerProcess


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the Python client keeps weights."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _server_serves_on(request: pytest.FixtureRequest) -> Iterator[None]:
    """Whatever a test does to the shared server, it must still be there afterwards."""
    yield
    if "server" in request.fixturenames:
        process: ServerProcess = request.getfixturevalue("server")
        assert process.process.poll() is None, "the server is gone:\n" + "".join(process.output)

"""A real server process that the integration tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from splitllm.resources import demo_bundle

from tests.support import ServerProcess, running_server


@pytest.fixture(scope="session")
def server() -> Iterator[ServerProcess]:
    with running_server(demo_bundle()) as process:
        yield process


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

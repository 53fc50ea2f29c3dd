"""Helpers for tests that talk to a real server, in a process of its own or in this one."""

from __future__ import annotations

import contextlib
import random
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from aiohttp import web

from splitllm.bench.server_process import ServerProcess
from splitllm.server.app import Server, make_app
from splitllm.server.config import ModelSource, ServerConfig
from splitllm.server.serve import app_runner, bind, load


@contextlib.contextmanager
def running_server(bundle: Path, *options: str) -> Iterator[ServerProcess]:
    """A server on a free port; its output is printed, which pytest shows when a test fails."""
    port = () if "--port" in options else ("--port", "0")
    command = [sys.executable, "-m", "splitllm.cli", "--verbose", "serve", str(bundle), *options, *port]
    server = ServerProcess(command)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.stop()
        print("".join(server.output))


@contextlib.asynccontextmanager
async def serving(folder: Path, unread_s: float = 60.0, **settings: Any) -> AsyncIterator[tuple[str, Server]]:
    """A server of this bundle as it is run, with limits that the command line does not offer: its URL, and itself."""
    server = load([ModelSource(folder)], ServerConfig(**settings))
    async with listening(server, unread_s) as url:
        yield url, server


@contextlib.asynccontextmanager
async def listening(server: Server, unread_s: float = 60.0) -> AsyncIterator[str]:
    """The URL of a server in this process. `unread_s`: how long a peer may leave unread what it was sent."""
    listener = bind("127.0.0.1", 0, unread_s=unread_s)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # so that a peer that does not read soon shows
    runner = app_runner(make_app(server))
    await runner.setup()
    try:
        await web.SockSite(runner, listener).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        await runner.cleanup()
        listener.close()


def free_port() -> int:
    """A port for a server that is told which to take: free now, and none that others get who ask for any."""
    while True:
        port = random.randrange(20_000, 32_000)  # systems give away those from 32768 on, Linux, or higher
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def run_cli(*args: str, stdin: str | None = None, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """`splitllm …`, to its end."""
    return subprocess.run(
        [sys.executable, "-m", "splitllm.cli", *args],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )

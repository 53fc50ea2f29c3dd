"""Helpers for tests that talk to a real server process."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from splitllm.bench.server_process import ServerProcess


@contextlib.contextmanager
def running_server(bundle: Path, *options: str) -> Iterator[ServerProcess]:
    """A server on a free port; its output is printed, which pytest shows when a test fails."""
    command = [sys.executable, "-m", "splitllm.cli", "--verbose", "serve", str(bundle), "--port", "0", *options]
    server = ServerProcess(command)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.stop()
        print("".join(server.output))


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

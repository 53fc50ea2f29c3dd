"""Helpers for tests that talk to a real server process."""

from __future__ import annotations

import contextlib
import os
import queue
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

READY = re.compile(r"Open (http://\S+) in a browser")
START_TIMEOUT_S = 60


class ServerProcess:
    """`splitllm serve` as its own process."""

    def __init__(self, command: Sequence[str], env: dict[str, str] | None = None) -> None:
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, **(env or {})}
        )
        self.output: list[str] = []
        self._lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        self.url = self._await_url()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.output.append(line)
            self._lines.put(line)
        self._lines.put(None)

    def _await_url(self) -> str:
        while True:
            try:
                line = self._lines.get(timeout=START_TIMEOUT_S)
            except queue.Empty:
                line = None
            if line is None:
                self.stop()
                raise AssertionError("the server did not start:\n" + "".join(self.output))
            found = READY.search(line)
            if found:
                return found[1]

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Stop it; returns the exit code."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)
        try:
            return self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError("the server did not stop:\n" + "".join(self.output)) from None


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

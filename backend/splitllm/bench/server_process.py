"""A server as a process of its own: for benchmarks and tests that meet it as its users do."""

from __future__ import annotations

import contextlib
import os
import queue
import re
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from ..errors import MachineError

_READY: Final = re.compile(r"Open (http://\S+) in a browser")
_START_TIMEOUT_S: Final = 60
_STOP_TIMEOUT_S: Final = 20
_PAGE: Final = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


class ServerProcess:
    """`command`, which starts a server, as a process that has said where it listens."""

    def __init__(
        self,
        command: Sequence[str],
        env: Mapping[str, str] | None = None,
        core: int | None = None,
        start_timeout_s: float = _START_TIMEOUT_S,
    ) -> None:
        """Start it, with `env` besides this process's environment, on `core` alone (None: on all).

        Raises:
            MachineError: it does not come up; the message ends with what it printed.
        """
        self.process = subprocess.Popen(  # noqa: S603  # the caller's own command line
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, **(env or {})},
            preexec_fn=None if core is None else lambda: pin(core),  # no threads yet
        )  # fmt: skip
        self.output: list[str] = []
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()
        self.url = self._await_url(start_timeout_s)

    def _read(self) -> None:
        for line in self.process.stdout or ():
            self.output.append(line)
            self._lines.put(line)
        self._lines.put(None)

    def _await_url(self, timeout_s: float) -> str:
        while True:
            try:
                line = self._lines.get(timeout=timeout_s)
            except queue.Empty:
                line = None
            if line is None:
                self.stop()
                raise MachineError("the server did not start:\n" + "".join(self.output)[-4000:].strip())
            found = _READY.search(line)
            if found:
                return found[1]

    def usage(self) -> tuple[float, float]:
        """Seconds on the processor so far, and seconds ready to run while others had the core, of all threads."""
        pid = self.process.pid
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
        waited = 0
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):  # a thread that just ended
                waited += int((task / "schedstat").read_text("utf-8").split()[1])
        return (int(fields[11]) + int(fields[12])) / _PAGE, waited / 1e9

    def resident_bytes(self) -> int:
        """Memory that it holds (RSS)."""
        statm = Path(f"/proc/{self.process.pid}/statm").read_text("ascii")
        return int(statm.split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def resident_bytes_of(self, least_bytes: int) -> int:
        """The part of `resident_bytes` that lies in unnamed mappings of at least so many bytes: buffers, not heaps."""
        found, counted = 0, False
        for line in Path(f"/proc/{self.process.pid}/smaps").read_text("ascii", "replace").splitlines():
            first, *rest = line.split()
            if not first.endswith(":"):  # the head of a mapping: its addresses, four fields, and its name if it has one
                start, end = (int(address, 16) for address in first.split("-"))
                counted = end - start >= least_bytes and len(rest) == 4
            elif counted and first == "Rss:":
                found += int(rest[0]) * 1024
        return found

    def sockets(self) -> int:
        """Sockets that it has open, listeners among them."""
        count = 0
        for file in Path(f"/proc/{self.process.pid}/fd").iterdir():
            with contextlib.suppress(OSError):  # closed meanwhile
                count += str(file.readlink()).startswith("socket:")
        return count

    def loop_s(self) -> float:
        """Seconds on the processor so far of its first thread, where a server's event loop runs."""
        pid = self.process.pid
        return int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text("utf-8").split()[0]) / 1e9

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End it with a signal; returns the exit code.

        Raises:
            MachineError: it did not heed the signal, and was killed.
        """
        with contextlib.suppress(ProcessLookupError):  # it has ended already
            self.process.send_signal(number)
        try:
            return self.process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise MachineError("the server did not stop:\n" + "".join(self.output)[-4000:].strip()) from None


def pin(core: int) -> None:
    """Let this process run on one core only."""
    os.sched_setaffinity(0, {core})

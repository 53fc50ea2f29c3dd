"""This project's server as its users meet it: a process of its own, sessions at split 0 through real WebSockets."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Final, TypeVar

from splitllm.bench.server_process import ServerProcess
from splitllm.bundle import Bundle
from splitllm.client.rows import Rows
from splitllm.client.session import ClientSession
from splitllm.types import ClientReport, SamplingParams

T = TypeVar("T")

SESSIONS: Final = 34
#: A turn is timed from the moment at which every session has so many tokens of it: then all are in one batch.
WARM: Final = 2


class Peer:
    """Sequences of one batch size are sessions that stay open; each step asks all of them for further tokens."""

    def __init__(self, model: Path, threads: int) -> None:
        command = [str(Path(sys.executable).with_name("splitllm")), "serve", str(model), "--port", "0"]
        command += ["--device", "cpu", "--variant", "float32", "--threads", str(threads)]
        command += ["--max-sessions", str(SESSIONS), "--idle-timeout-s", "7200"]
        self.server = ServerProcess(command)
        self.identity = Bundle.open(model, verify=False).identity
        self.loop = asyncio.new_event_loop()  # runs all the time: the server drops who answers no pings
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        self.sessions: dict[int, list[ClientSession]] = {}
        self.ids: dict[int, list[list[int]]] = {}

    async def _open(self) -> ClientSession:
        return await ClientSession.open(
            self.server.url, model=None, identity=self.identity, report=ClientReport(), split=0, wire="float32",
            expected_prompt_tokens=128, rows=Rows(),
        )  # fmt: skip

    async def _answer(self, session: ClientSession, ids: list[int], tokens: int) -> list[float]:
        """Ask for `tokens` further ones, which are added to `ids`; when each came."""
        came = []
        async for event in session.answer(list(ids), max_tokens=tokens, sampling=SamplingParams()):
            if isinstance(event, int):
                came.append(time.perf_counter())
                ids.append(event)
        if len(came) != tokens:
            raise RuntimeError("an answer ended early")
        return came

    async def _answer_all(self, batch: int, tokens: int) -> list[list[float]]:
        asked = zip(self.sessions[batch], self.ids[batch], strict=True)
        return await asyncio.gather(*(self._answer(session, ids, tokens) for session, ids in asked))

    async def _start(self, prompts: list[list[int]]) -> None:
        batch = len(prompts)
        self.ids[batch] = [list(prompt) for prompt in prompts]
        self.sessions[batch] = [await self._open() for _ in prompts]
        await self._answer_all(batch, 1)

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result()

    def open(self, prompts: list[list[int]]) -> None:
        """See worker.py."""
        self._run(self._start(prompts))

    def step(self, batch: int, steps: int) -> dict[str, float]:
        """See worker.py: wall time while all decode, and the server's processor time, both per step of the batch."""
        before, _ = self.server.usage()
        came = self._run(self._answer_all(batch, WARM + steps))
        after, _ = self.server.usage()
        begin, end = max(times[WARM - 1] for times in came), min(times[-1] for times in came)
        tokens = sum(begin < at <= end for times in came for at in times)
        return {"seconds": (end - begin) * batch / tokens, "cpu": (after - before) / (WARM + steps)}

    def close(self) -> None:
        """See worker.py."""
        for session in [session for sessions in self.sessions.values() for session in sessions]:
            self._run(session.close())
        self.server.stop()

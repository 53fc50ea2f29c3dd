"""Starting, draining and stopping, with real processes."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest

from splitllm.bundle import Bundle
from tests.integration.test_wire import HELLO, IDS, OPEN, TURN, Kind, peer
from tests.support import ServerProcess, run_cli, running_server

#: A turn at split 1 waits for its client after each token, so it lasts for as long as the test wants.
WAITING = {**OPEN, "split": 1}


def status(server: ServerProcess, path: str) -> tuple[int, dict[str, Any]]:
    try:
        with urllib.request.urlopen(f"{server.url}{path}", timeout=20) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


async def until_draining(server: ServerProcess) -> None:
    while status(server, "/ready")[0] != 503:  # noqa: ASYNC110  # the other process tells by answering
        await asyncio.sleep(0.02)


async def test_a_drain_lets_a_turn_finish_and_refuses_new_ones(bundle: Bundle) -> None:
    with running_server(bundle.folder, "--drain-s", "60") as server:
        hidden = np.zeros((4, bundle.spec.hidden_size), np.float16)
        async with peer(server, HELLO, WAITING) as busy, peer(server, HELLO, OPEN) as idle:
            await busy.say(TURN)
            await busy.frame(Kind.HIDDEN, 1, 0, hidden)
            first = await busy.token()
            server.process.send_signal(signal.SIGTERM)
            await until_draining(server)
            assert status(server, "/ready")[1] == {"ready": False, "reason": "draining"}
            assert status(server, "/health")[0] == 200
            assert (await idle.hear())["code"] == "shutting_down"
            assert await idle.ends() == 1001
            async with peer(server) as late:
                assert (await late.hear())["code"] == "shutting_down"
                assert await late.ends() == 1001
            body = {"model": "tiny-chat", "messages": [{"role": "user", "content": "Hi"}]}
            async with (
                aiohttp.ClientSession() as http,
                http.post(f"{server.url}/v1/chat/completions", json=body) as response,
            ):
                assert response.status == 503
                assert "Retry-After" in response.headers
                assert (await response.json())["error"]["code"] == "shutting_down"
            for position in (first[0], first[0] + 1):
                await busy.frame(Kind.HIDDEN, 1, position, hidden[:1])
                await busy.token()
            assert (await busy.hear())["finish_reason"] == "length"
            assert (await busy.hear())["code"] == "shutting_down"
            assert await busy.ends() == 1001
        assert server.process.wait(20) == 0
    assert any("1 turn may finish" in line for line in server.output)
    reasons = [json.loads(line)["reason"] for line in server.output if line.startswith("{")]
    assert reasons == ["shutting_down", "shutting_down"]


async def test_a_drain_waits_no_longer_than_it_is_allowed(bundle: Bundle) -> None:
    with running_server(bundle.folder, "--drain-s", "0.5") as server:
        async with peer(server, HELLO, WAITING) as busy:
            await busy.say(TURN)
            await busy.frame(Kind.IDS, 1, 0, IDS)  # refused, so that the turn has surely begun
            assert (await busy.hear())["code"] == "wrong_dtype"
            server.process.send_signal(signal.SIGINT)
            assert (await busy.hear())["code"] == "shutting_down"
            assert await busy.ends() == 1001
        assert server.process.wait(20) == 0


async def test_an_answer_over_http_finishes_too(endless: Bundle) -> None:
    messages = [{"role": "user", "content": "Hi"}]
    body = {"model": "tiny-chat", "messages": messages, "stream": True, "max_tokens": 1000}
    with running_server(endless.folder) as server:
        async with (
            aiohttp.ClientSession() as http,
            http.post(f"{server.url}/v1/chat/completions", json=body) as response,
        ):
            await response.content.readline()
            server.process.send_signal(signal.SIGTERM)
            await until_draining(server)
            text = await response.text()
            assert text.endswith("data: [DONE]\n\n")
            assert '"finish_reason":"length"' in text
        assert server.process.wait(20) == 0


async def test_a_second_signal_ends_at_once(bundle: Bundle) -> None:
    with running_server(bundle.folder, "--drain-s", "600") as server:
        async with peer(server, HELLO, WAITING) as busy:
            await busy.say(TURN)
            await busy.frame(Kind.IDS, 1, 0, IDS)  # refused, so that the turn has surely begun
            assert (await busy.hear())["code"] == "wrong_dtype"
            server.process.send_signal(signal.SIGTERM)
            await until_draining(server)
            server.process.send_signal(signal.SIGTERM)
            assert server.process.wait(20) == -signal.SIGTERM


async def test_an_unwritable_session_log_is_told(bundle: Bundle, tmp_path: Path) -> None:
    result = run_cli("serve", str(bundle.folder), "--session-log", str(tmp_path / "no" / "log"))
    assert result.returncode == 2
    assert "--session-log" in result.stderr


async def test_the_session_log_goes_to_a_file(bundle: Bundle, tmp_path: Path) -> None:
    log = tmp_path / "sessions.jsonl"
    with running_server(bundle.folder, "--session-log", str(log)) as server:
        async with peer(server, HELLO, OPEN) as client:
            await client.say({"type": "close"})
            assert await client.ends() == 1000
    [line] = map(json.loads, log.read_text("utf-8").splitlines())
    assert (line["event"], line["reason"], line["turns"], line["ttft_ms"]) == ("session_end", "closed", 0, None)
    assert not any("session_end" in line for line in server.output)


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo terminal")
def test_a_terminal_gets_one_live_line(bundle: Bundle) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "splitllm.cli", "serve", str(bundle.folder), "--port", "0"], stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    seen = b""
    try:
        deadline = time.monotonic() + 60
        while seen.count(b"\r\x1b[2K") < 2 and time.monotonic() < deadline:
            seen += os.read(ours, 4096)
    finally:
        process.terminate()
        assert process.wait(20) == 0
        os.close(ours)
    live = seen.split(b"\r\x1b[2K")[1].decode()
    assert live.startswith("0 sessions, 0 in a turn · 0.0 tokens/s")
    assert "\n" not in live

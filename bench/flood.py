"""What a flood of messages costs the sessions that mean no harm: time per token with it over time per token without.

    python bench/flood.py [--flood malformed] [--floods 4] [--rounds 5] [--bundle demo/bundle] [--json]

A real server process serves some calm sessions at split 0, whose answers run all the time. In each round the tokens
that they get are counted for a while in quiet, and for a while under the flood, which a process of its own sends:

    malformed   1 MB of JSON whose end is missing, on a new connection each time
    nested      1 MB of JSON that no schema admits: an array of arrays
    long-ids    a session is opened, then a turn whose `seen_ids` is as long as a text message may be
    cancels     a session is opened, then `cancel` again and again, as fast as the server takes it
    upgrades    connections that only become WebSockets and go
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import socket
import statistics
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import websockets

from splitllm.bench.machine import describe
from splitllm.protocol import PROTOCOL_VERSION, Frame, Kind, TurnRequest, decode_frame, encode_frame, report_to
from splitllm.types import ClientReport, SamplingParams
from tests.support import running_server

_PROMPT: Final = 8
_SETTLE_S: Final = 0.5
_UPGRADE: Final = (
    b"GET /v1/session HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
_HELLO: Final = {"type": "hello", "protocol": PROTOCOL_VERSION, "agent": "flood", "model": None, "bundle": None}


def _open(max_tokens: int) -> dict[str, Any]:
    report = report_to(ClientReport(backend="none"))
    common = {"type": "open", "client": report, "split": 0, "wire": "float16"}
    return {**common, "max_tokens": max_tokens, "expected_prompt_tokens": _PROMPT}


# -- those who mean harm ----------------------------------------------------------------------------------------------


def _text(text: str) -> bytes:
    """A masked text frame (RFC 6455, section 5.2), with a mask of zeros."""
    data = text.encode()
    return struct.pack("!BBQ4s", 0x81, 0x80 | 127, len(data), bytes(4)) + data


def _floods() -> dict[str, tuple[bytes, bytes]]:
    """By name: what opens a connection, and what then follows, again and again while it stays open."""
    greeting = _text(json.dumps(_HELLO))
    opening = greeting + _text(json.dumps(_open(64)))
    turn = TurnRequest(1, 0, _PROMPT, 8, SamplingParams(repetition_penalty=1.1)).to_message()
    ids = json.dumps({**turn, "seen_ids": [900] * 160_000})
    return {
        "malformed": (b"", _text('{"type":"hello","x":[' + "1," * 500_000)),
        "nested": (b"", _text("[" + "[1,2]," * 160_000 + "1]")),
        "long-ids": (opening, _text(ids)),
        "cancels": (opening, _text('{"type":"cancel","turn":1}') * 1000),
        "upgrades": (b"", b""),
    }


def _attack(port: int, name: str, threads: int, stop: Any, sent: Any) -> None:
    """Flood from `threads` threads until `stop` is set; counts what was sent whole."""
    opening, again = _floods()[name]

    def loop() -> None:
        while not stop.is_set():
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5) as peer:
                peer.sendall(_UPGRADE + opening)
                seen = peer.recv(4096)
                while opening and b'"plan"' not in seen:
                    seen = peer.recv(4096)
                while not stop.is_set():
                    peer.sendall(again)
                    with sent.get_lock():
                        sent.value += 1
                    if not again or (name != "cancels" and _closed(peer)):
                        break

    workers = [threading.Thread(target=loop, daemon=True) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


def _closed(peer: socket.socket) -> bool:
    """Wait for what the server says: whether that is a close, of one or the other kind."""
    while True:
        data = peer.recv(4096)
        if not data or b"\x88" in data or b'"fatal":true' in data:
            return True
        if b'"error"' in data:
            return False


# -- those who do not -------------------------------------------------------------------------------------------------


class Calm:
    """One session whose answers never end, and the gaps between its tokens, in ms."""

    def __init__(self, url: str, max_tokens: int) -> None:
        self._url, self._max_tokens = f"ws{url.removeprefix('http')}/v1/session", max_tokens
        self.clear()

    def clear(self) -> None:
        """Begin to count."""
        self.gaps: list[float] = []
        self.tokens, self.last = 0, time.perf_counter()

    async def run(self) -> None:
        """Ask on and on."""
        async with websockets.connect(self._url, compression=None, ping_interval=None) as peer:
            for message in (_HELLO, _open(self._max_tokens)):
                await peer.send(json.dumps(message))
                answer = json.loads(await peer.recv())
                if answer["type"] == "error":
                    raise SystemExit(answer["message"])
            turn = 0
            while True:
                turn += 1
                request = TurnRequest(turn, 0, _PROMPT, self._max_tokens, SamplingParams(temperature=100.0, seed=turn))
                await peer.send(json.dumps(request.to_message()))
                await peer.send(encode_frame(Frame(Kind.IDS, turn, 0, _ids())))
                while isinstance(received := await peer.recv(), bytes):
                    now = time.perf_counter()
                    self.tokens += decode_frame(received).rows
                    self.gaps.append(1000 * (now - self.last))
                    self.last = now


def _ids() -> Any:
    import numpy as np

    return np.full((_PROMPT, 1), 7, np.int32)


def _figures(tokens: list[int], gaps: list[float], seconds: float) -> dict[str, float]:
    """TPOT from the number of tokens, since a stalled server's come in bundles; gaps are those between arrivals."""
    ordered = sorted(gaps)
    return {
        "tpot_ms": 1000 * seconds * len(tokens) / max(1, sum(tokens)),
        "p99_ms": ordered[int(0.99 * (len(ordered) - 1))],
        "longest_ms": ordered[-1],
    }


async def _measure(
    url: str, args: argparse.Namespace, flooding: Callable[[], contextlib.AbstractContextManager[Any]]
) -> list[dict[str, Any]]:
    calm = [Calm(url, 512) for _ in range(args.sessions)]
    tasks = [asyncio.create_task(one.run()) for one in calm]

    async def take() -> dict[str, float]:
        await asyncio.sleep(_SETTLE_S)
        for one in calm:
            one.clear()
        begun = time.perf_counter()
        done, _ = await asyncio.wait(tasks, timeout=args.seconds, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
        seconds = time.perf_counter() - begun
        gaps = [gap for one in calm for gap in [*one.gaps, 1000 * (begun + seconds - one.last)]]
        return _figures([one.tokens for one in calm], gaps, seconds)

    rounds = []
    await take()
    for _ in range(args.rounds):
        quiet = await take()
        with flooding() as sent:
            flooded = await take()
            number = sent.value
        rounds.append({"quiet": quiet, "flooded": flooded, "sent": number})
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return rounds


def main() -> None:
    """Measure one flood, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flood", choices=[*_floods(), "all"], default="all")
    parser.add_argument("--floods", type=int, default=4, help="senders at once (default: 4)")
    parser.add_argument("--sessions", type=int, default=4, help="calm sessions (default: 4)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each half of a round")
    parser.add_argument("--bundle", type=Path, default=Path("demo/bundle"))
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    results = {}
    with contextlib.redirect_stdout(sys.stderr), running_server(args.bundle, "--threads", "1") as server:
        for name in [*_floods()] if args.flood == "all" else [args.flood]:

            @contextlib.contextmanager
            def flooding(name: str = name) -> Iterator[Any]:
                stop, sent = context.Event(), context.Value("i", 0)
                port = urlsplit(server.url).port
                process = context.Process(target=_attack, args=(port, name, args.floods, stop, sent), daemon=True)
                process.start()
                try:
                    while not sent.value:
                        time.sleep(0.01)
                    yield sent
                finally:
                    stop.set()
                    process.join(10)
                    process.terminate()

            rounds = asyncio.run(_measure(server.url, args, flooding))
            results[name] = {
                "tpot_ratio": statistics.median(r["flooded"]["tpot_ms"] / r["quiet"]["tpot_ms"] for r in rounds),
                "p99_ratio": statistics.median(r["flooded"]["p99_ms"] / r["quiet"]["p99_ms"] for r in rounds),
                "messages_per_s": statistics.median(r["sent"] for r in rounds) / (args.seconds + _SETTLE_S),
                "rounds": rounds,
            }
    if args.json:
        setup = {"sessions": args.sessions, "floods": args.floods, "bundle": args.bundle.name}
        print(json.dumps({"machine": describe(), "setup": setup, "floods": results}, indent=1))
        return
    for name, result in results.items():
        quiet, flooded = (
            statistics.median(r[half]["tpot_ms"] for r in result["rounds"]) for half in ("quiet", "flooded")
        )
        print(
            f"{name:10} TPOT {quiet:6.2f} -> {flooded:6.2f} ms, x {result['tpot_ratio']:.2f}"
            f" (p99 x {result['p99_ratio']:.2f}), {result['messages_per_s']:.0f} messages/s"
        )


if __name__ == "__main__":
    main()

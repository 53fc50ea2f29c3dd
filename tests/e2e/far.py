"""A server that is far away: an answer takes its time, whatever the machine."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tests.integration.test_reality import Proxy


@contextmanager
def far(url: str, kind: type[Proxy] = Proxy) -> Iterator[tuple[Proxy, str]]:
    """A proxy before a server, on a loop of its own thread, and its address; `delay_s` holds up each piece."""
    proxy = kind(int(url.rsplit(":", 1)[1]))
    ports: queue.SimpleQueue[int] = queue.SimpleQueue()
    done = threading.Event()

    async def serve() -> None:
        async with await asyncio.start_server(proxy.serve, "127.0.0.1", 0) as server:
            ports.put(server.sockets[0].getsockname()[1])
            await asyncio.to_thread(done.wait)

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    try:
        yield proxy, f"http://127.0.0.1:{ports.get(timeout=10)}"
    finally:
        done.set()
        thread.join(10)

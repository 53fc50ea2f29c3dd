"""Proxies before a server, on a loop of their own thread: Playwright's synchronous API keeps the test's."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import TypeVar

from tests.integration.test_reality import Proxy

T = TypeVar("T")

#: Of a link on which 900 tokens, which a server alone draws within a second, take some ten.
BYTE_S = 2.5e-4


@contextmanager
def on_a_thread(context: AbstractAsyncContextManager[T]) -> Iterator[T]:
    """An asynchronous context, entered on a loop of its own thread."""
    entered: queue.SimpleQueue[T] = queue.SimpleQueue()
    done = threading.Event()

    async def stay() -> None:
        async with context as value:
            entered.put(value)
            await asyncio.to_thread(done.wait)

    thread = threading.Thread(target=lambda: asyncio.run(stay()), daemon=True)
    thread.start()
    try:
        yield entered.get(timeout=10)
    finally:
        done.set()
        thread.join(10)


@contextmanager
def far(url: str, kind: type[Proxy] = Proxy) -> Iterator[tuple[Proxy, str]]:
    """A server that is far away: an answer takes its time, whatever the machine.

    A proxy and its address; `delay_s` holds up each piece.
    """
    proxy = kind(int(url.rsplit(":", 1)[1]))

    @asynccontextmanager
    async def serving() -> AsyncIterator[str]:
        async with await asyncio.start_server(proxy.serve, "127.0.0.1", 0) as server:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    with on_a_thread(serving()) as address:
        yield proxy, address

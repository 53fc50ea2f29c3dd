"""Pages for measuring: the engine of a server as other sites embed it, and workers of peers with their files."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, ClassVar

from playwright.sync_api import Page

from tests.e2e import sites
from tests.integration.test_reality import Proxy

#: Long enough for a software renderer.
TIMEOUT_MS = 600_000

CALL = """async ({ call, argument }) => {
  window.peer ??= new Worker(window.peerScript, { type: 'module' });
  const { result, error } = await new Promise((resolve, reject) => {
    window.peer.onmessage = ({ data }) => {
      if (data.first) window.firstTokenAt ??= performance.now();
      else resolve(data);
    };
    window.peer.onerror = (event) => reject(new Error(event.message));
    window.peer.postMessage({ call, argument });
  });
  if (error) throw new Error(error);
  return result;
}"""

ENGINE = """async (options) => {
  const { createEngine } = await import('/engine/v1.js');
  window.engine?.close();
  window.engine = createEngine(location.origin, options);
}"""
ANSWER = """async ({ question, maxTokens }) => {
  const { text, stats } = await window.engine.answer(question, { maxTokens }).result;
  return { text, ...stats, told: await window.engine.diagnostics() };
}"""


class IsolatedHandler(sites.QuietHandler):
    """Files of a folder, for pages that may use threads: packed and cached as the server of the page does it."""

    protocol_version = "HTTP/1.1"

    extensions_map: ClassVar = {**sites.QuietHandler.extensions_map, ".js": "text/javascript", ".html": "text/html"}

    def end_headers(self) -> None:
        """As the server of the page does it."""
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        cached = not self.path.endswith(".html")
        self.send_header("Cache-Control", "public, max-age=31536000, immutable" if cached else "no-cache")
        super().end_headers()

    def send_head(self) -> Any:
        """What was packed beforehand goes packed."""
        packed = Path(self.translate_path(self.path) + ".gz")
        if not packed.is_file():
            return super().send_head()
        self.send_response(200)
        self.send_header("Content-Type", self.guess_type(self.path))
        self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(packed.stat().st_size))
        self.end_headers()
        return packed.open("rb")


def folder_served(folder: Path) -> AbstractContextManager[str]:
    """Address of a folder."""
    return sites.folder_served(folder, IsolatedHandler)


class ThrottledProxy(Proxy):
    """One link for all connections, of so many bits a second each way."""

    BITS_PER_S: ClassVar = 20e6

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self._free_at: dict[bool, float] = {}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.port)
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            await asyncio.gather(self._paced(reader, up_writer, True), self._paced(up_reader, writer, False))

    async def _paced(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, up: bool) -> None:
        loop = asyncio.get_running_loop()
        while piece := await reader.read(1 << 14):
            free_at = max(loop.time(), self._free_at.get(up, 0.0)) + 8 * len(piece) / self.BITS_PER_S
            self._free_at[up] = free_at
            await asyncio.sleep(free_at - loop.time())
            writer.write(piece)
            await writer.drain()
        writer.close()


class PeerPage:
    """A page with one worker, which answers calls."""

    def __init__(self, page: Page, address: str, script: str) -> None:
        page.set_default_timeout(TIMEOUT_MS)
        page.goto(f"{address}/index.html")
        page.evaluate(f"window.peerScript = '/{script}'")
        self.page = page

    def call(self, name: str, **argument: Any) -> Any:
        """What the worker answers."""
        return self.page.evaluate(CALL, {"call": name, "argument": argument})


class EnginePage:
    """A page of the server with an engine of its own beside the page's, which runs nothing here."""

    def __init__(self, page: Page, url: str, **options: Any) -> None:
        page.set_default_timeout(TIMEOUT_MS)
        page.goto(f"{url}/?backend=none&split=0")
        page.evaluate(ENGINE, options)
        self.page = page

    def ask(self, question: str, max_tokens: int) -> dict[str, Any]:
        """Text, figures and diagnostics of one answer."""
        told: dict[str, Any] = self.page.evaluate(ANSWER, {"question": question, "maxTokens": max_tokens})
        return told

"""Web sites for pages of tests and measurements, on free ports of this machine."""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """Files of a folder, with the types that a browser asks of modules."""

    extensions_map: ClassVar = {".mjs": "text/javascript", ".wasm": "application/wasm", "": "application/octet-stream"}

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextmanager
def served(handler: Callable[..., http.server.BaseHTTPRequestHandler]) -> Iterator[str]:
    """Address of a site that answers so."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@contextmanager
def folder_served(folder: Path, handler: type[QuietHandler] = QuietHandler) -> Iterator[str]:
    """Address of a folder."""
    with served(functools.partial(handler, directory=str(folder))) as address:
        yield address

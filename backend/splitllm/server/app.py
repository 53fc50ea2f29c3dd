"""The aiohttp application: page, bundle, health and sessions."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any, Final

from aiohttp import web

from .. import __version__
from ..bundle import Bundle
from ..engines.base import Engine
from ..protocol import Limits
from ..runner import Runner
from ..session import Greeting
from ..text import TextCodec
from .config import ServerConfig
from .connection import Connection
from .planning import Admission
from .static import add_headers, bundle_handler, host_guard, page_handler

log = logging.getLogger(__name__)

#: A frame of max_rows float32 rows and its header, and room for a `turn` with a long `seen_ids`.
_TEXT_LIMIT: Final = 1 << 20
#: Connections beyond max_sessions that may be open without a session, to be told that the server is full.
_WAITING_ROOM: Final = 64
#: Seconds that clients get to take the server's goodbye.
_GOODBYE_S: Final = 5.0


class Server:
    """What all connections of one application share."""

    def __init__(self, bundle: Bundle, engine: Engine, config: ServerConfig) -> None:
        """`engine` must hold one row more than `config.max_sessions` (see Scheduler.can_open)."""
        self.bundle, self.config = bundle, config
        self.runner = Runner(engine, on_fault=self._engine_lost)
        self.codec = TextCodec.of(bundle)
        self.admission = Admission(bundle, config, engine.measure())
        self.connections: dict[Connection, asyncio.Task[Any]] = {}
        spec = bundle.spec
        self.limits = Limits(
            max_context=min(spec.max_context, engine.capacity),
            max_rows=config.max_rows,
            max_message_bytes=max(_TEXT_LIMIT, 32 + 4 * config.max_rows * spec.hidden_size),
            idle_timeout_s=config.idle_timeout_s,
        )
        self.greeting = Greeting(f"splitllm/{__version__}", spec.name, bundle.identity, spec, config.sla, self.limits)

    async def session(self, request: web.Request) -> web.StreamResponse:
        """`GET /v1/session`: one session over one WebSocket."""
        if not self.runner.ready:
            raise web.HTTPServiceUnavailable(text="The engine has stopped; the operator must restart the server.\n")
        if len(self.connections) >= self.config.max_sessions + _WAITING_ROOM:
            raise web.HTTPServiceUnavailable(text="Too many connections; try again in a minute.\n")
        socket = web.WebSocketResponse(
            max_msg_size=self.limits.max_message_bytes, compress=False, autoping=False, timeout=5.0
        )
        await socket.prepare(request)
        connection = Connection(
            socket,
            greeting=self.greeting,
            config=self.config,
            runner=self.runner,
            admission=self.admission,
            codec=self.codec,
            transport=request.transport if isinstance(request.transport, asyncio.Transport) else None,
        )
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  # a request handler always runs in a task
        self.connections[connection] = task
        try:
            await connection.serve()
        finally:
            del self.connections[connection]
        return socket

    async def health(self, _request: web.Request) -> web.Response:
        """`GET /health`: 200 once sessions can be served."""
        status = {
            "status": "ok" if self.runner.ready else "down",
            "model": self.bundle.spec.name,
            "bundle": self.bundle.identity,
            "sessions": len(self.admission.sessions),
            "version": __version__,
        }
        return web.json_response(status, status=200 if self.runner.ready else 503)

    def _engine_lost(self, _fault: BaseException) -> None:
        for connection in self.connections:
            connection.lose_engine()


def make_app(server: Server) -> web.Application:
    """The application. The engine's thread starts and stops with it."""
    config = server.config
    app = web.Application(middlewares=[host_guard(config.host, config.allowed_origins)])
    app.on_response_prepare.append(add_headers)
    app.router.add_get("/health", server.health)
    app.router.add_get("/v1/session", server.session)
    app.router.add_get("/bundle/{name}", bundle_handler(server.bundle))
    if config.page is not None:
        app.router.add_get("/{path:.*}", page_handler(config.page))

    async def lifetime(_app: web.Application) -> AsyncIterator[None]:
        server.runner.start()
        yield
        await server.runner.stop()
        server.runner.engine.close()

    async def say_goodbye(_app: web.Application) -> None:
        for connection in server.connections:
            connection.shut_down()
        if server.connections:
            await asyncio.wait(server.connections.values(), timeout=_GOODBYE_S)

    app.cleanup_ctx.append(lifetime)
    app.on_shutdown.append(say_goodbye)
    return app

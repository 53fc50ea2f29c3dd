"""The aiohttp application: page, bundle, health, metrics and sessions."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any, Final

from aiohttp import web

from .. import __version__
from ..bundle import Bundle
from ..engines.base import Engine
from ..planner.profile import EngineProfile
from ..protocol import Limits, text_limit
from ..runner import Runner, Tick
from ..session import Greeting, State
from ..text import TextCodec
from .access import KEY, SUBPROTOCOL, Access, offered
from .config import ServerConfig
from .connection import Connection
from .held import HeldSessions
from .live_session import Services
from .metrics import Figures, Metrics
from .openai_api import OpenAiApi, engine_stopped, shutting_down
from .pace import Lane, Pace
from .planning import Admission
from .static import add_headers, bundle_handler, embedding, host_guard, page_handler
from .summary import Snapshot
from .telemetry import Telemetry

log = logging.getLogger(__name__)

#: Where the operator's own listener is.
ADMIN_HOST: Final = "127.0.0.1"
#: Connections beyond max_sessions that may be open without a session, to be told that the server is full.
_WAITING_ROOM: Final = 64
#: New WebSockets a second, beyond those that all places hold: to open one costs about as much as a small tick.
_OPENINGS_PER_S: Final = 100.0
#: Seconds that clients get to take the server's goodbye.
_GOODBYE_S: Final = 5.0
#: How often the event loop's lag is taken, in seconds.
_LAG_EVERY_S: Final = 0.1


class Server:
    """What all connections of one application share."""

    def __init__(
        self, bundle: Bundle, engine: Engine, config: ServerConfig, profile: EngineProfile | None = None
    ) -> None:
        """`engine` must hold one row more than `config.max_sessions` (see Scheduler.open).

        `profile` is what was measured of it; without one, it measures what it can.
        """
        self.bundle, self.config = bundle, config
        spec = bundle.spec
        self.metrics = Metrics(spec, bundle.identity, __version__, config.sla, self._figures)
        self.telemetry = Telemetry(spec, config.sla, self.metrics)
        self.runner = Runner(engine, sla=config.sla, on_fault=self._engine_lost, on_tick=self._ticked)
        self.codec = TextCodec.of(bundle)
        self.admission = Admission(bundle, config, profile or engine.profile())
        self.connections: dict[Connection, asyncio.Task[Any]] = {}
        #: No new sessions any more: the server is about to stop.
        self.draining = False
        self.access = None if config.api_key_file is None else Access.load(config.api_key_file)
        self._places = config.max_sessions + _WAITING_ROOM
        self._arriving = 0
        self._arrivals = Pace(time.monotonic(), burst=self._places, per_s=_OPENINGS_PER_S)
        #: Connections take turns in having their text read.
        self.lane = Lane()
        max_context = min(spec.max_context, engine.capacity)
        longest_text = 4 * text_limit(max_context, between_turns=True)  # a character takes up to four bytes
        self.limits = Limits(
            max_context=max_context,
            max_rows=config.max_rows,
            max_message_bytes=max(longest_text, 32 + 4 * config.max_rows * spec.hidden_size),
            idle_timeout_s=config.idle_timeout_s,
        )
        self.api = OpenAiApi(
            bundle,
            config,
            runner=self.runner,
            admission=self.admission,
            codec=self.codec,
            telemetry=self.telemetry,
            max_context=self.limits.max_context,
        )
        self.greeting = Greeting(f"splitllm/{__version__}", spec.name, bundle.identity, spec, config.sla, self.limits)
        self.services = Services(self.greeting, config, self.runner, self.admission, self.codec, self.telemetry)
        #: Sessions that wait for their clients to come back.
        self.held = HeldSessions(config.grace_s)

    async def session(self, request: web.Request) -> web.StreamResponse:
        """`GET /v1/session`: one session over one WebSocket."""
        if not self.runner.ready:
            self.telemetry.refused("websocket", "internal")
            raise web.HTTPServiceUnavailable(text="The engine has stopped; the operator must restart the server.\n")
        if len(self.connections) + self._arriving >= self._places:
            self.telemetry.refused("websocket", "server_full")
            raise web.HTTPServiceUnavailable(text="Too many connections; try again in a minute.\n")
        protocols = offered(request)
        if protocols and SUBPROTOCOL not in protocols:  # aiohttp would log them, and one may hold a key
            raise web.HTTPBadRequest(text=f"Offer the subprotocol `{SUBPROTOCOL}`, or none.\n")
        self._arriving += 1
        try:
            await asyncio.sleep(self._arrivals.delay(time.monotonic()))
        finally:
            self._arriving -= 1
        socket = web.WebSocketResponse(
            protocols=(SUBPROTOCOL,) if protocols else (),
            max_msg_size=self.limits.max_message_bytes,
            compress=False,
            autoping=False,
            timeout=5.0,
        )
        try:
            await socket.prepare(request)
        except ConnectionResetError:  # gone already; aiohttp would write a traceback into the log for each
            return web.Response()
        connection = Connection(
            socket,
            services=self.services,
            held=self.held,
            transport=request.transport if isinstance(request.transport, asyncio.Transport) else None,
            lane=self.lane,
            owner=request.get(KEY),
        )
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  # a request handler always runs in a task
        self.connections[connection] = task
        if self.draining:
            connection.shut_down()
        try:
            await connection.serve()
        finally:
            del self.connections[connection]
        return socket

    async def health(self, _request: web.Request) -> web.Response:
        """`GET /health`: 200 while the server is alive, draining or not; 503 when the engine has stopped."""
        status = {
            "status": "ok" if self.runner.ready else "down",
            "model": self.bundle.spec.name,
            "bundle": self.bundle.identity,
            "sessions": len(self.admission.sessions),
            "version": __version__,
        }
        return web.json_response(status, status=200 if self.runner.ready else 503)

    async def ready(self, _request: web.Request) -> web.Response:
        """`GET /ready`: 200 if a new session can be had, 503 while draining and when the engine has stopped."""
        reason = "draining" if self.draining else "ok" if self.runner.ready else "engine stopped"
        return web.json_response({"ready": self.is_ready, "reason": reason}, status=200 if self.is_ready else 503)

    async def expose_metrics(self, request: web.Request) -> web.Response:
        """`GET /metrics`, for Prometheus."""
        body, content_type = self.metrics.exposition(request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type})

    @property
    def is_ready(self) -> bool:
        """Whether a new session can be had."""
        return self.runner.ready and not self.draining

    def session_states(self) -> dict[tuple[str, str], int]:
        """How many sessions there are, by (api, state)."""
        states = Counter(connection.state for connection in self.connections)
        named = {
            ("websocket", state.value.replace(" ", "_")): states[state]
            for state in (State.NEW, State.GREETED, State.IDLE, State.IN_TURN)
        }
        named["websocket", "held"] = len(self.held)
        return {**named, ("openai", "queued"): len(self.api.queue), ("openai", "in_turn"): self.api.in_turn}

    def snapshot(self) -> Snapshot:
        """What the summary line is made of."""
        states, totals = self.session_states(), self.telemetry.totals
        budget = self.admission.budget
        return Snapshot(
            time_s=time.monotonic(),
            sessions=len(self.admission.sessions),
            in_turn=sum(number for (_, state), number in states.items() if state == "in_turn"),
            kv_reserved_bytes=budget.reserved_bytes,
            kv_limit_bytes=budget.limit_bytes,
            draining=self.draining,
            tokens=totals.tokens,
            decode_ticks=totals.decode_ticks,
            decode_rows=totals.decode_rows,
            sla_hits=totals.sla_hits,
            sla_misses=totals.sla_misses,
        )

    async def drain(self, limit_s: float) -> None:
        """Take no new sessions, let turns in work finish for at most `limit_s`, and say goodbye to the others."""
        self.draining = self.api.draining = True
        self.held.end_all()
        for connection in self.connections:
            connection.drain()
        tasks = [*self.connections.values(), *self.api.requests]
        if tasks:
            await asyncio.wait(tasks, timeout=limit_s)

    def _figures(self) -> Figures:
        return Figures(
            sessions=self.session_states(),
            kv_reserved_bytes=self.admission.budget.reserved_bytes,
            kv_limit_bytes=self.admission.budget.limit_bytes,
            stage_seconds=self.runner.engine.stage_seconds,
            ready=self.is_ready,
            draining=self.draining,
        )

    async def watch_loop(self) -> None:
        """Take the event loop's lag for as long as the server lives."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + _LAG_EVERY_S
            await asyncio.sleep(_LAG_EVERY_S)
            self.metrics.loop_lag.observe(max(0.0, loop.time() - due))

    def _ticked(self, tick: Tick) -> None:
        self.telemetry.ticked(tick)
        self.admission.ticked(tick.batch, 1000 * tick.engine_s)

    def _engine_lost(self, _fault: BaseException) -> None:
        self.held.end_all()
        for connection in self.connections:
            connection.lose_engine()
        self.api.fail(engine_stopped())


def make_admin_app(server: Server) -> web.Application:
    """What only the operator should see, for a listener of its own on this machine."""
    app = _guarded(server, ADMIN_HOST)
    app.router.add_get("/metrics", server.expose_metrics)
    return app


def _guarded(server: Server, host: str) -> web.Application:
    """An application to be listened to on `host`, with the guards of all, and what supervisors ask for."""
    guards = [host_guard(host, server.config.allowed_origins)]
    if server.access is not None:
        guards.append(server.access.guard())
    app = web.Application(middlewares=guards, client_max_size=server.api.max_body_bytes)
    app.on_response_prepare.append(add_headers)
    app.on_response_prepare.append(embedding(server.config.allowed_origins))
    app.router.add_get("/health", server.health)
    app.router.add_get("/ready", server.ready)
    return app


def make_app(server: Server) -> web.Application:
    """The application. The engine's thread starts and stops with it."""
    config = server.config
    app = _guarded(server, config.host)
    if config.admin_port is None:
        app.router.add_get("/metrics", server.expose_metrics)
    app.router.add_get("/v1/session", server.session)
    server.api.add_routes(app.router)
    app.router.add_get("/bundle/{name}", bundle_handler(server.bundle))
    if config.page is not None:
        app.router.add_get("/{path:.*}", page_handler(config.page))

    async def lifetime(_app: web.Application) -> AsyncIterator[None]:
        server.runner.start()
        watch = asyncio.create_task(server.watch_loop())
        yield
        watch.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watch
        await server.runner.stop()
        server.runner.engine.close()

    async def say_goodbye(_app: web.Application) -> None:
        server.draining = server.api.draining = True
        server.held.end_all()
        for connection in server.connections:
            connection.shut_down()
        server.api.fail(shutting_down())
        tasks = [*server.connections.values(), *server.api.requests]
        if tasks:
            await asyncio.wait(tasks, timeout=_GOODBYE_S)

    app.cleanup_ctx.append(lifetime)
    app.on_shutdown.append(say_goodbye)
    return app

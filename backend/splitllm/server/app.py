"""The aiohttp application: page, bundle, health, metrics and sessions."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

from aiohttp import web

from .. import __version__
from ..engine_thread import EngineThread
from .access import KEY, SUBPROTOCOL, Access, offered
from .admission import AdmissionQueue
from .config import ServerConfig
from .connection import Connection
from .metrics import APIS, NO_MODEL, Figures, Metrics, ModelLabels
from .model import LoadedModel, ServedModel, Shared
from .openai_api import OpenAiApi, engine_stopped, shutting_down
from .pace import Lane, Pace
from .planning import kv_pool
from .static import (
    add_headers,
    bundle_handler,
    embedding,
    host_guard,
    models_handler,
    open_code,
    page_handler,
    preflight,
)
from .summary import Snapshot

log = logging.getLogger(__name__)

#: Where the operator's own listener is.
ADMIN_HOST: Final = "127.0.0.1"
#: Connections beyond max_sessions and the queue that may be open, to be told that both are full.
_WAITING_ROOM: Final = 64
#: New WebSockets a second, beyond those that all places hold: to open one costs about as much as a small tick.
_OPENINGS_PER_S: Final = 100.0
#: Seconds that clients get to take the server's goodbye.
_GOODBYE_S: Final = 5.0
#: See Connection.standing; who is about to go is not counted.
_STANDINGS: Final = ("new", "greeted", "queued", "idle", "evicted", "in_turn")
#: How often the event loop's lag is taken, in seconds.
_LAG_EVERY_S: Final = 0.1


class Server:
    """What all connections of one application share."""

    def __init__(self, loaded: Sequence[LoadedModel], config: ServerConfig) -> None:
        """`loaded`: at least one, each under another name; the first is for who names none."""
        self.config = config
        labels = [ModelLabels(model.name, model.bundle.spec.blocks, model.bundle.identity) for model in loaded]
        self.metrics = Metrics(labels, __version__, config.sla, self._figures, longest_wait_s=config.queue_s)
        self._max_message_bytes = max(model.longest_message(config.max_rows) for model in loaded)
        #: Sessions and requests of all models that wait for room.
        self.queue = AdmissionQueue(config.queue_length, config.queue_s, config.evict_idle_s)
        shared = Shared(
            config,
            names=tuple(model.name for model in loaded),
            thread=EngineThread(),
            pool=kv_pool(config, [model.bundle.spec for model in loaded]),
            queue=self.queue,
            metrics=self.metrics,
            max_message_bytes=self._max_message_bytes,
        )
        self.pool = shared.pool
        self.models = {model.name: ServedModel(model, shared, self._engine_lost) for model in loaded}
        self.connections: dict[Connection, asyncio.Task[Any]] = {}
        #: No new sessions any more: the server is about to stop.
        self.draining = False
        self.access = None if config.api_key_file is None else Access.load(config.api_key_file)
        self._places = config.max_sessions + config.queue_length + _WAITING_ROOM
        self._arriving = 0
        self._arrivals = Pace(time.monotonic(), burst=self._places, per_s=_OPENINGS_PER_S)
        #: Connections take turns in having their text read.
        self.lane = Lane()
        self.api = OpenAiApi(self.models, config, self.queue, self.metrics)

    @property
    def first(self) -> ServedModel:
        """The model of who names none."""
        return next(iter(self.models.values()))

    async def session(self, request: web.Request) -> web.StreamResponse:
        """`GET /v1/session`: one session over one WebSocket."""
        if not any(model.runner.ready for model in self.models.values()):
            self.metrics.refused(NO_MODEL, "websocket", "internal")
            raise web.HTTPServiceUnavailable(text="The engine has stopped; the operator must restart the server.\n")
        if len(self.connections) + self._arriving >= self._places:
            return self._turned_away("The server has too many connections; try again in a minute.", 60)
        if "new" in request.query and (full := self.queue.full_error(self.models)) is not None:
            return self._turned_away(full.message, self.queue.retry_after_s)
        if request.headers.get("Upgrade", "").lower() != "websocket":
            text = "This is where sessions begin, over a WebSocket; for HTTP there is /v1/chat/completions.\n"
            raise web.HTTPUpgradeRequired(headers={"Upgrade": "websocket"}, text=text)
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
            max_msg_size=self._max_message_bytes,
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
            models=self.models,
            config=self.config,
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

    def _turned_away(self, sentence: str, after_s: int) -> web.Response:
        """Before anything is made for a connection: what is refused must not cost those who are served."""
        self.metrics.refused(NO_MODEL, "websocket", "server_full")
        answer = web.Response(status=503, headers={"Retry-After": str(after_s)}, text=f"{sentence}\n")
        answer.force_close()  # to keep the connection would cost as much again as it saves
        return answer

    async def health(self, _request: web.Request) -> web.Response:
        """`GET /health`: 200 while the server is alive, draining or not; 503 when a model's engine has stopped."""
        status = {
            "status": "ok" if self._all_ready else "down",
            "model": self.first.name,
            "bundle": self.first.bundle.identity,
            "sessions": self._sessions,
            "queued": len(self.queue),
            "models": {
                model.name: {
                    "status": "ok" if model.runner.ready else "down",
                    "bundle": model.bundle.identity,
                    "sessions": len(model.admission.sessions),
                }
                for model in self.models.values()
            },
            "version": __version__,
        }
        return web.json_response(status, status=200 if self._all_ready else 503)

    async def ready(self, _request: web.Request) -> web.Response:
        """`GET /ready`: 200 if a new session can be had, 503 while draining and when an engine has stopped."""
        reason = "draining" if self.draining else "ok" if self._all_ready else "engine stopped"
        return web.json_response({"ready": self.is_ready, "reason": reason}, status=200 if self.is_ready else 503)

    async def expose_metrics(self, request: web.Request) -> web.Response:
        """`GET /metrics`, for Prometheus."""
        body, content_type = self.metrics.exposition(request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type})

    @property
    def is_ready(self) -> bool:
        """Whether a new session of any model can be had."""
        return self._all_ready and not self.draining

    @property
    def _all_ready(self) -> bool:
        return all(model.runner.ready for model in self.models.values())

    @property
    def _sessions(self) -> int:
        return sum(len(model.admission.sessions) for model in self.models.values())

    def session_states(self, model: ServedModel) -> dict[tuple[str, str], int]:
        """How many sessions of a model there are, by (api, state)."""
        states = Counter(connection.standing for connection in self.connections if connection.model is model)
        named = {("websocket", state): states[state] for state in _STANDINGS}
        named["websocket", "held"] = len(model.held)
        return {**named, ("openai", "queued"): self.api.queued(model), ("openai", "in_turn"): self.api.in_turn(model)}

    def snapshot(self) -> Snapshot:
        """What the summary line is made of."""
        in_turn = [self.session_states(model)[api, "in_turn"] for model in self.models.values() for api in APIS]
        totals = [model.telemetry.totals for model in self.models.values()]
        return Snapshot(
            time_s=time.monotonic(),
            sessions=self._sessions,
            queued=len(self.queue),
            in_turn=sum(in_turn),
            kv_reserved_bytes=self.first.admission.budget.reserved_bytes,
            kv_limit_bytes=self.pool.limit_bytes,
            draining=self.draining,
            tokens=sum(each.tokens for each in totals),
            decode_ticks=sum(each.decode_ticks for each in totals),
            decode_rows=sum(each.decode_rows for each in totals),
            sla_hits=sum(each.sla_hits for each in totals),
            sla_misses=sum(each.sla_misses for each in totals),
        )

    async def drain(self, limit_s: float) -> None:
        """Take no new sessions, let turns in work finish for at most `limit_s`, and say goodbye to the others."""
        self.draining = self.api.draining = True
        self.end_held()
        for connection in self.connections:
            connection.drain()
        tasks = [*self.connections.values(), *self.api.requests]
        if tasks:
            await asyncio.wait(tasks, timeout=limit_s)

    def end_held(self) -> None:
        """End all sessions that wait for their clients: they cannot come back to this server."""
        for model in self.models.values():
            model.held.end_all()

    def _figures(self) -> Figures:
        return Figures(
            models={name: model.figures(self.session_states(model)) for name, model in self.models.items()},
            kv_limit_bytes=self.pool.limit_bytes,
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

    def _engine_lost(self, model: ServedModel) -> None:
        model.held.end_all()
        for connection in self.connections:
            if connection.model is model:
                connection.lose_engine()
        self.api.fail(engine_stopped(), model)


def make_admin_app(server: Server) -> web.Application:
    """What only the operator should see, for a listener of its own on this machine."""
    app = _guarded(server, ADMIN_HOST)
    app.router.add_get("/metrics", server.expose_metrics)
    return app


def _guarded(server: Server, host: str) -> web.Application:
    """An application to be listened to on `host`, with the guards of all, and what supervisors ask for."""
    origins = server.config.allowed_origins
    guards = [host_guard(host, origins)]
    if server.access is not None:
        guards += [preflight(origins), server.access.guard(open_code(origins))]
    app = web.Application(middlewares=guards, client_max_size=server.api.max_body_bytes)
    app.on_response_prepare.append(add_headers)
    app.on_response_prepare.append(embedding(origins))
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
    app.router.add_get("/bundle/{name}", bundle_handler(server.first.bundle))
    bundles = {name: model.bundle for name, model in server.models.items()}
    app.router.add_get("/models/{model:.+}/{name}", models_handler(bundles))
    if config.page is not None:
        app.router.add_get("/{path:.*}", page_handler(config.page))

    async def lifetime(_app: web.Application) -> AsyncIterator[None]:
        for model in server.models.values():
            model.runner.start()
        watch = asyncio.create_task(server.watch_loop())
        yield
        watch.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watch
        for model in server.models.values():
            await model.runner.stop()
            model.runner.engine.close()

    async def say_goodbye(_app: web.Application) -> None:
        server.draining = server.api.draining = True
        server.end_held()
        for connection in server.connections:
            connection.shut_down()
        server.api.fail(shutting_down())
        tasks = [*server.connections.values(), *server.api.requests]
        if tasks:
            await asyncio.wait(tasks, timeout=_GOODBYE_S)

    app.cleanup_ctx.append(lifetime)
    app.on_shutdown.append(say_goodbye)
    return app

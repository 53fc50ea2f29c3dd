"""Running a server until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import signal
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from aiohttp import web

from ..bundle import Bundle
from ..engines.onnx import OnnxEngine, choose
from ..engines.profiling import cached_profile, setting_of
from ..errors import BundleError, MachineError, UsageError
from ..kv_budget import KvBudget
from ..signature import TrustedKey, read_trusted_key
from .app import ADMIN_HOST, Server, make_admin_app, make_app
from .config import ModelSource, ServerConfig
from .http_log import http_logger
from .memory import ModelMemory, kv_memory
from .model import LoadedModel
from .summary import is_news, summary_line

try:
    import resource
except ImportError:  # Windows has no such limit
    resource = None  # type: ignore[assignment]  # what is not there is None

#: A connection that sends no whole request head for so long is closed.
_SILENT_CONNECTION_S: Final = 75.0
#: A peer that takes nothing of what waits for it for so long is dropped, by the kernel: a file goes out without this
#: process looking on. Longer than `send_timeout_s`, so that a session's own limit comes first.
_UNREAD_S: Final = 60.0
#: Files and connections that the process may have open, as far as its hard limit allows.
_OPEN_FILES: Final = 65536
#: Of these, for what is no connection.
_OTHER_FILES: Final = 64
#: Connections that wait for the event loop to take them.
_BACKLOG: Final = 128


def bind(host: str, port: int, *, option: str = "--port", unread_s: float = _UNREAD_S) -> socket.socket:
    """A listening socket; port 0 takes a free one. Peers that read nothing for `unread_s` are dropped (on Linux).

    `option` is the one that the port was given with.

    Raises:
        MachineError: the port is in use or may not be used, or the host is none of this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # RFC 5482; connections inherit it
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(1000 * unread_s))
    try:
        listener.bind((host, port))
    except (OSError, OverflowError) as error:
        listener.close()
        number = getattr(error, "errno", None)
        if number == errno.EADDRINUSE:
            raise MachineError(
                f"port {port} is in use; stop what uses it, or choose another with {option}", code="port_in_use"
            ) from None
        if number == errno.EACCES:
            raise MachineError(
                f"port {port} needs rights you do not have; choose one above 1023 with {option}"
            ) from None
        raise MachineError(f"cannot listen on {host}:{port} ({error}); check --host and --port") from None
    listener.listen(_BACKLOG)
    return listener


def load(sources: Sequence[ModelSource], config: ServerConfig) -> Server:
    """Open and verify the bundles, and load their engines.

    Raises:
        UsageError: two models have one name, they do not fit the memory, or the file of a trusted key holds none.
        BundleError: a bundle is damaged, a part cannot be loaded, or no trusted key has signed it.
        MachineError: the device cannot be used.
    """
    bundles = _by_name(sources, [read_trusted_key(path) for path in config.trusted_keys])
    needs = [_memory(name, bundle, config) for name, bundle in bundles.items()]
    config = replace(config, kv_memory_bytes=kv_memory(needs, config.memory_bytes, config.kv_memory_bytes))
    return Server([_load(name, bundle, config) for name, bundle in bundles.items()], config)


def _by_name(sources: Sequence[ModelSource], trusted: Sequence[TrustedKey]) -> dict[str, Bundle]:
    bundles: dict[str, Bundle] = {}
    for source in sources:
        try:
            bundle = Bundle.open(source.folder, trusted=trusted)
        except BundleError as error:
            if len(sources) == 1:
                raise
            raise BundleError(f"{source.folder}: {error.message}", code=error.code) from None
        name = source.name or bundle.spec.name
        if name in bundles:
            raise UsageError(
                f"{bundles[name].folder} and {bundle.folder} are both called {name!r}; give one of them another name, "
                f"as in other={source.folder}"
            )
        bundles[name] = bundle
    return bundles


def _memory(name: str, bundle: Bundle, config: ServerConfig) -> ModelMemory:
    choice, spec = choose(bundle, config.device, config.variant), bundle.spec
    least = KvBudget(0, spec.blocks, spec.kv_bytes_per_token()).cost(
        0, min(config.least_session_tokens, spec.max_context)
    )
    return ModelMemory(name, bundle.weight_bytes(choice.blocks, choice.head), least)


def _load(name: str, bundle: Bundle, config: ServerConfig) -> LoadedModel:
    engine = OnnxEngine(
        bundle,
        rows=config.max_sessions,
        capacity=bundle.spec.max_context,
        threads=config.threads,
        device=config.device,
        variant=config.variant,
    )
    setting = setting_of(engine, config.threads)
    profile = cached_profile(engine, identity=bundle.identity, setting=setting, folder=config.profile_cache)
    return LoadedModel(name, bundle, engine, profile)


@dataclass(frozen=True, slots=True)
class Narrator:
    """Who is told what happens.

    ready: the server and its URL, once it answers. news: a sentence. summary: the line of summary.py, every
    `summary_every_s` seconds; `every_summary` asks for it even when nothing has changed.
    """

    ready: Callable[[Server, str], None]
    news: Callable[[str], None]
    summary: Callable[[str], None]
    summary_every_s: float
    every_summary: bool


def serve(sources: Sequence[ModelSource], config: ServerConfig, narrator: Narrator) -> None:
    """Serve until SIGINT or SIGTERM, then drain; a second signal ends the process at once.

    Raises:
        UsageError: as `load`.
        MachineError: the port cannot be had.
        BundleError: a bundle cannot be served.
    """
    _raise_file_limit()
    with contextlib.ExitStack() as listeners:
        listener = listeners.enter_context(bind(config.host, config.port))
        admin = None
        if config.admin_port is not None:
            admin = listeners.enter_context(bind(ADMIN_HOST, config.admin_port, option="--admin-port"))
        asyncio.run(_serve(load(sources, config), listener, admin, narrator))


def _raise_file_limit() -> None:
    """Let this process hold as many connections as it may: strangers soon use up the usual soft limit of 1024."""
    if resource is None:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):  # the system allows less than it says
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _most_connections() -> int:
    """How many connections there may be of any kind: each may have a file open, and files are left for the rest."""
    files = _OPEN_FILES if resource is None else resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return max(1, (min(files, _OPEN_FILES) if files > 0 else _OPEN_FILES) // 2 - _OTHER_FILES)


class _Newcomer(asyncio.Protocol):
    """A connection of which it is open whether it is one too many.

    asyncio makes the protocols of all connections that wait before the first of them is made, so nobody can be counted
    earlier than here.
    """

    def __init__(self, server: web.Server, most: int) -> None:
        self._server, self._most = server, most

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Serve it, or drop it at once: a person's browser tries again, and a flood costs nothing but this."""
        if len(self._server.connections) >= self._most:
            transport.close()
            return
        handler = self._server()
        transport.set_protocol(handler)
        handler.connection_made(transport)


def admitting(runner: web.AppRunner, most: int) -> Callable[[], asyncio.BaseProtocol]:
    """Makes the protocol of each connection, which serves it as long as there are fewer than `most`."""
    server = runner.server
    assert server is not None  # noqa: S101  # the runner is set up
    return partial(_Newcomer, server, most)


def address(host: str, port: int) -> str:
    """Where a browser on this machine finds who listens there; it cannot open the address that stands for all."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  # nothing is bound to it here
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def app_runner(app: web.Application) -> web.AppRunner:
    """What runs an application."""
    return web.AppRunner(
        app,
        access_log=None,
        logger=http_logger(),
        handle_signals=False,
        shutdown_timeout=5.0,
        keepalive_timeout=_SILENT_CONNECTION_S,
        auto_decompress=False,  # nobody needs to send compressed bodies, and a small one may unpack into a large one
    )


async def _serve(
    server: Server, listener: socket.socket, admin_listener: socket.socket | None, narrator: Narrator
) -> None:
    stop = _on_first_signal()
    loop = asyncio.get_running_loop()
    runner = app_runner(make_app(server))
    admin = app_runner(make_admin_app(server))
    await runner.setup()
    await admin.setup()
    gc.collect()
    gc.freeze()  # what is loaded stays: each full collection would walk it, and hold everybody up for twice as long
    summaries = listening = None
    try:
        if admin_listener is not None:
            await web.SockSite(admin, admin_listener).start()
        listening = await loop.create_server(admitting(runner, _most_connections()), sock=listener, backlog=_BACKLOG)
        narrator.ready(server, address(*listener.getsockname()[:2]))
        summaries = asyncio.create_task(_tell_summaries(server, narrator))
        await stop.wait()
        if in_turn := server.snapshot().in_turn:
            turns = f"{in_turn} turn{'s' if in_turn > 1 else ''}"
            narrator.news(f"Stopping: {turns} may finish for {server.config.drain_s:g} s; once more to stop at once.")
        await server.drain(server.config.drain_s)
    finally:
        if summaries is not None:
            summaries.cancel()
        if listening is not None:
            listening.close()
        await runner.cleanup()
        await admin.cleanup()


def _on_first_signal() -> asyncio.Event:
    """Set by the first SIGINT or SIGTERM; the second does what it does by default, and ends the process at once."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGINT, signal.SIGTERM)

    def first() -> None:
        stop.set()
        for number in numbers:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)

    for number in numbers:
        loop.add_signal_handler(number, first)
    return stop


async def _tell_summaries(server: Server, narrator: Narrator) -> None:
    before = server.snapshot()
    while True:
        await asyncio.sleep(narrator.summary_every_s)
        now = server.snapshot()
        if narrator.every_summary or is_news(before, now):
            narrator.summary(summary_line(before, now))
        before = now

"""Running a server until it is told to stop."""

from __future__ import annotations

import asyncio
import errno
import signal
import socket
from collections.abc import Callable

from aiohttp import web

from ..bundle import Bundle
from ..engines.onnx import OnnxEngine
from ..errors import MachineError
from .app import Server, make_app
from .config import ServerConfig


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one.

    Raises:
        MachineError: the port is in use or may not be used, or the host is none of this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except (OSError, OverflowError) as error:
        listener.close()
        number = getattr(error, "errno", None)
        if number == errno.EADDRINUSE:
            raise MachineError(
                f"port {port} is in use; stop what uses it, or choose another with --port", code="port_in_use"
            ) from None
        if number == errno.EACCES:
            raise MachineError(f"port {port} needs rights you do not have; choose one above 1023 with --port") from None
        raise MachineError(f"cannot listen on {host}:{port} ({error}); check --host and --port") from None
    listener.listen(128)
    return listener


def load(config: ServerConfig) -> Server:
    """Open and verify the bundle, and load the engine.

    Raises:
        BundleError: the bundle is damaged or a part cannot be loaded.
    """
    bundle = Bundle.open(config.bundle)
    # One row is spare: an open session changes rows when its split changes.
    engine = OnnxEngine(bundle, rows=config.max_sessions + 1, capacity=bundle.spec.max_context, threads=config.threads)
    return Server(bundle, engine, config)


def serve(config: ServerConfig, *, on_ready: Callable[[Server, str], None]) -> None:
    """Serve until SIGINT or SIGTERM. `on_ready` gets the server and its URL once it answers.

    Raises:
        MachineError: the port cannot be had.
        BundleError: the bundle cannot be served.
    """
    listener = bind(config.host, config.port)
    try:
        asyncio.run(_serve(load(config), listener, on_ready))
    finally:
        listener.close()


async def _serve(server: Server, listener: socket.socket, on_ready: Callable[[Server, str], None]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    app_runner = web.AppRunner(make_app(server), access_log=None, handle_signals=False, shutdown_timeout=5.0)
    await app_runner.setup()
    try:
        await web.SockSite(app_runner, listener).start()
        host, port = listener.getsockname()[:2]
        on_ready(server, f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}")
        await stop.wait()
    finally:
        await app_runner.cleanup()

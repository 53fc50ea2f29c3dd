"""HTTP from strangers: what is not meant for them they do not get, and what they hold open they do not keep."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import socket as sockets
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import aiohttp
import pytest
import websockets

from splitllm.bundle import Bundle
from splitllm.engines.onnx import OnnxEngine
from splitllm.errors import BundleError
from splitllm.resources import page_folder
from splitllm.server import connection, serve
from splitllm.server.app import Server, make_app
from splitllm.server.config import ServerConfig
from splitllm.server.model import LoadedModel
from tests.integration.test_http import request
from tests.integration.test_wire import HELLO, is_well, peer
from tests.support import ServerProcess, serving

SECRET = b"the operator's secret"
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "BREW")
#: Everything that is there, and how it may be asked for; a page's or bundle's file is like the one that stands here.
OPEN_ROUTES = {
    "/health": {"GET", "HEAD"},
    "/ready": {"GET", "HEAD"},
    "/metrics": {"GET", "HEAD"},
    "/": {"GET", "HEAD"},
    "/bundle/manifest.json": {"GET", "HEAD"},
    "/v1/models": {"GET", "HEAD"},
    "/v1/session": {"GET", "HEAD"},  # 426 without an upgrade
    "/v1/chat/completions": {"POST"},
}
CLOSED_ROUTES = [
    "/no",
    "/admin",
    "/bundle",
    "/bundle/",
    "/bundle/x",
    "/v1",
    "/v1/",
    "/v1/files",
    "/v2/session",
    "/.git/config",
]
UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


async def status_of(url: str, target: str, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
    """Status and all bytes of the answer to a GET whose target goes out as it is."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    lines = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
    writer.write(f"GET {target} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n{lines}\r\n".encode("latin1"))
    answer = await reader.read()
    writer.close()
    return int(answer.split(b" ", 2)[1]), answer


# -- routes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [*OPEN_ROUTES, *CLOSED_ROUTES])
def test_what_is_not_offered_is_denied_by_every_method(server: ServerProcess, path: str) -> None:
    for method in METHODS:
        status, headers, _ = request(server, path, {"Content-Length": "0"}, method)
        if method in OPEN_ROUTES.get(path, ()):
            assert status in (200, 400, 426), (method, status)  # 400: a chat without a body; 426: not a WebSocket
        else:
            assert status in (400, 403, 404, 405, 421), (method, status)
        if status != 400 or "content-security-policy" in headers:  # what is no HTTP does not get as far as the routes
            assert "default-src 'none'" in headers["content-security-policy"]
            assert "unsafe-inline" not in headers["content-security-policy"]
            assert "unsafe-eval'" not in headers["content-security-policy"].replace("wasm-unsafe-eval'", "")
            assert headers["cross-origin-opener-policy"] == "same-origin"
            assert headers["cross-origin-embedder-policy"] == "require-corp"
            assert headers["cross-origin-resource-policy"] == "same-origin"
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["referrer-policy"] == "no-referrer"
            assert "frame-ancestors 'none'" in headers["content-security-policy"]
            assert "access-control-allow-origin" not in headers
            assert headers["server"] == "splitllm"


def test_no_route_is_there_that_the_list_above_does_not_know(bundle: Bundle) -> None:
    """A route that is added must be added here too, and be thought about."""
    config = ServerConfig(page=page_folder(), max_sessions=1)
    engine = OnnxEngine(bundle, rows=2, capacity=64, threads=1, device="cpu")
    app = make_app(Server([LoadedModel(bundle.spec.name, bundle, engine)], config))
    routes = {(route.method, route.resource.canonical) for route in app.router.routes() if route.resource is not None}
    engine.close()
    known = {(method, path) for path, methods in OPEN_ROUTES.items() for method in methods}
    patterns = {
        ("GET", "/bundle/{name}"),
        ("HEAD", "/bundle/{name}"),
        ("GET", "/models/{model}/{name}"),
        ("HEAD", "/models/{model}/{name}"),
        ("GET", "/v1/models/{model}"),
        ("HEAD", "/v1/models/{model}"),
        ("*", "/v1/{path}"),  # refuses
        ("GET", "/{path}"),
        ("HEAD", "/{path}"),
    }
    assert routes <= known | patterns


@pytest.mark.parametrize("path", OPEN_ROUTES)
@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "evil.example:8000"},
        {"Host": "localhost.evil.example"},
        {"Host": "127.0.0.1.nip.io"},
        {"Host": "2130706433.evil.example"},
        {"Host": "evil.example@127.0.0.1.evil.example"},
        {"Host": ""},
    ],
    ids=lambda headers: headers["Host"] or "empty",
)
def test_another_host_s_name_gets_nothing_on_any_route(
    server: ServerProcess, path: str, headers: dict[str, str]
) -> None:
    """DNS rebinding: a web site that points its own name here."""
    method = "POST" if OPEN_ROUTES[path] == {"POST"} else "GET"
    more = UPGRADE if path == "/v1/session" else {"Content-Length": "0"}
    status, _, body = request(server, path, {**headers, **more}, method)
    assert status in (400, 421), body


@pytest.mark.parametrize("path", OPEN_ROUTES)
@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://localhost.evil.example", "http://127.0.0.1", "file://", ""]
)
def test_another_site_s_page_gets_nothing_on_any_route(server: ServerProcess, path: str, origin: str) -> None:
    """Cross-site requests, WebSocket upgrades among them, which browsers send without asking first."""
    method = "POST" if OPEN_ROUTES[path] == {"POST"} else "GET"
    more = UPGRADE if path == "/v1/session" else {"Content-Length": "0"}
    status, headers, _ = request(server, path, {"Origin": origin, **more}, method)
    assert status == 403
    assert "access-control-allow-origin" not in headers


async def test_pages_of_an_allowed_origin_may_read_what_an_engine_is_made_of_and_nothing_else(bundle: Bundle) -> None:
    page = page_folder()
    script = next((page / "assets").glob("engine.worker-*.js")).relative_to(page).as_posix()
    runtime = next((page / "ort").rglob("*.mjs")).relative_to(page).as_posix()
    readable = ["/engine/v1.js", f"/{script}", f"/{runtime}", "/bundle/manifest.json"]
    allowed, settings = "https://site.example", {"page": page, "max_sessions": 1}
    async with (
        serving(bundle.folder, allowed_origins=(allowed,), **settings) as (url, _),
        aiohttp.ClientSession() as browser,
    ):
        for path in [*readable, "/", "/health", "/metrics", "/v1/models"]:
            for origin in (allowed, url, "https://other.example", None):
                headers = {} if origin is None else {"Origin": origin}
                async with browser.get(url + path, headers=headers) as answer:
                    assert answer.status == (403 if origin == "https://other.example" else 200)
                    told = answer.headers.get("Access-Control-Allow-Origin")
                    assert told == (allowed if origin == allowed and path in readable else None), (path, origin)
                    if path in readable:
                        assert "Origin" in answer.headers.getall("Vary")


# -- files ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def mined(bundle: Bundle, tmp_path: Path) -> tuple[Path, Path]:
    """A bundle and a page in folders from which links and siblings lead to a secret."""
    (tmp_path / "secret").mkdir()
    for name in ("secret/secret.txt", "secret.txt"):
        (tmp_path / name).write_bytes(SECRET)
    folder = Path(shutil.copytree(bundle.folder, tmp_path / "bundle"))
    page = tmp_path / "page"
    (page / "assets").mkdir(parents=True)
    (page / "index.html").write_text("<!doctype html>page")
    (page / "assets" / "app.js").write_text("// page")
    for root in (folder, page, page / "assets"):
        (root / "unlisted.link").symlink_to(tmp_path / "secret.txt")
        (root / "linked").symlink_to(tmp_path / "secret", target_is_directory=True)
    (page / "app.js.gz").symlink_to(tmp_path / "secret.txt")
    (page / "assets" / "app.js.gz").symlink_to(tmp_path / "secret.txt")
    (folder / "unlisted.bin").write_bytes(SECRET)
    return folder, page


def odd_targets(seed: int, number: int) -> list[str]:
    """Paths of right and wrong pieces, each written plainly, escaped once, twice, or too long."""
    chance = random.Random(seed)
    pieces = [
        "..",
        ".",
        "",
        "bundle",
        "models",
        "tiny-chat",
        "assets",
        "linked",
        "secret.txt",
        "unlisted.link",
        "unlisted.bin",
        "manifest.json",
    ]
    pieces += ["app.js", "index.html", "secret", "etc", "passwd", "\\..", "..;", "...", "~", "app.js.gz", "%00", "\0"]
    slashes = ["/"] * 8 + ["//", "\\", "%2f", "%5c", "%252f", "%c0%af", "/./", "/../"]

    def written(piece: str) -> str:
        match chance.randrange(5):
            case 0:
                return quote(piece, safe="")
            case 1:
                return "".join(f"%{ord(letter):02x}" for letter in piece)
            case 2:
                return quote("".join(f"%{ord(letter):02X}" for letter in piece))
            case _:
                return piece.replace("\0", "%00")

    targets = [
        "/linked/secret.txt",
        "/bundle/linked%2fsecret.txt",
        "/bundle/unlisted.bin",
        "/models/tiny-chat/unlisted.bin",
        "/models/tiny-chat/linked%2fsecret.txt",
        "/models/tiny-chat/../../page/app.js.gz",
        "/unlisted.link",
        "/app.js.gz",
    ]
    while len(targets) < number:
        parts = [chance.choice(slashes) + written(chance.choice(pieces)) for _ in range(chance.randint(1, 6))]
        targets.append("/" + "".join(parts).lstrip("/") if chance.random() < 0.9 else "".join(parts))
    return [target if target.startswith("/") else "/" + target for target in targets]


async def test_no_path_however_written_leads_out(mined: tuple[Path, Path]) -> None:
    folder, page = mined
    async with serving(folder, page=page, max_sessions=1) as (url, _):
        found = 0
        for target in odd_targets(7, 400):
            status, answer = await status_of(url, target, {"Accept-Encoding": "gzip, br"})
            assert SECRET not in answer, target
            assert b"root:" not in answer, target
            assert status in (200, 400, 404, 405), target
            found += status == 200
        assert 0 < found < 200  # some lead to what may be seen, so it is not all refused for another reason
        assert (await status_of(url, "/assets/app.js"))[0] == 200


async def test_a_compressed_copy_beside_a_file_is_not_sent_in_its_place(mined: tuple[Path, Path]) -> None:
    """Who takes gzip would get bytes that nobody has verified."""
    folder, page = mined
    name = next(iter(Bundle.open(folder).manifest.files))
    (folder / f"{name}.gz").write_bytes(b"\x1f\x8b" + SECRET)
    with pytest.raises(BundleError, match=r"\.gz does not belong"):
        async with serving(folder, page=page, max_sessions=1):
            pass


# -- time -------------------------------------------------------------------------------------------------------------


async def closed_by_peer(reader: asyncio.StreamReader) -> bool:
    with contextlib.suppress(ConnectionError):
        async with asyncio.timeout(20):
            await reader.read()
    return True


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"G",
        b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n",
        b"GET /v1/session HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nSec-WebSocket-Key: ",
    ],
    ids=["silent", "one letter", "http", "websocket"],
)
async def test_a_head_that_comes_drop_by_drop_is_given_up(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, head: bytes
) -> None:
    """Slow loris: each byte comes in time, the whole never does."""
    monkeypatch.setattr(serve, "_SILENT_CONNECTION_S", 0.5)
    async with serving(bundle.folder, max_sessions=1) as (url, _):
        parts = urlsplit(url)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        writer.write(head)

        async def drip() -> None:
            with contextlib.suppress(ConnectionError):
                while head:
                    writer.write(b"X: y\r\n" if head.endswith(b"\n") else b"A")
                    await asyncio.sleep(0.05)

        dripping = asyncio.create_task(drip())
        try:
            assert await closed_by_peer(reader)
        finally:
            dripping.cancel()
            writer.transport.abort()


@pytest.mark.skipif(not hasattr(sockets, "TCP_USER_TIMEOUT"), reason="only Linux drops such peers")
async def test_a_file_that_nobody_reads_is_not_held_open(bundle: Bundle) -> None:
    def open_files() -> int:
        return sum(os.path.realpath(link).endswith(name) for link in Path("/proc/self/fd").iterdir())

    name = max(bundle.manifest.files, key=lambda name: bundle.manifest.files[name].size)
    async with serving(bundle.folder, unread_s=0.5, max_sessions=1) as (url, _):
        port = urlsplit(url).port
        deaf = []
        for _ in range(5):
            peer_socket = sockets.socket()
            peer_socket.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 2048)
            peer_socket.connect(("127.0.0.1", port))
            peer_socket.sendall(f"GET /bundle/{name} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
            deaf.append(peer_socket)
        async with asyncio.timeout(20):
            while open_files() < 5:  # noqa: ASYNC110  # the server tells nobody
                await asyncio.sleep(0.02)
            while open_files():  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        assert (await status_of(url, "/health"))[0] == 200
        for peer_socket in deaf:
            peer_socket.close()


@pytest.mark.parametrize("said", [[], [HELLO]], ids=["nothing", "hello"])
async def test_connections_without_a_session_give_their_places_back(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, said: list[dict[str, Any]]
) -> None:
    """Who only says hello, or nothing, holds a place for half a minute, not for the time of a session."""
    assert connection._OPENING_S == 30.0
    patience = 600.0  # of the session, until all are there: opening them takes as long as it takes
    monkeypatch.setattr(connection, "_OPENING_S", patience)
    monkeypatch.setattr(connection, "_PING_EVERY_S", 0.2)
    async with (
        serving(bundle.folder, max_sessions=1, queue_length=0, idle_timeout_s=patience) as (url, _),
        contextlib.AsyncExitStack() as stack,
    ):
        held = ServerAt(url)
        waiting = [await stack.enter_async_context(peer(held, *said)) for _ in range(65)]
        status, _ = await status_of(url, "/v1/session", UPGRADE)
        assert status == 503
        monkeypatch.setattr(connection, "_OPENING_S", 0.0)
        async with asyncio.timeout(30):
            for one in waiting:
                assert (await one.hear())["code"] == "idle_timeout"
                assert await one.ends() == 1008
        monkeypatch.setattr(connection, "_OPENING_S", patience)
        async with asyncio.timeout(30):
            while True:  # the last of them may still be leaving
                with contextlib.suppress(websockets.InvalidStatus):
                    await is_well(held)
                    break
                await asyncio.sleep(0.1)


class ServerAt:
    """A server in this process, for helpers that know processes."""

    def __init__(self, url: str) -> None:
        self.url = url

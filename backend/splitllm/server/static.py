"""Files over HTTP: the page, its runtime, and the bundle. ETag and Range come from aiohttp's FileResponse."""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from ..bundle import MANIFEST_NAME, Bundle
from ..errors import BundleError
from ..signature import SIGNATURE_NAME

_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".ts": "text/plain; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".wasm": "application/wasm",
    ".json": "application/json",
    ".webmanifest": "application/manifest+json",
    ".onnx": "application/octet-stream",
    ".bin": "application/octet-stream",
    ".sha256": "application/octet-stream",
}
#: Cross-origin isolation allows wasm threads; the policy allows nothing from elsewhere, and no inline script.
_HEADERS: Final = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self' blob:; style-src 'self'; "
        "connect-src 'self' ws: wss:; img-src 'self' data:; manifest-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
#: What FileResponse looks for beside a file, for who accepts that encoding.
_COMPRESSED: Final = (".gz", ".br")
#: These carry their content's hash or version in the path, so they never change.
_IMMUTABLE_PREFIXES: Final = ("/assets/", "/ort/")
#: What models are made of.
_BUNDLE_PREFIXES: Final = ("/bundle/", "/models/")
#: The engine's code, the same on every server.
_CODE_PREFIXES: Final = ("/engine/", "/assets/", "/ort/")
#: What an engine is made of that a page of another origin embeds.
_EMBEDDED_PREFIXES: Final = (*_CODE_PREFIXES, *_BUNDLE_PREFIXES)


def is_loopback(host: str) -> bool:
    """Whether a host name or address, without port, is this machine and no other."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name, such as 127.0.0.1.example.org
        return False


def _host_of(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:  # an address in brackets that is none
        return None


def _netloc_of(url: str) -> str | None:
    try:
        return urlsplit(url).netloc
    except ValueError:
        return None


def host_guard(bound_host: str, allowed_origins: tuple[str, ...]) -> Middleware:
    """Middleware: refuses requests for other host names and from other sites' pages.

    A server on a loopback address answers only when asked for by a loopback name; else any web site could point its own
    name at 127.0.0.1 and read from it (DNS rebinding). A page of another origin may not open a session.
    """
    allowed_hosts = {urlsplit(origin).netloc for origin in allowed_origins}
    only_here = is_loopback(bound_host)

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        host = _host_of(f"//{request.host}")
        if only_here and not is_loopback(host or "") and request.host not in allowed_hosts:
            raise web.HTTPMisdirectedRequest(
                text="This server does not answer for that host name; see --allowed-origin.\n"
            )
        origin = request.headers.get("Origin")
        if origin is not None and origin not in allowed_origins and _netloc_of(origin) != request.host:
            raise web.HTTPForbidden(text="Pages of that origin may not use this server; see --allowed-origin.\n")
        return await handler(request)

    return guard


async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Signal handler (on_response_prepare): headers that every response carries."""
    response.headers["Server"] = "splitllm"  # aiohttp would tell its own and Python's version
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    immutable = request.path.startswith(_IMMUTABLE_PREFIXES) and response.status in (200, 206, 304)
    response.headers.setdefault("Cache-Control", "public, max-age=31536000, immutable" if immutable else "no-cache")


def embedding(
    allowed_origins: tuple[str, ...],
) -> Callable[[web.Request, web.StreamResponse], Awaitable[None]]:
    """Signal handler (on_response_prepare): allowed origins may read the files of an engine (CORS)."""

    async def allow(request: web.Request, response: web.StreamResponse) -> None:
        if not request.path.startswith(_EMBEDDED_PREFIXES):
            return
        # A browser that has a file for one origin must not take it for an answer to another.
        response.headers.add("Vary", "Origin")
        origin = request.headers.get("Origin")
        if origin in allowed_origins:
            response.headers["Access-Control-Allow-Origin"] = origin

    return allow


def preflight(allowed_origins: tuple[str, ...]) -> Middleware:
    """Middleware: lets pages of allowed origins show an API key for the bundle's files (CORS).

    A browser asks before it sends that header, and asks without a key, so this comes before who wants one.
    """

    @web.middleware
    async def answer(request: web.Request, handler: Handler) -> web.StreamResponse:
        asks = request.method == "OPTIONS" and request.path.startswith(_BUNDLE_PREFIXES)
        if not asks or request.headers.get("Origin") not in allowed_origins:
            return await handler(request)
        return web.Response(
            status=204,
            headers={
                "Access-Control-Allow-Methods": "GET",
                "Access-Control-Allow-Headers": "Authorization, Range",
                "Access-Control-Max-Age": "7200",
            },
        )

    return answer


def open_code(allowed_origins: tuple[str, ...]) -> Callable[[web.Request], bool]:
    """Whether a request is for the engine's code, by a page of an allowed origin: an `import` cannot show a key."""

    def is_open(request: web.Request) -> bool:
        return (
            request.method in ("GET", "HEAD")
            and request.headers.get("Origin") in allowed_origins
            and request.path.startswith(_CODE_PREFIXES)
            and ".." not in request.path
        )

    return is_open


def bundle_handler(bundle: Bundle) -> Handler:
    """`GET /bundle/{name}`: the manifest, its signature, and the files it lists; nothing else of the folder.

    Raises:
        BundleError: a compressed copy lies beside a file; it would be sent in the file's place, and is not verified.
    """
    for name in bundle.manifest.files:
        for suffix in _COMPRESSED:
            if (bundle.folder / f"{name}{suffix}").exists():
                raise BundleError(f"{name}{suffix} does not belong into {bundle.folder}; remove it")

    async def handle(request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        if name == MANIFEST_NAME:
            # The bytes that were checked at start, not what may lie there now.
            etag = f'"{bundle.identity}"'
            if request.headers.get("If-None-Match") == etag:
                return web.Response(status=304, headers={"ETag": etag})
            return web.Response(body=bundle.manifest_bytes, content_type="application/json", headers={"ETag": etag})
        if name == SIGNATURE_NAME and bundle.signature is not None:
            return web.Response(body=bundle.signature, content_type="application/json")
        if name not in bundle.manifest.files:
            raise web.HTTPNotFound(text="The bundle has no such file.\n")
        return _file(bundle.folder / name)

    return handle


def models_handler(bundles: Mapping[str, Bundle]) -> Handler:
    """`GET /models/{model}/{name}`: as `bundle_handler`, for the bundle that is served under that name.

    Raises:
        BundleError: as there.
    """
    handlers = {model: bundle_handler(bundle) for model, bundle in bundles.items()}

    async def handle(request: web.Request) -> web.StreamResponse:
        handler = handlers.get(request.match_info["model"])
        if handler is None:
            raise web.HTTPNotFound(text="This server has no such model; /v1/models lists those it has.\n")
        return await handler(request)

    return handle


def page_handler(folder: Path) -> Handler:
    """`GET /` and below: the built page, by a list of its files made at start."""
    files = {
        path.relative_to(folder).as_posix(): path
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink()
    }

    async def handle(request: web.Request) -> web.StreamResponse:
        path = files.get(request.match_info["path"] or "index.html")
        if path is None:
            raise web.HTTPNotFound(text="No such page.\n")
        return _file(path)

    return handle


def _file(path: Path) -> web.FileResponse:
    return web.FileResponse(path, headers={"Content-Type": _TYPES.get(path.suffix, "application/octet-stream")})

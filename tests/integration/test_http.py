"""Files, headers and refusals over HTTP."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import json
from typing import Any
from urllib.parse import urlsplit

import pytest

from splitllm.bundle import Bundle
from tests.support import ServerProcess


def request(server: ServerProcess, path: str, headers: dict[str, str] | None = None, method: str = "GET") -> Any:
    """Status, headers and body; the path goes out as it is, unlike with most clients."""
    parts = urlsplit(server.url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=20)
    try:
        connection.putrequest(method, path, skip_host="Host" in (headers or {}), skip_accept_encoding=True)
        for name, value in (headers or {}).items():
            connection.putheader(name, value)
        connection.endheaders()
        response = connection.getresponse()
        return response.status, {k.lower(): v for k, v in response.getheaders()}, response.read()
    finally:
        connection.close()


def test_health_tells_what_is_served(server: ServerProcess, bundle: Bundle) -> None:
    status, headers, body = request(server, "/health")
    assert status == 200
    assert headers["content-type"].startswith("application/json")
    told = json.loads(body)
    assert (told["status"], told["model"], told["bundle"]) == ("ok", bundle.spec.name, bundle.identity)


def test_the_page_and_what_it_links_are_served_with_their_types(server: ServerProcess) -> None:
    status, headers, body = request(server, "/")
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    links = [part.split('"')[0] for part in body.decode().split('src="')[1:]]
    assert links
    for link in links:
        status, headers, _ = request(server, "/" + link.removeprefix("./").lstrip("/"))
        assert status == 200
        assert headers["content-type"] == "text/javascript; charset=utf-8"
        assert "immutable" in headers["cache-control"]


def test_pages_are_isolated_and_run_no_foreign_or_inline_script(server: ServerProcess) -> None:
    for path in ("/", "/bundle/manifest.json", "/health", "/no-such-page"):
        _, headers, _ = request(server, path)
        assert headers["cross-origin-opener-policy"] == "same-origin"
        assert headers["cross-origin-embedder-policy"] == "require-corp"
        assert "'unsafe-inline'" not in headers["content-security-policy"]
        assert "script-src 'self' 'wasm-unsafe-eval'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"


def test_the_manifest_is_the_bundle_s_identity(server: ServerProcess, bundle: Bundle) -> None:
    status, headers, body = request(server, "/bundle/manifest.json")
    assert (status, headers["content-type"].split(";")[0]) == (200, "application/json")
    assert hashlib.sha256(body).hexdigest() == bundle.identity
    status, _, body = request(server, "/bundle/manifest.json", {"If-None-Match": headers["etag"]})
    assert (status, body) == (304, b"")


def test_every_file_of_the_bundle_arrives_whole(server: ServerProcess, bundle: Bundle) -> None:
    for name, entry in bundle.manifest.files.items():
        status, headers, body = request(server, f"/bundle/{name}")
        assert status == 200
        assert hashlib.sha256(body).hexdigest() == entry.sha256
        assert headers["accept-ranges"] == "bytes"
        assert headers["etag"]


def test_a_range_and_an_etag_save_bytes(server: ServerProcess, bundle: Bundle) -> None:
    name = bundle.manifest.embed["float32"].file
    _, headers, whole = request(server, f"/bundle/{name}")
    status, ranged, part = request(server, f"/bundle/{name}", {"Range": "bytes=512-1023"})
    assert (status, part) == (206, whole[512:1024])
    assert ranged["content-range"] == f"bytes 512-1023/{len(whole)}"
    status, _, nothing = request(server, f"/bundle/{name}", {"If-None-Match": headers["etag"]})
    assert (status, nothing) == (304, b"")
    status, _, _ = request(server, f"/bundle/{name}", {"Range": f"bytes={len(whole)}-"})
    assert status == 416


@pytest.mark.parametrize(
    "path",
    [
        "/bundle/../pyproject.toml",
        "/bundle/..%2f..%2fpyproject.toml",
        "/bundle/%2e%2e/manifest.json",
        "/bundle/.manifest.json",
        "/bundle/",
        "/../../../../etc/passwd",
        "/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "/assets/../../__init__.py",
        "//etc/passwd",
        "/bundle/manifest.json%00",
        "/__init__.py",
    ],
)
def test_nothing_outside_page_and_bundle_is_served(server: ServerProcess, path: str) -> None:
    status, _, body = request(server, path)
    assert status in (400, 404)
    assert b"root:" not in body
    assert b"[project]" not in body


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "[", "[::1"])
def test_other_host_names_are_refused(server: ServerProcess, host: str) -> None:
    status, _, _ = request(server, "/health", {"Host": host})
    assert status == 421


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1", "http://["])
def test_pages_of_other_origins_are_refused(server: ServerProcess, origin: str) -> None:
    upgrade = {
        "Origin": origin,
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    status, _, _ = request(server, "/v1/session", upgrade)
    assert status == 403


def test_a_session_without_an_upgrade_is_a_bad_request(server: ServerProcess) -> None:
    assert request(server, "/v1/session")[0] in (400, 426)


def test_other_methods_are_not_allowed(server: ServerProcess) -> None:
    assert request(server, "/health", {"Content-Length": "0"}, "POST")[0] == 405
    assert request(server, "/bundle/manifest.json", {"Content-Length": "0"}, "DELETE")[0] == 405


def test_the_runtime_travels_compressed_to_who_takes_it(server: ServerProcess) -> None:
    from splitllm.resources import page_folder

    [wasm] = page_folder().rglob("*.wasm")
    path = f"/{wasm.relative_to(page_folder()).as_posix()}"
    status, plain, body = request(server, path)
    assert (status, len(body), "content-encoding" in plain) == (200, wasm.stat().st_size, False)
    status, packed, small = request(server, path, {"Accept-Encoding": "gzip"})
    assert (status, packed["content-encoding"], packed["content-type"]) == (200, "gzip", "application/wasm")
    assert gzip.decompress(small) == body

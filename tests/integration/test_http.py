"""Files, headers and refusals over HTTP."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest

from splitllm.bundle import Bundle
from splitllm.client.download import BundleSource
from splitllm.errors import BundleError
from splitllm.signature import new_private_key, read_private_key, read_trusted_key, sign
from tests.chaos.world import serving
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
    status, _, body = request(server, "/v1/session")
    assert status == 426
    assert b"WebSocket" in body


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


async def test_a_signature_is_served_beside_the_manifest_where_there_is_one(bundle: Bundle, tmp_path: Path) -> None:
    """The Python client takes the manifest only if a key that it trusts, if it trusts any, has signed it."""
    private, public = new_private_key()
    for path, data in ((tmp_path / "key", private), (tmp_path / "key.pub", public)):
        path.write_bytes(data)
    signed = sign(bundle.manifest_bytes, read_private_key(tmp_path / "key"))
    trusted = [read_trusted_key(tmp_path / "key.pub")]
    for signature, status in ((signed, 200), (signed.replace(b"ed25519", b"ed25518"), 200), (None, 404)):
        async with serving(replace(bundle, signature=signature)) as (url, _), aiohttp.ClientSession() as http:
            async with http.get(f"{url}/bundle/manifest.sig") as response:
                assert response.status == status
                assert signature is None or await response.read() == signature
            await BundleSource(url, tmp_path, http).fetch_manifest()
            source = BundleSource(url, tmp_path, http, trusted=trusted)
            if signature == signed:
                await source.fetch_manifest()
                continue
            with pytest.raises(BundleError) as refused:
                await source.fetch_manifest()
            assert (refused.value.code, source.manifest) == ("bundle_signature", None)

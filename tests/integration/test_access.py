"""API keys: without one nobody gets anything, one opens what it should, and none is ever written down."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import openai
import pytest
import websockets
from yarl import URL

from splitllm.bundle import Bundle
from splitllm.cli import chat
from splitllm.cli.main import main
from splitllm.engines.fake import FakeEngine
from splitllm.errors import UsageError
from splitllm.protocol import PROTOCOL_VERSION, Kind
from splitllm.resources import page_folder
from splitllm.server import access
from splitllm.server.access import Access, hash_of, read_keys
from splitllm.types import Float32Array
from splitllm.work import Batch
from tests.chaos.world import open_session, serving, until
from tests.integration.test_hostile_http import METHODS, OPEN_ROUTES, UPGRADE, ServerAt
from tests.integration.test_http import request
from tests.integration.test_wire import HELLO, IDS, OPEN, TURN, Peer
from tests.support import ServerProcess, free_port, run_cli, running_server

KEYS = {"alice": "", "bob": ""}
ADMIN = {"port": 0}


@pytest.fixture(scope="module")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two keys, as the command makes them; what bob may cost is less than one question."""
    path = tmp_path_factory.mktemp("keys") / "keys"
    for name, more in (("alice", []), ("bob", ["--block-tokens-per-minute", "1"])):
        made = run_cli("key", name, "--file", str(path), "--json", *more)
        KEYS[name] = json.loads(made.stdout)["key"]
    return path


@pytest.fixture(scope="module")
def guarded(bundle: Bundle, key_file: Path) -> Iterator[ServerProcess]:
    ADMIN["port"] = free_port()
    options = ["--api-key-file", str(key_file), "--session-log", "-", "--admin-port", str(ADMIN["port"])]
    with running_server(bundle.folder, *options) as server:
        yield server


def bearer(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {KEYS[name]}"}


@pytest.mark.parametrize(
    "path", [*OPEN_ROUTES, "/no", "/v1/models/tiny-chat", "/bundle/x", "/models/x/y", "/assets/x.js"]
)
def test_without_a_key_every_route_is_closed_by_every_method(guarded: ServerProcess, path: str) -> None:
    wrong = base64.b64encode(b"alice:wrong").decode()
    more = UPGRADE if path == "/v1/session" else {"Content-Length": "0"}
    for credentials in (None, "Bearer wrong", f"Basic {wrong}", "Basic ?", "Bearer", "\xff"):
        given = {} if credentials is None else {"Authorization": credentials}
        for method in METHODS:
            status, headers, body = request(guarded, path, {**given, **more}, method)
            if path in ("/health", "/ready") and method in ("GET", "HEAD"):
                assert status == 200
            elif status == 401:
                assert headers["www-authenticate"].startswith("Basic ")
                assert b"API key" in body or method == "HEAD"
            else:
                assert status in (400, 405, 421), method  # no HTTP, not for these two, a proxy's method


def test_metrics_are_on_the_operator_s_own_listener_alone(guarded: ServerProcess) -> None:
    """And there too only for who has a key, and asks for this machine by name."""
    assert request(guarded, "/metrics", bearer("alice"), "GET")[0] == 404
    own = ServerAt(f"http://127.0.0.1:{ADMIN['port']}")
    status, headers, body = request(own, "/metrics", bearer("alice"), "GET")
    assert (status, headers["server"], b"splitllm_ready 1.0" in body) == (200, "splitllm", True)
    assert request(own, "/metrics", {}, "GET")[0] == 401
    assert request(own, "/metrics", {"Host": "evil.example", **bearer("alice")}, "GET")[0] == 421
    for path in ("/", "/v1/models", "/v1/session", "/bundle/manifest.json"):
        assert request(own, path, bearer("alice"), "GET")[0] == 404


def test_a_key_in_the_address_is_none(guarded: ServerProcess, key_file: Path) -> None:
    for name in ("key", "api_key", "access_token", "token"):
        assert request(guarded, f"/v1/models?{name}={KEYS['alice']}", {}, "GET")[0] == 401


def test_a_key_opens_what_there_is_in_each_way_of_giving_it(guarded: ServerProcess) -> None:
    basic = base64.b64encode(f"anybody:{KEYS['alice']}".encode()).decode()
    for given in (bearer("alice"), {"Authorization": f"Basic {basic}"}):
        for path in ("/bundle/manifest.json", "/v1/models"):
            assert request(guarded, path, given, "GET")[0] == 200


async def test_a_browser_gives_the_key_as_a_subprotocol(guarded: ServerProcess) -> None:
    url = f"ws{guarded.url.removeprefix('http')}/v1/session"
    for offered in ([], ["splitllm"], ["splitllm", "splitllm.key.wrong"]):
        with pytest.raises(websockets.InvalidStatus, match="401"):
            await websockets.connect(url, subprotocols=offered or None)
    with pytest.raises(websockets.InvalidStatus, match="400"):  # it would have to be answered, and is logged then
        await websockets.connect(url, subprotocols=[f"splitllm.key.{KEYS['alice']}"])
    async with websockets.connect(url, subprotocols=["splitllm", f"splitllm.key.{KEYS['alice']}"]) as socket:
        assert socket.subprotocol == "splitllm"
        peer = Peer(socket)
        await peer.say(HELLO)
        assert (await peer.hear())["type"] == "welcome"


@contextlib.asynccontextmanager
async def asking(url: str, who: str) -> AsyncIterator[Peer]:
    """Somebody whose question has just been sent."""
    address = f"ws{url.removeprefix('http')}/v1/session"
    async with websockets.connect(address, additional_headers=bearer(who)) as socket:
        peer = Peer(socket)
        for message in (HELLO, OPEN):
            await peer.say(message)
            await peer.hear()
        await peer.say(TURN)
        await peer.frame(Kind.IDS, 1, 0, IDS)
        yield peer


async def test_a_key_pays_in_tokens_times_blocks(guarded: ServerProcess) -> None:
    """One question is let through, as long as anything is left; what it takes beyond that, the next one waits for."""
    async with asking(guarded.url, "bob") as peer:
        assert (await peer.hear())["type"] == "done"
        await peer.say({**TURN, "turn": 2})
        refusal = await peer.hear()
        assert (refusal["code"], refusal["fatal"], refusal["turn"]) == ("rate_limited", False, 2)
    with pytest.raises(openai.RateLimitError, match="allowance") as refused:
        await asyncio.to_thread(_ask, guarded, "bob")
    assert int(refused.value.response.headers["retry-after"]) > 60  # more than one minute's worth was spent
    assert _ask(guarded, "alice").choices[0].message.content


def _ask(server: ServerProcess, name: str) -> openai.types.chat.ChatCompletion:
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEYS[name], max_retries=0)
    question = [{"role": "user", "content": "What is the capital of Japan?"}]
    return client.chat.completions.create(model="tiny-chat", messages=question, max_tokens=4)


async def test_a_session_is_taken_up_again_with_the_key_that_opened_it_and_no_other(guarded: ServerProcess) -> None:
    url = f"ws{guarded.url.removeprefix('http')}/v1/session"

    @contextlib.asynccontextmanager
    async def opened(name: str, resume: dict[str, Any] | None) -> AsyncIterator[dict[str, Any]]:
        async with websockets.connect(url, additional_headers=bearer(name)) as socket:
            peer = Peer(socket)
            await peer.say(HELLO)
            await peer.hear()
            await peer.say({**OPEN, "resume": resume})
            yield await peer.hear()

    async with opened("alice", None) as plan:
        ticket = {"session": plan["session"], "token": plan["resume"]["token"], "turn": None, "position": 0}
        async with opened("bob", ticket) as refusal:
            assert refusal["code"] == "resume_refused"
        async with opened("alice", ticket) as again:
            assert again["session"] == plan["session"]


def test_the_python_client_gives_its_key(guarded: ServerProcess, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text(KEYS["alice"] + "\n")
    ask = ["chat", guarded.url, "--prompt", "Hi", "--split", "1", "--max-tokens", "2", "--cache", str(tmp_path)]
    refused = run_cli(*ask)
    assert refused.returncode == 2
    assert "--key-file" in refused.stderr
    answered = run_cli(*ask, "--key-file", str(tmp_path / "mine"))
    assert answered.returncode == 0, answered.stderr


async def test_a_session_without_a_key_is_told_so_and_not_that_the_server_is_away(
    guarded: ServerProcess, bundle: Bundle
) -> None:
    """Also when it comes back to a server that has forgotten its key: there is nothing to try again."""
    with pytest.raises(UsageError, match="--key-file"):
        await open_session(guarded.url, bundle, 0)


def test_no_key_is_written_down(guarded: ServerProcess, key_file: Path) -> None:
    """After all of the above: neither in the log, which names whose key it was, nor in the file."""
    for key in KEYS.values():
        assert len(key) >= 43  # 256 bits in base64
        assert key not in "".join(guarded.output)
        assert key not in key_file.read_text()
    assert '"key":"alice"' in "".join(guarded.output)
    assert key_file.stat().st_mode & 0o077 == 0


def test_each_key_is_compared_in_constant_time(key_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of them, whichever fits, by a comparison that looks at every byte."""
    compared = []
    monkeypatch.setattr(access.hmac, "compare_digest", lambda one, other: compared.append(one) or one == other)
    keys = Access.load(key_file)
    for text in (KEYS["alice"], KEYS["bob"], "wrong", ""):
        compared.clear()
        found = keys.find(text)
        assert (found and found.name) == {value: name for name, value in KEYS.items()}.get(text)
        assert compared == [hash_of(KEYS[name]) for name in KEYS]


@pytest.mark.parametrize(
    "text", ["", "# nobody\n", "alice:secret\n", f"a:{'0' * 64}:0\n", f"a b:{'0' * 64}\n", f"x:{'0' * 64}\n" * 2]
)
def test_a_file_of_keys_that_is_none_is_refused_and_not_quoted(tmp_path: Path, text: str) -> None:
    path = tmp_path / "keys"
    path.write_text(text)
    with pytest.raises(UsageError, match="splitllm key") as refused:
        Access.load(path)
    assert "secret" not in refused.value.message


def test_the_environment_may_hold_the_key_and_only_one_word_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPLITLLM_API_KEY", "a-key")
    assert chat.api_key(None) == "a-key"
    monkeypatch.setenv("SPLITLLM_API_KEY", "a key\r\nX: y")
    with pytest.raises(UsageError, match="one word"):
        chat.api_key(None)


def test_a_name_is_given_once(key_file: Path) -> None:
    before = key_file.read_text()
    refused = run_cli("key", "alice", "--file", str(key_file))
    assert (refused.returncode, "already" in refused.stderr) == (2, True)
    assert key_file.read_text() == before


@pytest.mark.parametrize("before", ["", "# nobody yet\n", f"carol:{'0' * 64}"], ids=["empty", "comment", "no newline"])
def test_a_key_is_added_to_whatever_an_editor_left(tmp_path: Path, before: str) -> None:
    """To a file whose last key was taken back, too, and without spoiling a last line that no newline ends."""
    path = tmp_path / "keys"
    path.write_text(before)
    made = run_cli("key", "dave", "--file", str(path), "--json")
    assert made.returncode == 0, made.stderr
    key = Access.load(path).find(json.loads(made.stdout)["key"])
    assert key is not None
    assert key.name == "dave"
    assert ("carol" in read_keys(path)) == before.startswith("carol")


async def test_what_runs_while_a_client_hangs_up_is_paid_for(
    bundle: Bundle, key_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a key could have prompts computed all day, and never come near its bound."""
    begun, may_end, run = threading.Event(), threading.Event(), FakeEngine.run

    def slow(engine: FakeEngine, batch: Batch) -> Float32Array:
        begun.set()
        may_end.wait(30)
        return run(engine, batch)

    monkeypatch.setattr(FakeEngine, "run", slow)
    async with serving(bundle, api_key_file=key_file) as (url, server):
        async with asking(url, "bob") as peer:
            await until(begun.is_set)
            peer.socket.transport.abort()
            await until(lambda: not server.first.admission.sessions)
        may_end.set()
        assert server.access is not None
        bob = server.access.find(KEYS["bob"])
        assert bob is not None
        await until(lambda: bob.wait_s() > 60)
        await until(lambda: not server.first.telemetry.payers)


async def test_a_key_asks_so_often_a_minute_over_both_apis_together(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The third of two is refused until half a minute has passed; what is refused does not count."""
    now = 1000.0
    monkeypatch.setattr(access, "time", SimpleNamespace(monotonic=lambda: now))
    path = tmp_path / "keys"
    assert main(["key", "carol", "--file", str(path), "--requests-per-minute", "2", "--json"]) == 0
    monkeypatch.setitem(KEYS, "carol", json.loads(capsys.readouterr().out)["key"])
    async with serving(bundle, api_key_file=path) as (url, _), asking(url, "carol") as peer:
        assert (await peer.hear())["type"] == "done"
        async with aiohttp.ClientSession(headers=bearer("carol")) as http:

            async def ask() -> tuple[int, str | None]:
                question = {"model": bundle.spec.name, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
                async with http.post(f"{url}/v1/chat/completions", json=question) as response:
                    return response.status, response.headers.get("Retry-After")

            assert await ask() == (200, None)
            for turn in (2, 3):
                assert await ask() == (429, "30")
                await peer.say({**TURN, "turn": turn})
                refusal = await peer.hear()
                assert (refusal["code"], refusal["fatal"]) == ("rate_limited", False)
            now += 29
            assert await ask() == (429, "1")
            now += 1
            assert await ask() == (200, None)
            assert await ask() == (429, "30")


@pytest.mark.parametrize(
    ("line", "bounds"),
    [
        ("", (None, None)),
        (":5", (5, None)),
        (":5:7", (5, 7)),
        ("::7", (None, 7)),
        (":", None),
        ("::", None),
        (":5:", None),
    ],
)
def test_a_line_has_one_bound_or_the_other_or_both(
    tmp_path: Path, line: str, bounds: tuple[int | None, int | None] | None
) -> None:
    path = tmp_path / "keys"
    path.write_text(f"x:{'0' * 64}{line}\n")
    if bounds is None:
        with pytest.raises(UsageError):
            read_keys(path)
        return
    key = read_keys(path)["x"]
    per_s = [None if pace is None else pace._per_s for pace in (key._allowance, key._requests)]
    assert per_s == [None if bound is None else bound / 60 for bound in bounds]


async def test_a_page_of_an_allowed_origin_gets_the_engine_s_code_and_may_show_a_key_for_the_rest(
    bundle: Bundle, key_file: Path
) -> None:
    """An `import` shows no key, and a browser asks without one whether it may: nothing else is open to who has none."""
    site = "https://site.example"
    async with (
        serving(bundle, api_key_file=key_file, allowed_origins=(site,), page=page_folder()) as (url, _),
        aiohttp.ClientSession() as http,
    ):

        async def ask(method: str, path: str, origin: str | None, **more: str) -> tuple[int, Any]:
            headers = {**({} if origin is None else {"Origin": origin}), **more}
            async with http.request(method, URL(f"{url}{path}", encoded=True), headers=headers) as response:
                return response.status, response.headers

        code = f"/engine/v{PROTOCOL_VERSION}.js"
        status, headers = await ask("GET", code, site)
        assert (status, headers["Access-Control-Allow-Origin"]) == (200, site)
        assert (await ask("GET", code, None))[0] == 401
        assert (await ask("GET", code, "https://evil.example"))[0] == 403
        for method in ("POST", "PUT", "DELETE", "OPTIONS"):
            assert (await ask(method, code, site))[0] == 401
        manifest = "/bundle/manifest.json"
        for path in ("/", manifest, "/v1/models", "/v1/session", "/metrics", "/index.html", "/engine"):
            assert (await ask("GET", path, site))[0] == 401
        for way in ("..", "%2e%2e", "%2E.", ".%2f..", "x/../.."):
            for path in (manifest, "/v1/models", "/metrics", "/index.html"):
                assert (await ask("GET", f"/assets/{way}{path}", site))[0] in (401, 404)

        preflight = {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "authorization,range"}
        status, headers = await ask("OPTIONS", manifest, site, **preflight)
        assert (status, headers["Access-Control-Allow-Origin"]) == (204, site)
        assert headers["Access-Control-Allow-Headers"] == "Authorization, Range"
        assert "Access-Control-Allow-Credentials" not in headers
        assert (await ask("OPTIONS", manifest, None, **preflight))[0] == 401
        assert (await ask("OPTIONS", manifest, "https://evil.example", **preflight))[0] == 403
        for path in ("/v1/models", "/v1/chat/completions", "/metrics", "/"):
            status, headers = await ask("OPTIONS", path, site, **preflight)
            assert (status, "Access-Control-Allow-Headers" in headers) == (401, False)
        status, headers = await ask("GET", manifest, site, **bearer("alice"))
        assert (status, headers["Access-Control-Allow-Origin"]) == (200, site)

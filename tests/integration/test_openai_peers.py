"""The OpenAI-compatible API against requests that cannot be served, and peers that misbehave."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import openai
import pytest

from splitllm.bundle import Bundle
from splitllm.planner.marginal import Load
from splitllm.protocol import Kind
from splitllm.server import openai_api
from tests.integration.test_metrics import until
from tests.integration.test_openai import MODEL, client_of, user
from tests.integration.test_wire import HELLO, IDS, OPEN, TURN, peer
from tests.support import ServerProcess, running_server, serving


async def post(url: str, body: bytes | dict[str, Any], **options: Any) -> tuple[int, Any, dict[str, Any]]:
    """Status, headers and JSON."""
    data = json.dumps(body).encode() if isinstance(body, dict) else body
    async with (
        aiohttp.ClientSession() as http,
        http.post(f"{url}/v1/chat/completions", data=data, **options) as response,
    ):
        return response.status, response.headers, await response.json()


# -- refusals ---------------------------------------------------------------------------------------------------------


async def test_errors_have_the_api_s_shape_and_the_client_knows_them(server: ServerProcess) -> None:
    client = client_of(server)
    create = client.chat.completions.create
    with pytest.raises(openai.NotFoundError) as missing:
        await create(model="gpt-none", messages=user("Hi"))
    assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
    for count in (2, 128):
        with pytest.raises(openai.BadRequestError) as refused:
            await create(model=MODEL, messages=user("Hi"), n=count)
        assert (refused.value.code, refused.value.param) == ("unsupported_parameter", "n")
    with pytest.raises(openai.BadRequestError) as refused:
        await create(model=MODEL, messages=user("Hi"), frequency_penalty=0.5)
    assert refused.value.param == "frequency_penalty"
    for messages, limit in ((user("word " * 3000), None), (user("Hi"), 1024)):
        with pytest.raises(openai.BadRequestError) as long:
            await create(model=MODEL, messages=messages, max_tokens=limit)
        assert (long.value.code, long.value.param) == ("context_length_exceeded", "messages")
        assert "1024" in long.value.message
    await client.close()


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "invalid_value"),
        (b"{", 400, "invalid_value"),
        (b"[" * 50_000, 400, "invalid_value"),
        (b'{"model":"tiny-chat","messages":[{"role":"user","content":"\\ud800"}]}', 400, "invalid_value"),
        (b" " * (2 << 20), 413, "message_too_large"),
    ],
    ids=["empty", "cut", "nested", "surrogate", "large"],
)
async def test_bodies_that_are_none(server: ServerProcess, body: bytes, status: int, code: str) -> None:
    found, _, answer = await post(server.url, body)
    assert (found, answer["error"]["code"]) == (status, code)


async def test_a_body_in_another_encoding_is_refused_unread(server: ServerProcess) -> None:
    status, _, answer = await post(server.url, b"no gzip", headers={"Content-Encoding": "gzip"})
    assert (status, answer["error"]["code"]) == (415, "unsupported_encoding")


@pytest.mark.parametrize(
    "sent",
    [
        b"Transfer-Encoding: chunked\r\n\r\n3\r\nsec\r\nret not a size\r\n",
        b"Content-Length: -5\r\n\r\n",
        b"X-Long: " + b"secret" * 5000 + b"\r\n\r\n",
    ],
    ids=["chunks", "length", "header"],
)
async def test_what_is_not_http_is_refused_and_not_logged(server: ServerProcess, sent: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(server.url).port)
    writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\n" + sent)
    assert b" 400 " in await reader.readline()
    writer.close()
    assert (await post(server.url, b""))[0] == 400  # whatever there was to log has been logged
    assert not any("secret" in line or "Traceback" in line for line in server.output)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "chat/completions", 405), ("POST", "models", 405), ("POST", "embeddings", 404), ("GET", "x/y", 404)],
)
async def test_other_paths_are_refused_in_the_same_shape(
    server: ServerProcess, method: str, path: str, status: int
) -> None:
    async with aiohttp.ClientSession() as http, http.request(method, f"{server.url}/v1/{path}") as response:
        assert response.status == status
        assert (await response.json())["error"]["type"] == "invalid_request_error"


async def test_a_full_server_says_when_to_come_again(bundle: Bundle) -> None:
    body = {"model": MODEL, "messages": user("Hi"), "max_tokens": 1}
    with running_server(bundle.folder, "--max-sessions", "1", "--queue-s", "0") as server:
        async with peer(server, HELLO, OPEN):
            status, headers, answer = await post(server.url, body)
            assert (status, answer["error"]["code"]) == (429, "server_full")
            assert int(headers["Retry-After"]) > 0
            async with client_of(server) as client:
                with pytest.raises(openai.RateLimitError):
                    await client.chat.completions.create(model=MODEL, messages=user("Hi"))
        samples = await until(server, "sessions_ended_total", 1, api="websocket")
        assert samples["splitllm_refusals_total", frozenset({("api", "openai"), ("code", "server_full")})] == 2
        assert (await post(server.url, body))[0] == 200


async def test_memory_bounds_a_request_and_all_of_them(endless: Bundle) -> None:
    tokens = 40
    memory = tokens * endless.spec.blocks * endless.spec.kv_bytes_per_token()
    async with serving(
        endless.folder, kv_memory_bytes=memory, least_session_tokens=tokens, queue_s=0.0, send_timeout_s=5.0
    ) as (url, _):
        body = {"model": MODEL, "messages": user("Hi")}
        status, _, answer = await post(url, {**body, "max_tokens": tokens})
        assert (status, answer["error"]["code"]) == (400, "context_length_exceeded")
        assert f"at most {tokens} tokens" in answer["error"]["message"]
        answers = await asyncio.gather(post(url, body), post(url, body))
        (first, _, whole), (second, _, refused) = sorted(answers, key=lambda answer: answer[0])
        assert (first, whole["usage"]["total_tokens"]) == (200, tokens), "an answer may take what there is"
        assert (second, refused["error"]["code"]) == (429, "kv_exhausted")


async def test_requests_wait_their_turn_for_a_session(one_seat: ServerProcess) -> None:
    body = {"model": MODEL, "messages": user("Hello!"), "max_tokens": 3}
    async with peer(one_seat, HELLO, OPEN):
        waiting = [asyncio.create_task(post(one_seat.url, body)) for _ in range(3)]
        await until(one_seat, "sessions", 3, api="openai", state="queued")
        gone = await asyncio.open_connection("127.0.0.1", urlsplit(one_seat.url).port)
        gone[1].write(raw_post(body))
        await until(one_seat, "sessions", 4, api="openai", state="queued")
        gone[1].transport.abort()
        await until(one_seat, "sessions", 3, api="openai", state="queued")
    assert [status for status, _, _ in await asyncio.gather(*waiting)] == [200] * 3
    samples = await until(one_seat, "sessions_ended_total", 3, api="openai")
    assert samples["splitllm_turns_total", frozenset({("api", "openai"), ("finish_reason", "length")})] == 3
    assert not any(count for (name, _), count in samples.items() if name == "splitllm_refusals_total")
    assert samples["splitllm_queue_seconds_count", frozenset({("api", "openai")})] == 3


# -- clients that leave, or stay and do nothing -----------------------------------------------------------------------


@pytest.fixture
def one_seat(endless: Bundle) -> Iterator[ServerProcess]:
    with running_server(endless.folder, "--max-sessions", "1") as process:
        yield process


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_hangs_up_frees_what_it_held(one_seat: ServerProcess, stream: bool) -> None:
    body = {"model": MODEL, "messages": user("Hello!"), "stream": stream, "max_tokens": 1000}
    connection = await asyncio.open_connection("127.0.0.1", urlsplit(one_seat.url).port)
    connection[1].write(raw_post(body))
    samples = await until(one_seat, "sessions", 1, api="openai", state="in_turn")
    connection[1].transport.abort()
    samples = await until(one_seat, "sessions_ended_total", 1, api="openai")
    assert samples["splitllm_kv_bytes", frozenset({("kind", "reserved")})] == 0
    drawn = samples["splitllm_generated_tokens_total", frozenset({("api", "openai")})]
    assert drawn < 900
    await asyncio.sleep(0.2)
    samples = await until(one_seat, "sessions", 0, api="openai", state="in_turn")
    steps = samples["splitllm_batch_rows_count", frozenset()]
    assert steps <= drawn + 3, "no step after the tick in which the client was missed"
    assert any('"reason":"client_gone"' in line for line in one_seat.output)


def raw_post(body: dict[str, Any], length: int | None = None) -> bytes:
    data = json.dumps(body).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(data) if length is None else length}\r\n\r\n"
    )
    return head.encode() + data


async def test_words_of_a_conversation_are_in_no_log(server: ServerProcess) -> None:
    """Neither of one that is answered nor of what is refused, over both APIs; the tests' server is told to log."""
    word, ended = "Quagga7", '"event":"session_end"'
    before = "".join(server.output).count(ended)
    asked = {"model": MODEL, "messages": user(word), "max_tokens": 2, "stop": [word]}
    assert (await post(server.url, asked))[0] == 200
    for body in ({**asked, "model": word}, {**asked, "messages": [{"role": word, "content": word}]}, word.encode()):
        assert (await post(server.url, body))[0] in (400, 404)
    async with peer(server, HELLO, OPEN) as client:
        await client.say({**TURN, "stop": [word]})
        await client.frame(Kind.IDS, 1, 0, IDS)
        assert (await client.hear())["type"] == "done"
        await client.say({**TURN, "turn": 2, word: word})
        assert (await client.hear())["code"] == "malformed_message"
    async with asyncio.timeout(20):
        while "".join(server.output).count(ended) < before + 2:  # noqa: ASYNC110  # a thread reads its output
            await asyncio.sleep(0.01)
    assert word not in "".join(server.output)


async def test_requests_at_once_have_an_end_also_of_those_that_are_still_being_read(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each may take a body's worth of memory before anything of it is known."""
    monkeypatch.setattr(openai_api, "_WAITING_ROOM", 2)
    async with serving(bundle.folder, max_sessions=1, queue_length=1) as (url, server):
        held = [await asyncio.open_connection("127.0.0.1", urlsplit(url).port) for _ in range(1 + 1 + 2)]
        for _, writer in held:
            writer.write(raw_post({"model": MODEL}, length=1000))
        async with asyncio.timeout(20):
            while len(server.api.requests) < len(held):  # noqa: ASYNC110  # the server tells nobody
                await asyncio.sleep(0.01)
        status, headers, answer = await post(url, {"model": MODEL, "messages": user("Hi"), "max_tokens": 1})
        assert (status, answer["error"]["code"]) == (429, "server_full")
        assert "at once" in answer["error"]["message"]
        assert int(headers["Retry-After"]) > 0
        for _, writer in held:
            writer.transport.abort()


async def test_a_body_that_never_comes_is_given_up(bundle: Bundle) -> None:
    async with serving(bundle.folder, body_timeout_s=0.3) as (url, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(url).port)
        writer.write(raw_post({"model": MODEL}, length=1000))
        answer = await reader.readuntil(b"}}")
        assert b" 408 " in answer.split(b"\r\n")[0]
        assert b"request_timeout" in answer
        writer.close()


async def test_a_client_that_does_not_read_is_dropped_and_others_are_served(endless: Bundle) -> None:
    async with serving(endless.folder, send_timeout_s=0.5) as (url, _):
        deaf = socket.socket()
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(deaf, ("127.0.0.1", urlsplit(url).port))
        body = {
            "model": MODEL, "messages": user("Hello!"), "stream": True,
            "logprobs": True, "top_logprobs": 20, "max_tokens": 1000,
        }  # fmt: skip
        await loop.sock_sendall(deaf, raw_post(body))
        async with aiohttp.ClientSession() as http:
            other = {"model": MODEL, "messages": user("Hello!"), "max_tokens": 9}
            async with http.post(f"{url}/v1/chat/completions", json=other) as response:
                assert (await response.json())["choices"][0]["finish_reason"] == "length"
            refusals = f'splitllm_refusals_total{{api="openai",code="slow_reader",model="{MODEL}"}} 1.0'
            text = ""
            while refusals not in text:
                async with http.get(f"{url}/metrics") as response:
                    text = await response.text()
                await asyncio.sleep(0.05)
            assert f'splitllm_kv_bytes{{kind="reserved",model="{MODEL}"}} 0.0' in text
        deaf.close()


async def test_plans_for_others_reckon_with_a_request(endless: Bundle) -> None:
    async with serving(endless.folder) as (url, server), aiohttp.ClientSession() as http:
        body = {"model": MODEL, "messages": user("Hello!"), "stream": True, "max_tokens": 200}
        async with http.post(f"{url}/v1/chat/completions", json=body) as response:
            await response.content.readline()
            prompt_tokens = len(server.first.codec.encode_chat(user("Hello!")))
            assert server.first.admission.load() == Load.of([0], endless.spec.blocks, context=prompt_tokens)
            await response.read()
        assert server.first.admission.load() == Load.of([], endless.spec.blocks, context=0)


async def test_a_lost_engine_is_told_to_all(endless: Bundle, caplog: pytest.LogCaptureFixture) -> None:
    def fail(_batch: Any) -> Any:
        raise MemoryError("no memory")

    async with serving(endless.folder) as (url, server), aiohttp.ClientSession() as http:
        body = {"model": MODEL, "messages": user("Hello!"), "stream": True, "max_tokens": 900}
        async with http.post(f"{url}/v1/chat/completions", json=body) as response:
            await response.content.readline()
            server.first.runner.engine.run = fail  # type: ignore[method-assign]  # a fault that no input can cause
            told = (await response.text()).strip().split("\n\n")[-1]
        assert json.loads(told.removeprefix("data: "))["error"]["code"] == "internal"
        status, _, answer = await post(url, {"model": MODEL, "messages": user("Hi")})
        assert (status, answer["error"]["code"], answer["error"]["type"]) == (503, "internal", "server_error")
        for path, state in (("ready", "engine stopped"), ("health", "down")):
            async with http.get(f"{url}/{path}") as response:
                assert response.status == 503
                assert state in (await response.json()).values()
        async with http.get(f"{url}/metrics") as response:
            text = await response.text()
        assert "splitllm_ready 0.0" in text
        assert f'splitllm_refusals_total{{api="openai",code="internal",model="{MODEL}"}} 2.0' in text
    assert "the engine stops" in caplog.text

"""Several models in one server: each chosen by name, with its own sessions and files, and one memory for all."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from websockets.asyncio.client import connect

from splitllm.bundle import Bundle
from splitllm.client.conversation import Answer, Conversation
from splitllm.engines.fake import FakeEngine
from splitllm.errors import BundleError, UsageError
from splitllm.protocol import Kind
from splitllm.server.app import Server
from splitllm.server.config import ModelSource, ServerConfig
from splitllm.server.model import LoadedModel
from splitllm.server.serve import load
from splitllm.types import Float32Array, SamplingParams, Sla
from splitllm.work import Batch
from tests.chaos.world import until
from tests.integration.test_wire import HELLO, IDS, OPEN, TURN, Peer
from tests.support import listening

FIRST, SECOND = "tiny-chat", "org/other model"
RESUMABLE = {**OPEN, "resume": None}


@asynccontextmanager
async def serving(bundle: Bundle, other: Bundle, **settings: Any) -> AsyncIterator[tuple[str, Server]]:
    """A server of the two, with the fake engine."""
    loaded = [
        LoadedModel(name, each, FakeEngine(replace(each.spec, end_tokens=()), 4, each.spec.max_context))
        for name, each in ((FIRST, bundle), (SECOND, other))
    ]
    server = Server(loaded, ServerConfig(max_sessions=4, **settings))
    async with listening(server) as url:
        yield url, server


@pytest_asyncio.fixture
async def both(bundle: Bundle, endless: Bundle) -> AsyncIterator[tuple[str, Server]]:
    async with serving(bundle, endless) as served:
        yield served


@asynccontextmanager
async def caller(url: str, model: str | None, *messages: dict[str, Any]) -> AsyncIterator[tuple[Peer, dict[str, Any]]]:
    """A peer that has said hello to a model and these messages, and the last answer."""
    async with connect(f"ws{url.removeprefix('http')}/v1/session", compression=None) as socket:
        peer = Peer(socket)
        for message in ({**HELLO, "model": model}, *messages):
            await peer.say(message)
            heard = await peer.hear()
        yield peer, heard


async def answer(peer: Peer) -> dict[str, Any]:
    """The end of a turn of the fake engine."""
    await peer.say(TURN)
    await peer.frame(Kind.IDS, 1, 0, IDS)
    return await peer.hear()


async def test_a_session_is_of_the_model_that_hello_names_or_of_the_first(
    both: tuple[str, Server], bundle: Bundle, endless: Bundle
) -> None:
    url, server = both
    for name, model, identity in (
        (None, FIRST, bundle.identity), (FIRST, FIRST, bundle.identity), (SECOND, SECOND, endless.identity)
    ):  # fmt: skip
        async with caller(url, name) as (peer, welcome):
            assert (welcome["model"], welcome["bundle"]) == (model, identity)
            await peer.say(OPEN)
            session = (await peer.hear())["session"]
            assert {each.name for each in server.models.values() if session in each.admission.sessions} == {model}
            assert (await answer(peer))["type"] == "done"


async def test_an_unknown_model_is_refused_by_name_and_others_go_on(both: tuple[str, Server]) -> None:
    url, _ = both
    async with caller(url, SECOND, OPEN) as (peer, _plan):
        async with caller(url, "third") as (stranger, refusal):
            assert (refusal["code"], refusal["fatal"]) == ("unknown_model", True)
            assert f"ask for '{FIRST}', '{SECOND}', or name none" in refusal["message"]
            assert await stranger.ends() == 1008
        assert (await answer(peer))["type"] == "done"


async def test_a_copy_of_one_model_is_not_taken_for_another(both: tuple[str, Server], bundle: Bundle) -> None:
    async with connect(f"ws{both[0].removeprefix('http')}/v1/session", compression=None) as socket:
        peer = Peer(socket)
        await peer.say({**HELLO, "model": SECOND, "bundle": bundle.identity})
        assert (await peer.hear())["code"] == "bundle_mismatch"


async def test_a_token_of_one_model_opens_no_session_of_another(both: tuple[str, Server]) -> None:
    url, server = both
    async with caller(url, SECOND, RESUMABLE) as (peer, plan):
        await peer.say(TURN)
        await peer.frame(Kind.IDS, 1, 0, IDS[:2])
        await peer.frame(Kind.IDS, 1, 9, IDS[:1])
        assert (await peer.hear())["code"] == "position_gap"  # so that the others have come
        peer.socket.transport.abort()
    again = {"session": plan["session"], "token": plan["resume"]["token"], "turn": 1, "position": 0}
    for model in (FIRST, None):
        async with caller(url, model, {**OPEN, "resume": again}) as (_, refusal):
            assert (refusal["code"], refusal["fatal"]) == ("resume_refused", False)
    async with caller(url, SECOND, {**OPEN, "resume": again}) as (_, resumed):
        assert (resumed["session"], resumed["position"]) == (plan["session"], 2)
    await until(lambda: len(server.models[SECOND].held) == 1)


async def test_one_memory_and_as_many_places_for_all_models(bundle: Bundle, endless: Bundle) -> None:
    room = 2 * OPEN["max_tokens"] * bundle.spec.blocks * bundle.spec.kv_bytes_per_token()
    async with serving(bundle, endless, kv_memory_bytes=room, queue_s=0.0) as (url, server):
        async with (
            caller(url, FIRST, OPEN),
            caller(url, FIRST, OPEN),
            caller(url, SECOND, OPEN) as (peer, refusal),
        ):
            assert refusal["code"] == "kv_exhausted"
            await peer.say({**OPEN, "max_tokens": 129, "split": 8})  # that needs none
            assert (await peer.hear())["split"] == 8
        await until(lambda: not server.pool.reserved)
        async with caller(url, SECOND, OPEN) as (_, plan):
            assert plan["type"] == "plan"
    async with (
        serving(bundle, endless, queue_s=0.0) as (url, _),
        caller(url, FIRST, OPEN),
        caller(url, FIRST, OPEN),
        caller(url, SECOND, OPEN),
        caller(url, SECOND, OPEN),
        caller(url, SECOND, OPEN) as (_, refusal),
    ):
        assert refusal["code"] == "server_full"


async def test_files_and_the_api_go_by_name(both: tuple[str, Server], bundle: Bundle, endless: Bundle) -> None:
    url, _ = both
    async with aiohttp.ClientSession() as http:
        for path, manifest in (
            ("/bundle/manifest.json", bundle.manifest_bytes),
            (f"/models/{FIRST}/manifest.json", bundle.manifest_bytes),
            ("/models/org%2Fother%20model/manifest.json", endless.manifest_bytes),
            (f"/models/{SECOND}/manifest.json", endless.manifest_bytes),
        ):
            async with http.get(url + path) as response:
                assert (response.status, await response.read()) == (200, manifest)
        for path in ("/models/third/manifest.json", f"/models/{FIRST}/..%2Fmanifest.json", f"/models/{FIRST}/none"):
            async with http.get(url + path) as response:
                assert response.status == 404
        async with http.get(f"{url}/v1/models") as response:
            assert [model["id"] for model in (await response.json())["data"]] == [FIRST, SECOND]
        for name in (SECOND, SECOND.replace("/", "%2F")):  # clients of OpenAI's API do either
            async with http.get(f"{url}/v1/models/{name}") as response:
                assert (await response.json())["id"] == SECOND
        body = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 3}
        for model in (SECOND, FIRST):
            async with http.post(f"{url}/v1/chat/completions", json={**body, "model": model}) as response:
                told = await response.json()
                assert (told["model"], told["usage"]["completion_tokens"]) == (model, 3)
        async with http.post(f"{url}/v1/chat/completions", json={**body, "model": "third"}) as response:
            error = (await response.json())["error"]
            assert (response.status, error["code"], error["param"]) == (404, "model_not_found", "model")
        async with http.get(f"{url}/metrics") as response:
            text = await response.text()
        for model in (FIRST, SECOND):
            assert f'splitllm_generated_tokens_total{{api="openai",model="{model}"}} 3.0' in text
        assert 'splitllm_refusals_total{api="openai",code="model_not_found",model=""} 1.0' in text


async def test_the_engine_of_one_model_fails_alone(both: tuple[str, Server]) -> None:
    url, server = both

    def fail(_batch: object) -> None:
        raise MemoryError("no memory")

    server.models[SECOND].runner.engine.run = fail  # type: ignore[method-assign]  # a fault that no input can cause
    async with caller(url, FIRST, OPEN) as (healthy, _plan), caller(url, SECOND, OPEN) as (peer, _other):
        assert (await answer(peer))["code"] == "internal"
        assert (await answer(healthy))["type"] == "done"
        async with aiohttp.ClientSession() as http, http.get(f"{url}/health") as response:
            status = await response.json()
            assert (response.status, status["status"]) == (503, "down")
            assert [model["status"] for model in status["models"].values()] == ["ok", "down"]


async def test_who_waits_for_much_room_holds_nobody_of_another_model_up(bundle: Bundle, endless: Bundle) -> None:
    small = {**OPEN, "queue": True}
    large = {**small, "max_tokens": 2 * OPEN["max_tokens"]}
    room = large["max_tokens"] * bundle.spec.blocks * bundle.spec.kv_bytes_per_token()
    async with (
        serving(bundle, endless, kv_memory_bytes=room) as (url, server),
        caller(url, FIRST, small) as (inside, _),
        caller(url, FIRST, large) as (waiting, heard),
        caller(url, SECOND, OPEN) as (other, plan),
        caller(url, FIRST, {**OPEN, "split": 8}) as (_, refusal),
        caller(url, SECOND, small) as (next_other, place),
    ):
        assert (heard["type"], plan["type"], refusal["code"]) == ("queued", "plan", "server_full")
        assert (place["type"], place["place"]) == ("queued", 2)
        await other.say({"type": "close"})
        assert (await next_other.hear())["type"] == "plan"
        assert len(server.queue) == 1
        await inside.say({"type": "close"})
        await next_other.say({"type": "close"})
        assert (await waiting.hear())["type"] == "plan"


async def test_the_first_plan_of_a_session_counts_the_ticks_of_a_busy_model(bundle: Bundle, endless: Bundle) -> None:
    """They take three times what is promised here, so no split can keep it."""
    async with serving(bundle, endless, sla=Sla(ttft_ms=2000, tpot_ms=50)) as (url, server):
        busy = server.models[SECOND].runner.engine
        run = busy.run

        def slowly(batch: Batch) -> Float32Array:
            time.sleep(0.15)
            return run(batch)

        busy.run = slowly  # type: ignore[method-assign]  # as a larger model runs
        async with caller(url, FIRST, {**OPEN, "split": "auto"}) as (_, plan):
            assert plan["feasible"] is True
        async with caller(url, SECOND, OPEN) as (other, _):
            await other.say({**TURN, "max_tokens": 100})
            await other.frame(Kind.IDS, 1, 0, IDS)
            for _ in range(3):
                await other.token()
            async with caller(url, FIRST, {**OPEN, "split": "auto"}) as (_, plan):
                assert plan["feasible"] is False
                assert plan["predicted"]["tpot_ms"] > 50


async def test_nobody_stands_in_line_for_a_model_whose_engine_has_stopped(bundle: Bundle, endless: Bundle) -> None:
    room = OPEN["max_tokens"] * bundle.spec.blocks * bundle.spec.kv_bytes_per_token()
    async with serving(bundle, endless, kv_memory_bytes=room) as (url, server):
        server.models[SECOND].runner.fault = MemoryError("no memory")
        async with (
            caller(url, FIRST, OPEN),
            caller(url, FIRST, {**OPEN, "queue": True}) as (waiting, place),
            caller(url, SECOND, {**OPEN, "queue": True}) as (_, refusal),
        ):
            assert (place["type"], refusal["type"]) == ("queued", "error")
            assert (refusal["code"], refusal["fatal"], len(server.queue)) == ("internal", True, 1)
            await waiting.say({"type": "close"})


def test_two_models_of_one_name_are_refused_with_the_way_out(bundle: Bundle) -> None:
    with pytest.raises(UsageError, match=r"both called 'tiny-chat'; .* as in other="):
        load([ModelSource(bundle.folder), ModelSource(bundle.folder)], ServerConfig())


def test_which_of_several_bundles_is_damaged_is_said(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(BundleError, match=f"^{tmp_path}: manifest.json is not JSON"):
        load([ModelSource(bundle.folder), ModelSource(tmp_path)], ServerConfig())


def test_what_does_not_fit_the_memory_is_refused_before_it_is_loaded(bundle: Bundle) -> None:
    parts = [bundle.head(), *(bundle.block(index, "float32") for index in range(bundle.spec.blocks))]
    weights = sum(path.stat().st_size for part in parts for path in (part.graph, part.weights) if path is not None)
    models = [ModelSource(bundle.folder), ModelSource(bundle.folder, "other")]
    least = 256 * bundle.spec.blocks * bundle.spec.kv_bytes_per_token()
    with pytest.raises(UsageError, match=f"give at least {2 * weights + least}, or serve fewer models") as refusal:
        load(models, ServerConfig(memory_bytes=2 * weights + least - 1))
    assert "tiny-chat 6.48 MB, other 6.48 MB" in refusal.value.message
    with pytest.raises(UsageError, match=f"give at least {least}"):
        load(models[:1], ServerConfig(kv_memory_bytes=least - 1))


async def test_the_python_client_chooses_by_name(bundle: Bundle, endless: Bundle, tmp_path: Path) -> None:
    models = [ModelSource(bundle.folder), ModelSource(endless.folder, SECOND)]
    async with listening(load(models, ServerConfig(max_sessions=1))) as url:
        for name, ends in ((None, "stop"), (SECOND, "length")):
            conversation = await Conversation.open(url, cache=tmp_path, model=name, split=2)
            told = [item async for item in conversation.ask("Hello!", max_tokens=40, sampling=SamplingParams())][-1]
            assert isinstance(told, Answer)
            assert (told.split, told.finish_reason) == (2, ends)
            await conversation.close()
        with pytest.raises(UsageError, match="no model 'third'"):
            await Conversation.open(url, cache=tmp_path, model="third")

"""A session outlives its connection: same session, next position, no token lost or doubled; and nobody else's."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from websockets.asyncio.client import connect

from splitllm.bundle import Bundle
from splitllm.client import session as client_session
from splitllm.client.conversation import Answer, Conversation
from splitllm.protocol import Kind
from splitllm.server import live_session
from splitllm.server.access import Key
from splitllm.types import SamplingParams, Sla
from tests.chaos.proxy import Fault, Proxy
from tests.chaos.world import converse, expected, open_session, serving, until
from tests.integration.test_wire import HELLO, IDS, OPEN, TURN, Peer
from tests.support import free_port, running_server

GREEDY = SamplingParams()
RESUMABLE = {**OPEN, "resume": None}
SAMPLED = SamplingParams(temperature=1.5, top_p=0.95, repetition_penalty=1.2, seed=7)


@asynccontextmanager
async def caller(url: str, *messages: dict[str, Any]) -> AsyncIterator[tuple[Peer, dict[str, Any]]]:
    """A peer that has said hello and these messages, and the last answer."""
    async with connect(f"ws{url.removeprefix('http')}/v1/session", compression=None) as socket:
        made = Peer(socket)
        heard: dict[str, Any] = {}
        for message in (HELLO, *messages):
            await made.say(message)
            heard = await made.hear()
        yield made, heard


def again(plan: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """`open` that takes up the session of `plan`."""
    resume = {"session": plan["session"], "token": plan["resume"]["token"], "turn": 1, "position": 0}
    return {**OPEN, "resume": {**resume, **changes}}


@asynccontextmanager
async def dropped(url: str, opening: dict[str, Any] = RESUMABLE) -> AsyncIterator[dict[str, Any]]:
    """The plan of a session whose turn was half prompted when the connection went."""
    async with caller(url, opening) as (peer, plan):
        await peer.say(TURN)
        await peer.frame(Kind.IDS, 1, 0, IDS[:2])
        await peer.frame(Kind.IDS, 1, 9, IDS[:1])  # refused, so that the others have surely come
        assert (await peer.hear())["code"] == "position_gap"
        peer.socket.transport.abort()
        yield plan


async def test_a_session_goes_on_at_the_next_position_and_ends_as_ever(bundle: Bundle) -> None:
    async with serving(bundle) as (url, server), dropped(url) as plan:
        async with caller(url, again(plan, position=4)) as (peer, resumed):
            assert (resumed["session"], resumed["position"]) == (plan["session"], 2)
            assert resumed["resume"] | {"token": ""} == {
                "token": "", "grace_s": 60, "turn": 1, "prompt_end": 4, "tokens": []
            }  # fmt: skip
            await peer.frame(Kind.IDS, 1, 2, IDS[2:])
            token = (4, int(IDS.sum()) % bundle.spec.vocab_size)
            assert await peer.token() == token
            done = await peer.hear()
            assert (done["type"], done["tokens"]) == ("done", 3)
            peer.socket.transport.abort()
        # What was missed comes again, and only to who missed it.
        async with caller(url, again(resumed, position=5)) as (peer, later):
            second = 2 * token[1] % bundle.spec.vocab_size
            assert later["resume"]["tokens"] == [second, 2 * second % bundle.spec.vocab_size]
            assert await peer.hear() == done
        await until(lambda: len(server.first.held) == 1)
        async with caller(url, again(later, turn=None, position=7)) as (peer, idle):
            assert (idle["resume"]["tokens"], idle["position"]) == ([], done["position"])
            await peer.say({"type": "close"})
            assert await peer.ends() == 1000
        assert not server.first.admission.sessions


async def test_the_time_without_a_connection_is_none_in_which_a_prompt_came_too_slowly(bundle: Bundle) -> None:
    promised_ms = 300.0
    able = {**RESUMABLE, "split": "auto", "client": {**OPEN["client"], "decode_ms": 0.1, "prefill_ms": 0.1}}
    async with serving(bundle, sla=Sla(promised_ms, 150.0)) as (url, _):
        async with caller(url, able) as (peer, plan):
            assert plan["split"] > 0
            await peer.say(TURN)
            await peer.frame(Kind.IDS, 1, 9, IDS[:1])  # refused, so that the turn has surely begun
            assert (await peer.hear())["type"] == "error"
            peer.socket.transport.abort()
        await asyncio.sleep(1.2 * promised_ms / 1000)
        async with caller(url, again(plan)) as (_, resumed):
            assert resumed["split"] == plan["split"]


async def test_a_token_is_good_for_one_resume_and_only_for_its_session(bundle: Bundle) -> None:
    async with serving(bundle) as (url, server), dropped(url) as plan, dropped(url) as other:
        tokens = {plan["resume"]["token"], other["resume"]["token"]}
        for wrong in ("0" * 64, other["resume"]["token"], plan["resume"]["token"][:-1]):
            async with caller(url, again(plan, token=wrong)) as (peer, refusal):
                assert (refusal["code"], refusal["fatal"]) == ("resume_refused", False)
                await peer.say(RESUMABLE)  # who is refused can have a new session, without anything of the old
                assert (await peer.hear())["position"] == 0
        async with caller(url, again(plan, session="ab" * 16)) as (_, refusal):
            assert refusal["code"] == "resume_refused"
        async with caller(url, again(plan)) as (peer, first):
            tokens.add(first["resume"]["token"])
            peer.socket.transport.abort()
        # The answer with the new token may have been lost, so the old one is good until the client is heard.
        async with caller(url, again(plan)) as (peer, second):
            tokens.add(second["resume"]["token"])
            await peer.frame(Kind.IDS, 1, 2, IDS[2:])
            await peer.token()
            peer.socket.transport.abort()
        for replay in (plan, first):
            async with caller(url, again(replay)) as (_, refusal):
                assert refusal["code"] == "resume_refused"
        assert len(tokens) == 4
        assert all(len(token) == 64 for token in tokens)
        async with caller(url, again(second)) as (_, third):
            assert third["session"] == plan["session"]
        assert len(server.first.admission.sessions) == 2


async def test_a_session_belongs_to_the_api_key_that_opened_it(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    make, owner = live_session.LiveSession.__init__, Key("ada", b"")

    def owned(self: Any, services: Any, _owner: Key | None) -> None:
        make(self, services, owner)

    monkeypatch.setattr(live_session.LiveSession, "__init__", owned)
    async with serving(bundle) as (url, _), dropped(url) as plan, caller(url, again(plan)) as (_peer, refusal):
        assert refusal["code"] == "resume_refused"  # the connection shows no key


async def test_a_session_moves_to_the_connection_that_takes_it_up(bundle: Bundle) -> None:
    async with serving(bundle) as (url, server), caller(url, RESUMABLE) as (half_open, plan):
        async with caller(url, again(plan, turn=None)) as (peer, resumed):
            assert resumed["session"] == plan["session"]
            told = await half_open.hear()
            assert (told["code"], told["fatal"]) == ("session_moved", True)
            assert await half_open.ends() == 1008
            await peer.say(TURN)
            await peer.frame(Kind.IDS, 1, 0, IDS)
            assert (await peer.hear())["type"] == "done"
        assert len(server.first.admission.sessions) == 1


async def test_the_time_of_grace_ends_and_gives_everything_back(bundle: Bundle) -> None:
    async with serving(bundle, grace_s=0.3) as (url, server):
        async with dropped(url, {**RESUMABLE, "max_tokens": 512}) as plan:
            await until(lambda: len(server.first.held) == 1)
            assert server.first.admission.budget.reserved_bytes > 0  # a session that waits counts
            assert server.session_states(server.first)["websocket", "held"] == 1
            await until(lambda: not server.first.admission.sessions)
        assert server.first.admission.budget.reserved_bytes == 0
        assert not server.first.held._entries
        await until(lambda: not server.first.runner._scheduler._streams)
        async with caller(url, again(plan)) as (_, refusal):
            assert refusal["code"] == "resume_refused"


async def test_held_sessions_keep_others_out_only_as_open_ones_do(bundle: Bundle) -> None:
    async with serving(bundle) as (url, server):
        for _ in range(server.config.max_sessions):
            async with dropped(url):
                pass
        await until(lambda: len(server.first.held) == server.config.max_sessions)
        async with caller(url, OPEN) as (_, refusal):
            assert refusal["code"] == "server_full"
        await server.drain(1.0)  # nobody can come back to a server that stops
        assert not server.first.admission.sessions


async def test_who_does_not_ask_for_it_gets_no_token_and_is_not_held(bundle: Bundle) -> None:
    """A client of before: unknown members would be malformed to it."""
    async with serving(bundle) as (url, server), caller(url, OPEN) as (peer, plan):
        assert "resume" not in plan
        await peer.say(TURN)
        await peer.frame(Kind.IDS, 1, 0, IDS)
        assert (await peer.hear())["type"] == "done"
        peer.socket.transport.abort()
        await until(lambda: not server.first.admission.sessions)
    async with serving(bundle, grace_s=0) as (url, _), caller(url, RESUMABLE) as (_peer, plan):
        assert "resume" not in plan


async def test_a_session_in_which_nothing_happened_is_not_held(bundle: Bundle) -> None:
    async with serving(bundle) as (url, server), caller(url, RESUMABLE) as (peer, _):
        peer.socket.transport.abort()
        await until(lambda: not server.first.admission.sessions)


@pytest.mark.parametrize("split", [0, 3, 8])
async def test_the_client_goes_on_in_the_same_session(bundle: Bundle, split: int) -> None:
    async with serving(bundle) as (url, server), Proxy(url).running() as proxy:
        session = await open_session(proxy.url, bundle, split)
        proxy.faults = [Fault("cut", "down", "frame", after=number) for number in (0, 4, 11, 12, 25)]
        assert await converse(session, GREEDY) == expected(bundle.spec.vocab_size)
        # While nobody is there, split 0 draws on, so that not every cut comes to pass.
        assert proxy.upgrades == 6 if split else proxy.upgrades > 2
        assert len(server.first.admission.sessions) == 1  # one and the same
        assert session.plan["session"] in server.first.admission.sessions
        await session.close()
        await until(lambda: not server.first.admission.sessions)


@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
@pytest.mark.parametrize("split", [0, 3])
async def test_another_server_goes_on_with_the_answer(bundle: Bundle, split: int, sampling: SamplingParams) -> None:
    """As after a crash: the new server knows nothing of the session."""
    async with serving(bundle) as (url, _):
        session = await open_session(url, bundle, split)
        undisturbed = await converse(session, sampling)
        await session.close()
    async with serving(bundle) as (url, _), serving(bundle) as (other, server), Proxy(url).running() as proxy:
        session = await open_session(proxy.url, bundle, split)

        def crash() -> None:
            proxy.target = other

        proxy.faults = [Fault("cut", "down", "frame", after=4, then=crash)]
        assert await converse(session, sampling) == undisturbed
        assert session.plan["session"] in server.first.admission.sessions
        await session.close()


async def test_a_server_that_is_killed_and_started_again_goes_on_character_for_character(
    bundle: Bundle, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_session, "_PAUSES_S", (0.1,) * 300)

    async def text(talk: Conversation, sampling: SamplingParams, act: Any = None) -> str:
        streamed = ""
        async for item in talk.ask("Tell me a story.", max_tokens=40, sampling=sampling):
            if isinstance(item, Answer):
                assert item.text == streamed
            else:
                streamed += item
                if act is not None and len(streamed) > 20:
                    await act()
                    act = None
        return streamed

    seeded = SamplingParams(temperature=0.7, seed=5)
    port = str(free_port())
    with running_server(bundle.folder, "--port", port) as first:
        talk = await Conversation.open(first.url, cache=cache, split=3, wire="float32")
        undisturbed = [await text(talk, GREEDY), await text(talk, seeded)]
        await talk.close()
        talk = await Conversation.open(first.url, cache=cache, split=3, wire="float32")
        texts = [await text(talk, GREEDY)]

        async def kill() -> None:
            first.process.send_signal(signal.SIGKILL)
            await asyncio.to_thread(first.process.wait)

        asking = asyncio.create_task(text(talk, seeded, kill))
        while first.process.poll() is None:  # noqa: ASYNC110  # until the answer has killed it
            await asyncio.sleep(0.02)
        with running_server(bundle.folder, "--port", port):
            texts.append(await asking)
            await talk.close()
    assert texts == undisturbed


def test_draws_are_keyed_by_position() -> None:
    """From any position on, the stream goes on as it would have from the begin."""
    sampling = SamplingParams(temperature=1.0, seed=3)
    whole = live_session._draws(sampling, 0)
    later = live_session._draws(sampling, 17)
    assert whole is not None
    assert later is not None
    assert whole.random(20)[17:].tolist() == later.random(3).tolist()
    assert live_session._draws(GREEDY, 0) is None
    assert np.random.default_rng(3).random() == np.random.Generator(np.random.PCG64(3)).random()

"""A live server against peers that break the protocol: each gets its code, and the server serves on."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
import websockets
from websockets.asyncio.client import ClientConnection, connect

from splitllm.bundle import Bundle
from splitllm.engines.fake import FakeEngine
from splitllm.protocol import Frame, Kind, decode_frame, decode_message, encode_frame
from splitllm.types import Float32Array
from splitllm.work import Batch
from tests.chaos.world import serving
from tests.support import ServerProcess

HELLO = {"type": "hello", "protocol": 1, "agent": "test", "model": None, "bundle": None}
REPORT = {
    "backend": "cpu",
    "variant": "float32",
    "blocks_ready": 8,
    "decode_ms": 1.0,
    "prefill_ms": 4.0,
    "prefill_rows": 64,
    "memory_bytes": None,
    "effort": None,
}
OPEN: dict[str, Any] = {
    "type": "open",
    "client": REPORT,
    "split": 0,
    "wire": "float16",
    "max_tokens": 128,
    "expected_prompt_tokens": 8,
}
SAMPLING = {"temperature": 0, "top_p": 1, "top_k": 0, "min_p": 0, "repetition_penalty": 1, "seed": None}
TURN: dict[str, Any] = {
    "type": "turn",
    "turn": 1,
    "start": 0,
    "prompt_tokens": 4,
    "max_tokens": 3,
    "sampling": SAMPLING,
    "stop": [],
    "seen_ids": [],
}
IDS = np.array([[5], [6], [7], [8]], np.int32)


class Peer:
    """A client that may say anything."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    async def say(self, message: dict[str, Any] | str | bytes) -> None:
        await self.socket.send(json.dumps(message) if isinstance(message, dict) else message)

    async def hear(self) -> dict[str, Any]:
        """The next text message; it must be valid."""
        while True:
            received = await self.socket.recv()
            if isinstance(received, str):
                return decode_message(received, "server")

    async def token(self) -> tuple[int, int]:
        """Position and id of the next token frame."""
        received = await self.socket.recv()
        assert isinstance(received, bytes), received
        frame = decode_frame(received)
        return frame.position, int(frame.values[0, 0])

    async def frame(self, kind: Kind, turn: int, position: int, values: np.ndarray) -> None:
        await self.say(encode_frame(Frame(kind, turn, position, values)))

    async def ends(self) -> int:
        """The code with which the server closes."""
        with contextlib.suppress(websockets.ConnectionClosed):
            async for _ in self.socket:
                pass
        await self.socket.wait_closed()
        assert self.socket.close_code is not None
        return self.socket.close_code


@asynccontextmanager
async def peer(server: ServerProcess, *messages: dict[str, Any]) -> AsyncIterator[Peer]:
    """A connected peer that has sent these messages and heard an answer to each."""
    async with connect(f"ws{server.url.removeprefix('http')}/v1/session", compression=None) as socket:
        made = Peer(socket)
        for message in messages:
            await made.say(message)
            assert (await made.hear())["type"] in ("welcome", "plan")
        yield made


async def is_well(server: ServerProcess) -> None:
    """A whole turn with a new peer."""
    async with peer(server, HELLO, OPEN) as good:
        await good.say(TURN)
        await good.frame(Kind.IDS, 1, 0, IDS)
        assert (await good.hear())["type"] == "done"


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        ("not json", "malformed_message"),
        ("[]", "malformed_message"),
        ({**HELLO, "extra": 1}, "malformed_message"),
        ({**HELLO, "protocol": 2}, "protocol_version"),
        ({**HELLO, "model": "another"}, "unknown_model"),
        ({**HELLO, "bundle": "0" * 64}, "bundle_mismatch"),
        (OPEN, "unexpected_message"),
        (TURN, "unexpected_message"),
        (b"\x00" * 64, "unexpected_message"),
        ("[" * 8_000, "malformed_message"),
        ("[" * 100_000, "message_too_large"),
    ],
)
async def test_a_bad_first_message_ends_the_connection_with_its_code(
    server: ServerProcess, sent: Any, code: str
) -> None:
    async with peer(server) as bad:
        await bad.say(sent)
        error = await bad.hear()
        assert (error["type"], error["code"], error["fatal"]) == ("error", code, True)
        assert await bad.ends() == (1009 if code == "message_too_large" else 1008)
    await is_well(server)


@pytest.mark.parametrize(
    "sent", [b"", b"SPLM", b"\x00" * 32, b"SPLM" + b"\xff" * 28], ids=["empty", "short", "zeros", "ones"]
)
async def test_a_malformed_frame_ends_the_connection(server: ServerProcess, sent: bytes) -> None:
    async with peer(server, HELLO, OPEN) as bad:
        await bad.say(sent)
        assert (await bad.hear())["code"] == "malformed_frame"
        assert await bad.ends() == 1008
    await is_well(server)


async def test_a_message_over_the_limit_ends_the_connection(server: ServerProcess) -> None:
    async with peer(server, HELLO) as bad:
        with contextlib.suppress(websockets.ConnectionClosed):
            await bad.say(b"\x00" * (2 << 20))
        # What the server did not read makes TCP reset the connection, which may overtake the close frame.
        assert await bad.ends() in (1009, 1006)
    await is_well(server)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"split": 9}, "split_unavailable"),
        ({"split": 3, "client": {**REPORT, "blocks_ready": 2}}, "split_unavailable"),
        ({"client": {**REPORT, "blocks_ready": 9}}, "split_unavailable"),
        ({"client": {**REPORT, "variant": "int8"}}, "variant_unavailable"),
        ({"max_tokens": 1_000_000}, "context_overflow"),
    ],
)
async def test_an_open_that_cannot_be_served_may_be_sent_again(
    server: ServerProcess, change: dict[str, Any], code: str
) -> None:
    async with peer(server, HELLO) as asking:
        await asking.say({**OPEN, **change})
        error = await asking.hear()
        assert (error["code"], error["fatal"]) == (code, False)
        await asking.say(OPEN)
        assert (await asking.hear())["type"] == "plan"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"start": 1}, "turn_refused"),
        ({"prompt_tokens": 128}, "context_overflow"),
        ({"seen_ids": [2**30]}, "turn_refused"),
    ],
)
async def test_a_turn_that_cannot_be_served_is_refused_and_the_next_one_runs(
    server: ServerProcess, change: dict[str, Any], code: str
) -> None:
    async with peer(server, HELLO, OPEN) as asking:
        await asking.say({**TURN, **change})
        error = await asking.hear()
        assert (error["code"], error["fatal"], error["turn"]) == (code, False, 1)
        await asking.say({**TURN, "turn": 2})
        await asking.frame(Kind.IDS, 2, 0, IDS)
        assert (await asking.hear())["type"] == "done"


async def test_wrong_positions_and_shapes_are_told_and_the_turn_goes_on(server: ServerProcess, bundle: Bundle) -> None:
    hidden = np.zeros((2, bundle.spec.hidden_size), np.float16)
    async with peer(server, HELLO, {**OPEN, "split": 3}) as client:
        await client.say(TURN)

        async def refused(code: str, kind: Kind, turn: int, position: int, values: np.ndarray) -> None:
            await client.frame(kind, turn, position, values)
            error = await client.hear()
            assert (error["code"], error["turn"], error["fatal"]) == (code, turn, False)

        await refused("position_gap", Kind.HIDDEN, 1, 1, hidden)
        await refused("unknown_turn", Kind.HIDDEN, 2, 0, hidden)
        await refused("wrong_dtype", Kind.IDS, 1, 0, IDS)
        await refused("wrong_dtype", Kind.HIDDEN, 1, 0, hidden.astype(np.float32))
        await refused("wrong_shape", Kind.HIDDEN, 1, 0, hidden[:, :-1])
        await refused("wrong_shape", Kind.HIDDEN, 1, 0, np.zeros((5, bundle.spec.hidden_size), np.float16))
        await refused("not_finite", Kind.HIDDEN, 1, 0, np.full_like(hidden, np.nan))
        await client.frame(Kind.HIDDEN, 1, 0, hidden)
        await client.frame(Kind.HIDDEN, 1, 0, hidden)  # repeated: not run again
        await refused("position_overlap", Kind.HIDDEN, 1, 1, hidden)
        await client.frame(Kind.HIDDEN, 1, 2, hidden)
        position, token = await client.token()
        assert position == 4
        await client.frame(Kind.HIDDEN, 1, 2, hidden)  # repeated: answered again
        assert await client.token() == (4, token)
        await client.say({"type": "cancel", "turn": 1})
        assert (await client.hear())["finish_reason"] == "cancelled"


async def test_ids_outside_the_vocabulary_are_told(server: ServerProcess, bundle: Bundle) -> None:
    async with peer(server, HELLO, OPEN) as client:
        await client.say(TURN)
        for token in (-1, bundle.spec.vocab_size):
            await client.frame(Kind.IDS, 1, 0, np.full((4, 1), token, np.int32))
            assert (await client.hear())["code"] == "unknown_token"
        await client.frame(Kind.IDS, 1, 0, IDS)
        assert (await client.hear())["type"] == "done"


async def test_cancel_stops_the_server_s_own_loop(server: ServerProcess) -> None:
    async with peer(server, HELLO, {**OPEN, "max_tokens": 1000}) as client:
        await client.say({**TURN, "max_tokens": 900, "sampling": {**SAMPLING, "temperature": 5, "seed": 7}})
        await client.frame(Kind.IDS, 1, 0, IDS)
        await client.token()
        await client.say({"type": "cancel", "turn": 1})
        done = await client.hear()
        assert done["finish_reason"] in ("cancelled", "stop")
        assert done["tokens"] < 900


async def test_a_new_plan_between_turns(server: ServerProcess, bundle: Bundle) -> None:
    """A larger split keeps what the server holds, a smaller one begins at 0."""
    async with peer(server, HELLO, OPEN) as client:
        await client.say(TURN)
        await client.frame(Kind.IDS, 1, 0, IDS)
        held = (await client.hear())["position"]  # the prompt and what was drawn, which is the model's business
        assert held >= len(IDS)
        report = {"type": "report", "client": REPORT, "split": 3, "expected_prompt_tokens": 8}
        await client.say(report)
        plan = await client.hear()
        assert (plan["split"], plan["position"]) == (3, held)
        await client.say({**report, "split": 9})
        assert (await client.hear())["code"] == "split_unavailable"
        await client.say({**report, "split": 1})
        plan = await client.hear()
        assert (plan["split"], plan["position"]) == (1, 0)
        await client.say({**TURN, "turn": 2})
        await client.frame(Kind.HIDDEN, 2, 0, np.zeros((4, bundle.spec.hidden_size), np.float16))
        assert (await client.token())[0] == 4


async def test_close_is_answered_by_a_clean_close(server: ServerProcess) -> None:
    async with peer(server, HELLO, OPEN) as client:
        await client.say({"type": "close"})
        assert await client.ends() == 1000


async def test_many_connections_that_vanish_leave_nothing(server: ServerProcess) -> None:
    for _ in range(40):
        async with peer(server, HELLO, OPEN) as client:
            await client.say(TURN)
            await client.frame(Kind.IDS, 1, 0, IDS)
            client.socket.transport.abort()
    await is_well(server)


async def test_a_hostile_list_does_not_hold_the_server_up(server: ServerProcess) -> None:
    """As many errors as fit into one message are not collected: the server answers others meanwhile."""
    for length, code in ((8_000, "malformed_message"), (20_000, "message_too_large")):
        async with peer(server, HELLO, OPEN) as bad:
            await bad.say({**TURN, "stop": [""] * length})
            assert (await bad.hear())["code"] == code
    await is_well(server)


async def test_an_answer_that_takes_longer_than_the_idle_limit_is_not_silence(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = FakeEngine.run

    def slow(engine: FakeEngine, batch: Batch) -> Float32Array:
        time.sleep(0.2)
        return run(engine, batch)

    monkeypatch.setattr(FakeEngine, "run", slow)
    async with (
        serving(bundle, idle_timeout_s=0.5) as (url, _),
        connect(f"ws{url.removeprefix('http')}/v1/session", compression=None) as socket,
    ):
        client = Peer(socket)
        for message in (HELLO, OPEN):
            await client.say(message)
            await client.hear()
        await client.say({**TURN, "max_tokens": 8})
        await client.frame(Kind.IDS, 1, 0, IDS)
        assert (await client.hear())["type"] == "done"
        error = await client.hear()
        assert (error["code"], error["fatal"]) == ("idle_timeout", True)

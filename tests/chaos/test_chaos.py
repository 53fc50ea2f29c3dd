"""Each fault at each phase, on either way: every conversation says what it says on a quiet day, and nothing is left.

A real server and real clients over the fake engine, in this process, with a proxy between that does one thing to one
message. Two conversations run at once, so that bytes of one in the other would show.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from splitllm.bundle import Bundle
from splitllm.client import link, session
from splitllm.client.session import ClientSession
from splitllm.errors import SplitLLMError
from splitllm.server.app import Server
from splitllm.types import ClientReport, SamplingParams
from tests.chaos.proxy import ACTIONS, Action, Fault, Proxy, Way
from tests.chaos.world import MAX_TOKENS, PROMPTS, converse, expected, open_session, serving, until

GREEDY = SamplingParams()
NEIGHBOUR = (tuple(range(50, 80)), (3,), (1, 4, 1, 5))
#: The message at which a phase is hit, by way: its kind, and from which to which one of them.
PHASES: dict[str, dict[Way, tuple[str, int, int]]] = {
    "prefill": {"up": ("frame", 0, 1), "down": ("frame", 0, 0)},
    "decode": {"up": ("frame", 4, 18), "down": ("frame", 1, 25)},
    "turn change": {"up": ("turn", 2, 4), "down": ("done", 0, 3)},
    "new plan": {"up": ("adopt", 0, 0), "down": ("replan", 0, 0)},
    "resume": {"up": ("resume", 0, 0), "down": ("resumed", 0, 0)},
}
ENDS: tuple[Action, ...] = ("cut", "stall")
CASES = [(phase, way, action) for phase in PHASES for way in ("up", "down") for action in ACTIONS]
SPLITS = (3, 8, 1)
#: To which split a new plan goes; the ends, where rows go up in their own way, among them.
CHANGES = {3: 0, 8: 2, 1: 8, 0: 3}
OPENING: tuple[tuple[Way, str], ...] = (("up", "hello"), ("down", "welcome"), ("up", "open"), ("down", "plan"))


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients that give a message up soon, and connect again at once."""
    monkeypatch.setattr(session, "_STEP_S", 0.3)
    monkeypatch.setattr(session, "_REPLY_S", 0.3)
    monkeypatch.setattr(link, "_OPEN_TIMEOUT_S", 0.3)
    monkeypatch.setattr(session, "_PAUSES_S", (0.0, *(0.05,) * 200))
    # A busy machine may look like a silent server; that must not look like one that is never there.
    monkeypatch.setattr(session, "_MOST_LOSSES", 100)


async def opened(url: str, bundle: Bundle, split: int) -> ClientSession:
    """A session that nothing disturbs yet, opened with the usual patience, for the machine may be busy."""
    with pytest.MonkeyPatch.context() as patient:
        patient.setattr(link, "_OPEN_TIMEOUT_S", 20.0)
        return await open_session(url, bundle, split)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@contextlib.asynccontextmanager
async def level(server: Server) -> AsyncIterator[None]:
    """What is held afterwards is what was held before: rows, memory, sessions, connections, tasks, sockets."""
    tasks, files = len(asyncio.all_tasks()), open_files()
    yield
    await until(
        lambda: not server.first.admission.sessions and not server.connections and not server.first.held._entries
    )
    await until(lambda: not server.first.runner._scheduler._streams)
    assert server.first.admission.budget.reserved_bytes == 0
    assert not server.first.runner._handlers
    await until(lambda: len(asyncio.all_tasks()) <= tasks and open_files() <= files)


async def both(ours: ClientSession, neighbour: ClientSession, vocab: int, *, replan: bool) -> None:
    """Two conversations at once, and what they must say; in the second turn of one the split may change."""

    async def change(count: int) -> None:
        if replan and count == MAX_TOKENS + 4:
            report = ClientReport("cpu", "float32", 8, decode_ms=1.0, prefill_ms=4.0)
            await ours.report(report, split=CHANGES[ours.split], expected_prompt_tokens=1)

    heard = await asyncio.gather(converse(ours, GREEDY, PROMPTS, change), converse(neighbour, GREEDY, NEIGHBOUR))
    assert heard == [expected(vocab, PROMPTS), expected(vocab, NEIGHBOUR)]
    await ours.close()
    await neighbour.close()


@pytest.mark.parametrize(
    ("number", "phase", "way", "action"),
    [pytest.param(number, *case, id=" ".join(case)) for number, case in enumerate(CASES)],
)
async def test_one_fault_changes_no_text_and_leaves_nothing(
    bundle: Bundle, number: int, phase: str, way: Way, action: Action
) -> None:
    draw = random.Random(number)
    kind, first, last = PHASES[phase][way]
    fault = Fault(action, way, kind, after=draw.randint(first, last))
    split = SPLITS[number % len(SPLITS)]
    async with serving(bundle, grace_s=2.0) as (url, server), Proxy(url).running() as proxy, level(server):
        ours, neighbour = await opened(proxy.url, bundle, split), await opened(proxy.url, bundle, 0)
        proxy.faults = [fault]
        if phase == "resume":
            proxy.faults.append(Fault(draw.choice(ENDS), "down", "frame", after=draw.randint(2, 20)))
        await both(ours, neighbour, bundle.spec.vocab_size, replan=phase == "new plan")
        assert fault.done


@pytest.mark.parametrize("split", [0, 3])
async def test_a_last_token_that_is_lost_is_missed_by_who_hears_the_end(bundle: Bundle, split: int) -> None:
    async with serving(bundle) as (url, server), Proxy(url).running() as proxy, level(server):
        ours = await opened(proxy.url, bundle, split)
        proxy.faults = [Fault("drop", "down", "frame", after=MAX_TOKENS - 1)]
        assert await converse(ours, GREEDY) == expected(bundle.spec.vocab_size)
        await ours.close()


@pytest.mark.parametrize("number", range(8))
async def test_several_faults_change_no_text_and_leave_nothing(bundle: Bundle, number: int) -> None:
    draw = random.Random(1000 + number)
    async with serving(bundle, grace_s=2.0) as (url, server), Proxy(url).running() as proxy, level(server):
        split = draw.choice((0, *SPLITS))
        ours, neighbour = await opened(proxy.url, bundle, split), await opened(proxy.url, bundle, 4)
        for _ in range(4):
            phase, way, action = draw.choice(CASES)
            kind, first, last = PHASES[phase][way]
            proxy.faults.append(Fault(action, way, kind, after=draw.randint(first, last)))
        await both(ours, neighbour, bundle.spec.vocab_size, replan=True)


@pytest.mark.parametrize(("phase", "way"), [*itertools.product(list(PHASES)[:3], ("up", "down")), ("resume", "down")])
async def test_a_server_that_dies_changes_no_text(bundle: Bundle, phase: str, way: Way) -> None:
    """What takes its place knows nothing of its sessions."""
    async with (
        serving(bundle, grace_s=0.2) as (url, _),
        serving(bundle) as (other, server),
        Proxy(url).running() as proxy,
        level(server),
    ):
        ours, neighbour = await opened(proxy.url, bundle, 3), await opened(proxy.url, bundle, 0)

        def die() -> None:
            proxy.target = other
            proxy.cut()

        kind, first, last = PHASES[phase][way]
        proxy.faults = [Fault("cut", way, kind, after=(first + last) // 2, then=die)]
        if phase == "resume":
            proxy.faults.append(Fault("cut", "down", "frame", after=7))
        await both(ours, neighbour, bundle.spec.vocab_size, replan=False)


@pytest.mark.parametrize("split", [0, 3])
async def test_a_client_that_dies_leaves_nothing_and_comes_back_with_what_it_had_kept(
    bundle: Bundle, split: int
) -> None:
    class GoneError(Exception):
        """The client's process ends here."""

    async with serving(bundle, grace_s=0.3) as (url, server), level(server):
        told = expected(bundle.spec.vocab_size)
        dying = await opened(url, bundle, split)
        kept = [*PROMPTS[0]]
        with contextlib.suppress(GoneError):
            async for item in dying.answer(kept, max_tokens=MAX_TOKENS, sampling=GREEDY):
                assert isinstance(item, int)
                kept.append(item)
                if len(kept) == len(PROMPTS[0]) + 4:
                    dying._link.abort()
                    raise GoneError
        back = await opened(url, bundle, split)
        rest = [item async for item in back.answer(kept, max_tokens=MAX_TOKENS - 4, sampling=GREEDY)]
        assert kept[len(PROMPTS[0]) :] + rest[:-1] == told[:MAX_TOKENS]
        await back.close()


async def test_a_session_that_cannot_be_opened_says_why(bundle: Bundle) -> None:
    """Whatever happens to the first messages: a session, or an error with a sentence; and the next one works."""
    async with serving(bundle, grace_s=2.0) as (url, server), Proxy(url).running() as proxy, level(server):
        for (way, kind), action in itertools.product(OPENING, ("cut", "drop", "duplicate", "truncate")):
            proxy.faults = [Fault(action, way, kind)]
            try:
                tried = await open_session(proxy.url, bundle, 0)
            except SplitLLMError as error:
                assert len(error.message.split()) > 3, error.message  # noqa: PT017  # it may also succeed
                assert error.code  # noqa: PT017  # as above
                tried = await opened(proxy.url, bundle, 0)
            await tried.close()


async def test_a_server_that_never_comes_back_is_told_in_a_sentence(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "_PAUSES_S", (0.0, 0.01))
    async with serving(bundle) as (url, _), Proxy(url).running() as proxy:
        ours = await opened(proxy.url, bundle, 0)

        def die() -> None:
            proxy.target = "http://127.0.0.1:1"

        proxy.faults = [Fault("cut", "down", "frame", after=2, then=die)]
        with pytest.raises(SplitLLMError, match=r"is the server running there\?"):
            await converse(ours, GREEDY)

"""Each fault at each phase for the page's own engine: its answers are those of a quiet day, and nothing is left.

The engine runs in Node with blocks that are arithmetic (web_client/test/chaos), the server is a real one over the fake
engine. Each case has a proxy of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from pathlib import Path

from splitllm.bundle import Bundle
from tests.chaos.proxy import ACTIONS, Action, Fault, Proxy, Way
from tests.chaos.test_chaos import ENDS, SPLITS, level
from tests.chaos.world import serving

PAGE = Path(__file__).parents[2] / "web_client"
QUESTIONS = ("Hello! My name is Ada. " * 12, "Tell me a story.", "What is my name?")
MAX_TOKENS = 8
#: As in test_chaos, for a connection that carries one conversation.
PHASES: dict[str, dict[Way, tuple[str, int, int]]] = {
    "prefill": {"up": ("frame", 0, 1), "down": ("frame", 0, 0)},
    "decode": {"up": ("frame", 3, 14), "down": ("frame", 1, 20)},
    "turn change": {"up": ("turn", 1, 2), "down": ("done", 0, 1)},
    "resume": {"up": ("resume", 0, 0), "down": ("resumed", 0, 0)},
}
CASES: list[tuple[str, Way, Action]] = [
    (phase, way, action) for phase, ways in PHASES.items() for way in ways for action in ACTIONS
]


def faults_of(number: int) -> list[Fault]:
    phase, way, action = CASES[number]
    draw = random.Random(number)
    kind, first, last = PHASES[phase][way]
    faults = [Fault(action, way, kind, after=draw.randint(first, last))]
    if phase == "resume":
        faults.append(Fault(draw.choice(ENDS), "down", "frame", after=draw.randint(2, 18)))
    return faults


async def answers(urls: list[str], splits: list[int]) -> list[list[str]]:
    """What the page's engine answers at each URL."""
    lives = [
        {"url": url, "split": split, "questions": QUESTIONS, "maxTokens": MAX_TOKENS}
        for url, split in zip(urls, splits, strict=True)
    ]
    node = await asyncio.create_subprocess_exec(
        "node", "--experimental-websocket", "--no-warnings", "test/chaos/run.mjs", cwd=PAGE,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    told, _ = await node.communicate(json.dumps(lives).encode())
    heard: list[list[str]] = json.loads(told)
    return heard


async def test_one_fault_changes_no_answer_of_the_page_and_leaves_nothing(bundle: Bundle) -> None:
    splits = [0, *SPLITS, *(SPLITS[number % len(SPLITS)] for number in range(len(CASES)))]
    quiet = 1 + len(SPLITS)  # nothing happens to these
    serves = serving(bundle, max_sessions=len(splits), grace_s=5.0)
    async with serves as (url, server), contextlib.AsyncExitStack() as stack:
        proxies = [await stack.enter_async_context(Proxy(url).running()) for _ in CASES]
        for number, proxy in enumerate(proxies):
            proxy.faults = faults_of(number)
        async with level(server):
            heard = await answers([*[url] * quiet, *(proxy.url for proxy in proxies)], splits)
    undisturbed = dict(zip(splits, heard[:quiet], strict=False))
    assert all(text.startswith("length: ") for texts in undisturbed.values() for text in texts)
    wrong = {
        " ".join(case): texts
        for case, split, texts in zip(CASES, splits[quiet:], heard[quiet:], strict=True)
        if texts != undisturbed[split]
    }
    assert not wrong
    idle = [" ".join(case) for case, proxy in zip(CASES, proxies, strict=True) if not all(f.done for f in proxy.faults)]
    assert not idle

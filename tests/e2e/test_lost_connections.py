"""A connection that is lost in the middle of an answer, its server, its network or its computer that falls asleep.

The answer goes on, and is the same.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest
from playwright.sync_api import Page, expect

from splitllm.resources import demo_bundle
from tests.chaos.proxy import Fault, Proxy
from tests.support import ServerProcess, running_server

from .conftest import ChatPage
from .far import on_a_thread

pytestmark = pytest.mark.browser
QUESTION = "Tell me a story."
Away = Callable[[Page], AbstractContextManager[None]]
EXACT = "wire=float32&variant=float32&backend=wasm&temperature=0.8&seed=3"


def test_an_answer_goes_on_after_its_connection_was_cut(page: Page, server: ServerProcess) -> None:
    with on_a_thread(Proxy(server.url).running()) as proxy:
        chat = ChatPage(page)
        page.goto(f"{proxy.url}/?{EXACT}&split=2")
        undisturbed = chat.ask(QUESTION)
        chat.begin_anew()
        before = proxy.upgrades
        proxy.faults = [Fault("cut", "down", "frame", after=number) for number in (3, 9)]
        assert chat.ask(QUESTION) == undisturbed
        assert proxy.upgrades == before + 2
        assert chat.errors == []


def test_an_answer_goes_on_after_its_server_was_killed_and_started_again(page: Page) -> None:
    with running_server(demo_bundle()) as first, on_a_thread(Proxy(first.url).running()) as proxy:
        chat = ChatPage(page)
        page.goto(f"{proxy.url}/?{EXACT}&split=2")
        undisturbed = chat.ask(QUESTION)
        chat.begin_anew()

        def kill() -> None:
            first.process.send_signal(signal.SIGKILL)
            proxy.target = ""

        proxy.faults = [Fault("cut", "down", "frame", after=5, then=kill)]
        answer = chat.start(QUESTION)
        first.process.wait(60)
        with running_server(demo_bundle()) as second:
            proxy.target = second.url
            assert chat.finished(answer) == undisturbed
        assert chat.errors == []


@contextmanager
def offline(page: Page) -> Iterator[None]:
    page.context.set_offline(True)
    yield
    expect(page.get_by_text("Connecting again; the answer goes on then.")).to_be_visible()
    page.context.set_offline(False)


@contextmanager
def asleep(page: Page) -> Iterator[None]:
    """All that runs pages stands still, as it does in a computer that sleeps."""
    assert page.context.browser is not None
    told = page.context.browser.new_browser_cdp_session().send("SystemInfo.getProcessInfo")
    renderers = [process["id"] for process in told["processInfo"] if process["type"] == "renderer"]
    assert renderers
    for process in renderers:
        os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        for process in renderers:
            os.kill(process, signal.SIGCONT)


@pytest.mark.parametrize("away", [offline, asleep])
def test_an_answer_goes_on_after_the_browser_was(page: Page, server: ServerProcess, away: Away) -> None:
    with on_a_thread(Proxy(server.url).running()) as proxy:
        chat = ChatPage(page)
        page.goto(f"{proxy.url}/?{EXACT}&split=2")
        undisturbed = chat.ask(QUESTION)
        chat.begin_anew()
        before = proxy.upgrades
        proxy.faults = [Fault("stall", "down", "frame", after=5)]
        answer = chat.start(QUESTION)
        expect(answer).to_have_attribute("data-status", "streaming")
        with away(page):
            proxy.cut_from_outside()
        assert chat.finished(answer) == undisturbed
        assert proxy.upgrades > before
        assert chat.errors == []

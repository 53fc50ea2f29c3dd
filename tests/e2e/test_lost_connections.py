"""A connection that is lost in the middle of an answer, or the whole server: the answer goes on and is the same."""

from __future__ import annotations

import signal

import pytest
from playwright.sync_api import Page

from splitllm.resources import demo_bundle
from tests.chaos.proxy import Fault, Proxy
from tests.support import ServerProcess, running_server

from .conftest import ChatPage
from .far import on_a_thread

pytestmark = pytest.mark.browser
QUESTION = "Tell me a story."
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

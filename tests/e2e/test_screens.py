"""The main states of the page as people meet them, in all views; `make pictures` renews docs/images with them."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, Route, expect

from splitllm.resources import demo_bundle
from tests.chaos.proxy import Fault, Proxy
from tests.support import running_server

from .chats import LONG_ANSWER, archive, chat
from .conftest import ChatPage
from .far import on_a_thread
from .screens import Screens

pytestmark = [pytest.mark.browser, pytest.mark.slow]
#: Wide, so that the planner moves the model here on a machine of any speed; effort keeps three blocks at the server.
PROMISE = ("--sla-tpot-ms", "60000", "--sla-ttft-ms", "600000")
OTHERS = ["What is the capital of Japan?", "What do cows say?", "Hi, my name is Alice."]
#: When the imported chat was written to, in milliseconds since 1970: after the others.
LATER = 10**13
#: Tokens of the story that are shown when it is pictured.
SHOWN = 24


def test_a_first_visit_and_what_follows(page: Page, screen: Screens) -> None:
    with (
        running_server(demo_bundle(), *PROMISE) as server,
        on_a_thread(Proxy(server.url).running()) as proxy,
    ):
        chat_page, held = ChatPage(page), list[Route]()
        page.context.route("**/bundle/block.3.*.bin", lambda route: held.append(route))
        page.goto(f"{proxy.url}/?backend=wasm&effort=0.625")
        expect(page.get_by_text("Downloading block 4 of 8")).to_be_visible()
        screen(page, "first-visit")
        page.context.unroute_all()
        page.reload()
        ready = page.get_by_text("Ready", exact=True)
        expect(ready).to_be_visible()
        for question in OTHERS:
            chat_page.ask(question)
            chat_page.begin_anew()
        chat_page.ask("What runs in my browser?")
        expect(chat_page.split).to_have_text("5 of 8 blocks in your browser")
        # The connection falls silent in the middle of the answer, and stays so: a picture takes its time.
        proxy.faults = [Fault("stall", "down", "frame", after=SHOWN)]
        answer = chat_page.start("Tell me a story.")
        expect(answer.locator(".text")).to_contain_text(re.compile(".{60}"))
        screen.on_desktop(page, "answering")
        screen.on_phone(page, "answering", page.get_by_role("button", name="Details of where the model runs").click)

        page.reload()
        expect(ready).to_be_visible()
        page.get_by_role("button", name="Settings").click()
        screen.on_desktop(page, "settings")
        page.keyboard.press("Escape")
        page.get_by_role("button", name="Details for developers").click()
        report = page.get_by_role("group", name="Report")
        expect(report).to_contain_text("connected to")
        report.evaluate("(text) => text.scrollTo(0, text.scrollHeight)")
        screen(page, "developers")
        page.keyboard.press("Escape")
        page.get_by_role("button", name="Settings").click()
        screen.on_phone(page, "settings")

        page.reload()
        page.locator("#import-file").set_input_files(
            files=[archive(chat(LATER, [("How do I read a file safely?", LONG_ANSWER)]))]
        )
        expect(page.get_by_role("button", name="Copy code")).to_be_visible()
        page.get_by_role("button", name="Dismiss").click()
        expect(ready).to_be_visible()
        page.locator(".conversation").evaluate("(log) => log.scrollTo(0, 0)")
        screen.on_desktop(page, "code")
        more = page.get_by_role("button", name=f"More for {OTHERS[-1]}")
        more.click()
        screen.on_desktop(page, "chats")
        page.keyboard.press("Escape")
        screen.on_phone(page, "code")

        def open_drawer() -> None:
            page.get_by_role("button", name="Chats", exact=True).click()
            more.click()

        screen.on_phone(page, "chats", open_drawer)
        assert chat_page.errors == []
        page.close()

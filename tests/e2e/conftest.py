"""A real Chromium with a real WebGPU adapter, on the real page of a real server."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlencode

import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, Playwright, expect

from tests.support import ServerProcess

from .screens import ROOT, Screens

#: SwiftShader runs a block of tiny-chat in some 50 ms, so a long answer takes a while.
ANSWER_TIMEOUT_MS = 180_000
#: What a page does, it does at once; how long that is on a busy machine is nobody's promise.
PATIENCE_MS = 60_000
expect.set_options(timeout=PATIENCE_MS)
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
QUIET = [
    "--no-sandbox",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
#: The one flag that exposes a WebGPU adapter where there is no graphics card.
WEBGPU = "--enable-unsafe-webgpu"


def chromium() -> str:
    """Path of the system's Chromium; tests fail, not skip, where there is none."""
    for name in NAMES:
        path = shutil.which(name)
        if path is not None:
            return path
    raise AssertionError("the browser tests need Chromium: `sudo apt-get install chromium`, or `make test` as root")


@pytest.fixture(scope="session")
def browser_type_launch_args(browser_type_launch_args: dict[str, Any]) -> dict[str, Any]:
    return {**browser_type_launch_args, "executable_path": chromium(), "args": [*QUIET, WEBGPU]}


@pytest.fixture
def context(context: BrowserContext) -> BrowserContext:
    context.set_default_timeout(PATIENCE_MS)
    return context


@pytest.fixture(scope="session")
def browser_without_webgpu(playwright: Playwright) -> Iterator[Browser]:
    browser = playwright.chromium.launch(executable_path=chromium(), args=QUIET)
    yield browser
    browser.close()


class ChatPage:
    """What a person does with the page, by the names a screen reader says."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.errors: list[str] = []
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.message = page.get_by_role("textbox", name="Message")
        self.send = page.get_by_role("button", name="Send")
        self.stop = page.get_by_role("button", name="Stop")
        self.new_chat = page.get_by_role("button", name="New chat")
        self.log = page.get_by_role("log", name="Conversation")
        self.split = page.get_by_role("status", name="Split")

    def articles(self, name: str) -> Locator:
        return self.log.get_by_role("article", name=name)

    def begin_anew(self) -> None:
        """New chat, and wait until the page has forgotten the old one."""
        self.new_chat.click()
        expect(self.articles("You")).to_have_count(0)

    def start(self, question: str) -> Locator:
        """Ask; returns the article in which the answer will grow."""
        before = self.articles("Assistant").count()
        self.message.fill(question)
        self.send.click()
        answer = self.articles("Assistant").nth(before)
        expect(answer).to_be_attached()
        return answer

    def ask(self, question: str) -> str:
        """Ask and wait for the whole answer."""
        return self.finished(self.start(question))

    def finished(self, answer: Locator) -> str:
        """Text of an answer, once it is complete."""
        expect(answer).not_to_have_attribute("data-status", "waiting", timeout=ANSWER_TIMEOUT_MS)
        expect(answer).not_to_have_attribute("data-status", "streaming", timeout=ANSWER_TIMEOUT_MS)
        assert answer.get_attribute("data-status") == "finished", answer.text_content()
        return answer.locator(".text").text_content() or ""

    def diagnostics(self) -> dict[str, Any]:
        """What the engine says of itself."""
        told: dict[str, Any] = self.page.evaluate("window.splitllm.diagnostics()")
        return told


OpenPage = Callable[..., ChatPage]


@pytest.fixture
def open_page(page: Page, server: ServerProcess) -> Iterator[OpenPage]:
    """Opens the page with URL parameters; no script of the page may fail."""
    opened: list[ChatPage] = []

    def open_(**parameters: str | int) -> ChatPage:
        chat = ChatPage(page)
        opened.append(chat)
        page.goto(f"{server.url}/?{urlencode(parameters)}")
        return chat

    yield open_
    for chat in opened:
        assert chat.errors == []


@pytest.fixture(scope="session")
def screen(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Screens:
    """Looks at a state of the page in all views; `make pictures` renews the pictures of docs/screens.md."""
    if not request.config.getoption("--update-pictures"):
        return Screens(tmp_path_factory.mktemp("pictures"))
    return Screens(ROOT / "docs" / "images", to_keep=True)

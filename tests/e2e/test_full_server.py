"""A server without room: the page says its place in line, and goes on by itself."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from splitllm.resources import demo_bundle
from tests.support import running_server

from .conftest import ChatPage
from .screens import Screens

pytestmark = pytest.mark.browser


def test_who_comes_late_stands_in_line_and_is_answered_when_the_first_has_gone(page: Page, screen: Screens) -> None:
    with running_server(demo_bundle(), "--max-sessions", "1", "--evict-idle-s", "0") as server:
        first, late = ChatPage(page), ChatPage(page.context.new_page())
        for chat in (first, late):
            chat.page.goto(f"{server.url}/?split=0")
            expect(chat.split).to_have_text(
                "0 of 8 blocks in your browser" if chat is first else "The server is full; you are number 1 in line."
            )
        answer = late.start("Hello!")
        screen(late.page, "in-line")
        first.page.close()
        assert late.finished(answer)
        expect(late.split).to_have_text("0 of 8 blocks in your browser")
        assert first.errors == late.errors == []

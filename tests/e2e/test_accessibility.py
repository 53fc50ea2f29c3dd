"""axe-core finds nothing on states of the page that no picture shows, and everything fits a narrow screen."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from tests.support import ServerProcess

from .chats import LONG_ANSWER, archive, chat
from .conftest import ChatPage, OpenPage
from .screens import Screens, violations_by_scheme

pytestmark = pytest.mark.browser


def test_axe_finds_nothing_on_a_large_screen(open_page: OpenPage) -> None:
    chat_page = open_page(backend="none")
    page = chat_page.page
    expect(chat_page.split).to_contain_text("blocks in your browser")
    assert violations_by_scheme(page) == [], "empty"
    page.locator("#import-file").set_input_files(
        files=[archive(chat(1, [("Read a file?", LONG_ANSWER)], title="Files"))]
    )
    expect(page.get_by_role("button", name="Copy code")).to_be_visible()
    assert violations_by_scheme(page) == [], "long answer and a notice"
    page.get_by_role("button", name="Regenerate").hover()
    page.get_by_role("button", name="Edit").click(force=True)
    page.get_by_role("button", name="More for Files").click(force=True)
    assert violations_by_scheme(page) == [], "editing, and the menu of a chat"
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Settings").click()
    page.get_by_role("spinbutton", name="Longest answer").fill("0")
    assert violations_by_scheme(page) == [], "settings"


def test_axe_finds_nothing_when_the_server_is_away(page: Page, server: ServerProcess, screen: Screens) -> None:
    chat_page = ChatPage(page)
    page.route("**/v1/**", lambda route: route.abort())
    page.route("**/bundle/**", lambda route: route.abort())
    page.goto(f"{server.url}/?backend=none&split=many")
    expect(page.get_by_role("button", name="Reconnect")).to_be_visible()
    assert violations_by_scheme(page) == []
    page.get_by_role("button", name="Dismiss").click()
    chat_page.message.fill("Hello")
    chat_page.send.click()
    expect(page.get_by_role("button", name="Try again")).to_be_visible()
    screen(page, "server-away")


def test_the_narrowest_phone_shows_everything_without_scrolling_sideways(open_page: OpenPage) -> None:
    chat_page = open_page(backend="none")
    page, width = chat_page.page, 320
    page.set_viewport_size({"width": width, "height": 640})

    def check(state: str) -> None:
        assert page.evaluate("document.documentElement.scrollWidth") <= width, state
        wide = page.evaluate(
            "(w) => [...document.querySelectorAll('button, input, textarea, p, h2')].filter((n) => {"
            " const r = n.getBoundingClientRect(); return r.width > 0 && (r.right > w + 1 || r.left < -1)"
            " && !n.closest('pre, .table-box'); }).map((n) => n.outerHTML.slice(0, 80))",
            width,
        )
        assert wide == [], state

    check("empty")
    page.locator("#import-file").set_input_files(files=[archive(chat(1, [("W" * 300, LONG_ANSWER)], title="X" * 200))])
    expect(page.get_by_role("button", name="Copy code")).to_be_visible()
    check("long answer")
    page.get_by_role("button", name="Chats", exact=True).click()
    expect(page.locator(".chat-open")).to_be_visible()
    check("chats")
    page.get_by_role("button", name="More for").click()
    expect(page.get_by_role("menuitem", name="Rename")).to_be_visible()
    check("menu")
    assert violations_by_scheme(page) == [], "chats on a phone"
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Settings").click()
    check("settings")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Details of where the model runs").click()
    check("panel")


def test_the_keyboard_reaches_everything_in_the_order_of_the_page(open_page: OpenPage) -> None:
    chat_page = open_page(backend="none")
    page = chat_page.page
    chat_page.ask("What is the capital of Japan?")
    expect(page.locator(".chat-open")).to_be_visible()
    page.evaluate("document.activeElement.blur()")
    reached = []
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement === document.body"):
            continue
        name = page.evaluate(
            "(() => { const n = document.activeElement; const s = getComputedStyle(n);"
            " return [n.getAttribute('aria-label') || n.textContent.trim() || n.id,"
            " s.outlineStyle !== 'none' || n.matches('.box textarea')]; })()"
        )
        if name[0] == "Message":
            reached.append(name)
            break
        reached.append(name)
    names = [name for name, _ in reached]
    wanted = [
        "Settings",
        "New chat",
        "What is the capital of Japan?",
        "Import",
        "Conversation",
        "Edit",
        "Copy",
        "Message",
    ]
    assert [name for name in names if name in wanted] == wanted, names
    assert all(visible for _, visible in reached), reached

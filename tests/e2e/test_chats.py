"""Conversations: versions, keeping, naming, files, two tabs. The server runs all blocks: answers take a moment."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from splitllm.bundle import Bundle
from splitllm.resources import demo_bundle
from tests.support import ServerProcess, running_server

from .chats import HOSTILE, LONG_ANSWER, archive, chat, file
from .conftest import ANSWER_TIMEOUT_MS, ChatPage, OpenPage
from .far import BYTE_S, far

pytestmark = pytest.mark.browser
QUESTION = "What is the capital of Japan?"
OTHER = "What is the capital of France?"
STORY = "Tell me a story."
RUNS = "What runs in my browser?"
#: Seconds from token to token where an answer shall take its time.
TOKEN_S = 0.03

#: Runs `act` in the page as soon as the last answer has this many characters: no look from outside is quick enough.
WHEN_LONG = """([length, act]) => {
  const act_ = act === 'stop' ? () => document.querySelector('#stop').click()
    : () => { sessionStorage.setItem('seen', text()); location.reload(); };
  const text = () => [...document.querySelectorAll('.answer .text')].at(-1)?.textContent ?? '';
  const observer = new MutationObserver(() => {
    if (text().length < length) return;
    observer.disconnect();
    act_();
  });
  observer.observe(document.querySelector('#conversation'), { subtree: true, childList: true, characterData: true });
}"""

UNDER_WAY = ", ".join(f".answer[data-status={status}]" for status in ("waiting", "streaming", "elsewhere"))


def listed(page: Page) -> list[str]:
    return page.locator(".chat-open").all_text_contents()


def test_regenerating_and_editing_keep_every_version(open_page: OpenPage) -> None:
    chat_page = open_page(backend="none")
    page = chat_page.page
    chat_page.ask(QUESTION)
    chat_page.ask(STORY)
    chat_page.articles("You").first.hover()
    chat_page.articles("You").first.get_by_role("button", name="Edit").click()
    page.get_by_role("textbox", name="Edit your question").fill(OTHER)
    page.keyboard.press("Enter")
    expect(chat_page.articles("You")).to_have_text([OTHER])
    assert "Paris" in chat_page.finished(chat_page.articles("Assistant").first)
    page.get_by_role("button", name="Version before").click()
    expect(chat_page.articles("You")).to_have_text([QUESTION, STORY])
    page.get_by_role("button", name="Regenerate").first.click()
    expect(page.get_by_role("group", name="Versions")).to_have_text("3 / 3")
    chat_page.finished(chat_page.articles("Assistant").first)


def test_an_answer_goes_on_where_it_was_stopped(page: Page, server: ServerProcess) -> None:
    with far(server.url) as (proxy, url):  # near by, the answer is over before anybody could stop it
        chat_page = ChatPage(page)
        page.goto(f"{url}/?backend=wasm&split=1")
        expect(page.get_by_text("Ready", exact=True)).to_be_visible(timeout=60_000)
        proxy.delay_s = TOKEN_S / 2
        page.evaluate(WHEN_LONG, [20, "stop"])
        answer = chat_page.start(STORY)
        expect(answer).to_have_attribute("data-status", "stopped")
        expect(answer).to_contain_text("stopped")
        begun = answer.locator(".text").text_content() or ""
        page.get_by_role("button", name="Continue").click()
        expect(answer).not_to_have_attribute("data-status", "stopped")
        whole = chat_page.finished(answer)
        assert whole.startswith(begun)
        assert len(whole) > len(begun)
        expect(answer).not_to_contain_text("stopped")
        assert "Tokyo" in chat_page.ask(QUESTION)
        assert chat_page.errors == []
        page.close()


def test_a_reload_in_the_middle_of_an_answer_keeps_what_was_shown(page: Page, endless: Bundle) -> None:
    with running_server(endless.folder) as talker, far(talker.url) as (proxy, url):
        chat_page = ChatPage(page)
        page.goto(f"{url}/?backend=none&max_tokens=900")
        expect(page.get_by_text("Ready", exact=True)).to_be_visible()
        proxy.byte_s = BYTE_S  # the answer is still growing when the page has gone
        page.evaluate(WHEN_LONG, [20, "reload"])
        chat_page.message.fill(STORY)
        chat_page.send.click()
        page.wait_for_function("() => performance.getEntriesByType('navigation')[0].type === 'reload'")
        proxy.byte_s = 0.0
        seen = page.evaluate("sessionStorage.getItem('seen')")
        answer = chat_page.articles("Assistant").last
        expect(answer).to_have_attribute("data-status", "stopped")
        kept = answer.locator(".text").text_content() or ""
        assert kept.startswith(seen)
        page.get_by_role("button", name="Continue").click()
        expect(answer.locator(".text")).to_have_text(re.compile(re.escape(kept.rstrip()) + ".{20}", re.DOTALL))
        assert chat_page.errors == []
        page.close()


def test_chats_are_listed_renamed_deleted_and_had_back(open_page: OpenPage) -> None:
    chat_page = open_page(backend="none")
    page = chat_page.page
    chat_page.ask(QUESTION)
    chat_page.begin_anew()
    chat_page.ask(OTHER)
    expect(page.locator(".chat-open")).to_have_text([OTHER, QUESTION])
    page.get_by_role("button", name=QUESTION, exact=True).click()
    expect(chat_page.articles("You")).to_have_text([QUESTION])
    page.go_back()
    expect(chat_page.articles("You")).to_have_text([OTHER])
    page.go_forward()
    expect(chat_page.articles("You")).to_have_text([QUESTION])
    page.get_by_role("button", name=f"More for {QUESTION}").click()
    page.get_by_role("menuitem", name="Rename").click()
    page.get_by_role("textbox", name="Name of this chat").fill("Not this")
    page.keyboard.press("Escape")
    expect(page.locator(".chat-open")).to_have_text([OTHER, QUESTION])
    page.get_by_role("button", name=f"More for {QUESTION}").click()
    page.get_by_role("menuitem", name="Rename").click()
    page.get_by_role("textbox", name="Name of this chat").fill("Far east")
    page.keyboard.press("Enter")
    expect(page.locator(".chat-open")).to_have_text([OTHER, "Far east"])
    page.get_by_role("button", name="More for Far east").click()
    page.keyboard.press("ArrowUp")
    expect(page.get_by_role("menuitem", name="Delete")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator(".chat-open")).to_have_text([OTHER])
    expect(chat_page.articles("You")).to_have_count(0)
    page.get_by_role("button", name="Undo").click()
    expect(chat_page.articles("You")).to_have_text([QUESTION])
    page.reload()
    expect(chat_page.articles("You")).to_have_text([QUESTION])
    assert listed(page) == [OTHER, "Far east"]


def test_an_exported_file_brings_everything_back_and_a_bad_one_changes_nothing(
    open_page: OpenPage, tmp_path: Path
) -> None:
    chat_page = open_page(backend="none")
    page = chat_page.page
    answer = chat_page.ask(QUESTION)
    with page.expect_download() as download:
        page.get_by_role("button", name="Export all").click()
    path = tmp_path / "chats.json"
    download.value.save_as(path)
    page.evaluate("indexedDB.deleteDatabase('splitllm-chats')")
    page.goto(page.url.split("#")[0])
    expect(page.get_by_text("Your chats are kept in this browser")).to_be_visible()
    chosen = page.locator("#import-file")
    exported = json.loads(path.read_text("utf-8"))
    chosen.set_input_files(files=[file(json.dumps({**exported, "chats": [{"id": 7}]}))])
    expect(page.get_by_text("This file is damaged")).to_be_visible()
    chosen.set_input_files(files=[file("<html>")])
    expect(page.get_by_text("This file is not JSON")).to_be_visible()
    assert listed(page) == []
    chosen.set_input_files(path)
    expect(page.get_by_text("Imported 1 chat.")).to_be_visible()
    expect(chat_page.articles("Assistant").locator(".text")).to_have_text([answer])


def test_hostile_text_in_an_imported_chat_is_inert(open_page: OpenPage, server: ServerProcess) -> None:
    chat_page = open_page(backend="none")
    page = chat_page.page
    elsewhere: list[str] = []
    page.on("request", lambda r: None if r.url.startswith((server.url, "blob:")) else elsewhere.append(r.url))
    page.on("dialog", lambda dialog: elsewhere.append(dialog.message))
    turns = [(text, text) for text in HOSTILE]
    page.locator("#import-file").set_input_files(files=[archive(chat(1, turns, title="<img src=x onerror=alert(1)>"))])
    expect(chat_page.articles("Assistant")).to_have_count(len(HOSTILE))
    expect(page.locator(".chat-open")).to_have_text(["<img src=x onerror=alert(1)>"])
    page.wait_for_timeout(200)  # what loads or runs by itself does so now
    assert page.evaluate("window.hacked") is None
    assert elsewhere == []
    found = page.evaluate(
        """() => [...document.querySelector('#conversation').querySelectorAll('*')].flatMap((node) => [
             ...(/^(script|style|iframe|img|svg|object|embed|form|input|video|audio|base|meta)$/i.test(node.tagName)
                 && !node.closest('button') ? [node.tagName] : []),
             ...[...node.attributes].filter(({ name, value }) => /^on|^style$|^src/.test(name)
                 || (name === 'href' && !/^(https?:|mailto:)/i.test(value))).map(({ name }) => name)])"""
    )
    assert found == []
    expect(chat_page.articles("Assistant").first.locator(".text")).to_have_text(HOSTILE[0])
    chat_page.begin_anew()  # all of it together is more than the model's context
    assert "Tokyo" in chat_page.ask(QUESTION)


def test_two_tabs_with_one_chat_lose_nothing(open_page: OpenPage, tmp_path: Path) -> None:
    one = open_page(backend="none")
    one.ask(QUESTION)
    expect(one.page).to_have_url(re.compile("#chat="))
    other = ChatPage(one.page.context.new_page())
    other.page.goto(one.page.url)
    expect(other.articles("You")).to_have_text([QUESTION])
    one.ask(OTHER)
    expect(other.articles("You")).to_have_text([QUESTION, OTHER])
    one.start(STORY)
    other.start(RUNS)
    for page in (one.page, other.page):
        expect(page.locator(UNDER_WAY)).to_have_count(0, timeout=ANSWER_TIMEOUT_MS)
    one.page.reload()
    expect(one.articles("You").first).to_have_text(QUESTION)
    with one.page.expect_download() as download:
        one.page.get_by_role("button", name="Export all").click()
    download.value.save_as(tmp_path / "chats.json")
    (kept,) = json.loads((tmp_path / "chats.json").read_text("utf-8"))["chats"]
    # Beside each other or one after the other, as it came; none is gone and none is cut.
    assert {turn["question"] for turn in kept["turns"]} == {QUESTION, OTHER, STORY, RUNS}
    assert {turn["answer"]["status"] for turn in kept["turns"]} == {"finished"}
    assert other.errors == []


def test_an_answer_of_another_tab_is_said_to_be_and_to_be_cut_short_when_that_tab_goes(
    page: Page, endless: Bundle
) -> None:
    with running_server(endless.folder) as talker, far(talker.url) as (proxy, url):
        one, other = ChatPage(page), ChatPage(page.context.new_page())
        page.goto(f"{url}/?backend=wasm&split=1&max_tokens=900")
        expect(page.get_by_text("Ready", exact=True)).to_be_visible(timeout=60_000)
        proxy.delay_s = TOKEN_S / 2
        answer = one.start(STORY)
        expect(answer).to_have_attribute("data-status", "streaming")
        other.page.goto(page.url)
        expect(other.page.get_by_text("Another tab is answering this.")).to_be_visible()
        there = other.articles("Assistant").locator(".text")
        begun = there.text_content() or ""
        expect(there).to_have_text(re.compile(re.escape(begun.rstrip()) + ".{20}", re.DOTALL))
        expect(other.page.get_by_role("button", name="Continue")).to_be_hidden()
        page.close()
        expect(other.articles("Assistant")).to_have_attribute("data-status", "stopped")
        expect(other.page.get_by_role("button", name="Continue")).to_be_visible()
        assert one.errors + other.errors == []
        other.page.close()


def test_settings_hold_for_the_next_answer_and_the_next_visit(open_page: OpenPage) -> None:
    chat_page = open_page(backend="none")
    page = chat_page.page
    page.get_by_role("button", name="Settings").click()
    longest = page.get_by_role("spinbutton", name="Longest answer")
    longest.fill("0")
    expect(page.get_by_text("A whole number from 1 to 8192, please.")).to_be_visible()
    longest.fill("3")
    page.get_by_role("slider", name="Top-p").fill("0.5")
    page.get_by_role("spinbutton", name="Seed").fill("7")
    page.get_by_role("button", name="Done").click()
    answer = chat_page.start(QUESTION)
    chat_page.finished(answer)
    expect(answer).to_contain_text("3 tokens")
    expect(answer).to_contain_text("cut at the token limit")
    expect(page.get_by_role("button", name="Continue")).to_be_visible()
    page.reload()
    page.get_by_role("button", name="Settings").click()
    expect(longest).to_have_value("3")
    expect(page.get_by_role("spinbutton", name="Seed")).to_have_value("7")
    page.get_by_role("button", name="Back to defaults").click()
    expect(longest).to_have_value("256")


def test_the_enter_of_an_input_method_sends_nothing(open_page: OpenPage) -> None:
    chat_page = open_page(backend="none")
    chat_page.message.focus()
    cdp = chat_page.page.context.new_cdp_session(chat_page.page)
    cdp.send("Input.imeSetComposition", {"text": "にほん", "selectionStart": 3, "selectionEnd": 3})
    cdp.send(
        "Input.dispatchKeyEvent",
        {"type": "rawKeyDown", "key": "Process", "code": "Enter", "windowsVirtualKeyCode": 229},
    )
    chat_page.message.dispatch_event("keydown", {"key": "Enter", "isComposing": True})
    expect(chat_page.articles("You")).to_have_count(0)
    cdp.send("Input.insertText", {"text": "日本"})
    expect(chat_page.message).to_have_value("日本")
    chat_page.message.press("Enter")
    expect(chat_page.articles("You")).to_have_text(["日本"])


def test_the_report_for_developers_holds_what_happened_and_no_words(open_page: OpenPage) -> None:
    chat_page = open_page(backend="none")
    page = chat_page.page
    chat_page.ask(QUESTION)
    page.get_by_role("button", name="Details for developers").click()
    report = page.get_by_role("group", name="Report")
    expect(report).to_contain_text("connected to")
    expect(report).to_contain_text('"backend": "none"')
    expect(report).not_to_contain_text("Tokyo")
    expect(report).not_to_contain_text("Japan")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy report").click()
    page.wait_for_function("() => navigator.clipboard.readText().then((text) => text.includes('connected to'))")


def test_the_planner_obeys_the_effort_and_the_panel_shows_what_it_came_to(page: Page) -> None:
    with running_server(demo_bundle(), "--sla-tpot-ms", "60000", "--sla-ttft-ms", "600000") as patient:
        chat_page = ChatPage(page)
        page.goto(f"{patient.url}/?backend=wasm&effort=0.5")
        expect(chat_page.split).to_contain_text("4 of 8 blocks in your browser", timeout=60_000)
        page.get_by_role("slider", name="Effort of this device").fill("0.25")
        expect(chat_page.split).to_contain_text("2 of 8 blocks in your browser")
        expect(page.get_by_text("up to 2 blocks")).to_be_visible()
        chat_page.ask(QUESTION)
        panel = page.get_by_role("complementary", name="Where the model runs")
        expect(panel).to_contain_text("ms with the network")
        expect(panel).to_contain_text(re.compile(r"Over the wire[0-9.]+ kB up, [0-9.]+ k?B down"))
        expect(panel).to_contain_text(re.compile(r"Saved so far.+ of its time, [1-9][0-9]? %"))
        page.reload()
        expect(page.get_by_role("slider", name="Effort of this device")).to_have_value("0.5")
        page.goto(f"{patient.url}/?backend=wasm")
        expect(page.get_by_role("slider", name="Effort of this device")).to_have_value("0.25")
        assert chat_page.errors == []
        page.close()


def test_code_is_copied_as_it_was_written(open_page: OpenPage) -> None:
    chat_page = open_page(backend="none")
    page = chat_page.page
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.locator("#import-file").set_input_files(files=[archive(chat(1, [("Read a file?", LONG_ANSWER)]))])
    copied = "(wanted) => navigator.clipboard.readText().then((text) => text === wanted)"
    page.get_by_role("button", name="Copy code").click()
    page.wait_for_function(copied, arg=LONG_ANSWER.split("```python\n")[1].split("\n```")[0])
    page.get_by_role("button", name="Copy", exact=True).click()
    page.wait_for_function(copied, arg=LONG_ANSWER)

"""No task of the page's main thread takes long while it answers, by the processor's time and not the clock's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
from playwright.sync_api import Page, expect

from splitllm.bundle import Bundle
from tests.support import running_server

from .chats import LONG_ANSWER, archive, chat
from .conftest import ChatPage

pytestmark = pytest.mark.browser
LONGEST_MS = 50
TOKENS = 300
#: Turns that stand above the answer. They failed, so that none of them is in the prompt.
TURNS = 40
TASK = "ThreadControllerImpl::RunTask"
MARK = "main-thread-watched"
#: A task that lasts, by the clock, ten times what is allowed: of the processor's time that
#: is more than is allowed, however busy the machine.
BLOCK = f"""() => new Promise((done) => setTimeout(() => {{
  const end = performance.now() + {10 * LONGEST_MS};
  while (performance.now() < end);
  done();
}}))"""


@dataclass
class Tasks:
    """What the main thread of a page did, once the tracing has ended."""

    #: Processor time of each task, in milliseconds.
    ms: list[float] = field(default_factory=list)
    #: How often the page drew by script.
    frames: int = 0


@contextmanager
def main_thread(page: Page) -> Iterator[Tasks]:
    """Chromium's own trace of the page's main thread, which tells the processor's time of each task."""
    tasks, browser = Tasks(), page.context.browser
    assert browser is not None
    browser.start_tracing(page=page, categories=["toplevel", "devtools.timeline", "blink.user_timing"])
    page.evaluate("(mark) => performance.mark(mark)", MARK)
    yield tasks
    events = json.loads(browser.stop_tracing())["traceEvents"]
    (mark,) = [event for event in events if event["name"] == MARK]
    mine = [event for event in events if (event["pid"], event["tid"]) == (mark["pid"], mark["tid"])]
    # What took less than the clock of threads can tell has no `tdur`.
    tasks.ms = [event.get("tdur", 0) / 1000 for event in mine if event["name"] == TASK]
    tasks.frames = sum(event["name"] == "FireAnimationFrame" for event in mine)


def test_no_task_of_the_main_thread_is_long_while_a_long_answer_grows(page: Page, endless: Bundle) -> None:
    """The answer goes on in an open block of code, below tables, lists and many turns: the most there is to draw."""
    conversation = chat(1, [("Why?", LONG_ANSWER)] * TURNS, title="Long")
    for turn in conversation["turns"]:
        turn["answer"] |= {"status": "failed", "sentence": "The server was stopped."}
    conversation["turns"][-1]["answer"] |= {"status": "stopped", "text": f"{LONG_ANSWER}\n```python\n"}
    with running_server(endless.folder) as talker:
        chat_page = ChatPage(page)
        page.goto(f"{talker.url}/?backend=wasm&split=1&max_tokens={TOKENS}")
        page.locator("#import-file").set_input_files(files=[archive(conversation)])
        answer = chat_page.articles("Assistant").last
        expect(answer).to_have_attribute("data-status", "stopped")
        expect(page.get_by_text("Ready", exact=True)).to_be_visible()
        with main_thread(page) as answering:
            page.get_by_role("button", name="Continue").click()
            expect(answer).to_have_attribute("data-status", "streaming")
            chat_page.finished(answer)
        expect(answer).to_contain_text(f"{TOKENS} tokens")
        assert answering.frames > 3  # even where tokens come faster than frames
        assert max(answering.ms) <= LONGEST_MS, sorted(answering.ms)[-5:]
        with main_thread(page) as blocked:
            page.evaluate(BLOCK)
        assert max(blocked.ms) > LONGEST_MS, "the trace does not see a task that is too long"
        assert chat_page.errors == []
        page.close()

"""The page follows a plan that comes within an answer: the link worsens, the split falls, the text stays."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from splitllm.resources import demo_bundle
from tests.support import running_server

from .conftest import ChatPage
from .far import far

QUESTION = "Tell me a story."
#: The promise is many times what a busy machine takes for a token, the delay twice the promise.
PROMISED_MS, FAR_S = 1500, 1.5
EXACT = "wire=float32&variant=float32&backend=wasm"

pytestmark = pytest.mark.browser


def test_a_link_that_worsens_in_an_answer_changes_the_split_and_not_the_text(page: Page) -> None:
    options = ("--sla-tpot-ms", str(PROMISED_MS), "--sla-ttft-ms", "600000")
    with running_server(demo_bundle(), *options) as server, far(server.url) as (proxy, url):
        chat = ChatPage(page)
        page.goto(f"{url}/?{EXACT}&split=0")
        undisturbed = chat.ask(QUESTION)
        page.goto(f"{url}/?{EXACT}&split=auto")
        expect(page.get_by_text("Ready", exact=True)).to_be_visible(timeout=120_000)
        expect(chat.split).not_to_contain_text("0 of 8", timeout=60_000)
        answer = chat.start(QUESTION)
        expect(answer).to_have_attribute("data-status", "streaming", timeout=120_000)
        proxy.delay_s = FAR_S
        expect(chat.split).to_contain_text("0 of 8 blocks in your browser", timeout=120_000)
        assert chat.finished(answer) == undisturbed
        assert chat.errors == []

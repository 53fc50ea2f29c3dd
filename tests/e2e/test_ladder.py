"""The step down within an answer: the graphics device goes away or cannot hold a block, and the text stays the same."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, Route, expect

from splitllm.resources import demo_bundle
from tests.support import ServerProcess, running_server

from .conftest import ANSWER_TIMEOUT_MS, ChatPage

pytestmark = pytest.mark.browser
QUESTION = "Tell me a story."
EXACT = "variant=float32&wire=float32&temperature=0&max_tokens=40"
#: Keeps the device, so that a test can take it away.
KEEP_DEVICE = """() => {
  const { requestDevice } = GPUAdapter.prototype;
  GPUAdapter.prototype.requestDevice = async function (...options) {
    return (self.device = await requestDevice.apply(this, options));
  };
}"""
#: A device whose buffers may be smaller than one block needs: WebGPU's own answer to one that is too large.
SMALL_BUFFERS = """() => {
  const { createBuffer } = GPUDevice.prototype;
  GPUDevice.prototype.createBuffer = function (descriptor) {
    const size = descriptor.size > 100_000 ? this.limits.maxBufferSize + 4 : descriptor.size;
    return createBuffer.call(this, { ...descriptor, size });
  };
}"""


def change_worker(page: Page, script: str) -> None:
    """Runs `script` in the engine's worker while it waits for its first file."""

    def hold(route: Route) -> None:
        page.workers[0].evaluate(script)
        route.continue_()

    page.route("**/bundle/manifest.json", hold)


@pytest.fixture(scope="module")
def plain_text(server: ServerProcess, browser: object) -> str:
    """What the server alone answers."""
    page = browser.new_page()  # type: ignore[attr-defined]
    page.goto(f"{server.url}/?{EXACT}&split=0")
    text = ChatPage(page).ask(QUESTION)
    page.close()
    return text


@pytest.mark.parametrize("split", ["split=2", "effort=0.25"])
def test_a_device_that_is_lost_within_an_answer(page: Page, plain_text: str, split: str) -> None:
    with running_server(demo_bundle(), "--sla-tpot-ms", "60000", "--sla-ttft-ms", "600000") as patient:
        chat = ChatPage(page)
        change_worker(page, KEEP_DEVICE)
        page.goto(f"{patient.url}/?{EXACT}&{split}&backend=webgpu")
        expect(page.get_by_text("Ready", exact=True)).to_be_visible(timeout=ANSWER_TIMEOUT_MS)
        expect(chat.split).to_contain_text("2 of 8")
        answer = chat.start(QUESTION)
        expect(answer.locator(".text")).not_to_be_empty(timeout=ANSWER_TIMEOUT_MS)
        page.workers[0].evaluate("self.device.destroy()")
        assert chat.finished(answer) == plain_text
        expect(page.get_by_text("The graphics device went away; the server takes over.")).to_have_count(1)
        expect(page.locator(".notice")).to_have_count(1)
        expect(chat.split).to_contain_text("2 of 8", timeout=ANSWER_TIMEOUT_MS)
        chat.begin_anew()
        assert chat.ask(QUESTION) == plain_text
        told = chat.diagnostics()
        assert (told["backend"], told["split"]) == ("wasm", 2)
        assert min(told["blockRuns"][:2]) > 0
        assert chat.errors == []


def test_an_adapter_whose_buffers_are_too_small_for_a_block(page: Page, server: ServerProcess, plain_text: str) -> None:
    chat = ChatPage(page)
    change_worker(page, SMALL_BUFFERS)
    page.goto(f"{server.url}/?{EXACT}&split=2&backend=webgpu")
    assert chat.ask(QUESTION) == plain_text
    expect(page.locator(".notice")).to_have_count(1)
    told = chat.diagnostics()
    assert (told["backend"], told["split"]) == ("wasm", 2)
    assert chat.errors == []

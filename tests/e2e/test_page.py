"""What a person sees and does on the page."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Browser, Page, expect

from splitllm.resources import demo_bundle
from tests.support import ServerProcess, running_server

from .conftest import ChatPage, OpenPage

pytestmark = [pytest.mark.browser, pytest.mark.slow]
LOAD_TIMEOUT_MS = 120_000
QUESTION = "What is the capital of Japan?"


def test_chat_starts_at_once_and_blocks_move_in_by_themselves(page: Page) -> None:
    """The promise is wide here, so that the test holds on a machine of any speed: the planner moves k off 0."""
    with running_server(demo_bundle(), "--sla-tpot-ms", "60000", "--sla-ttft-ms", "600000") as patient:
        chat = ChatPage(page)
        page.goto(f"{patient.url}/?backend=webgpu")
        assert "Tokyo" in chat.ask(QUESTION)
        expect(chat.split).to_contain_text(re.compile(r"[1-8] of 8 blocks in your browser"), timeout=LOAD_TIMEOUT_MS)
        assert "Tokyo" in chat.ask(QUESTION)
        told = chat.diagnostics()
        assert told["backend"] == "webgpu"
        assert told["split"] >= 1
        assert told["blockRuns"][0] > 0
        assert chat.errors == []
        page.close()


def test_question_and_answer_stand_in_the_log_with_their_figures(open_page: OpenPage) -> None:
    chat, question = open_page(split=0), "Tell me a story."  # long enough to have a pace
    chat.ask(question)
    expect(chat.articles("You")).to_have_count(1)
    expect(chat.articles("You").first).to_have_text(question)
    figures = chat.articles("Assistant").first
    expect(figures).to_contain_text("TTFT")
    expect(figures).to_contain_text("tokens/s")
    expect(figures).to_contain_text("0 of 8 blocks in your browser")
    expect(figures).not_to_contain_text("tiny-chat")
    expect(chat.page.get_by_role("combobox", name="Model")).to_have_count(0)  # there is no choice


def test_a_name_is_remembered_across_turns(open_page: OpenPage) -> None:
    chat = open_page(split=2, backend="wasm")
    chat.ask("Hi, my name is Alice.")
    assert "Alice" in chat.ask("What is my name?")


def test_stop_ends_an_answer_and_the_next_one_comes(open_page: OpenPage) -> None:
    chat = open_page(split=8, backend="webgpu")
    answer = chat.start("Tell me a story.")
    expect(answer.locator(".text")).not_to_be_empty(timeout=LOAD_TIMEOUT_MS)
    chat.stop.click()
    expect(answer).to_have_attribute("data-status", "stopped", timeout=30_000)
    expect(chat.send).to_be_visible()
    assert "Tokyo" in chat.ask(QUESTION)


def test_new_chat_forgets(open_page: OpenPage) -> None:
    chat = open_page(split=0)
    chat.ask("Hi, my name is Alice.")
    chat.begin_anew()
    expect(chat.message).to_be_focused()
    assert "Alice" not in chat.ask("What is my name?")


def test_enter_sends_and_shift_enter_breaks_the_line(open_page: OpenPage) -> None:
    chat = open_page(split=0)
    expect(chat.send).to_be_disabled()
    chat.message.press_sequentially("Hello")
    chat.message.press("Shift+Enter")
    assert chat.message.input_value() == "Hello\n"
    chat.message.press("Enter")
    expect(chat.articles("Assistant")).to_have_count(1)
    expect(chat.message).to_have_value("")


def test_without_webgpu_the_page_falls_back_to_wasm_and_says_so(
    browser_without_webgpu: Browser, server: ServerProcess
) -> None:
    page = browser_without_webgpu.new_page()
    chat = ChatPage(page)
    page.goto(f"{server.url}/?split=3")
    assert "Tokyo" in chat.ask(QUESTION)
    expect(page.get_by_text(re.compile("WebGPU"))).not_to_have_count(0)
    told = chat.diagnostics()
    assert (told["adapter"], told["backend"], told["split"]) == (None, "wasm", 3)
    assert chat.errors == []
    page.close()


def test_backend_none_leaves_everything_to_the_server(open_page: OpenPage) -> None:
    chat = open_page(backend="none")
    assert "Tokyo" in chat.ask(QUESTION)
    assert chat.diagnostics()["split"] == 0


@pytest.mark.parametrize("parameter", ["split=-1", "split=many", "backend=cuda", "variant=int3", "wire=float8"])
def test_a_url_parameter_that_is_none_is_told_and_the_chat_works(
    open_page: OpenPage, server: ServerProcess, parameter: str
) -> None:
    chat = open_page()
    chat.page.goto(f"{server.url}/?{parameter}")
    expect(chat.page.get_by_text(f"The address asks for {parameter}, which is not possible.")).to_be_visible()
    assert "Tokyo" in chat.ask(QUESTION)


def test_a_split_beyond_the_model_becomes_the_largest_there_is(open_page: OpenPage) -> None:
    chat = open_page(split=9, backend="wasm")
    expect(chat.page.get_by_text("Of the 9 blocks asked for 8 can run here")).to_be_visible(timeout=LOAD_TIMEOUT_MS)
    assert "Tokyo" in chat.ask(QUESTION)
    assert chat.diagnostics()["split"] == 8


def test_a_damaged_weight_is_never_run(open_page: OpenPage) -> None:
    chat = open_page(split=0)
    damaged: list[str] = []

    def damage(route: object) -> None:
        damaged.append("yes")
        response = route.fetch()  # type: ignore[attr-defined]
        body = bytearray(response.body())
        body[100] ^= 1
        route.fulfill(response=response, body=bytes(body))  # type: ignore[attr-defined]

    chat.page.context.route("**/bundle/block.1.float32.bin", damage)
    chat.page.goto(chat.page.url.replace("split=0", "split=3&backend=wasm&variant=float32"))
    told = chat.page.get_by_text("block.1.float32.bin is not the file that the manifest names")
    expect(told).to_be_visible(timeout=LOAD_TIMEOUT_MS)
    assert damaged
    assert "Tokyo" in chat.ask(QUESTION)
    diagnostics = chat.diagnostics()
    assert diagnostics["split"] == 1
    assert sum(diagnostics["blockRuns"][1:]) == 0

"""The page's weight, its main thread and what grows: `python -m bench.page` writes bench/results/page.json.

Needs Chromium and the built page (`make setup chromium`). Blocks run on wasm in the page's worker while the page draws;
the same page idle, in the same run, shows what the machine alone costs. Memory is what the browser says of all its
scripts, page and worker, after collecting garbage; GPU buffers are counted in the worker, created less destroyed.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any, Final

from playwright.sync_api import Browser, sync_playwright

from splitllm.bench.machine import describe
from splitllm.resources import demo_bundle
from tests.e2e.conftest import QUIET, WEBGPU, ChatPage, chromium
from tests.e2e.test_ladder import change_worker
from tests.e2e.test_split_in_browser import COUNT_BUFFERS
from tests.support import running_server

ROOT = Path(__file__).parents[1]
ASSETS = ROOT / "backend" / "splitllm" / "_page" / "assets"
RESULT = ROOT / "bench" / "results" / "page.json"
QUESTION: Final = "Tell me a story."
ANSWERS: Final = 5
TOKENS: Final = 300
#: Memory is measured when it is asked for, not when the browser finds the time.
EAGER: Final = "--enable-blink-features=ForceEagerMeasureMemory"
MEMORY: Final = "performance.measureUserAgentSpecificMemory().then(({ bytes }) => bytes)"
#: Notes how late a timer of the main thread comes that is due every 4 ms, in milliseconds.
WATCH = """() => {
  window.gaps = [];
  let last = performance.now();
  const tick = () => {
    const now = performance.now();
    window.gaps.push(now - last);
    last = now;
    setTimeout(tick, 4);
  };
  tick();
}"""


def summary(gaps: list[float]) -> dict[str, float]:
    """Longest gap and 99th percentile, in milliseconds."""
    ordered = sorted(gaps)
    return {"longest": round(ordered[-1], 1), "p99": round(ordered[int(len(ordered) * 0.99)], 1)}


def main_thread(browser: Browser, url: str) -> dict[str, Any]:
    """Gaps of the idle page and of the answering one."""
    chat = ChatPage(browser.new_page())
    chat.page.goto(f"{url}/?backend=wasm&split=5")
    chat.ask("What is the capital of Japan?")
    chat.page.evaluate(WATCH)
    chat.page.wait_for_timeout(5000)
    idle = summary(chat.page.evaluate("window.gaps.splice(0)"))
    for _ in range(ANSWERS):
        chat.ask(QUESTION)
    answering = summary(chat.page.evaluate("window.gaps"))
    chat.page.close()
    return {"idle": idle, "answering": answering}


def _ask_until(chat: ChatPage, tokens: int) -> int:
    """New chats, so that what a person sees does not grow; how many tokens came."""
    told = 0
    while told < tokens:
        chat.begin_anew()
        chat.ask(QUESTION)
        figures = chat.articles("Assistant").last.locator(".figures").text_content() or ""
        told += int(figures.split(" tokens ·")[0].split()[-1])
    return told


def memory(browser: Browser, url: str) -> dict[str, Any]:
    """Bytes of scripts, page and worker, before and after `TOKENS` tokens through the blocks on wasm."""
    chat = ChatPage(browser.new_page())
    chat.page.goto(f"{url}/?backend=wasm&split=8&variant=float32")
    _ask_until(chat, 1)
    before = chat.page.evaluate(MEMORY)
    tokens = _ask_until(chat, TOKENS)
    after = chat.page.evaluate(MEMORY)
    chat.page.close()
    return {"tokens": tokens, "before": before, "after": after, "growth_per_token": round((after - before) / tokens)}


def gpu_buffers(browser: Browser, url: str) -> dict[str, Any]:
    """GPU buffers and their bytes before and after `TOKENS` tokens through two blocks on WebGPU."""
    chat = ChatPage(browser.new_page())
    change_worker(chat.page, COUNT_BUFFERS)
    chat.page.goto(f"{url}/?backend=webgpu&split=2&variant=float32")
    _ask_until(chat, 1)
    before = chat.page.workers[0].evaluate("self.buffers")
    tokens = _ask_until(chat, TOKENS)
    after = chat.page.workers[0].evaluate("self.buffers")
    chat.page.close()
    return {"tokens": tokens, "before": before, "after": after}


def main() -> None:
    """Measure, write and print."""
    sizes = {path.name.split("-")[0]: len(gzip.compress(path.read_bytes(), 9)) for path in ASSETS.glob("*.js")}
    result: dict[str, Any] = {
        "machine": describe(),
        "javascript_gzip_bytes": {**sizes, "total": sum(sizes.values())},
        "answers": ANSWERS,
    }
    with running_server(demo_bundle()) as server, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=[*QUIET, WEBGPU, EAGER])
        result["main_thread_gap_ms"] = main_thread(browser, server.url)
        result["script_memory_bytes"] = memory(browser, server.url)
        result["gpu_buffers"] = gpu_buffers(browser, server.url)
        browser.close()
    RESULT.write_text(json.dumps(result, indent=2) + "\n", "utf-8")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()

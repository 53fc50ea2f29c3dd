"""The page's weight and how freely its main thread runs: `python -m bench.page` writes bench/results/page.json.

Needs Chromium and the built page (`make setup chromium`). Blocks run on wasm in the page's worker while the page draws;
the same page idle, in the same run, shows what the machine alone costs.
"""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from splitllm.resources import demo_bundle
from tests.e2e.conftest import QUIET, ChatPage, chromium
from tests.support import running_server

ROOT = Path(__file__).parents[1]
ASSETS = ROOT / "backend" / "splitllm" / "_page" / "assets"
RESULT = ROOT / "bench" / "results" / "page.json"
ANSWERS = 5
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


def main() -> None:
    """Measure, write and print."""
    sizes = {path.name.split("-")[0]: len(gzip.compress(path.read_bytes(), 9)) for path in ASSETS.glob("*.js")}
    with running_server(demo_bundle()) as server, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=QUIET)
        chat = ChatPage(browser.new_page())
        chat.page.goto(f"{server.url}/?backend=wasm&split=5")
        chat.ask("What is the capital of Japan?")
        chat.page.evaluate(WATCH)
        chat.page.wait_for_timeout(5000)
        idle = summary(chat.page.evaluate("window.gaps.splice(0)"))
        for _ in range(ANSWERS):
            chat.ask("Tell me a story.")
        answering = summary(chat.page.evaluate("window.gaps"))
        browser.close()
    result: dict[str, Any] = {
        "javascript_gzip_bytes": {**sizes, "total": sum(sizes.values())},
        "main_thread_gap_ms": {"idle": idle, "answering": answering},
        "answers": ANSWERS,
        "cores": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 1),
    }
    RESULT.write_text(json.dumps(result, indent=2) + "\n", "utf-8")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()

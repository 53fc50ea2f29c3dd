"""From opening the page to the first token of an answer, over a slow link."""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from playwright.sync_api import Browser, BrowserContext

from bench.browser.decode import PATIENT, QUESTION, transformers_files
from bench.browser.pages import TIMEOUT_MS, PeerPage, ThrottledProxy, folder_served
from splitllm.bundle import Bundle
from tests.e2e.conftest import ChatPage
from tests.e2e.far import far
from tests.support import running_server

#: Notes when the first text of an answer stands in the page, in milliseconds since the page was opened.
WATCH: Final = """window.firstToken = new Promise((resolve) => {
  new MutationObserver(() => {
    if (document.querySelector('article[aria-label=Assistant] .text')?.textContent) resolve(performance.now());
  }).observe(document, { subtree: true, childList: true, characterData: true });
});"""


def _first_token(context: BrowserContext, url: str) -> float:
    page = context.new_page()
    page.set_default_timeout(TIMEOUT_MS)
    page.add_init_script(WATCH)
    page.goto(url)
    ChatPage(page).start(QUESTION)
    ms = float(page.evaluate("window.firstToken"))
    page.close()
    return ms


def _first_token_of_peer(context: BrowserContext, address: str) -> float:
    page = context.new_page()
    peer = PeerPage(page, address, "transformers.js")
    peer.call("load", folder="model", backend="wasm", cache=True)
    peer.call("generate", question=QUESTION, steps=4)
    ms = float(page.evaluate("window.firstTokenAt"))
    page.close()
    return ms


def measure_start(browser: Browser, bundle: Path, exported: Path, rounds: int) -> dict[str, Any]:
    """Milliseconds of the first and of a second visit: chat at once, all blocks first, and transformers.js; on wasm."""
    blocks = Bundle.open(bundle).spec.blocks
    wanted = "backend=wasm&variant=float32"
    found: dict[str, dict[str, list[float]]] = {}
    with (
        tempfile.TemporaryDirectory() as scratch,
        running_server(bundle, *PATIENT) as server,
        folder_served(Path(scratch)) as address,
    ):
        transformers_files(Path(scratch), exported)
        with far(server.url, ThrottledProxy) as (_, slow), far(address, ThrottledProxy) as (_, slow_peer):
            clients = {
                "at_once": lambda context: _first_token(context, f"{slow}/?{wanted}"),
                "all_blocks_first": lambda context: _first_token(context, f"{slow}/?{wanted}&split={blocks}"),
                "transformers_js": lambda context: _first_token_of_peer(context, slow_peer),
            }
            for number in range(rounds):
                print(f"start, round {number + 1} of {rounds} …", file=sys.stderr, flush=True)
                for name, visit in clients.items():
                    with browser.new_context() as context:
                        for which in ("first_visit_ms", "second_visit_ms"):
                            found.setdefault(name, {}).setdefault(which, []).append(visit(context))
    medians = {
        name: {which: round(statistics.median(values)) for which, values in visits.items()}
        for name, visits in found.items()
    }
    return {
        "model": "tiny-chat",
        "backend": "wasm",
        "bits_per_s": ThrottledProxy.BITS_PER_S,
        "clients": medians,
        "all_blocks_first_vs_at_once": {
            which: round(medians["all_blocks_first"][which] / ms, 1) for which, ms in medians["at_once"].items()
        },
        "transformers_js_vs_at_once": {
            which: round(medians["transformers_js"][which] / ms, 1) for which, ms in medians["at_once"].items()
        },
    }

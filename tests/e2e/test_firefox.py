"""The same page in another browser: Firefox runs blocks on WebGPU where it finds an adapter, else on wasm."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from tests.oracle import PROMPTS
from tests.support import ServerProcess

from .conftest import ANSWER_TIMEOUT_MS
from .firefox import firefox, firefox_page

pytestmark = pytest.mark.browser
SPLIT = 2
ENTER = "\ue007"  # https://w3c.github.io/webdriver/#keyboard-actions
#: State and text of the last article, or null while it grows.
ANSWER = """(() => {
  const { dataset, innerText } = [...document.querySelectorAll('[aria-label=Assistant]')].at(-1) ?? { dataset: {} };
  const grows = [undefined, 'waiting', 'streaming'].includes(dataset.status);
  return grows ? null : [dataset.status, innerText];
})()"""


def test_firefox_runs_blocks_and_gives_the_text_of_the_whole_model(
    tmp_path: Path, server: ServerProcess, transformers_texts: dict[str, str]
) -> None:
    program = firefox()
    if program is None:
        pytest.skip("no Firefox here: `sudo apt-get install firefox-esr mesa-vulkan-drivers`, or `make test` as root")
    with firefox_page(program, tmp_path / "profile") as page:
        page.goto(f"{server.url}/?split={SPLIT}&variant=float32&wire=float32&temperature=0")
        adapter = page.evaluate("navigator.gpu?.requestAdapter().then((adapter) => adapter !== null) ?? false")
        page.evaluate("document.querySelector('textarea').focus()")
        page.type(PROMPTS[0] + ENTER)
        deadline = time.monotonic() + ANSWER_TIMEOUT_MS / 1000
        while (answer := page.evaluate(ANSWER)) is None and time.monotonic() < deadline:
            time.sleep(0.1)
        told = page.evaluate("window.splitllm.diagnostics()")
    assert answer is not None, told
    assert answer[0] == "finished", answer
    assert re.sub(r"\s+", " ", answer[1]).startswith(re.sub(r"\s+", " ", transformers_texts[PROMPTS[0]]).strip())
    assert (told["backend"], told["split"]) == ("webgpu" if adapter else "wasm", SPLIT)
    assert min(told["blockRuns"][:SPLIT]) > 1
    assert told["crossOriginIsolated"] is True

"""The oracle in a real browser: greedy text equals transformers' for k = 0, 3, 8, on WebGPU and on wasm."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from tests.oracle import MAX_TOKENS, PROMPTS

from .conftest import OpenPage
from .test_ladder import change_worker

pytestmark = [pytest.mark.browser, pytest.mark.slow]
EXACT = {"variant": "float32", "wire": "float32", "temperature": 0, "max_tokens": MAX_TOKENS}
#: GPU buffers of the engine's worker, those made less those destroyed.
COUNT_BUFFERS = """() => {
  self.buffers = { live: 0, bytes: 0 };
  const gone = new WeakSet();
  const { createBuffer } = GPUDevice.prototype;
  GPUDevice.prototype.createBuffer = function (descriptor) {
    const buffer = createBuffer.call(this, descriptor);
    self.buffers.live += 1;
    self.buffers.bytes += buffer.size;
    return buffer;
  };
  const { destroy } = GPUBuffer.prototype;
  GPUBuffer.prototype.destroy = function () {
    if (!gone.has(this)) {
      gone.add(this);
      self.buffers.live -= 1;
      self.buffers.bytes -= this.size;
    }
    return destroy.call(this);
  };
}"""


@pytest.mark.timeout(1500)  # 10 answers of up to 96 tokens, at some 0.4 s a token for 8 blocks on SwiftShader
@pytest.mark.parametrize("split", [0, 3, 8])
@pytest.mark.parametrize("backend", ["webgpu", "wasm"])
def test_text_equals_transformers(
    open_page: OpenPage, transformers_texts: dict[str, str], backend: str, split: int
) -> None:
    chat = open_page(split=split, backend=backend, **EXACT)
    for prompt in PROMPTS:
        chat.begin_anew()
        assert chat.ask(prompt) == transformers_texts[prompt], f"{backend}, split {split}, prompt {prompt!r}"
    told = chat.diagnostics()
    assert told["split"] == split
    assert told["crossOriginIsolated"] is True
    expect(chat.split).to_contain_text(f"{split} of 8 blocks in your browser")
    if split == 0:
        assert sum(told["blockRuns"]) == 0
        return
    assert told["backend"] == backend
    runs = told["blockRuns"]
    assert len(runs) >= split
    assert min(runs[:split]) > len(PROMPTS)
    if backend == "webgpu":
        assert told["adapter"] is not None
        assert told["adapter"]["vendor"]
        assert set(told["kvLocations"][:split]) == {"gpu-buffer"}
    else:
        assert set(told["kvLocations"][:split]) == {"cpu"}


def test_float16_activations_give_the_same_text_and_no_token_costs_a_buffer(
    open_page: OpenPage, page: Page, transformers_texts: dict[str, str]
) -> None:
    change_worker(page, COUNT_BUFFERS)
    chat = open_page(split=3, backend="webgpu", **{**EXACT, "wire": "float16"})
    buffers, runs = [], []
    for prompt in PROMPTS[:4]:
        chat.begin_anew()
        assert chat.ask(prompt) == transformers_texts[prompt]
        buffers.append(page.workers[0].evaluate("self.buffers.live"))
        runs.append(chat.diagnostics()["blockRuns"][0])
    assert buffers[0] > 3
    # A longer prompt may want some of another size; a buffer that leaks does so with every block and token.
    assert buffers[-1] - buffers[0] < runs[-1] - runs[0]


def test_the_browser_really_has_an_adapter(open_page: OpenPage) -> None:
    chat = open_page(split=0)
    adapter = chat.page.evaluate("navigator.gpu.requestAdapter().then((a) => a && a.info.architecture)")
    assert adapter, "no WebGPU adapter: these tests would prove nothing"

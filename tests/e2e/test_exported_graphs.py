"""Blocks of other families than the demo's in a real browser: every operator of the exporter runs there, and right."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Error, Page

pytest.importorskip("torch")
pytest.importorskip("optimum.exporters.onnx")

from splitllm.bundle import Bundle
from splitllm_export import exporter
from splitllm_export.chain import open_session
from tests.export.families import save_family

from .sites import folder_served

pytestmark = pytest.mark.browser
RUNTIME = Path(__file__).parents[2] / "web_client" / "node_modules" / "onnxruntime-web" / "dist"
CAPACITY = 64

#: As `worker/ort.ts` and `worker/gpu.ts` do it: an own device without subgroups, no falling back to the processor.
RUN = """
async ({ graph, weights, name, steps, backend }) => {
  const ort = await import('/ort/ort.webgpu.min.mjs');
  ort.env.wasm.wasmPaths = '/ort/'; ort.env.wasm.numThreads = 1; ort.env.logLevel = 'error';
  if (backend === 'webgpu' && !window.device) {
    const adapter = await navigator.gpu.requestAdapter();
    const names = [
      'maxBufferSize', 'maxStorageBufferBindingSize', 'maxComputeWorkgroupStorageSize', 'maxComputeWorkgroupSizeX',
      'maxComputeInvocationsPerWorkgroup', 'maxComputeWorkgroupSizeY', 'maxStorageBuffersPerShaderStage',
    ];
    const requiredLimits = Object.fromEntries(names.map((name) => [name, adapter.limits[name]]));
    window.device = await adapter.requestDevice({ requiredLimits });
  }
  const bytes = async (url) => new Uint8Array(await (await fetch(url)).arrayBuffer());
  const session = await ort.InferenceSession.create(await bytes(graph), {
    executionProviders: [backend === 'wasm' ? 'wasm' : { name: 'webgpu', device: window.device }],
    extra: backend === 'wasm' ? {} : { session: { disable_cpu_ep_fallback: '1' } },
    externalData: [{ path: name, data: await bytes(weights) }], logSeverityLevel: 3,
  });
  const results = [];
  for (const step of steps) {
    const feeds = {};
    for (const [input, { type, dims, data }] of Object.entries(step)) {
      const { buffer } = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
      feeds[input] = new ort.Tensor(type, type === 'int32' ? new Int32Array(buffer) : new Float32Array(buffer), dims);
    }
    const outputs = await session.run(feeds);
    results.push(Array.from(await outputs.hidden_states_out.getData()));
  }
  await session.release();
  return results;
}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("graphs")
    (root / "ort").symlink_to(RUNTIME)
    (root / "index.html").write_text("<!doctype html><title>graphs</title>")
    return root


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    with folder_served(folder) as site:
        yield f"{site}/"


def _bundle(folder: Path, family: str, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    monkeypatch.setattr(exporter, "check_family", lambda *_, **__: None)
    out = folder / family.replace(" ", "-")
    if not out.exists():
        exporter.export_model(save_family(folder / f"{out.name}-model", family), out, client_dtypes=("float32",))
    return Bundle.open(out)


def _steps(bundle: Bundle) -> tuple[list[dict[str, np.ndarray]], list[np.ndarray]]:
    """A prefill of 40 and a decode step through block 0, and what ONNX Runtime on the CPU makes of them."""
    spec, files = bundle.spec, bundle.block(0, "float32")
    session, random = open_session(files.graph), np.random.default_rng(3)
    tables = {name: np.array(bundle.constant(constant, "float32")) for name, constant in files.constants.items()}
    keys = values = np.zeros((1, spec.kv_heads, CAPACITY, spec.head_dim), np.float32)
    steps, outputs = [], []
    for past, rows in ((0, 40), (40, 1)):
        step = {
            "hidden_states": random.standard_normal((1, rows, spec.hidden_size)).astype(np.float32),
            "seqlens_k": np.array([past + rows - 1], np.int32),
            "total_sequence_length": np.array(past + rows, np.int32),
            "past_key": keys,
            "past_value": values,
            **tables,
        }
        out, keys, values = session.run(["hidden_states_out", "present_key", "present_value"], step)
        steps.append(step)
        outputs.append(out)
    return steps, outputs


def _run(page: Page, address: str, bundle: Bundle, steps: list[dict[str, np.ndarray]], backend: str) -> list[Any]:
    files = bundle.block(0, "float32")
    assert files.weights is not None
    place = address + bundle.folder.name

    def told(array: np.ndarray) -> dict[str, Any]:
        data = base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
        return {"type": str(array.dtype), "dims": list(array.shape), "data": data}

    page.goto(address)
    return page.evaluate(
        RUN,
        {
            "graph": f"{place}/{files.graph.name}",
            "weights": f"{place}/{files.weights.name}",
            "name": files.weights.name,
            "steps": [{name: told(array) for name, array in step.items()} for step in steps],
            "backend": backend,
        },
    )


#: Between them these have every operator that the exporter writes.
@pytest.mark.parametrize("backend", ["webgpu", "wasm"])
@pytest.mark.parametrize("family", ["Qwen3", "GPT-2", "GPT-NeoX", "Cohere Command-R", "Mixtral"])
def test_a_block_computes_in_the_browser_what_it_computes_on_the_server(
    page: Page, address: str, folder: Path, monkeypatch: pytest.MonkeyPatch, family: str, backend: str
) -> None:
    bundle = _bundle(folder, family, monkeypatch)
    steps, expected = _steps(bundle)
    for got, want in zip(_run(page, address, bundle, steps, backend), expected, strict=True):
        assert np.abs(np.array(got, np.float32).reshape(want.shape) - want).max() < 1e-5


def test_a_softcap_runs_on_wasm_and_is_refused_by_webgpu(
    page: Page, address: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = _bundle(folder, "Gemma 2", monkeypatch)
    steps, expected = _steps(bundle)
    got = np.array(_run(page, address, bundle, steps, "wasm")[0], np.float32)
    assert np.abs(got.reshape(expected[0].shape) - expected[0]).max() < 1e-4
    with pytest.raises(Error, match="fallback to CPU EP has been explicitly disabled"):
        _run(page, address, bundle, steps, "webgpu")

"""What accuracy levels 0 and 4 of 4-bit matrices do in a browser: numbers and times, side by side in one run.

    python -m bench.webgpu_int4 [--out bench/results/webgpu_int4.json]

One `MatMulNBits` node (4 bits, blocks of 32) in Chromium, on WebGPU (an own device, as the page makes it, and one with
every feature that the adapter has) and on wasm, and in ONNX Runtime on the CPU. Errors are root mean squares of the
differences from the product with the very same 4-bit weights in float64, in standard deviations of that product; times
are the least of several runs and include reading the result back. Where the adapter is a software renderer, only ratios
within a line say something.
"""

from __future__ import annotations

import argparse
import base64
import json
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime
from playwright.sync_api import Page, sync_playwright

from bench.weight_variants import matrix
from splitllm_export import layout
from splitllm_export.quantize import INT4, quantize, unpack
from tests.e2e.conftest import QUIET, WEBGPU, chromium
from tests.e2e.sites import folder_served
from tests.e2e.test_exported_graphs import RUNTIME

SHAPES: Final = ((576, 1536), (1536, 576), (2048, 2048))
ROWS: Final = (1, 64)
LEVELS: Final = (0, 4)
RUNS: Final = 5

SCRIPT: Final = """
async ({ graph, weights, name, x, dims, backend, runs }) => {
  const ort = await import('/ort/ort.webgpu.min.mjs');
  ort.env.wasm.wasmPaths = '/ort/'; ort.env.wasm.numThreads = 1; ort.env.logLevel = 'error';
  window.devices ??= {};
  if (backend !== 'wasm' && !window.devices[backend]) {
    const adapter = await navigator.gpu.requestAdapter();
    const names = [
      'maxBufferSize', 'maxStorageBufferBindingSize', 'maxComputeWorkgroupStorageSize', 'maxComputeWorkgroupSizeX',
      'maxComputeInvocationsPerWorkgroup', 'maxComputeWorkgroupSizeY', 'maxStorageBuffersPerShaderStage',
    ];
    const requiredLimits = Object.fromEntries(names.map((name) => [name, adapter.limits[name]]));
    const requiredFeatures = backend === 'webgpu, all features' ? [...adapter.features] : [];
    window.devices[backend] = await adapter.requestDevice({ requiredLimits, requiredFeatures });
  }
  const bytes = async (url) => new Uint8Array(await (await fetch(url)).arrayBuffer());
  const provider = backend === 'wasm' ? 'wasm' : { name: 'webgpu', device: window.devices[backend] };
  const session = await ort.InferenceSession.create(await bytes(graph), {
    executionProviders: [provider], externalData: [{ path: name, data: await bytes(weights) }], logSeverityLevel: 3,
    extra: backend === 'wasm' ? {} : { session: { disable_cpu_ep_fallback: '1' } },
  });
  const input = new Float32Array(Uint8Array.from(atob(x), (c) => c.charCodeAt(0)).buffer);
  let y, least = Infinity;
  for (let run = 0; run <= runs; run++) {
    const begin = performance.now();
    const { y: out } = await session.run({ x: new ort.Tensor('float32', input, dims) });
    y = await out.getData();
    if (run) least = Math.min(least, performance.now() - begin);
  }
  await session.release();
  return { y: Array.from(y), ms: least };
}
"""


def in_browser(page: Page, folder: Path, x: np.ndarray, backend: str) -> tuple[np.ndarray, float]:
    """The product and its milliseconds."""
    told = base64.b64encode(np.ascontiguousarray(x).tobytes()).decode()
    found = page.evaluate(
        SCRIPT,
        {
            "graph": f"/{folder.name}/part.onnx",
            "weights": f"/{folder.name}/part.bin",
            "name": "part.bin",
            "x": told,
            "dims": list(x.shape),
            "backend": backend,
            "runs": RUNS,
        },
    )
    return np.array(found["y"], np.float32).reshape(len(x), -1), float(found["ms"])


def on_cpu(folder: Path, x: np.ndarray) -> tuple[np.ndarray, float]:
    """The same by ONNX Runtime on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(folder / "part.onnx", options, providers=["CPUExecutionProvider"])
    times = []
    for _ in range(RUNS + 1):
        begin = time.perf_counter()
        y = session.run(None, {"x": x})[0]
        times.append(1000 * (time.perf_counter() - begin))
    return y, min(times[1:])


def measure(page: Page, root: Path) -> list[dict[str, Any]]:
    """A line for each shape, number of rows and backend, with both levels."""
    lines = []
    for k, n in SHAPES:
        folders = {}
        exact = np.zeros(0)
        for level in LEVELS:
            part = quantize(matrix(k, n), replace(INT4, accuracy_level=level))
            folders[level] = root / f"{k}x{n}-{level}"
            folders[level].mkdir()
            layout.write_graph(part, layout.Folder(folders[level]), "part")
            packed, scales = (
                np.concatenate(list(part.weights[f"proj.{kind}"].pieces())) for kind in ("packed", "scales")
            )
            exact = unpack(packed, scales.reshape(n, -1)).astype(np.float64).T
        for rows in ROWS:
            x = np.random.default_rng(rows).standard_normal((rows, k)).astype(np.float32)
            want = x.astype(np.float64) @ exact
            for backend in ("webgpu", "webgpu, all features", "wasm", "cpu"):
                line: dict[str, Any] = {"k": k, "n": n, "rows": rows, "backend": backend}
                for level in LEVELS:
                    run = (
                        on_cpu(folders[level], x) if backend == "cpu" else in_browser(page, folders[level], x, backend)
                    )
                    error = float(np.sqrt(np.square(run[0] - want).mean()) / want.std())
                    line[f"level {level}"] = {"error": float(f"{error:.1e}"), "ms": round(run[1], 2)}
                line["level 4 / level 0, ms"] = round(line["level 4"]["ms"] / max(line["level 0"]["ms"], 0.01), 2)
                lines.append(line)
                print(json.dumps(line), flush=True)
    return lines


def main() -> int:
    """Measure, print, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("bench/results/webgpu_int4.json"))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as playwright:
        root = Path(scratch)
        (root / "ort").symlink_to(RUNTIME)
        (root / "index.html").write_text("<!doctype html><title>matrices</title>")
        with folder_served(root) as site:
            browser = playwright.chromium.launch(executable_path=chromium(), args=[*QUIET, WEBGPU])
            page = browser.new_page()
            page.goto(f"{site}/")
            adapter = page.evaluate(
                "async () => { const a = await navigator.gpu.requestAdapter();"
                " return { info: `${a.info.vendor} ${a.info.architecture}`, features: [...a.features] }; }"
            )
            lines = measure(page, root)
            browser.close()
    result = {
        "command": "python -m bench.webgpu_int4",
        "adapter": adapter,
        "onnxruntime": onnxruntime.__version__,
        "lines": lines,
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Decoding in the page's worker beside the same blocks as one graph, and beside transformers.js."""

from __future__ import annotations

import gzip
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from playwright.sync_api import Browser

from bench.browser.graph import write_one_graph
from bench.browser.pages import EnginePage, PeerPage, folder_served
from splitllm.bundle import Bundle
from tests.e2e.test_exported_graphs import RUNTIME
from tests.support import running_server

HERE: Final = Path(__file__).parent
TRANSFORMERS: Final = HERE / "node_modules" / "@huggingface" / "transformers" / "dist"
QUESTION: Final = "Tell me a story."
PROMPT_ROWS: Final = 24
#: Nobody is told that this machine is slow.
PATIENT: Final = ("--sla-tpot-ms", "600000", "--sla-ttft-ms", "6000000")


@dataclass(frozen=True)
class Case:
    """Blocks `[0, blocks)` of a bundle on a backend; `exported` is the same model as transformers.js reads it."""

    name: str
    bundle: Path
    blocks: int
    backend: str
    steps: int
    exported: Path | None = None


def _page_files(folder: Path, script: str) -> None:
    (folder / "index.html").write_text("<!doctype html><title>peer</title>")
    (folder / script).symlink_to(HERE / script)


def one_graph_files(folder: Path, bundle: Bundle, blocks: int) -> None:
    """What a page needs to run the blocks as one graph."""
    write_one_graph(bundle, blocks, folder)
    _page_files(folder, "one_graph.js")
    (folder / "ort").symlink_to(RUNTIME)


def transformers_files(folder: Path, exported: Path) -> None:
    """What a page needs to run transformers.js on a model that Optimum exported; scripts and runtime packed too."""
    _page_files(folder, "transformers.js")
    runtime = HERE / "node_modules" / "onnxruntime-web" / "dist"
    names = {"dist": [TRANSFORMERS / "transformers.min.js"], "runtime": sorted(runtime.glob("*asyncify*"))}
    for place, sources in names.items():
        (folder / place).mkdir()
        for source in sources:
            (folder / place / source.name).symlink_to(source)
            (folder / place / f"{source.name}.gz").write_bytes(gzip.compress(source.read_bytes(), 6))
    model = folder / "models" / "model"
    (model / "onnx").mkdir(parents=True)
    for source in exported.iterdir():
        (model / ("onnx" if source.name.startswith("model.onnx") else "") / source.name).symlink_to(source.resolve())


def export_for_transformers(checkpoint: Path, out: Path) -> Path:
    """The checkpoint as Optimum exports it, once."""
    if not (out / "model.onnx").is_file():
        from optimum.exporters.onnx import main_export

        main_export(str(checkpoint), out, task="text-generation-with-past", no_post_process=True, do_validation=False)
        for source in checkpoint.iterdir():
            if source.suffix in (".json", ".jinja"):
                shutil.copy(source, out / source.name)
    return out


def _rounds(rounds: int, sides: dict[str, Callable[[], dict[str, float]]]) -> dict[str, float]:
    """Medians over rounds in which every side has its turn, each side's figures under its own name."""
    found: dict[str, list[float]] = {}
    for _ in range(rounds):
        for name, run in sides.items():
            for figure, value in run().items():
                found.setdefault(f"{name}{figure}", []).append(value)
    return {name: round(statistics.median(values), 2) for name, values in found.items()}


def measure_case(browser: Browser, case: Case, rounds: int) -> dict[str, Any]:
    """Milliseconds for a token of each side, medians of interleaved rounds, and ratios of speeds: ours over theirs."""
    print(f"{case.name}: {case.blocks} blocks on {case.backend} …", file=sys.stderr, flush=True)
    bundle = Bundle.open(case.bundle)
    spec = bundle.spec
    line: dict[str, Any] = {"model": case.name, "backend": case.backend, "blocks": case.blocks, "of": spec.blocks}
    sizes = {"blocks": case.blocks, "kvHeads": spec.kv_heads, "headDim": spec.head_dim, "hidden": spec.hidden_size}
    with (
        tempfile.TemporaryDirectory() as scratch,
        running_server(case.bundle, *PATIENT) as server,
        folder_served(Path(scratch)) as address,
        browser.new_context() as context,
    ):
        one_graph_files(Path(scratch), bundle, case.blocks)
        ours = EnginePage(
            context.new_page(), server.url, split=case.blocks, backend=case.backend, variant="float32", wire="float32"
        )
        told = ours.ask(QUESTION, 4)["told"]
        if (told["backend"], told["split"]) != (case.backend, case.blocks):
            raise RuntimeError(f"the blocks run elsewhere: {told['log']}")
        graph = PeerPage(context.new_page(), address, "one_graph.js")
        threads = graph.page.evaluate("navigator.hardwareConcurrency")
        graph.call(
            "load", folder="", backend=case.backend, threads=threads, capacity=min(4096, spec.max_context), **sizes
        )
        graph.call("decode", prompt=PROMPT_ROWS, steps=2)

        def run_ours() -> dict[str, float]:
            stats = ours.ask(QUESTION, case.steps)
            return {"blocks_ms": stats["browserTpotMs"], "token_ms": stats["tpotMs"]}

        sides: dict[str, Callable[[], dict[str, float]]] = {
            "ours_": run_ours,
            "one_graph_": lambda: {"blocks_ms": graph.call("decode", prompt=PROMPT_ROWS, steps=case.steps)["ms"]},
        }
        line |= {"steps": case.steps, "threads": threads if case.backend == "wasm" else None}
        line |= _rounds(rounds, sides)
    line["vs_one_graph"] = round(line["one_graph_blocks_ms"] / line["ours_blocks_ms"], 3)
    if case.exported is not None:
        line |= _beside_transformers(browser, case, case.exported, rounds)
    return line


def _beside_transformers(browser: Browser, case: Case, exported: Path, rounds: int) -> dict[str, Any]:
    """Tokens as a person sees them: all blocks here and the head on the server, beside the whole model here."""
    with (
        tempfile.TemporaryDirectory() as scratch,
        running_server(case.bundle, *PATIENT) as server,
        folder_served(Path(scratch)) as address,
        browser.new_context() as context,
    ):
        transformers_files(Path(scratch), exported)
        peer = PeerPage(context.new_page(), address, "transformers.js")
        peer.call("load", folder="model", backend=case.backend, cache=False)
        text = peer.call("generate", question=QUESTION, steps=case.steps)["text"]
        ours = EnginePage(
            context.new_page(), server.url, split=case.blocks, backend=case.backend, variant="float32", wire="float32"
        )
        same = ours.ask(QUESTION, case.steps)["text"].strip() == text.strip()
        found = _rounds(
            rounds,
            {
                "ours_beside_": lambda: {"token_ms": ours.ask(QUESTION, case.steps)["tpotMs"]},
                "transformers_js_": lambda: {
                    "token_ms": peer.call("generate", question=QUESTION, steps=case.steps)["ms"]
                },
            },
        )
    ratio = round(found["transformers_js_token_ms"] / found["ours_beside_token_ms"], 3)
    return found | {"vs_transformers_js": ratio, "same_text": same}

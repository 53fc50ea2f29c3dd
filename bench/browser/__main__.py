"""The page's worker beside its peers in Chromium: `make bench-browser`, or

    python -m bench.browser [--models build/bench] [--rounds 5] [--out bench/results/browser.json]

Decoding with all blocks in the browser beside the same blocks as one graph under the same onnxruntime-web, and beside
transformers.js on the same weights; then the time from opening the page to the first token over a link of 20 Mbit/s.
Sides take turns in every round and figures are medians, so ratios say more than times; WebGPU is a software renderer
where there is no card. Writes the tables of docs/performance.md anew, with what `python -m bench.page` found before.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any, Final

from playwright.sync_api import sync_playwright

from bench.browser.decode import HERE, Case, export_for_transformers, measure_case
from bench.browser.start import measure_start
from bench.browser.table import write_page
from splitllm.bench.machine import describe
from splitllm.resources import demo_bundle
from tests.e2e.conftest import QUIET, WEBGPU, chromium
from tests.e2e.test_exported_graphs import RUNTIME
from tests.oracle import CHECKPOINT

SHAPE: Final = "smollm2-135m"
SECTIONS: Final = ("decode", "start")


def cases(models: Path) -> list[Case]:
    """The demo's model whole, and SmolLM2's shape: whole on wasm, three blocks where a processor plays the card."""
    bundle, exported = models / f"{SHAPE}.bundle", export_for_transformers(models / SHAPE, models / "optimum")
    tiny = tiny_chat(models)
    return [
        Case("tiny-chat", demo_bundle(), 8, "wasm", 32, tiny),
        Case("tiny-chat", demo_bundle(), 8, "webgpu", 12, tiny),
        Case(SHAPE, bundle, 30, "wasm", 12, exported),
        Case(SHAPE, bundle, 3, "webgpu", 8),
    ]


def tiny_chat(models: Path) -> Path:
    """The demo's model as transformers.js reads it."""
    return export_for_transformers(CHECKPOINT, models / "tiny-chat-optimum")


def version_of(package: Path) -> str:
    """Of an npm package."""
    return str(json.loads((package / "package.json").read_text("utf-8"))["version"])


def main() -> int:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--models", type=Path, default=Path("build/bench"), help="with the bundle that bench/models.py makes"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=SECTIONS, help="measure one section and keep the other's figures")
    parser.add_argument("--case", type=int, action="append", help="of the decode cases only these, from 0")
    parser.add_argument("--out", type=Path, default=Path("bench/results/browser.json"))
    args = parser.parse_args()
    all_cases = cases(args.models)
    result: dict[str, Any] = json.loads(args.out.read_text("utf-8")) if args.only and args.out.exists() else {}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=[*QUIET, WEBGPU])
        result |= {
            "machine": describe(),
            "rounds": args.rounds,
            "versions": {
                "chromium": browser.version,
                "onnxruntime-web": version_of(RUNTIME.parent),
                "@huggingface/transformers": version_of(HERE / "node_modules" / "@huggingface" / "transformers"),
                "its onnxruntime-web": version_of(HERE / "node_modules" / "onnxruntime-web"),
            },
        }
        if args.only != "start":
            chosen = [case for number, case in enumerate(all_cases) if not args.case or number in args.case]
            result["decode"] = [measure_case(browser, case, args.rounds) for case in chosen]
        if args.only != "decode":
            rounds = max(1, args.rounds // 2)
            result["start"] = measure_start(browser, demo_bundle(), tiny_chat(args.models), rounds)
        browser.close()
    args.out.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    print(json.dumps(result, indent=1))
    if args.out == parser.get_default("out") and {"decode", "start"} <= result.keys():
        write_page(result, json.loads((args.out.parent / "page.json").read_text("utf-8")))
    return 0


if __name__ == "__main__":
    sys.exit(main())

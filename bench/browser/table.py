"""The tables of docs/performance.md that quote bench/results/browser.json and page.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[2]
PAGE: Final = ROOT / "docs" / "performance.md"
BEGIN: Final = "<!-- written by bench.browser -->"
END: Final = "<!-- to here -->"
#: Speed of the worker over that of one graph.
TARGETS: Final = {"webgpu": 0.95, "wasm": 0.6}
BACKENDS: Final = {"webgpu": "WebGPU", "wasm": "wasm"}
VISITS: Final = {"first_visit_ms": "nothing kept", "second_visit_ms": "kept from a first visit"}
CLIENTS: Final = {
    "at_once": "this page",
    "all_blocks_first": "this page made to load all blocks first",
    "transformers_js": "transformers.js",
}


def verdict(met: bool) -> str:
    """As the other tables of the page have it."""
    return "met" if met else "**missed**"


def decode_rows(result: dict[str, Any]) -> list[str]:
    """Speeds over those of peers."""
    rows = []
    for line in result["decode"]:
        blocks = "all" if line["blocks"] == line["of"] else f"{line['blocks']} of"
        what = f"{line['model']}, {blocks} {line['of']} blocks, {BACKENDS[line['backend']]}"
        target = TARGETS[line["backend"]]
        ratio = line["vs_one_graph"]
        rows.append(f"| {what} | the blocks as one graph | {ratio:.2f} | ≥ {target:g}, {verdict(ratio >= target)} |")
        if "vs_transformers_js" in line:
            rows.append(
                f"| {what} | transformers.js, a token as a person sees it | {line['vs_transformers_js']:.2f} | - |"
            )
    return rows


def start_rows(result: dict[str, Any]) -> list[str]:
    """Seconds to the first token."""
    start = result["start"]
    rows = []
    for name, who in CLIENTS.items():
        seconds = " | ".join(f"{start['clients'][name][visit] / 1000:.1f}" for visit in VISITS)
        rows.append(f"| {who} | {seconds} |")
    return rows


def page_rows(page: dict[str, Any]) -> list[str]:
    """Gaps of the main thread, weight, and what grows."""
    gaps, memory, buffers = page["main_thread_gap_ms"], page["script_memory_bytes"], page["gpu_buffers"]
    longest = gaps["answering"]["longest"]
    kilobytes = page["javascript_gzip_bytes"]["total"] / 1000
    live = f"{buffers['before']['live']} and {buffers['after']['live']}"
    flat = buffers["after"]["live"] <= buffers["before"]["live"]
    share = memory["after"] / memory["before"] - 1
    return [
        f"| longest gap of the main thread while answering, ms (idle: {gaps['idle']['longest']:.0f}) | {longest:.0f} | "
        f"≤ 50, {verdict(longest <= 50)} |",
        f"| JavaScript of a first load, kB gzip, without the runtime | {kilobytes:.0f} | "
        f"≤ 250, {verdict(kilobytes <= 250)} |",
        f"| memory of scripts after {memory['tokens']} tokens more, wasm | {share:+.1%} | "
        f"flat (≤ 5 %), {verdict(share <= 0.05)} |",
        f"| GPU buffers before and after {buffers['tokens']} tokens, WebGPU | {live} | flat, {verdict(flat)} |",
    ]


def section(result: dict[str, Any], page: dict[str, Any]) -> str:
    """All of it, with its marks."""
    link = f"{result['start']['bits_per_s'] / 1e6:g} Mbit/s"
    visits = " | ".join(f"s, {what}" for what in VISITS.values())
    return "\n".join(
        [
            BEGIN,
            "| decode | beside | ratio of speeds | target |",
            "|---|---|---|---|",
            *decode_rows(result),
            "",
            f"| from opening the page to the first token, {link}, wasm | {visits} |",
            "|---|---|---|",
            *start_rows(result),
            "",
            "| the page while it answers | measured | target |",
            "|---|---|---|",
            *page_rows(page),
            END,
        ]
    )


def write_page(result: dict[str, Any], page: dict[str, Any]) -> None:
    """Put the tables in the place of those that stand in docs/performance.md."""
    text = PAGE.read_text("utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(before + section(result, page) + after, "utf-8")

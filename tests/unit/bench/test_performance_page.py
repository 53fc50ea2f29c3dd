"""docs/performance.md quotes committed results, no others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench.browser.table import section
from splitllm.bench import engine_figures

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs/performance.md").read_text("utf-8")
PEERS: dict[str, Any] = json.loads((ROOT / "bench/results/peers.json").read_text("utf-8"))
SECOND_TURN: dict[str, Any] = json.loads((ROOT / "bench/results/second_turn.json").read_text("utf-8"))
BROWSER: dict[str, Any] = json.loads((ROOT / "bench/results/browser.json").read_text("utf-8"))
BROWSER_PAGE: dict[str, Any] = json.loads((ROOT / "bench/results/page.json").read_text("utf-8"))
SESSIONS: dict[str, Any] = json.loads((ROOT / "bench/results/sessions.json").read_text("utf-8"))
SOAK: dict[str, Any] = json.loads((ROOT / "bench/results/soak.json").read_text("utf-8"))
FLOOD: dict[str, Any] = json.loads((ROOT / "bench/results/flood.json").read_text("utf-8"))
JOINED: dict[str, Any] = json.loads((ROOT / "bench/results/joined_blocks.json").read_text("utf-8"))
ENGINE: dict[str, Any] = json.loads((ROOT / "bench/results/engine.json").read_text("utf-8"))


def peer_row(row: dict[str, Any]) -> str:
    of_processor_time = f"{row['cpu_ratio']:.2f}" if "cpu_ratio" in row else "-"
    target = f"≥ {row['target']:g}, {'met' if row['met'] else '**missed**'}"
    return f"| {row['what']} | {row['best']} | {row['ratio']:.2f} | {of_processor_time} | {target} |"


def engine_rows() -> list[str]:
    spread, cases = ENGINE["spread"], ENGINE["decode"]["cases"]
    longest = ENGINE["event_loop"]["decoding_ms"]["longest"]
    arithmetic = abs(spread["blocks_s_vs_straight_line"] - 1)
    rows = [
        ("32 sessions, k spread over 0 … 30, processor time against all at k = 0", spread["cpu_ratio"], 0.75),
        ("the same, off Σ over layers of (fixed cost + cost per row × rows)", arithmetic, 0.1),
        ("event loop kept waiting while 32 sessions decode, longest, ms", longest, 10),
        ("a step against the arithmetic of its work, worst of the grid", max(c["vs_arithmetic"] for c in cases), None),
    ]
    return [
        f"| {what} | {value:.2f} | "
        + ("-" if target is None else f"≤ {target:g}, {'met' if value <= target else '**missed**'}")
        + " |"
        for what, value, target in rows
    ]


def joined_rows() -> list[str]:
    cases = {(case["variant"], case["rows"]): case for case in JOINED["cases"]}
    return [
        f"| {rows} | "
        + " | ".join(
            f"{cases[variant, rows]['wall_ratio']:.2f} | {cases[variant, rows]['cpu_ratio']:.2f}"
            for variant in ("float32", "int4")
        )
        + " |"
        for rows in (1, 8, 32)
    ]


def crowd_rows() -> list[str]:
    steady, overload = SESSIONS["steady"], SESSIONS["overload"]
    bad = (steady["lost"], steady["wrong"], sum(steady["refusals"].values()))
    rows = [
        ("p99 of the time per token over its median", steady["tpot_p99_over_p50"], "≤", 5),
        ("memory of the server, last quarter of the time over the second", steady["rss_growth"], "≤", 1.05),
        ("answers in time a second, three times the capacity over once", overload["goodput_3x_over_1x"], "≥", 0.95),
    ]
    if "rss_growth_without_kv" in steady:
        rows.insert(2, ("the same without the pages of keys and values", steady["rss_growth_without_kv"], "≤", 1.05))
    return [
        f"| of {steady['answers']:,} answers: sessions lost, answers wrong, refusals | {bad[0]}, {bad[1]}, {bad[2]} "
        f"| none, {'**missed**' if any(bad) else 'met'} |",
        *(
            f"| {what} | {value:.2f} | {sign} {target:g}, "
            f"{'met' if (value <= target if sign == '≤' else value >= target) else '**missed**'} |"
            for what, value, sign, target in rows
        ),
    ]


def flood_rows() -> list[str]:
    return [
        f"| `{name}` | {flood['tpot_ratio']:.2f} | {flood['p99_ratio']:.2f} | {flood['messages_per_s']:.0f} "
        f"| ≤ 2, {'met' if flood['tpot_ratio'] <= 2 else '**missed**'} |"
        for name, flood in FLOOD["floods"].items()
    ]


@pytest.mark.parametrize("row", PEERS["table"], ids=lambda row: row["what"])
def test_the_page_quotes_each_peer(row: dict[str, Any]) -> None:
    assert peer_row(row) in PAGE


@pytest.mark.parametrize("row", engine_rows())
def test_the_page_quotes_the_engine(row: str) -> None:
    assert row in PAGE


@pytest.mark.parametrize("row", joined_rows())
def test_the_page_quotes_what_joined_blocks_save(row: str) -> None:
    assert row in PAGE


@pytest.mark.parametrize("row", crowd_rows())
def test_the_page_quotes_what_a_crowd_costs(row: str) -> None:
    assert row in PAGE


def test_the_page_quotes_what_a_flood_costs() -> None:
    assert "\n".join(flood_rows()) in PAGE


def test_the_page_quotes_the_soak() -> None:
    assert (
        f"{SOAK['answers']:,} answers in {SOAK['rounds']} rounds over {SOAK['connections']} connections, with "
        f"{sum(SOAK['faults'].values())} faults on the way, {SOAK['pauses']} pauses and {SOAK['killed']} servers killed"
    ) in " ".join(PAGE.split())


def test_the_page_quotes_the_second_turn() -> None:
    whole, second = SECOND_TURN["cases"]
    ratios = [second[figure] / whole[figure] for figure in ("ttft_s", "server_cpu_s")]
    target = f"≤ {SECOND_TURN['target']:g}, {'met' if ratios[0] <= SECOND_TURN['target'] else '**missed**'}"
    assert f"| time to first token of turn 2 | {ratios[0]:.2f} | {ratios[1]:.2f} | {target} |" in PAGE
    assert (SECOND_TURN["history"], SECOND_TURN["new"], SECOND_TURN["rounds"]) == (1000, 16, 5)


def test_the_page_quotes_the_browser() -> None:
    assert section(BROWSER, BROWSER_PAGE) in PAGE


def test_the_runs_are_what_the_page_says() -> None:
    assert (PEERS["threads"], PEERS["rounds"], PEERS["context"], PEERS["failed"]) == (2, 5, 128, {})
    assert (ENGINE["variant"], ENGINE["rounds"]) == ("float32", 5)
    assert (SESSIONS["steady"]["people"], SESSIONS["steady"]["seconds"]) == (300, 600)
    assert (FLOOD["setup"]["sessions"], FLOOD["setup"]["floods"]) == (4, 4)
    assert {len(flood["rounds"]) for flood in FLOOD["floods"].values()} == {3}
    assert (SOAK["seconds"] >= 600, SOAK["failure"]) == (True, None)


def test_the_figure_is_drawn_from_the_committed_results(tmp_path: Path) -> None:
    (drawn,) = engine_figures.draw(ENGINE, tmp_path)
    assert drawn.read_bytes() == (ROOT / "bench/results" / drawn.name).read_bytes()

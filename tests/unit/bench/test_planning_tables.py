"""docs/planning.md quotes the committed results of `bench capacity` and `bench load`, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/planning.md").read_text("utf-8")
CAPACITY: dict[str, Any] = json.loads((ROOT / "bench/results/capacity.json").read_text("utf-8"))
LOAD: dict[str, Any] = json.loads((ROOT / "bench/results/load.json").read_text("utf-8"))


LOOSE: dict[str, Any] = json.loads((ROOT / "bench/results/capacity-tpot250.json").read_text("utf-8"))


def figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def percent(share: float | None, *, signed: bool = False) -> str:
    return "-" if share is None else f"{100 * share:{'+' if signed else ''}.0f}"


def capacity_row(name: str) -> str:
    row = CAPACITY["policies"][name]
    seconds = row["server_seconds_saved"][0]
    return (
        f"| {name} | {figure(row['peak_goodput'])} | {figure(row['peak_goodput_over_all_server'])} "
        f"| {figure(row['goodput_at_90'])} | {figure(row['goodput_at_90_over_all_server'])} "
        f"| {percent(row['block_steps_saved'])} | {percent(seconds)} | {row['planned_violations']} |"
    )


def load_row(run: dict[str, Any]) -> str:
    real, model, off = run["real"], run["simulated"], run["difference"]
    return (
        f"| {run['policy']} | {real['requests']} | {run['mean_split']:.1f} "
        f"| {real['server_cpu_s_per_request']:.3f} | {model['server_cpu_s_per_request']:.3f} "
        f"| {percent(off['server_cpu_s_per_request'], signed=True)} "
        f"| {real['goodput']:.3f} | {model['goodput']:.3f} | {percent(off['goodput'], signed=True)} "
        f"| {run['slowdown']:.2f} |"
    )


@pytest.mark.parametrize("name", CAPACITY["policies"])
def test_the_page_quotes_the_capacity_of_each_policy(name: str) -> None:
    assert capacity_row(name) in PAGE


@pytest.mark.parametrize("run", LOAD["runs"], ids=lambda run: run["policy"])
def test_the_page_quotes_each_replay(run: dict[str, Any]) -> None:
    assert load_row(run) in PAGE


def test_the_page_states_the_scenario() -> None:
    setup = CAPACITY["setup"]
    assert f"{setup['sla']['ttft_ms']:g} ms" in PAGE
    assert f"{setup['sla']['tpot_ms']:g} ms" in PAGE
    assert f"--speed {setup['speed']:g}" in PAGE
    assert f"--headroom {setup['headroom']:g}" in PAGE


def test_no_plan_claims_what_it_does_not_predict() -> None:
    assert all(row["planned_violations"] == 0 for row in CAPACITY["policies"].values())


def test_the_page_says_how_far_the_target_is_reached_and_where() -> None:
    dp, loose = CAPACITY["policies"]["dp"], LOOSE["policies"]["dp"]
    prose = " ".join(PAGE.split())
    assert f"{figure(dp['peak_goodput_over_all_server'])} × at the peak" in prose
    assert f"{figure(dp['goodput_at_90_over_all_server'])} × where nine of ten" in prose
    assert f"{figure(loose['peak_goodput_over_all_server'])} × at the peak" in prose
    assert LOOSE["setup"]["sla"]["tpot_ms"] == 250

"""docs/planning.md quotes `splitllm plan`, `splitllm bench planner` and `splitllm bench paper`: nothing may drift.

A table that fails here is printed as it should stand in the page.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from splitllm.cli.main import main
from splitllm.cli.plan import EXAMPLE
from splitllm.planner.exact import Tables
from splitllm.planner.problem import Side, problem_from_json

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/planning.md").read_text("utf-8")
PROSE = " ".join(PAGE.split())
PAPER: dict[str, Any] = json.loads((ROOT / "bench/results/paper.json").read_text("utf-8"))
PLANNER: dict[str, Any] = json.loads((ROOT / "bench/results/planner.json").read_text("utf-8"))
TABLES = Tables.of(problem_from_json(json.loads(EXAMPLE)))


def percent(share: float, digits: int = 1) -> str:
    return f"{100 * share:.{digits}f}"


def table(head: str, rows: Iterator[str]) -> str:
    rule = "|---" * (head.count("|") - 1) + "|"
    return "\n".join([head, rule, *rows])


def target(case: dict[str, Any]) -> str:
    return "-" if case["target_ms"] is None else f"{case['target_ms']:g} ms"


def planner_table() -> str:
    return table(
        "| crossings | problems | median | 95 % | worst | target | exact | worst gap | wrong | saved | greedy |",
        (
            f"| {case['case']} | {case['problems']} | {case['median_ms']:.1f} ms | {case['p95_ms']:.1f} ms "
            f"| {case['worst_ms']:.1f} ms | {target(case)} "
            f"| {case['exact']} | {percent(case['worst_gap'])} % | {case['different']} of {case['checked']} "
            f"| {percent(case['saved'])} % | {percent(case['better_greedy_saved'])} % |"
            for case in PLANNER["cases"]
        ),
    )


def paper_table() -> str:
    rows = [(model["model"], model) for model in PAPER["models"]]
    rows += [("mean of the first three", PAPER["mean_of_the_papers_three"]), ("mean of all four", PAPER["mean"])]
    return table(
        "| work saved, % | paper | dp | best prefix | all or nothing | better greedy | requests per server over it |",
        (
            f"| {name} | {percent(row['paper_saved']) if row.get('paper_saved') else '-'} "
            f"| {percent(row['saved']['dp'])} "
            f"| {percent(row['saved']['prefix'])} | {percent(row['saved']['all-client'])} "
            f"| {percent(row['better_greedy_saved'])} | +{percent(row['over_greedy']['throughput'])} % |"
            for name, row in rows
        ),
    )


def slack_table() -> str:
    return table(
        "| latency allowed | dp, % | best prefix | all or nothing | better greedy | dp saves more than it by |",
        (
            f"| {row['slack']:g} × server alone | {percent(row['saved']['dp'])} | {percent(row['saved']['prefix'])} "
            f"| {percent(row['saved']['all-client'])} | {percent(row['better_greedy_saved'])} "
            f"| {'-' if row['over_greedy']['saved'] is None else percent(row['over_greedy']['saved'], 0) + ' %'} |"
            for row in PAPER["by_slack"]
        ),
    )


def variant_table() -> str:
    return table(
        "| what differs | dp, % | best prefix | all or nothing | better greedy |",
        (
            f"| {row['variant']} | {percent(row['saved']['dp'])} | {percent(row['saved']['prefix'])} "
            f"| {percent(row['saved']['all-client'])} | {percent(row['better_greedy_saved'])} |"
            for row in PAPER["variants"]
        ),
    )


def local(slack: float) -> dict[str, Any]:
    return next(
        row
        for row in PAPER["sensitivity"]
        if (row["client"], row["network"], row["slack"]) == ("desktop", "local", slack)
    )


def sentences() -> dict[str, str]:
    classes = sum(model["classes"] for model in PAPER["models"])
    at_home = sum(model["crossings"]["0"] for model in PAPER["models"])
    half = next(row for row in PAPER["variants"] if row["variant"] == "clients that hold half of the model")
    return {
        "three": f"the exact plan saves {percent(PAPER['mean_of_the_papers_three']['saved']['dp'])} %, above 1/3",
        "four": f"over all four {percent(PAPER['mean']['saved']['dp'])} %, just below",
        "over greedy": f"answers {percent(PAPER['mean']['over_greedy']['throughput'], 0)} % more requests",
        "at home": f"{at_home} of {classes} classes run wholly on the device",
        "all or nothing": f"gives {percent(PAPER['mean']['saved']['all-client'])} % without any dynamic programming",
        "local, twice": f"a desktop saves {percent(local(2.0)['saved']['dp'], 0)} % against greedy's "
        f"{percent(local(2.0)['better_greedy_saved'], 0)} at twice",
        "local, three times": f"and {percent(local(3.0)['saved']['dp'], 0)} against "
        f"{percent(local(3.0)['better_greedy_saved'], 0)} at three times",
        "work-weighted": "weighted by work the four shares are "
        + ", ".join(percent(model["saved_of_all_work"]) for model in PAPER["models"]),
        "server time": "as its roofline gives them, they are "
        + ", ".join(percent(model["server_time_saved"]["dp"]) for model in PAPER["models"]),
        "half": f"one pass at this SLA saves {percent(half['saved']['dp'])} %",
    }


@pytest.mark.parametrize("build", [planner_table, paper_table, slack_table, variant_table])
def test_a_table_of_results_is_that_of_the_committed_figures(build: Any) -> None:
    assert build() in PAGE


@pytest.mark.parametrize("name", sentences())
def test_a_figure_in_the_prose_is_that_of_the_committed_figures(name: str) -> None:
    assert sentences()[name] in PROSE


def test_claims_without_figures_hold_too() -> None:
    assert all(model["crossings"]["4"] == model["crossings"]["6"] == 0 for model in PAPER["models"])
    assert PAPER["mean_of_the_papers_three"]["saved"]["dp"] > 1 / 3 > PAPER["mean"]["saved"]["dp"] > 0.3
    assert PAPER["mean"]["over_greedy"]["throughput"] > 0.19
    assert abs(PAPER["mean"]["saved"]["prefix"] - PAPER["mean"]["saved"]["all-client"]) < 0.0005
    assert all(row["over_greedy"]["saved"] > 0.19 for row in PAPER["by_slack"] if row["over_greedy"]["saved"])
    assert all(case["worst_ms"] <= case["target_ms"] for case in PLANNER["cases"] if case["target_ms"])


def test_the_time_of_a_whole_plan_is_the_one_measured() -> None:
    whole = PLANNER["sessions"]
    times = ", ".join(f"{name} {whole[key]:.1f}" for name, key in (("95 %", "p95_ms"), ("worst", "worst_ms")))
    assert f"takes {whole['median_ms']:.1f} ms (median; {times}; target {whole['target_ms']:g})" in PROSE
    assert f"of the {whole['plans']} timed" in PROSE


def test_the_setup_in_the_prose_is_the_one_of_the_figures() -> None:
    setup = PAPER["setup"]
    for device in ("T4", "phone", "laptop", "desktop"):
        assert f"{setup['tflops'][device]:g}" in PROSE
        assert f"{setup['gb_per_s'][device]:g}" in PROSE
    for net in setup["networks"]:
        assert re.search(
            rf"{net['name']} \({net['up_mbit_s']:g}\D+{net['down_mbit_s']:g}\D+{net['rtt_ms']:g} ms", PROSE
        )
    assert f"at most {percent(setup['slack'] - 1, 0)} % later" in PROSE
    assert f"{percent(setup['share_of_peak'], 0)} % of peak" in PROSE


@pytest.mark.parametrize("row", re.findall(r"^\| ([cs]{1,4}) \| (.*) \|$", PAGE, re.MULTILINE), ids=lambda row: row[0])
def test_a_label_of_the_worked_example_is_right(row: tuple[str, str]) -> None:
    path, figures = row
    sides = [Side.CLIENT if side == "c" else Side.SERVER for side in path]
    expected = []
    for axis in (TABLES.cost, *TABLES.latency, TABLES.memory):
        total, here = 0, Side.CLIENT
        for stage, side in enumerate(sides):
            if side is not here:
                total += axis.up[stage] if side is Side.SERVER else axis.down[stage]
                here = side
            total += axis.client[stage] if side is Side.CLIENT else axis.server[stage]
        if len(sides) == len(TABLES.problem.stages) and here is Side.SERVER:
            total += axis.down[-1]
        expected.append(axis.value(total))
    expected[-1] /= 1e6
    assert [float(figure) for figure in figures.split(" | ")] == pytest.approx(expected, abs=1e-9)


def test_the_worked_example_has_all_its_rows() -> None:
    rows = re.findall(r"^\| ([cs]{1,4}) \| ", PAGE, re.MULTILINE)
    assert rows == ["c", "s", "cc", "cs", "ss", "ccc", "ccs", "css", "sss", "cccs", "ccss", "csss", "ssss"]


def test_the_problem_of_the_page_is_that_of_the_help() -> None:
    assert EXAMPLE.strip() in PAGE


def test_the_shown_output_is_what_the_command_prints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    problem = json.loads(EXAMPLE)
    problem["phases"][1]["latency_limit_ms"] = 48
    (tmp_path / "problem.json").write_text(json.dumps(problem))
    assert main(["plan", "--problem", str(tmp_path / "problem.json")]) == 0
    assert f"$ splitllm plan --problem problem.json\n{capsys.readouterr().out.strip()}\n```" in PAGE

"""The paper's experiment: the SLA is fair, the exact plan is never beaten, the committed figures can be had again."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from splitllm.bench import paper, paper_figures
from splitllm.bench.paper import POLICIES, Outcome, outcomes
from splitllm.bench.paper_models import MODELS
from splitllm.bench.paper_setup import CLIENTS, NETWORKS, SLACK, RequestClass, problem, request_classes
from splitllm.cli.bench_flags import draw
from splitllm.cli.main import main
from splitllm.errors import UsageError
from splitllm.planner.evaluate import evaluate
from splitllm.planner.problem import Side

COMMITTED = Path(__file__).parents[3] / "bench/results/paper.json"
BERT = MODELS[1]


@pytest.fixture(scope="module")
def committed() -> dict[str, Any]:
    result: dict[str, Any] = json.loads(COMMITTED.read_text("utf-8"))
    return result


@pytest.fixture(scope="module")
def found() -> list[Outcome]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paper, "request_classes", lambda: [one for one in request_classes() if one.model is BERT])
        return list(outcomes())


def test_the_limit_is_the_latency_of_the_server_alone_and_a_fifth() -> None:
    asked = RequestClass(BERT, 128, CLIENTS[0], NETWORKS[0])
    stated = problem(asked)
    alone = evaluate(stated, [Side.SERVER] * len(stated.stages))
    assert stated.phases[0].latency_limit_ms == pytest.approx(SLACK * alone.latency_ms["request"])
    assert alone.feasible


def test_the_time_of_a_stage_by_hand() -> None:
    stated = problem(RequestClass(BERT, 128, CLIENTS[1], NETWORKS[1]))
    # Feed-forward: 4 · 128 · 768 · 3072 operations at 35 % of 2.6 TFLOP/s, or of 65 on the server.
    assert stated.phases[0].client_ms[2] == pytest.approx(1_207_959_552 / (0.35 * 2.6e9))
    assert stated.phases[0].server_ms[2] == pytest.approx(1_207_959_552 / (0.35 * 65e9))
    # 128 positions of 768 values of 2 bytes over 45.7 Mbit/s.
    assert stated.phases[0].input_bytes[2] / stated.link.up_bytes_per_ms == pytest.approx(196_608 / (45.7e6 / 8e3))


def test_no_policy_saves_more_than_the_exact_one(found: list[Outcome]) -> None:
    assert len(found) == len(BERT.lengths) * len(CLIENTS) * len(NETWORKS)
    for one in found:
        assert one.gap == 0
        assert max(one.saved.values()) <= one.saved["dp"] + 1e-9
        assert one.kept["dp"]
        assert one.kept["all-server"]


def test_a_plan_that_breaks_the_sla_saves_nothing(found: list[Outcome]) -> None:
    alone = [one for one in found if one.kept["all-client"]]
    assert 0 < len(alone) < len(found)
    assert all(one.saved["all-client"] == (1.0 if one in alone else 0.0) for one in found)


def test_the_committed_figures_can_be_had_again(committed: dict[str, Any], found: list[Outcome]) -> None:
    [model] = [model for model in committed["models"] if model["model"] == BERT.name]
    for policy in POLICIES:
        assert model["saved"][policy] == pytest.approx(sum(one.saved[policy] for one in found) / len(found), abs=2e-6)
    assert model["kept"] == {policy: sum(one.kept[policy] for one in found) for policy in POLICIES}


def test_the_means_are_those_of_the_models(committed: dict[str, Any]) -> None:
    for name, models in (("mean", 4), ("mean_of_the_papers_three", 3)):
        shares = [model["saved"]["dp"] for model in committed["models"][:models]]
        assert committed[name]["saved"]["dp"] == pytest.approx(sum(shares) / models, abs=2e-6)


def test_figures_and_tables_come_from_the_same_numbers(
    committed: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(paper, "SLACKS", (SLACK,))
    monkeypatch.setattr(paper, "_VARIANTS", {})
    assert main(["bench", "paper", "--figures", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    for model in committed["models"]:
        assert f"{100 * model['saved']['dp']:.1f} %" in printed
    saved, slack = sorted(tmp_path.iterdir())
    assert (saved.name, slack.name) == ("paper-saved.svg", "paper-slack.svg")
    bars = re.findall(r">(\d+)</text>", saved.read_text("utf-8"))
    for model in committed["models"]:
        assert f"{100 * model['saved']['dp']:.0f}" in bars


def test_a_folder_for_figures_that_cannot_be_is_refused(
    committed: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="give --figures a folder"):
        draw(paper_figures.draw, committed, str(tmp_path / "file"))

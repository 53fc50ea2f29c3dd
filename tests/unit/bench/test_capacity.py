"""`splitllm bench capacity`: what it makes of its runs, and what it says on the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from splitllm.bench import capacity
from splitllm.bench.simulator_engine import ServerModel
from splitllm.cli.main import main
from splitllm.errors import UsageError
from splitllm.types import Sla

RESULTS = Path(__file__).parents[3] / "bench/results"
PROFILE = RESULTS / "capacity-profile.json"
QUICK = ("--seconds", "8", "--warmup-s", "1", "--rates", "2,4", "--policies", "all-server,dp")


@pytest.fixture(scope="module")
def scenario() -> capacity.Scenario:
    server = ServerModel.from_json(json.loads(PROFILE.read_text("utf-8")))
    return capacity.Scenario(server, seconds=12, warmup_s=2)


@pytest.fixture(scope="module")
def result(scenario: capacity.Scenario) -> dict[str, Any]:
    return capacity.sweep(scenario, rates=(2, 5), policies=("all-server", "dp"), seeds=(1, 2))


def test_every_policy_runs_at_every_rate_with_every_seed(result: dict[str, Any]) -> None:
    found = {(run["policy"], run["rate"], run["seed"]) for run in result["runs"]}
    assert found == {(name, rate, seed) for name in ("all-server", "dp") for rate in (2, 5) for seed in (1, 2)}


def test_goodput_is_never_more_than_what_is_asked_and_the_strict_one_never_more_than_it(result: dict[str, Any]) -> None:
    for run in result["runs"]:
        assert run["goodput_p95"] <= run["goodput"] <= run["asked_per_s"]
        assert run["attainment"] * run["asked"] == pytest.approx(run["goodput"] * 10, abs=0.5)


def test_all_server_saves_nothing_and_block_steps_are_not_seconds(result: dict[str, Any]) -> None:
    for run in result["runs"]:
        if run["policy"] == "all-server":
            assert run["block_steps_saved"] == 0
            assert run["server_seconds_saved"] == 0
        else:
            assert 0 < run["block_steps_saved"] < 1
            assert run["server_seconds_saved"] != run["block_steps_saved"]


def test_plans_break_no_promise_they_make(result: dict[str, Any]) -> None:
    assert all(row["planned_violations"] == 0 for row in result["policies"].values())


def test_every_request_is_in_the_distribution_of_splits(result: dict[str, Any]) -> None:
    for run in result["runs"]:
        assert sum(sum(splits.values()) for splits in run["splits"].values()) == run["asked"] - run["refused"]
        if run["policy"] == "all-server":
            assert all(set(splits) <= {"0"} for splits in run["splits"].values())


def test_summaries_are_the_mean_over_seeds(result: dict[str, Any]) -> None:
    row = result["policies"]["dp"]
    at_five = [run["goodput"] for run in result["runs"] if run["policy"] == "dp" and run["rate"] == 5]
    assert row["by_rate"]["goodput"][1] == pytest.approx(sum(at_five) / 2, rel=1e-3)
    assert row["peak_goodput"] == max(row["by_rate"]["goodput"])


@pytest.mark.parametrize(
    ("asked", "attainment", "found"),
    [
        ([1, 2, 3], [1.0, 1.0, 0.8], (2 + 0.5) * 0.9),
        ([1, 2], [1.0, 0.95], 2 * 0.95),  # good enough up to the highest rate tried
        ([1, 2], [0.5, 0.4], None),
    ],
)
def test_goodput_at_nine_of_ten_lies_between_two_rates(
    asked: list[float], attainment: list[float], found: float | None
) -> None:
    assert capacity._at_attainment(asked, attainment) == (None if found is None else pytest.approx(found))


def test_seconds_are_compared_only_where_both_served_everybody() -> None:
    def one(policy: str, ms: float, refused: int) -> dict[str, Any]:
        return {"policy": policy, "rate": 1, "seed": 1, "server_ms_per_request": ms, "refused": refused}

    runs = [one("all-server", 100.0, 0), one("dp", 60.0, 0), one("dp-load", 60.0, 1)]
    capacity._compare(runs)
    assert [run["server_seconds_saved"] for run in runs] == [0, 0.4, None]


def test_workers_change_nothing(scenario: capacity.Scenario, result: dict[str, Any]) -> None:
    again = capacity.sweep(scenario, rates=(2,), policies=("all-server", "dp"), seeds=(1, 2), workers=2)
    assert again["runs"] == [run for run in result["runs"] if run["rate"] == 2]


def test_what_makes_no_sense_is_refused(scenario: capacity.Scenario) -> None:
    with pytest.raises(UsageError, match="headroom"):
        capacity.Scenario(scenario.server, headroom=0)
    with pytest.raises(UsageError, match="longer than the warm-up"):
        capacity.Scenario(scenario.server, seconds=10, warmup_s=10)
    with pytest.raises(UsageError, match="policies are"):
        capacity.sweep(scenario, rates=(1,), policies=("best",), seeds=(1,))


def test_the_command_prints_tables_and_draws(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["bench", "capacity", *QUICK, "--figures", str(tmp_path)]) == 0
    printed = capsys.readouterr()
    assert "good requests a second" in printed.out
    assert "server seconds saved" in printed.out
    assert "block-steps saved" in printed.out
    names = {"capacity-goodput.svg", "capacity-saved.svg", "capacity-splits.svg"}
    assert {path.name for path in tmp_path.iterdir()} == names


def test_the_command_prints_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "capacity", *QUICK, "--json", "--devices", "web"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["setup"]["population"]["kinds"]["phone"]["share"] == 0.5
    assert set(printed["policies"]) == {"all-server", "dp"}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--profile", "nowhere.json"), "no file nowhere.json"),
        (("--profile", "x", "--bundle", "y"), "not both"),
        (("--save-profile", "x"), "add --bundle"),
        (("--policies", "best"), "policies are"),
        (("--speed", "0"), "speed"),
        (("--sla-tpot-ms", "-1"), "a number above 0"),
        (("--max-sessions", "0"), "a whole number from 1"),
        (("--rates", "0"), "above 0"),
    ],
)
def test_wrong_use_is_said_in_a_line(
    flags: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    try:
        code = main(["bench", "capacity", *QUICK, *flags])
    except SystemExit as error:  # argparse's own refusals
        code = int(error.code or 0)
    assert code == 2
    assert message in capsys.readouterr().err


def test_the_promise_is_the_products_own() -> None:
    server = ServerModel.from_json(json.loads(PROFILE.read_text("utf-8")))
    assert capacity.Scenario(server).sla == Sla()

"""`splitllm plan --bundle`: what-if from a profile, so that the figures do not depend on this machine."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest

from splitllm.bundle import Bundle
from splitllm.cli import plan
from splitllm.errors import SplitLLMError
from splitllm.planner.profile import EngineProfile, Grid

# A block: 2 ms and 0.5 ms for each row more, 20 ms for a chunk of 64; the head 1 ms and 0.25 ms.
PROFILE = EngineProfile(
    decode=Grid((1, 9), (0,), ((2.0,), (6.0,))),
    prefill=Grid((32, 64), (0,), ((10.0,), (20.0,))),
    head=Grid((1, 5), (0,), ((1.0,), (2.0,))),
    kv_block_bytes=512,
)


@pytest.fixture
def profile(tmp_path: Path) -> str:
    path = tmp_path / "profile.json"
    path.write_text(json.dumps(PROFILE.as_json()), "utf-8")
    return str(path)


def run(bundle: Bundle, *argv: str) -> int:
    parser = argparse.ArgumentParser(prog="splitllm")
    plan.add_parser(parser.add_subparsers())
    args = parser.parse_args(["plan", "--bundle", str(bundle.folder), *argv])
    code: int = args.run(args)
    return code


def answer(bundle: Bundle, profile: str, capsys: pytest.CaptureFixture[str], *argv: str) -> dict[str, Any]:
    run(bundle, "--profile", profile, "--json", *argv)
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_what_if_for_people(bundle: Bundle, profile: str, capsys: pytest.CaptureFixture[str]) -> None:
    given = ("--profile", profile, "--client-ms-per-block", "12", "--rtt-ms", "40", "--sla-tpot-ms", "100", "--explain")
    assert run(bundle, *given) == 0
    out = capsys.readouterr().out
    # TPOT at 4: 40 + 4 · 12 + 4 · 2 + 1, and the bytes of one row; one more adds 10.
    assert "split        4 of 8 blocks at the client" in out
    assert "TPOT         97.2 ms (limit 100 ms)" in out
    assert "block-steps  50.0 % saved (as the paper counts)" in out
    assert "server time  " in out
    lines = out.splitlines()
    assert lines[-10].split() == ["k", "TTFT", "TPOT", "server", "time", "cost", "rejected", "by"]
    assert [line.split()[0] for line in lines[-9:]] == [str(split) for split in range(9)]
    assert lines[-5].startswith("4 *")
    assert lines[-1].endswith("TPOT limit")


def test_what_if_for_programs(bundle: Bundle, profile: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(bundle, profile, capsys, "--client-ms-per-block", "12", "--rtt-ms", "40", "--sla-tpot-ms", "100")
    assert (found["split"], found["bound"], found["feasible"]) == (4, "tpot", True)
    assert found["saved"]["block_steps"] == 0.5
    # Alone: 8 · 20 + 1 for the prompt, 200 · 17 for the answer.
    assert found["server_ms_alone"] == pytest.approx(161 + 200 * 17)
    assert found["predicted"]["server_ms"] == pytest.approx(81 + 200 * 9)
    # Not given, so slower than one row by as much as this engine is.
    assert found["client"] == {"decode_ms": 12, "prefill_ms": 120}
    assert "candidates" not in found


def test_others_make_ticks_longer_and_the_session_cheaper(
    bundle: Bundle, profile: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--client-ms-per-block", "1", "--rtt-ms", "10")
    alone = answer(bundle, profile, capsys, *options)
    crowd = answer(bundle, profile, capsys, *options, "--sessions", "8")
    assert crowd["server_ms_alone"] < alone["server_ms_alone"]
    assert crowd["predicted"]["tpot_ms"] > alone["predicted"]["tpot_ms"]


def test_a_cap_and_a_link_that_is_too_long(bundle: Bundle, profile: str, capsys: pytest.CaptureFixture[str]) -> None:
    capped = answer(bundle, profile, capsys, "--client-ms-per-block", "1", "--effort", "0.25")
    assert (capped["split"], capped["bound"]) == (2, "effort")
    far = answer(bundle, profile, capsys, "--client-ms-per-block", "1", "--rtt-ms", "900")
    assert (far["split"], far["feasible"]) == (0, True)
    hopeless = ("--profile", profile, "--client-ms-per-block", "1", "--sla-tpot-ms", "0.5")
    assert run(bundle, *hopeless) == 3


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        ((), "--bundle needs --client-ms-per-block"),
        (("--client-ms-per-block", "1", "--sessions-split", "9"), "more than the model's 8 blocks"),
        (("--client-ms-per-block", "1", "--prompt-tokens", "99999"), "longer than the bundle's"),
        (("--client-ms-per-block", "1", "--policy", "all-server"), "--policy is for --problem"),
        (("--client-ms-per-block", "1", "--variant", "int2"), "int2"),
        (("--client-ms-per-block", "1", "--profile", "/nowhere/profile.json"), "there is no file"),
    ],
)
def test_wrong_use_is_explained(bundle: Bundle, profile: str, argv: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(SplitLLMError, match=sentence):
        run(bundle, "--profile", profile, *argv)


@pytest.mark.parametrize("value", ["-1", "nan", "inf", "1e10", "x", ""])
def test_figures_that_are_none_are_refused(bundle: Bundle, value: str) -> None:
    with pytest.raises(SystemExit) as caught:
        run(bundle, "--client-ms-per-block", value)
    assert caught.value.code == 2


def test_a_damaged_profile_is_named(bundle: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "bad.json"
    path.write_text('{"version": 1}', "utf-8")
    with pytest.raises(SplitLLMError, match=r"bad\.json"):
        run(bundle, "--profile", str(path), "--client-ms-per-block", "1")


def test_the_profile_that_was_used_can_be_saved(
    bundle: Bundle, profile: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = tmp_path / "saved.json"
    answer(bundle, profile, capsys, "--client-ms-per-block", "1", "--save-profile", str(saved))
    assert EngineProfile.from_json(json.loads(saved.read_text("utf-8"))) == PROFILE

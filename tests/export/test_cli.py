"""`splitllm export` and `splitllm verify` as people and scripts use them."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from splitllm.bundle import Bundle
from splitllm.cli import main

# torch cannot be imported in this process: what a machine without the export extra looks like.
_WITHOUT_TORCH = "import sys; sys.modules['torch'] = None; from splitllm.cli import main; sys.exit(main(sys.argv[1:]))"


def _without_torch(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", _WITHOUT_TORCH, *arguments], capture_output=True, text=True)


def test_export_ends_with_sizes_errors_and_the_next_command(
    make_checkpoint: Callable[..., Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    template = tmp_path / "template.jinja"
    template.write_text("{% for m in messages %}{{ m['content'] }}{% endfor %}")
    model = str(make_checkpoint())
    out = str(tmp_path / "out")
    assert main(["export", model, "--out", out, "--chat-template", str(template), "--name", "mine"]) == 0
    captured = capfd.readouterr()
    assert captured.out.startswith("mine: 1 blocks")
    assert captured.out.endswith(f"Next: splitllm serve {out}\n")
    assert "int4 blocks" in captured.out
    steps = ["reading the model 1/1", "exporting block 1/1", "exporting head 1/1", "checking block 1/1"]
    steps.append("reading a text 1/1")
    assert captured.err.splitlines() == steps
    assert Bundle.open(Path(out)).chat_template == template.read_text()


def test_json_is_the_only_thing_on_stdout(
    make_checkpoint: Callable[..., Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model, out = str(make_checkpoint()), str(tmp_path / "out")
    assert main(["export", model, "--out", out, "--client-dtype", "float32", "--max-context", "64", "--json"]) == 0
    summary = json.loads(capfd.readouterr().out)
    assert (summary["folder"], summary["blocks"], summary["max_context"]) == (out, 1, 64)
    assert list(summary["variants"]) == ["float32"]
    assert main(["verify", out, "--against", model, "--json"]) == 0
    report = json.loads(capfd.readouterr().out)
    assert (report["ok"], report["splits_checked"], report["problems"]) == (True, 2, [])
    assert report["max_abs_error"] < 1e-5


def test_wrong_use_and_failed_checks_have_their_exit_codes(
    bundle: Bundle, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(tmp_path / "nowhere"), "--out", str(tmp_path / "out")]) == 2
    assert capfd.readouterr().err == f"splitllm: {tmp_path / 'nowhere'}: no such folder\n"
    assert main(["verify", str(tmp_path / "nowhere")]) == 2
    assert main(["export", "x", "--out", str(tmp_path / "out"), "--chat-template", str(tmp_path / "none")]) == 2
    capfd.readouterr()
    copy = Path(shutil.copytree(bundle.folder, tmp_path / "copy"))
    (copy / "head.float32.bin").unlink()
    assert main(["verify", str(copy)]) == 3
    assert "head.float32.bin is missing" in capfd.readouterr().err
    assert main(["verify", str(copy), "--json"]) == 3
    report = json.loads(capfd.readouterr().out)
    assert (report["ok"], report["max_abs_error"]) == (False, None)


def test_without_torch_verify_still_checks_files_graphs_and_splits(bundle: Bundle) -> None:
    done = _without_torch("verify", str(bundle.folder), "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["graphs_loaded"], report["splits_checked"]) == (7, 4)


@pytest.mark.parametrize("command", [["export", "MODEL", "--out", "OUT"], ["verify", "BUNDLE", "--against", "MODEL"]])
def test_without_torch_the_missing_extra_is_named(bundle: Bundle, tmp_path: Path, command: list[str]) -> None:
    places = {"BUNDLE": str(bundle.folder), "OUT": str(tmp_path / "out"), "MODEL": "model"}
    done = _without_torch(*(places.get(word, word) for word in command))
    assert done.returncode == 1
    assert done.stderr == "splitllm: torch is missing; run `pip install 'splitllm[cpu,export]'`\n"

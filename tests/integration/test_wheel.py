"""The built wheel, alone in a fresh environment: no Node, no torch, and the demo works."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from tests.support import ServerProcess

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    built = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    [path] = out.glob("*.whl")
    return path


def test_the_wheel_holds_page_runtime_demo_and_types(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    for needed in (
        "splitllm/_page/index.html",
        "splitllm/_page/engine/v1.js",
        "splitllm/_page/engine/v1.d.ts",
        "splitllm/_demo/tiny-chat/manifest.json",
        "splitllm/_schemas/messages.schema.json",
        "splitllm/py.typed",
        "splitllm_export/__init__.py",
    ):
        assert needed in names
    assert any(name.endswith(".wasm") for name in names)
    assert not [name for name in names if "node_modules" in name or "__pycache__" in name or name.startswith("tests/")]


def test_the_wheel_alone_serves_the_demo_and_answers(wheel: Path, tmp_path: Path) -> None:
    environment = tmp_path / "venv"
    venv.create(environment)
    pip = [sys.executable, "-m", "pip", "--python", environment / "bin" / "python", "--disable-pip-version-check"]
    # Only what is run needs bytecode.
    install = [*pip, "install", "--quiet", "--no-compile", "-c", ROOT / "constraints.txt"]
    subprocess.run([*install, f"{wheel}[cpu]"], check=True, capture_output=True)
    installed = subprocess.run([*pip, "list"], check=True, capture_output=True, text=True).stdout
    assert "torch" not in installed
    assert "transformers" not in installed

    bare = {"PATH": f"{environment}/bin", "HOME": str(tmp_path), "PYTHONPATH": "", "PWD": str(tmp_path)}
    command = str(environment / "bin" / "splitllm")
    server = ServerProcess([command, "demo", "--no-browser", "--port", "0"], env=bare)
    try:
        told = subprocess.run(
            [command, "chat", server.url, "--prompt", "What is the capital of Japan?", "--split", "3"],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
            env={**os.environ, **bare},
        )
        assert told.returncode == 0, told.stderr
        assert "Tokyo" in told.stdout
    finally:
        assert server.stop() == 0

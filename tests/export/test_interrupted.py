"""However an export ends, its folder is whole or not there, and what a killed one left is removed by the next."""

import errno
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from splitllm.bundle import Bundle
from splitllm.errors import MachineError
from splitllm_export import layout
from splitllm_export.exporter import export_model

_EXPORT = "import sys; from splitllm.cli import main; sys.exit(main(sys.argv[1:]))"


def _killed(model: Path, out: Path, number: signal.Signals) -> int:
    """Start an export, send the signal as soon as it writes; its exit code."""
    command = [sys.executable, "-c", _EXPORT, "export", str(model), "--out", str(out)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 300
        while not list(out.parent.glob(f".{out.name}.partial-*/block.0.*")):
            assert process.poll() is None, "the export ended before it was interrupted"
            assert time.monotonic() < end
            time.sleep(0.005)
        process.send_signal(number)
        return process.wait(300)
    finally:
        process.kill()


def test_sigterm_leaves_nothing_and_what_sigkill_leaves_the_next_export_removes(
    make_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    model = make_checkpoint(num_hidden_layers=12)
    places = tmp_path / "bundles"
    places.mkdir()
    assert _killed(model, places / "out", signal.SIGTERM) == 130
    assert list(places.iterdir()) == []
    assert _killed(model, places / "out", signal.SIGKILL) == -signal.SIGKILL
    (left,) = places.iterdir()
    assert left.name.startswith(".out.partial-")
    shutil.rmtree(model)
    export_model(make_checkpoint(), places / "out", client_dtypes=())
    assert [path.name for path in places.iterdir()] == ["out"]
    assert Bundle.open(places / "out").spec.blocks == 1


def test_an_export_that_still_runs_keeps_its_folder(make_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    model, places = make_checkpoint(), tmp_path / "bundles"
    running, abandoned, other = (places / name for name in (".out.partial-a", ".out.partial-b", ".other.partial-c"))
    for folder in (running, abandoned, other):
        folder.mkdir(parents=True)
        (folder / "block.0.float32.bin").write_bytes(b"half")
    lock = os.open(running, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        export_model(model, places / "out", client_dtypes=())
    finally:
        os.close(lock)
    assert sorted(path.name for path in places.iterdir()) == [".other.partial-c", ".out.partial-a", "out"]


@pytest.mark.parametrize("after", [0, 100_000])
def test_a_full_disk_is_said_and_leaves_nothing(
    make_checkpoint: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    model, written = make_checkpoint(), 0
    write = layout.HashedFile.write

    def fill(file: layout.HashedFile, data: bytes) -> None:
        nonlocal written
        written += len(data)
        if written > after:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(file, data)

    monkeypatch.setattr(layout.HashedFile, "write", fill)
    with pytest.raises(MachineError, match=r"the disk is full, .* was not written; make room"):
        export_model(model, tmp_path / "deep" / "out")
    assert not (tmp_path / "deep").exists()


def test_what_the_disk_cannot_hold_is_not_begun(
    make_checkpoint: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_checkpoint()
    free = shutil.disk_usage(tmp_path)._replace(free=50_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: free)
    steps: list[str] = []
    with pytest.raises(MachineError, match=r"needs .* GB and .* has 5e-05 GB free; make room"):
        export_model(model, tmp_path / "out", progress=lambda what, *_: steps.append(what))
    assert steps == ["reading the model"]

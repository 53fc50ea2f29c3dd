"""A folder that appears at its place only when it is whole, however the work on it ends."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from splitllm.errors import MachineError

try:
    import fcntl
except ImportError:  # Windows: what a killed export left behind is not recognised there
    fcntl = None  # type: ignore[assignment]  # a module elsewhere


@contextlib.contextmanager
def published_whole(out: Path) -> Iterator[Path]:
    """A folder beside `out` that becomes `out` when the context ends well, and disappears when it does not.

    What exports that were killed have left beside `out` is removed first. A folder that is being worked on is locked,
    and the system drops the lock with the process, so the folder of another export that still runs is not touched.

    Raises:
        MachineError: the disk is full or cannot be written.
    """
    made: list[Path] = []
    folder: Path | None = None
    with contextlib.ExitStack() as locks:
        try:
            for parent in reversed([p for p in out.parents if not p.exists()]):
                parent.mkdir()
                made.append(parent)
            _remove_abandoned(out)
            folder = Path(tempfile.mkdtemp(prefix=_prefix(out), dir=out.parent))
            locks.callback(os.close, _lock(folder))
            yield folder
            folder.chmod(0o755)
            if out.exists():
                out.rmdir()  # empty, or this fails
            folder.rename(out)
        except BaseException as error:  # Ctrl-C and SIGTERM too
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)
            for parent in reversed(made):
                with contextlib.suppress(OSError):  # something else was put there meanwhile
                    parent.rmdir()
            if isinstance(error, OSError):
                raise _disk_error(out, error) from error
            raise


def check_space(out: Path, needed: int) -> None:
    """Refuse to begin what the disk cannot hold.

    Raises:
        MachineError: less than `needed` bytes are free where `out` is to be.
    """
    place = next(p for p in (out, *out.absolute().parents) if p.exists())
    free = shutil.disk_usage(place).free
    if free < needed:
        raise MachineError(
            f"the bundle needs {needed / 1e9:.3g} GB and {place} has {free / 1e9:.3g} GB free; "
            "make room, give another --out, or fewer --client-dtype"
        )


def _prefix(out: Path) -> str:
    return f".{out.name}.partial-"


def _lock(folder: Path) -> int:
    """An open, locked descriptor of the folder."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        if fcntl is not None:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _remove_abandoned(out: Path) -> None:
    if fcntl is None:
        return
    for left in out.parent.glob(f"{_prefix(out)}*"):
        with contextlib.suppress(OSError):  # locked, or not ours: it stays
            descriptor = _lock(left)
            try:
                shutil.rmtree(left, ignore_errors=True)
            finally:
                os.close(descriptor)


def _disk_error(out: Path, error: OSError) -> MachineError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return MachineError(f"the disk is full, {out} was not written; make room (--dry-run says how much is needed)")
    return MachineError(f"{out} cannot be written ({error.strerror or error}); check the disk")

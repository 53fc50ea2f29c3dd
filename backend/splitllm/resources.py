"""Where the files that travel with the package lie: in the wheel inside the package, in a checkout beside it."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

from .errors import MachineError

_PACKAGE = Path(__file__).resolve().parent
_CHECKOUT = _PACKAGE.parent.parent


def _first_existing(what: str, hint: str, *candidates: Path) -> Path:
    for path in candidates:
        if path.exists():
            return path
    raise MachineError(f"{what} not found; {hint}")


@functools.cache
def schema(name: str) -> dict[str, Any]:
    """The JSON Schema `name` (`messages` or `manifest`)."""
    file = f"{name}.schema.json"
    path = _first_existing(
        f"schema {file}",
        "reinstall splitllm",
        _PACKAGE / "_schemas" / file,
        _CHECKOUT / "protocol" / "schemas" / file,
    )
    loaded: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return loaded


def page_folder() -> Path:
    """The built web page."""
    return _first_existing("the built web page", "run `make setup` in the checkout", _PACKAGE / "_page")


def demo_bundle() -> Path:
    """The bundle of tiny-chat."""
    return _first_existing(
        "the tiny-chat bundle",
        "run `make demo-model` in the checkout",
        _PACKAGE / "_demo" / "tiny-chat",
        _CHECKOUT / "demo" / "bundle",
    )

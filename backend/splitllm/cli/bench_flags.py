"""What several commands have in common: the promise, and figures."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..manifest import VARIANTS
from ..types import Sla
from .argument_types import positive


def add_sla(parser: Any) -> None:
    """Add the two flags of the latency promised; `sla` reads them."""
    for flag, default, what in (
        ("--sla-ttft-ms", Sla().ttft_ms, "promised time to the first token"),
        ("--sla-tpot-ms", Sla().tpot_ms, "promised time per further token"),
    ):
        parser.add_argument(flag, type=positive, default=default, metavar="X", help=f"{what} (default: %(default)g)")


def sla(args: argparse.Namespace) -> Sla:
    """The latency promised."""
    return Sla(args.sla_ttft_ms, args.sla_tpot_ms)


def add_variant(parser: Any, help_text: str) -> None:
    """Add the flag that says which weights are measured."""
    parser.add_argument("--variant", choices=VARIANTS, help=help_text)


def draw(draw_all: Callable[[dict[str, Any], Path], list[Path]], result: dict[str, Any], folder: str | None) -> None:
    """Draw a result's figures into `folder`, and say where they are; None: none are wanted.

    Raises:
        UsageError: matplotlib is not installed, or the folder cannot be written.
    """
    if folder is None:
        return
    try:
        paths = draw_all(result, Path(folder))
    except ImportError as error:
        raise UsageError("figures need matplotlib: install splitllm[bench]") from error
    except OSError as error:
        raise UsageError(f"the figures cannot be written ({error.strerror}): give --figures a folder") from error
    for path in paths:
        print(f"wrote {path}", file=sys.stderr)

"""`--trusted-key`: the public keys of those whose bundles are taken (`splitllm sign` signs one)."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..signature import TrustedKey, read_trusted_key


def add_trusted_key(parser: Any, act: str) -> None:
    """Add the flag; `act` says what is done only with a signed bundle. `trusted_keys` reads the keys."""
    parser.add_argument(
        "--trusted-key",
        type=Path,
        action="append",
        default=[],
        metavar="F",
        help=f"{act} only if the holder of this public key has signed it (`splitllm sign`); may be given more than "
        "once, then one of them must have",
    )


def trusted_keys(args: argparse.Namespace) -> list[TrustedKey]:
    """The keys that were given.

    Raises:
        UsageError: a file holds none.
        MachineError: `cryptography` is missing.
    """
    return [read_trusted_key(path) for path in args.trusted_key]

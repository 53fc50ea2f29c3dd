"""`splitllm key NAME`: make an API key, and let a server's file know it."""

from __future__ import annotations

import argparse
import json
import os
import re
from pathlib import Path
from typing import Any

from ..errors import UsageError
from .argument_types import count
from .help_text import HelpFormatter

_DESCRIPTION = """\
Make an API key. It is printed once and kept nowhere; the file gets its name and hash, and `splitllm serve
--api-key-file` lets in who gives the key. A running server takes new keys when it is started again. To take a key back,
remove its line.
"""


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "key",
        help="make an API key for `splitllm serve --api-key-file`",
        description=_DESCRIPTION,
        epilog="Example: splitllm key alice --file keys --block-tokens-per-minute 100000",
        formatter_class=HelpFormatter,
    )
    parser.add_argument(
        "name", metavar="NAME", help="whose key it is, for the logs: letters, digits, dots, dashes and underscores"
    )
    parser.add_argument("--file", type=Path, required=True, metavar="F", help="file that gets the key's hash")
    parser.add_argument(
        "--block-tokens-per-minute",
        type=count,
        metavar="N",
        help="what the key may cost: tokens times blocks that the server runs for it (default: no bound)",
    )
    parser.add_argument(
        "--requests-per-minute",
        type=count,
        metavar="N",
        help="how often the key may ask: turns of its sessions and API requests together (default: no bound)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object, for machines")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Make one key.

    Raises:
        UsageError: the name is none or taken, or the file cannot be written.
    """
    from ..server.access import NAME, hash_of, new_key, read_keys

    if not re.fullmatch(NAME, args.name):
        raise UsageError(f"{args.name!r} is not a name; use up to 64 letters, digits, dots, dashes and underscores")
    if args.file.exists() and args.name in read_keys(args.file):
        raise UsageError(f"{args.file} has a key named {args.name} already; choose another name, or remove its line")
    text = new_key()
    bounds = [args.block_tokens_per_minute, args.requests_per_minute]
    bound = "".join(f":{'' if each is None else each}" for each in bounds).rstrip(":")
    try:
        descriptor = os.open(args.file, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "a+", encoding="utf-8") as file:
            file.seek(0)
            before = file.read()
            if before and not before.endswith("\n"):  # as some editors leave it
                file.write("\n")
            file.write(f"{args.name}:{hash_of(text).hex()}{bound}\n")
    except OSError as error:
        raise UsageError(f"{args.file} cannot be written ({error.strerror}); name another file") from None
    if args.json:
        print(json.dumps({"name": args.name, "key": text}))
    else:
        print(f"{text}\nThis is the key of {args.name}; it cannot be shown again.")
    return 0

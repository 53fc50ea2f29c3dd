"""`splitllm COMMAND`: finds the command, and turns errors into one line and an exit code."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence

from .. import __version__
from ..errors import SplitLLMError
from . import bench, chat, demo, export, key, plan, serve, sign, verify
from .help_text import HelpFormatter
from .terminal import printable

_EPILOG = """\
Start here:
  splitllm demo                                   chat with the small model that comes along
  splitllm export MODEL --out DIR                 make a bundle of your own model
  splitllm serve DIR                              serve it

Exit codes: 0 done, 2 wrong use, 3 infeasible or verification failed, 1 anything else.
"""


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = argparse.ArgumentParser(
        prog="splitllm",
        description="Run one language model on two machines: its first blocks in the browser, the rest on a server.",
        epilog=_EPILOG,
        formatter_class=HelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"splitllm {__version__}")
    top.add_argument("--verbose", action="store_true", help="log what happens, on stderr")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for module in (demo, export, verify, sign, serve, key, plan, chat, bench):
        module.add_parser(commands)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    args = parser().parse_args(argv)
    logging.basicConfig(
        level=logging.INFO if args.verbose else logging.WARNING,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    try:
        code: int = args.run(args)
        return code
    except SplitLLMError as error:
        print(f"splitllm: {printable(error.message)}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("splitllm: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `splitllm … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1

"""`splitllm demo`: serve the small model that comes along, and open the page."""

from __future__ import annotations

import argparse
from typing import Any

from ..resources import demo_bundle
from ..server.config import ModelSource
from .serve import add_server_options, serve_models


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "demo",
        help="chat with the small model that comes along",
        description="Serve tiny-chat, a model of 1.6 million parameters, and open its page. Nothing is downloaded.",
    )
    add_server_options(parser)
    parser.add_argument("--no-browser", action="store_true", help="do not open a browser")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Serve the demo until stopped."""
    return serve_models(args, [ModelSource(demo_bundle())], open_browser=not args.no_browser)

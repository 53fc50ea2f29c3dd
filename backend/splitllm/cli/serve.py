"""`splitllm serve DIR [DIR ...]`: serve bundles, their page and their sessions."""

from __future__ import annotations

import argparse
import logging
import os
import re
import shutil
import sys
import threading
import webbrowser
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import MachineError, UsageError
from ..manifest import VARIANTS
from ..server.config import ModelSource, ServerConfig
from ..types import MAX_SESSIONS
from .argument_types import count, not_negative, positive, whole
from .bench_flags import add_sla, sla
from .help_text import HelpFormatter
from .trusted_keys import add_trusted_key

#: Back to the line's begin, and clear it.
_CLEAR_LINE = "\r\x1b[2K"
_EPILOG = """\
While it runs:
  /                       the chat page
  /v1/chat/completions    for OpenAI's clients, with base URL http://H:P/v1
  /metrics                for Prometheus
  /ready, /health         for load balancers and supervisors
  Ctrl-C or SIGTERM       stop when answers in work have finished; twice: at once

Example: splitllm serve ./bundle --port 8000 --sla-tpot-ms 100
         splitllm serve ./small large=./other --memory 8g     # two models, the first for who names none
"""
#: Characters of a model's name (PROTOCOL.md, section 1).
_LONGEST_NAME = 200
#: Each session of the runtime has a pool of them: up to one a block.
_MOST_THREADS = 256
_UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "serve",
        help="serve a bundle, or several: page, weights and sessions",
        description="Serve bundles: the chat page, the weights that browsers fetch, sessions, and OpenAI's clients.",
        epilog=_EPILOG,
        formatter_class=HelpFormatter,
    )
    parser.add_argument(
        "models",
        type=Path,
        nargs="+",
        metavar="DIR",
        help="bundle folder, as made by `splitllm export`; several are served side by side, each under its model's "
        "name or, with NAME=DIR, under another",
    )
    add_server_options(parser)
    parser.set_defaults(run=run)


def add_server_options(parser: argparse.ArgumentParser) -> None:
    """Options that `serve` and `demo` share."""
    address = parser.add_argument_group("Address")
    address.add_argument("--host", default="127.0.0.1", metavar="H", help="address to listen on (default: %(default)s)")
    address.add_argument(
        "--port",
        default=8000,
        type=whole(high=65535),
        metavar="P",
        help="port, 0 for a free one (default: %(default)s)",
    )
    address.add_argument(
        "--admin-port",
        type=whole(high=65535),
        metavar="P",
        help="serve /metrics on this port of 127.0.0.1 alone, not with the rest",
    )
    address.add_argument(
        "--allowed-origin",
        type=origin,
        action="append",
        default=[],
        metavar="O",
        help="another origin whose pages may connect, such as https://chat.example.org; may be given more than once",
    )
    address.add_argument(
        "--api-key-file",
        type=Path,
        metavar="F",
        help="let only those in whose API key stands in this file; `splitllm key` makes it",
    )
    address.add_argument(
        "--without-api-key",
        action="store_true",
        help="listen beyond this machine although anybody can then use the server",
    )
    add_trusted_key(address, "serve a bundle")
    promise = parser.add_argument_group("Latency promised")
    add_sla(promise)
    limits = parser.add_argument_group("Limits")
    limits.add_argument(
        "--max-sessions", type=count, default=MAX_SESSIONS, metavar="N", help="sessions at once (default: %(default)s)"
    )
    limits.add_argument(
        "--kv-memory",
        type=size,
        metavar="BYTES",
        help="memory for keys and values of all models' sessions, such as 4g (default: enough for --max-sessions)",
    )
    limits.add_argument(
        "--memory",
        type=size,
        metavar="BYTES",
        help="memory for weights and for keys and values together; the start is refused where they do not fit; "
        "what weights leave is the default of --kv-memory",
    )
    limits.add_argument(
        "--idle-timeout-s",
        type=positive,
        default=600.0,
        metavar="X",
        help="end sessions that are silent for so long (default: %(default)s)",
    )
    limits.add_argument(
        "--grace-s",
        type=not_negative,
        default=60.0,
        metavar="X",
        help="keep a session whose connection is lost for its client so long; 0 keeps none (default: %(default)s)",
    )
    limits.add_argument(
        "--queue-s",
        type=not_negative,
        default=60.0,
        metavar="X",
        help="who finds the server full waits in line so long before it is refused; 0 refuses at once "
        "(default: %(default)s)",
    )
    limits.add_argument(
        "--queue-length",
        type=whole(),
        default=64,
        metavar="N",
        help="so many may wait in line; 0 refuses at once (default: %(default)s)",
    )
    limits.add_argument(
        "--evict-idle-s",
        type=not_negative,
        default=30.0,
        metavar="X",
        help="a chat whose person thinks for so long gives its memory to who waits, and has it rebuilt with its next "
        "question; 0: never (default: %(default)s)",
    )
    limits.add_argument(
        "--drain-s",
        type=positive,
        default=30.0,
        metavar="X",
        help="when told to stop, let answers in work finish for so long (default: %(default)s)",
    )
    machine = parser.add_argument_group("Machine")
    machine.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="where the server computes (default: %(default)s)",
    )
    machine.add_argument(
        "--variant",
        choices=VARIANTS,
        help="weights that the server computes with (default: what the bundle says, see `splitllm export`)",
    )
    machine.add_argument(
        "--threads", type=whole(1, _MOST_THREADS), metavar="N", help="threads to compute with (default: all cores)"
    )
    machine.add_argument(
        "--no-profile-cache",
        action="store_true",
        help="measure the engine anew at this start; otherwise its times are kept, by bundle and machine",
    )
    watching = parser.add_argument_group("Watching")
    watching.add_argument(
        "--session-log",
        metavar="FILE",
        help="append a line of JSON for each session that ends; - is stderr (default: stderr, unless a terminal)",
    )


def run(args: argparse.Namespace) -> int:
    """Serve until stopped."""
    return serve_models(args, [model_source(argument) for argument in args.models])


def model_source(argument: Path) -> ModelSource:
    """`DIR`, or `NAME=DIR` where no folder has that name.

    Raises:
        UsageError: the name cannot be one.
    """
    name, given, folder = str(argument).partition("=")
    if not given or argument.is_dir():
        return ModelSource(argument)
    if not (1 <= len(name) <= _LONGEST_NAME and name.isprintable() and name == name.strip()) or not folder:
        raise UsageError(
            f"{str(argument)!r} is not NAME=DIR; a name has 1 to {_LONGEST_NAME} letters, such as small=./dir"
        )
    return ModelSource(Path(folder), name)


def origin(text: str) -> str:
    """What browsers send as `Origin` (RFC 6454, section 7)."""
    usual_port = re.fullmatch(r"http://.*:80|https://.*:443", text)
    if usual_port or not re.fullmatch(r"[a-z][a-z0-9+.-]*://[^\s/?#@*A-Z\x80-\U0010ffff]+", text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not an origin; write scheme, host and, if it is not the usual one, port, in small letters "
            "with nothing behind them, such as https://chat.example.org (xn--… for a name beyond ASCII)"
        )
    return text


def serve_models(args: argparse.Namespace, models: Sequence[ModelSource], *, open_browser: bool = False) -> int:
    """Serve these until SIGINT or SIGTERM."""
    serve_module = import_server()
    from ..engines.profiling import cache_folder
    from ..planner.reasons import size as bytes_text
    from ..resources import page_folder
    from ..server.static import is_loopback

    if args.api_key_file is not None and args.without_api_key:
        raise UsageError("--api-key-file and --without-api-key contradict each other; give one of them")
    if not is_loopback(args.host) and args.api_key_file is None and not args.without_api_key:
        raise UsageError(
            f"{args.host} can be reached from other machines; add --api-key-file F with keys made by `splitllm key`, "
            "or --without-api-key to let anybody in"
        )
    if args.admin_port == args.port != 0:
        raise UsageError(f"--port and --admin-port are both {args.port}; give two ports")
    config = ServerConfig(
        page=page_folder(),
        host=args.host,
        port=args.port,
        sla=sla(args),
        max_sessions=args.max_sessions,
        kv_memory_bytes=args.kv_memory,
        memory_bytes=args.memory,
        allowed_origins=tuple(args.allowed_origin),
        api_key_file=args.api_key_file,
        trusted_keys=tuple(args.trusted_key),
        admin_port=args.admin_port,
        idle_timeout_s=args.idle_timeout_s,
        grace_s=args.grace_s,
        threads=args.threads,
        device=args.device,
        variant=args.variant,
        profile_cache=None if args.no_profile_cache else cache_folder(os.environ),
        queue_s=args.queue_s,
        queue_length=args.queue_length,
        evict_idle_s=args.evict_idle_s,
        drain_s=args.drain_s,
    )
    write_session_log(args.session_log)
    on_terminal = sys.stdout.isatty()

    def announce(server: Any, url: str) -> None:
        for model in server.models.values():
            spec, choice, budget = model.bundle.spec, model.runner.engine.choice, model.admission.budget
            print(
                f"{model.name}: {spec.blocks} blocks, {spec.max_context} tokens of context; "
                f"{choice.blocks} on {choice.device}, head {choice.head}; "
                f"weights {bytes_text(model.bundle.weight_bytes(choice.blocks, choice.head))}, keys and values "
                f"{bytes_text(budget.cost(0, spec.max_context))} for a session of the whole context",
                flush=True,
            )
            if model.bundle.signer is not None and config.trusted_keys:
                print(f"{model.name} is signed with the trusted key {model.bundle.signer[:16]}…", flush=True)
            if choice.note:
                print(f"Note: {choice.note}", flush=True)
        print(f"Keys and values of all sessions: at most {bytes_text(server.pool.limit_bytes)}.", flush=True)
        print(f"Open {url} in a browser with WebGPU. Ctrl-C stops the server.", flush=True)
        if open_browser:
            # A text browser on a machine without a display would keep whoever calls it; that must not be the server.
            threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()

    narrator = serve_module.Narrator(
        ready=announce,
        news=lambda line: print(f"{_CLEAR_LINE if on_terminal else ''}{line}", flush=True),
        summary=show_live if on_terminal else lambda line: print(line, flush=True),
        summary_every_s=1.0 if on_terminal else 60.0,
        every_summary=on_terminal,
    )
    serve_module.serve(models, config, narrator)
    return 0


def show_live(line: str) -> None:
    """Put a line in the place of the last one, on a terminal."""
    print(f"{_CLEAR_LINE}{line[: shutil.get_terminal_size().columns - 1]}", end="", flush=True)


def write_session_log(target: str | None) -> None:
    """Send the lines of sessions that end to a file or to stderr, and nowhere else.

    Raises:
        UsageError: the file cannot be written.
    """
    logger = logging.getLogger("splitllm.sessions")
    if target is None and sys.stderr.isatty():  # the live summary is what a person reads there
        return
    try:
        to_stderr = target is None or target == "-"
        handler = logging.StreamHandler() if to_stderr else logging.FileHandler(str(target), encoding="utf-8")
    except OSError as error:
        raise UsageError(f"--session-log {target} cannot be written ({error.strerror}); name another file") from None
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False


def import_server() -> Any:
    """The server, whose runtime may be missing.

    Raises:
        MachineError: ONNX Runtime is not installed.
    """
    try:
        from ..server import serve
    except ModuleNotFoundError as error:
        if error.name != "onnxruntime":
            raise
        raise MachineError("ONNX Runtime is missing; run `pip install 'splitllm[cpu]'` (or [gpu])") from None
    return serve


def size(text: str) -> int:
    """Bytes, with an optional unit k, m, g or t."""
    match = re.fullmatch(r"(\d{1,15})([kmgt]?)(?:i?b)?", text.strip().lower())
    if match is None:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a size; write bytes, or a number with k, m, g or t, such as 4g"
        )
    return int(match[1]) * _UNITS[match[2]]

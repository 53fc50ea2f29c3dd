"""`splitllm chat URL`: the Python client; runs the first blocks here, as a browser does."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import re
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ..errors import MachineError, SplitLLMError, UsageError, unread
from ..types import SamplingParams
from .argument_types import count, number, share, share_above_0, whole
from .help_text import HelpFormatter
from .terminal import printable
from .trusted_keys import add_trusted_key, trusted_keys

if TYPE_CHECKING:
    from ..client.conversation import Answer, Conversation

_VARIANTS = ("float32", "float16", "int8", "int4", "int4f16")


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "chat",
        help="chat with a server from the terminal, running the first blocks here",
        description="Chat with a server. The first blocks of the model run here, as they would in a browser.",
        epilog='Example:\n  splitllm chat http://127.0.0.1:8000 --prompt "What is the capital of Japan?"',
        formatter_class=HelpFormatter,
    )
    parser.add_argument("url", metavar="URL", help="the server, such as http://127.0.0.1:8000")
    parser.add_argument("--model", metavar="NAME", help="one of the server's models (default: its first)")
    parser.add_argument(
        "--prompt",
        action="append",
        metavar="TEXT",
        help="ask this; several are turns of one conversation; without any, type them",
    )
    parser.add_argument(
        "--split",
        type=split,
        default=None,
        metavar="auto|K",
        help="blocks to run here (default: auto, the planner chooses)",
    )
    parser.add_argument(
        "--effort",
        type=share,
        default=None,
        metavar="E",
        help="largest share of the blocks to run here, 0 to 1 (default: as many as the planner wants)",
    )
    parser.add_argument(
        "--variant",
        choices=_VARIANTS,
        default="float32",
        help="weights of the blocks that run here (default: %(default)s)",
    )
    parser.add_argument(
        "--wire",
        choices=("float16", "float32"),
        default="float16",
        help="what hidden states are sent as (default: %(default)s)",
    )
    parser.add_argument(
        "--max-tokens", type=count, default=256, metavar="N", help="longest answer (default: %(default)s)"
    )
    parser.add_argument(
        "--temperature",
        type=number(high=100),
        default=0.0,
        metavar="T",
        help="0 always takes the likeliest token (default: %(default)s)",
    )
    parser.add_argument(
        "--top-p",
        type=share_above_0,
        default=1.0,
        metavar="P",
        help="keep the likeliest tokens up to this share (default: %(default)s)",
    )
    parser.add_argument(
        "--top-k",
        type=whole(),
        default=0,
        metavar="K",
        help="keep the K likeliest tokens, 0 for all (default: %(default)s)",
    )
    parser.add_argument(
        "--min-p",
        type=share,
        default=0.0,
        metavar="P",
        help="drop tokens less likely than P times the likeliest (default: %(default)s)",
    )
    parser.add_argument(
        "--repetition-penalty",
        type=number(high=100, above=True),
        default=1.0,
        metavar="R",
        help="above 1 discourages tokens used before (default: %(default)s)",
    )
    parser.add_argument("--seed", type=whole(), metavar="S", help="makes sampling repeatable")
    parser.add_argument(
        "--stop",
        action="append",
        default=[],
        metavar="TEXT",
        help="end the answer before this text; may be given up to 8 times",
    )
    parser.add_argument(
        "--cache", type=Path, metavar="DIR", help="folder that keeps weights (default: ~/.cache/splitllm)"
    )
    parser.add_argument(
        "--key-file",
        type=Path,
        metavar="F",
        help="file that holds the API key for the server (default: the environment variable SPLITLLM_API_KEY)",
    )
    add_trusted_key(parser, "use the server's bundle")
    parser.add_argument("--json", action="store_true", help="print one JSON object per turn")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Chat."""
    if len(args.stop) > 8 or any(not 1 <= len(text) <= 200 for text in args.stop):
        raise UsageError("--stop takes 1 to 200 characters and may be given at most 8 times")
    if any(not prompt.strip() for prompt in args.prompt or ()):
        raise UsageError("--prompt is empty; write a question")
    try:
        from ..client import conversation
    except ModuleNotFoundError as error:
        if error.name != "onnxruntime":
            raise
        raise MachineError("ONNX Runtime is missing; run `pip install 'splitllm[cpu]'`") from None
    return asyncio.run(_chat(args, _server(args.url), conversation.Conversation))


async def _chat(args: argparse.Namespace, server: str, conversation_class: type[Conversation]) -> int:
    from ..client.download import default_cache

    conversation = await conversation_class.open(
        server,
        cache=args.cache or default_cache(),
        model=args.model,
        split=args.split,
        effort=args.effort,
        variant=args.variant,
        wire=args.wire,
        first_prompt=args.prompt[0] if args.prompt else "",
        api_key=api_key(args.key_file),
        trusted=trusted_keys(args),
        progress=_progress if sys.stderr.isatty() else None,
        in_line=_in_line,
    )
    sampling = SamplingParams(args.temperature, args.top_p, args.top_k, args.min_p, args.repetition_penalty, args.seed)
    try:
        async for prompt in _prompts(args):
            try:
                async for item in conversation.ask(
                    prompt, max_tokens=args.max_tokens, sampling=sampling, stop=args.stop
                ):
                    _show(item, as_json=args.json)
            except SplitLLMError as error:
                if args.prompt or error.exit_code == 1:
                    raise
                print(f"splitllm: {printable(error.message)}", file=sys.stderr)  # typed: the person may shorten it
    finally:
        await conversation.close()
    return 0


def api_key(file: Path | None) -> str | None:
    """The key to give: never an argument, which other users of the machine could see.

    Raises:
        UsageError: the file cannot be read, or holds no key.
    """
    if file is None:
        key = os.environ.get("SPLITLLM_API_KEY") or None
    else:
        try:
            key = file.read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(
                f"--key-file {file} cannot be read ({unread(error)}); give a file that holds the key alone"
            ) from None
    if key is not None and not re.fullmatch(r"[!-~]+", key):
        given = "SPLITLLM_API_KEY" if file is None else f"--key-file {file}"
        raise UsageError(f"{given} holds no API key, which is one word; give one that holds the key alone")
    return key


async def _prompts(args: argparse.Namespace) -> AsyncIterator[str]:
    if args.prompt:
        for prompt in args.prompt:
            if not args.json:
                print(f"> {prompt}", flush=True)
            yield prompt
        return
    while (prompt := await _typed("> " if sys.stdin.isatty() else "")) is not None:
        if prompt.strip():
            yield prompt


async def _typed(mark: str) -> str | None:
    """A line from the person, None at the end. Read in a daemon thread, which does not keep Ctrl-C waiting."""
    loop = asyncio.get_running_loop()
    line: asyncio.Future[str | None] = loop.create_future()

    def settle(text: str | None) -> None:
        if not line.done():
            line.set_result(text)

    def read() -> None:
        text: str | None = None
        with contextlib.suppress(EOFError):  # the end, which None says
            text = input(mark)
        with contextlib.suppress(RuntimeError):  # the loop is closed: the person pressed Ctrl-C meanwhile
            loop.call_soon_threadsafe(settle, text)

    threading.Thread(target=read, daemon=True).start()
    return await line


def _show(item: str | Answer, *, as_json: bool) -> None:
    if isinstance(item, str):
        if not as_json:
            print(printable(item), end="", flush=True)
    elif as_json:
        print(json.dumps(item.to_json(), ensure_ascii=False), flush=True)
    else:
        print()
        speed = f", {1000 / item.tpot_ms:.1f} tokens/s" if item.tpot_ms else ""
        first = f", first token after {item.ttft_ms:.0f} ms" if item.ttft_ms is not None else ""
        was = " then ".join(str(split) for split in item.splits)
        saved = _saved(item)
        print(f"[{was} of {item.blocks} blocks here{first}{speed}{saved}] {printable(item.reason)}", file=sys.stderr)


def _saved(answer: Answer) -> str:
    """Both savings, each under its name."""
    steps = answer.server_blocks_run + answer.server_blocks_saved
    server_ms = answer.server_ms_run + answer.server_ms_saved
    if not steps or not server_ms:
        return ""
    by_steps, by_time = answer.server_blocks_saved / steps, answer.server_ms_saved / server_ms
    return f", server saved {100 * by_steps:.0f} % of block-steps and {100 * by_time:.0f} % of its time"


def _progress(done: int, total: int) -> None:
    end = "\n" if done == total else ""
    print(f"\rfetching weights: {done / 1e6:.1f} of {total / 1e6:.1f} MB", end=end, file=sys.stderr, flush=True)


def _in_line(place: int) -> None:
    print(f"The server is full; you are number {place} in line.", file=sys.stderr, flush=True)


def _server(url: str) -> str:
    """The server's origin.

    Raises:
        UsageError: it is no HTTP address.
    """
    try:
        parts = urlsplit(url)
        valid = (
            parts.scheme in ("http", "https") and bool(parts.hostname) and parts.path in ("", "/") and not parts.query
        )
        _ = parts.port
    except ValueError:
        valid = False
    if not valid:
        raise UsageError(f"{url!r} is not a server's address; write it like http://127.0.0.1:8000")
    return f"{parts.scheme}://{parts.netloc}"


def split(text: str) -> int | None:
    """`auto` (None) or a whole number."""
    return None if text == "auto" else whole()(text)

"""`splitllm export MODEL --out DIR`: a Hugging Face model becomes a verified bundle."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from ..errors import MachineError, UsageError, unread
from ..manifest import VARIANTS
from .argument_types import count
from .help_text import HelpFormatter

Progress = Callable[[str, int, int], None]

_CLIENT_DTYPES: Final = ("float32", "int4")
_HEAVY: Final = ("onnx", "onnxruntime", "optimum", "torch", "transformers")
_TEMPLATE_LIMIT: Final = 100_000
_TEXT_LIMIT: Final = 10_000_000


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "export",
        help="make a bundle of a Hugging Face model",
        description="Export a model to a bundle: one folder that serves every split between browser and server. "
        "The bundle appears only when its blocks compute what transformers computes.",
        epilog="Example:\n  splitllm export HuggingFaceTB/SmolLM2-135M-Instruct --out ./smollm2",
        formatter_class=HelpFormatter,
    )
    parser.add_argument("model", metavar="MODEL", help="folder in Hugging Face's layout, or a name on the Hub")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the bundle goes; new or empty")
    parser.add_argument(
        "--server-dtype",
        choices=VARIANTS,
        default="float32",
        metavar="D",
        help=f"weights on the server: {', '.join(VARIANTS)} (default: %(default)s; float32 is always there too)",
    )
    parser.add_argument(
        "--client-dtype",
        choices=VARIANTS,
        action="append",
        metavar="D",
        help="weights for browsers, the same choices; may be given more than once (default: float32 and int4)",
    )
    parser.add_argument(
        "--max-context",
        type=count,
        metavar="N",
        help="tokens a session may hold (default: what the model can do, at most 8192)",
    )
    parser.add_argument(
        "--chat-template", type=Path, metavar="FILE", help="Jinja chat template to use instead of the tokenizer's"
    )
    parser.add_argument(
        "--text",
        type=Path,
        metavar="FILE",
        help="ordinary text of the kind the model is for, to measure int8 and int4 on (default: a page of prose)",
    )
    parser.add_argument(
        "--trust-remote-code",
        action="store_true",
        help="run Python code that comes with the model; only for authors you trust",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="say what the bundle would take, in bytes and memory, and write nothing"
    )
    parser.add_argument("--name", metavar="NAME", help="the model's name (default: the last part of MODEL)")
    parser.add_argument("--json", action="store_true", help="print the summary as one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Export, then say what was made and what to do next."""
    options = {
        "server_dtype": args.server_dtype,
        "client_dtypes": tuple(args.client_dtype or _CLIENT_DTYPES),
        "max_context": args.max_context,
        "chat_template": _read_text(args.chat_template, "a chat template", _TEMPLATE_LIMIT),
        "name": args.name,
        "text": _read_text(args.text, "text to measure on", _TEXT_LIMIT),
        "trust_remote_code": args.trust_remote_code,
    }
    exporter = import_exporter("exporter")
    with terminated_like_interrupted():
        if args.dry_run:
            plan = exporter.plan_export(args.model, args.out, **options)
            print(json.dumps(plan.as_json()) if args.json else _plan_text(plan))
            return 0
        with progress_on_stderr() as progress:
            summary = exporter.export_model(args.model, args.out, progress=progress, **options)
    print(json.dumps(summary.as_json()) if args.json else _text(summary))
    return 0


@contextlib.contextmanager
def terminated_like_interrupted() -> Iterator[None]:
    """Within this context SIGTERM ends the work as Ctrl-C does, so that what is half done is removed."""
    former = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)


def import_exporter(module: str) -> Any:
    """A module of the exporter, found when it is needed: the backend does without torch and its like.

    Raises:
        MachineError: a library that only exporting needs is not installed.
    """
    try:
        return importlib.import_module(f"splitllm_export.{module}")
    except ModuleNotFoundError as error:
        missing = (error.name or "").split(".")[0]
        if missing not in (*_HEAVY, "splitllm_export"):
            raise
        extra = "cpu" if missing == "onnxruntime" else "cpu,export"
        raise MachineError(f"{missing} is missing; run `pip install 'splitllm[{extra}]'`") from None


class progress_on_stderr:  # noqa: N801  # a context manager, used like a function
    """A progress callback: one line that is rewritten on a terminal, one line for each piece of work elsewhere."""

    def __enter__(self) -> Progress:
        self._open, self._what, self._began = False, "", 0.0
        return self._tell

    def __exit__(self, *_: object) -> None:
        self._end()

    def _tell(self, what: str, done: int, of: int) -> None:
        if what != self._what:
            # The first piece may be told only when it is done; then its time is missing, and the rest is estimated low.
            self._what, self._began = what, time.monotonic()
        left = _left_text((time.monotonic() - self._began) * (of - done) / done) if 0 < done < of else ""
        if sys.stderr.isatty():
            filled = 24 * done // of
            line = f"{what:<18} [{'#' * filled}{'.' * (24 - filled)}] {done}/{of}{left}"
            print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)
            self._open = True
            if done == of:
                self._end()
        elif done:
            print(f"{what} {done}/{of}{left}", file=sys.stderr, flush=True)

    def _end(self) -> None:
        if self._open:
            print(file=sys.stderr)
        self._open = False


def _left_text(seconds: float) -> str:
    if seconds < 5:
        return ""
    return f", {seconds:.0f} s left" if seconds < 90 else f", {seconds / 60:.0f} min left"


def size_text(count: float) -> str:
    """Bytes for people: 512 B, 1.5 kB, 12.3 MB."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"


def figures_text(variant: str, figures: Mapping[str, float], reference: str = "transformers") -> str:
    """How far a variant is from the exact model, in words."""
    parts = []
    if "max_abs_error" in figures:
        parts.append(f"logits within {figures['max_abs_error']:.2g} of {reference}")
    if "top1_agreement" in figures:
        parts.append(f"same next token in {figures['top1_agreement']:.1%} of positions")
    if "kl_divergence" in figures:
        parts.append(f"KL divergence {figures['kl_divergence']:.2g} nats")
    return f"{variant}: {', '.join(parts)}"


def _text(summary: Any) -> str:
    lines = [
        f"{summary.name}: {summary.blocks} blocks, {summary.parameters / 1e6:.3g} M parameters, "
        f"{summary.max_context} tokens of context",
        f"  bundle {size_text(summary.total_bytes)}, of it embedding {size_text(summary.embedding_bytes)}, "
        f"head {size_text(summary.head_bytes)}",
    ]
    for variant, figures in summary.variants.items():
        lines.append(f"  {variant} blocks {size_text(figures['bytes'])}, {size_text(figures['block_bytes'])} each")
    lines += [f"  {figures_text(variant, figures)}" for variant, figures in summary.variants.items()]
    lines += [f"  {figures_text(f'{variant} on a server', figures)}" for variant, figures in summary.served.items()]
    lines += [f"  {figures_text(f'{variant} head', figures)}" for variant, figures in summary.heads.items()]
    return "\n".join([*lines, f"Next: splitllm serve {summary.folder}"])


def _plan_text(plan: Any) -> str:
    lines = [
        f"{plan.architecture}: {plan.blocks} blocks, {plan.parameters / 1e6:.3g} M parameters, "
        f"{plan.max_context} tokens of context",
        f"  bundle about {size_text(plan.total_bytes)}, of it embedding {size_text(plan.embedding_bytes)}, "
        f"head {size_text(plan.head_bytes)}",
        *(f"  {variant} blocks {size_text(count)}" for variant, count in plan.variants.items()),
        f"  memory about {size_text(plan.memory_bytes)}, and pages of the checkpoint as far as there is room",
    ]
    return "\n".join([*lines, "Nothing was written; leave out --dry-run to export"])


def _read_text(path: Path | None, what: str, limit: int) -> str | None:
    if path is None:
        return None
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read as {what} ({unread(error)}); give another file") from error
    if not text.strip() or len(text) > limit:
        raise UsageError(f"{path} must hold {what}, at most {limit} characters")
    return text

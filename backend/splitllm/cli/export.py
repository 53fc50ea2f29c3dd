"""`splitllm export MODEL --out DIR`: a Hugging Face model becomes a verified bundle."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from ..errors import MachineError, UsageError

Progress = Callable[[str, int, int], None]

_DTYPES: Final = ("float32", "int4")
_HEAVY: Final = ("onnx", "onnxruntime", "optimum", "torch", "transformers")
_TEMPLATE_LIMIT: Final = 100_000


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "export",
        help="make a bundle of a Hugging Face model",
        description="Export a model to a bundle: one folder that serves every split between browser and server. "
        "The bundle appears only when its blocks compute what transformers computes.",
        epilog="Example: splitllm export HuggingFaceTB/SmolLM2-135M-Instruct --out bundles/smollm2 --max-context 2048",
    )
    parser.add_argument("model", metavar="MODEL", help="folder in Hugging Face's layout, or a name on the Hub")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the bundle goes; new or empty")
    parser.add_argument(
        "--server-dtype", choices=_DTYPES[:1], default="float32", help="weights on the server (default: %(default)s)"
    )
    parser.add_argument(
        "--client-dtype",
        choices=_DTYPES,
        action="append",
        metavar="D",
        help="weights for browsers, float32 (always there) or int4; may be given more than once (default: both)",
    )
    parser.add_argument(
        "--max-context",
        type=_positive,
        metavar="N",
        help="tokens a session may hold (default: what the model can do, at most 8192)",
    )
    parser.add_argument(
        "--chat-template", type=Path, metavar="FILE", help="Jinja chat template to use instead of the tokenizer's"
    )
    parser.add_argument("--name", metavar="NAME", help="the model's name (default: the last part of MODEL)")
    parser.add_argument("--json", action="store_true", help="print the summary as one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Export, then say what was made and what to do next."""
    template = _read_template(args.chat_template)
    exporter = import_exporter("exporter")
    with progress_on_stderr() as progress:
        summary = exporter.export_model(
            args.model,
            args.out,
            server_dtype=args.server_dtype,
            client_dtypes=tuple(args.client_dtype or _DTYPES),
            max_context=args.max_context,
            chat_template=template,
            name=args.name,
            progress=progress,
        )
    if args.json:
        print(json.dumps(summary.as_json()))
    else:
        print(_text(summary))
    return 0


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
        self._open = False
        return self._tell

    def __exit__(self, *_: object) -> None:
        self._end()

    def _tell(self, what: str, done: int, of: int) -> None:
        if sys.stderr.isatty():
            filled = 24 * done // of
            line = f"{what:<18} [{'#' * filled}{'.' * (24 - filled)}] {done}/{of}"
            print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)
            self._open = True
            if done == of:
                self._end()
        elif done:
            print(f"{what} {done}/{of}", file=sys.stderr, flush=True)

    def _end(self) -> None:
        if self._open:
            print(file=sys.stderr)
        self._open = False


def size_text(count: float) -> str:
    """Bytes for people: 512 B, 1.5 kB, 12.3 MB."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"


def figures_text(variant: str, figures: Mapping[str, float]) -> str:
    """How far a variant is from transformers, in words."""
    error, same = figures["max_abs_error"], figures["top1_agreement"]
    return f"{variant}: logits within {error:.2g} of transformers, same next token in {same:.1%} of positions"


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
    return "\n".join([*lines, f"Next: splitllm serve {summary.folder}"])


def _read_template(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read as a chat template in UTF-8 ({error})") from error
    if not text.strip() or len(text) > _TEMPLATE_LIMIT:
        raise UsageError(f"{path} must hold a Jinja template of at most {_TEMPLATE_LIMIT} characters")
    return text


def _positive(text: str) -> int:
    if text.isdecimal() and 1 <= int(text) < 2**31:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")

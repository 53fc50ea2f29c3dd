"""`splitllm bench engine`: what the engine costs on this machine, by batch, context and mix of splits."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from ..bundle import Bundle
from ..errors import MachineError
from ..resources import demo_bundle
from .argument_types import count
from .bench_flags import add_variant, draw
from .tables import columns

_DESCRIPTION = """\
Measure the engine by itself: prefill, decode by batch and context, 32 sessions with splits spread from none to all
blocks against all at none, idle rows among busy ones, and the bare loop with sampling. Cases are interleaved and
figures are medians over rounds, because machines are shared: trust ratios, not times.
"""


def add_parser(commands: Any) -> None:
    """Add `engine` to `splitllm bench`."""
    parser = commands.add_parser("engine", help="what the engine costs on this machine", description=_DESCRIPTION)
    parser.add_argument("--bundle", type=Path, metavar="DIR", help="bundle to measure with (default: tiny-chat)")
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="where to compute (default: auto)"
    )
    add_variant(parser, "weights to run (default: what a server of the bundle runs)")
    parser.add_argument("--threads", type=count, metavar="N", help="threads to compute with (default: all cores)")
    parser.add_argument("--rounds", type=count, default=5, metavar="N", help="rounds to measure (default: 5)")
    parser.add_argument("--figures", metavar="DIR", help="also draw what a token costs there, as SVG")
    parser.add_argument("--json", action="store_true", help="print one JSON object, for machines")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure and print; 0.

    Raises:
        BundleError: the bundle is damaged or does not fit the device.
        MachineError: the runtime or the device is missing.
    """
    try:
        from ..bench import engine, engine_figures
    except ModuleNotFoundError as error:
        if error.name != "onnxruntime":
            raise
        raise MachineError("ONNX Runtime is missing; run `pip install 'splitllm[cpu]'` (or [gpu])") from None
    bundle = Bundle.open(args.bundle or demo_bundle(), verify=False)

    def tell(section: str) -> None:
        print(f"measuring {section} …", file=sys.stderr)

    result = engine.measure(
        bundle, device=args.device, variant=args.variant, threads=args.threads, rounds=args.rounds, tell=tell
    )
    draw(engine_figures.draw, result, args.figures)
    print(json.dumps(result, indent=1) if args.json else _report(result))
    return 0


def _report(result: dict[str, Any]) -> str:
    prefill: list[tuple[str, ...]] = [(f"prefill of {result['prefill']['tokens']}", "tokens/s")]
    prefill += [(case["case"], f"{case['tokens_per_s']:.0f}") for case in result["prefill"]["cases"]]
    decode: list[tuple[str, ...]] = [("decode: rows", "context", "ms", "tokens/s", "vs arithmetic of the work")]
    for case in result["decode"]["cases"]:
        figures = (f"{1000 * case['wall_s']:.1f}", f"{case['tokens_per_s']:.1f}", f"{case['vs_arithmetic']:.2f}")
        decode.append((str(case["rows"]), str(case["context"]), *figures))
    spread = result["spread"]
    splits: list[tuple[str, ...]] = [
        ("32 sessions, splits spread evenly, vs all at 0", ""),
        ("processor seconds per token", f"{spread['cpu_ratio']:.2f}"),
        ("engine seconds per token", f"{spread['wall_ratio']:.2f}"),
        ("blocks' seconds vs sum of fixed + per row x rows", f"{spread['blocks_s_vs_straight_line']:.2f}"),
        ("blocks' seconds vs sum of the measured table", f"{spread['blocks_s_vs_table']:.2f}"),
    ]
    idle: list[tuple[str, ...]] = [("idle rows run along: gap", "context", "vs two runs", "processor time")]
    for case in result["idle_rows"]["cases"]:
        idle.append(
            (
                str(case["gap"]),
                str(case["context"]),
                f"{case['together_vs_apart']:.2f}",
                f"{case['together_vs_apart_cpu']:.2f}",
            )
        )
    seats: list[tuple[str, ...]] = [("16 of 32 sessions decode: context", "scattered vs in front", "processor time")]
    for case in result["seats"]["cases"]:
        ratios = (case["scattered_vs_in_front"], case["scattered_vs_in_front_cpu"])
        seats.append((str(case["context"]), *(f"{ratio:.2f}" for ratio in ratios)))
    loop: list[tuple[str, ...]] = [("bare loop: sessions", "tokens/s")]
    loop += [(str(case["sessions"]), f"{case['tokens_per_s']:.1f}") for case in result["loop"]["cases"]]
    draw: list[tuple[str, ...]] = [("drawing 32 tokens", "ms")]
    draw += [(case["way"], f"{1000 * case['wall_s']:.2f}") for case in result["loop"]["drawing_32_rows"]]
    gaps: list[tuple[str, ...]] = [("event loop kept waiting, ms", "median", "99 %", "longest")]
    for name, case in (("engine idle", "idle_ms"), ("32 sessions decode", "decoding_ms")):
        gaps.append((name, *(f"{result['event_loop'][case][figure]:.1f}" for figure in ("median", "p99", "longest"))))
    return "\n\n".join(columns(table) for table in (prefill, decode, splits, idle, seats, loop, draw, gaps))

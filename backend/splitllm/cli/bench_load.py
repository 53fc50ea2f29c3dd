"""`splitllm bench load`: the simulator held against a real server under replayed load."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from ..bench.simulator_policies import POLICIES
from ..errors import UsageError
from .argument_types import number, share_above_0, whole
from .bench_flags import add_sla, add_variant, sla
from .tables import columns

_DESCRIPTION = """\
Serve recorded activations: a real server process on one core, replaying clients on another, the same people and splits
as in a simulation with costs measured on that core. Prints both side by side. Takes minutes, and needs Linux.
"""


def add_parser(commands: Any) -> None:
    """Add `load` to `splitllm bench`."""
    parser = commands.add_parser("load", help="the simulator against a real server", description=_DESCRIPTION)
    parser.add_argument("bundle", metavar="DIR", help="the bundle to serve (bench/models.py makes one)")
    parser.add_argument(
        "--policies",
        default="all-server,greedy-prefix,dp",
        metavar="P,…",
        help="which to compare (default: %(default)s)",
    )
    parser.add_argument(
        "--rate",
        type=number(high=1e4, above=True),
        default=0.4,
        metavar="R",
        help="requests a second (default: %(default)s)",
    )
    parser.add_argument(
        "--seconds",
        type=number(high=3600, above=True),
        default=60.0,
        metavar="X",
        help="in which they arrive (default: 60)",
    )
    parser.add_argument("--seed", type=whole(), default=1, metavar="S", help="of the population (default: 1)")
    parser.add_argument(
        "--rounds", type=whole(1, 100), default=1, metavar="N", help="all policies in turn, N times (default: 1)"
    )
    parser.add_argument(
        "--headroom", type=share_above_0, default=0.7, metavar="X", help="as in `capacity` (default: 0.7)"
    )
    add_variant(parser, "weights that the server computes with (default: what the bundle says)")
    add_sla(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object, for machines")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Replay, simulate, print; 0.

    Raises:
        UsageError: a policy is none, or the runtime is missing.
    """
    names = args.policies.split(",")
    if any(name not in POLICIES for name in names):
        raise UsageError(f"--policies are of {', '.join(POLICIES)}")
    try:
        from ..bench import load
    except ImportError as error:
        raise UsageError(f"this benchmark needs the server's packages ({error}): install splitllm[cpu]") from error
    test = load.LoadTest(
        Path(args.bundle), sla(args), args.rate, args.seconds, args.seed, args.headroom, variant=args.variant
    )
    result = load.run(test, names, rounds=args.rounds, tell=lambda line: print(line, file=sys.stderr, flush=True))
    print(json.dumps(result, indent=1) if args.json else report(result))
    return 0


def report(result: dict[str, Any]) -> str:
    """The result as a table for a person."""
    rows: list[tuple[str, ...]] = [
        (
            "policy",
            "requests",
            "mean k",
            "CPU s a request",
            "simulated",
            "off by",
            "goodput",
            "simulated",
            "off by",
            "waits",
        )
    ]
    for run in result["runs"]:
        real, model, off = run["real"], run["simulated"], run["difference"]
        rows.append(
            (
                run["policy"], str(real["requests"]), f"{run['mean_split']:.1f}",
                f"{real['server_cpu_s_per_request']:.3f}", f"{model['server_cpu_s_per_request']:.3f}",
                _percent(off["server_cpu_s_per_request"]), f"{real['goodput']:.3f}", f"{model['goodput']:.3f}",
                _percent(off["goodput"]), f"x {run['slowdown']:.2f}",
            )
        )  # fmt: skip
    failed = sum(len(run["failures"]) for run in result["runs"])
    lines = [columns(rows), f"costs measured after over before: {result['setup']['cost_drift']:.2f}"]
    if failed:
        lines.append(f"{failed} conversations failed; --json says why")
    return "\n\n".join(lines)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:+.0f} %"

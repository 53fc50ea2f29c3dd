"""`splitllm bench planner`: how long a plan takes, and whether it is exact."""

from __future__ import annotations

import argparse
import json
from typing import Any

from ..bench import planner
from .argument_types import count
from .tables import columns

_DESCRIPTION = """\
Plan random models of 96 stages in two phases, and small ones that brute force can answer too. Times are processor time,
the best of three runs of each problem (one run where it takes longer than 200 ms). "gap" is what a search that was cut
short cannot rule out, "wrong" another placement than brute force's, "saved" the mean share of the server's cost that dp
saves, "greedy" the share that the better of the two greedy rules does.
"""


def add_parser(commands: Any) -> None:
    """Add `planner` to `splitllm bench`."""
    parser = commands.add_parser("planner", help="time the planner and check it", description=_DESCRIPTION)
    parser.add_argument("--problems", type=count, default=40, metavar="N", help="per kind of model (default: 40)")
    parser.add_argument("--checks", type=count, default=500, metavar="N", help="against brute force (default: 500)")
    parser.add_argument("--json", action="store_true", help="print one JSON object, for machines")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure and print; 0 when every checked plan was exact, 1 otherwise."""
    result = planner.measure(args.problems, args.checks)
    if args.json:
        print(json.dumps(result, indent=1))
    else:
        print(_table(result))
    return int(any(case["different"] for case in result["cases"]))


def _table(result: dict[str, Any]) -> str:
    rows: list[tuple[str, ...]] = [
        (
            "crossings",
            "problems",
            "median",
            "95 %",
            "worst",
            "target",
            "exact",
            "worst gap",
            "not brute force's",
            "saved",
            "greedy",
        )
    ]
    for case in result["cases"]:
        target = case["target_ms"]
        rows.append(
            (
                case["case"],
                str(case["problems"]),
                *(f"{case[key]:.2f} ms" for key in ("median_ms", "p95_ms", "worst_ms")),
                "-" if target is None else f"{target:g} ms",
                f"{case['exact']} of {case['problems']}",
                f"{100 * case['worst_gap']:.2g} %",
                f"{case['different']} of {case['checked']}",
                *(f"{100 * case[key]:.1f} %" for key in ("saved", "better_greedy_saved")),
            )
        )
    whole = result["sessions"]
    times = ", ".join(f"{whole[key]:.2f} ms" for key in ("median_ms", "p95_ms", "worst_ms"))
    return f"{columns(rows)}\n\nwhole plans of sessions, target {whole['target_ms']:g} ms: median, 95 %, worst {times}"

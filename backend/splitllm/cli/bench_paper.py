"""`splitllm bench paper`: the experiment that this project comes from, rebuilt from published figures."""

from __future__ import annotations

import argparse
import json
from typing import Any

from ..bench import paper, paper_figures
from .bench_flags import draw
from .tables import columns

_DESCRIPTION = """\
Place four published Transformers (Transformer base, BERT-base, GPT-2, ViT-B/16) between clients and a server, for
request classes of several lengths, devices and networks, and compare what each policy saves of the server's work at
the same SLA. Nothing is measured: stages are computed from the models' published sizes, devices and networks from
public figures. docs/planning.md says what that shows and what it cannot.
"""


def add_parser(commands: Any) -> None:
    """Add `paper` to `splitllm bench`."""
    parser = commands.add_parser("paper", help="server work saved on four published models", description=_DESCRIPTION)
    parser.add_argument("--json", action="store_true", help="print one JSON object, for machines")
    parser.add_argument("--figures", metavar="DIR", help="also draw the figures there, as SVG")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Compute, print and draw; 0.

    Raises:
        UsageError: the figures cannot be drawn.
    """
    result = paper.measure()
    print(json.dumps(result, indent=1) if args.json else _report(result))
    draw(paper_figures.draw, result, args.figures)
    return 0


def _report(result: dict[str, Any]) -> str:
    policies = ("dp", "prefix", "all-client", "greedy-prefix", "greedy-ratio")
    rows: list[tuple[str, ...]] = [
        ("work saved, mean", "classes", "paper", *policies, "requests per server over better greedy")
    ]
    three = result["mean_of_the_papers_three"]
    means = [("all four", result["mean"]), ("paper's three", three)]
    for name, row in [(model["model"], model) for model in result["models"]] + means:
        over = row["over_greedy"]["throughput"]
        rows.append(
            (
                name,
                str(row.get("classes", "")),
                _percent(row.get("paper_saved")),
                *(_percent(row["saved"][policy]) for policy in policies),
                "-" if over is None else f"+{_percent(over)}",
            )
        )
    slacks: list[tuple[str, ...]] = [("latency allowed", "dp", "prefix", "all-client", "better greedy", "dp over it")]
    for row in result["by_slack"]:
        over = row["over_greedy"]["saved"]
        slacks.append(
            (
                f"{row['slack']:g} x server alone",
                *(_percent(row["saved"][policy]) for policy in policies[:3]),
                _percent(row["better_greedy_saved"]),
                "-" if over is None else f"+{_percent(over)}",
            )
        )
    variants: list[tuple[str, ...]] = [("variant", "dp", "prefix", "all-client", "better greedy")]
    for row in result["variants"]:
        shares = (*(row["saved"][policy] for policy in policies[:3]), row["better_greedy_saved"])
        variants.append((row["variant"], *map(_percent, shares)))
    head = f"Answers at most {result['setup']['slack']:g} times as late as from the server alone."
    return f"{head}\n\n{columns(rows)}\n\n{columns(slacks)}\n\n{columns(variants)}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"

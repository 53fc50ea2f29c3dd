"""`splitllm bench WHAT`: measurements and simulations whose figures the documentation quotes."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from . import bench_capacity, bench_engine, bench_load, bench_paper, bench_planner

#: Modules of this package that add one subcommand each by `add_parser(commands)`.
_SUBCOMMANDS: tuple[ModuleType, ...] = (bench_engine, bench_planner, bench_paper, bench_capacity, bench_load)


def add_parser(commands: Any) -> None:
    """Add the command and its subcommands."""
    parser = commands.add_parser(
        "bench",
        help="measure and simulate: engine, planner, paper, capacity, load",
        description="Measure this machine, or simulate many clients. Each benchmark compares side by side in one run, "
        "because machines are shared and noisy.",
    )
    benches = parser.add_subparsers(dest="bench", metavar="WHAT", required=True)
    for module in _SUBCOMMANDS:
        module.add_parser(benches)

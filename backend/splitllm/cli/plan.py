"""`splitllm plan`: place the stages of a problem written as JSON, and say why."""

from __future__ import annotations

import argparse
import json
import sys
from itertools import groupby
from pathlib import Path
from typing import Any, Final

from ..errors import ProblemError, SplitLLMError, UsageError
from ..planner.policies import POLICIES, Plan, solve
from ..planner.problem import Problem, problem_from_json
from ..planner.reasons import figure, milliseconds, size
from . import plan_bundle
from .help_text import HelpFormatter
from .tables import columns

MAX_BYTES: Final = 16 * 1024 * 1024
INFEASIBLE: Final = 3

_DESCRIPTION: Final = """\
Place the stages of a model on client or server so that the server does the least work and every phase still meets its
latency limit. One placement serves all phases. The plan is exact and says which limit kept the client from doing more.
"""

EXAMPLE: Final = """\
{"stages": ["embed", "block.0", "block.1", "head"],
 "phases": [{"name": "prefill", "weight": 1, "latency_limit_ms": 2000,
             "client_ms": [1, 9, 9, 4], "server_ms": [1, 3, 3, 2], "server_cost": [1, 3, 3, 2],
             "input_bytes": [800, 90000, 90000, 90000], "output_bytes": 8},
            {"name": "decode", "weight": 200, "latency_limit_ms": 150,
             "client_ms": [0, 4, 4, 2], "server_ms": [0, 1, 1, 1], "server_cost": [0, 1, 1, 1],
             "input_bytes": [8, 900, 900, 900], "output_bytes": 8}],
 "client_memory": [0, 9000000, 9000000, 40000000], "client_memory_limit": 30000000,
 "pinned": {"head": "server"},
 "link": {"up_ms": 20, "down_ms": 20, "up_bytes_per_ms": 1250, "down_bytes_per_ms": 6250},
 "max_crossings": 2}
"""

_EPILOG: Final = f"""\
an example problem, two blocks between an embedding and a head:

{EXAMPLE}
  weight           how often the phase happens in one request (200 tokens are decoded)
  latency_limit_ms what one pass may take; null: no limit
  server_cost      what the server's work is worth, in any unit; the plan makes weight x cost small
  input_bytes      what crosses the link if the pass changes sides before that stage
  output_bytes     what crosses last; a request starts at the client and its result ends there
  client_memory    bytes per stage on the client (may be left out, as may client_memory_limit)
  pinned           stages that must run on one side (may be left out)
  max_crossings    2 is one cut, client first, server after; null: any number (may be left out)

with --bundle it answers what-if for one client, from this machine's measured costs:

  splitllm plan --bundle ./bundle --client-ms-per-block 12 --rtt-ms 40 --sessions 8 --explain

policies:
  dp               exact, the default           all-server, all-client    no choice at all
  brute-force      every placement, <= 20 stages
  greedy-prefix    extend the client's prefix while every limit holds
  greedy-ratio     move the stage with the most cost saved, as long

exit codes: 0 planned, 2 the problem is wrong, 3 no placement meets every limit (the fastest is printed)
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `plan` to the command line."""
    parser = subparsers.add_parser(
        "plan",
        help="place the stages of a problem on client and server",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=HelpFormatter,
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--problem", metavar="FILE", help="the problem as JSON; - reads standard input")
    source.add_argument("--bundle", metavar="DIR", help="what if: plan a session of this bundle on this machine")
    parser.add_argument("--policy", choices=tuple(POLICIES), default="dp", help="how to place the stages (default: dp)")
    parser.add_argument("--json", action="store_true", help="print the plan as one JSON object, for machines")
    parser.add_argument(
        "--explain",
        action="store_true",
        help="compare all policies side by side; with --bundle, all splits and what rejects them",
    )
    plan_bundle.add_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Plan and print; 0 when feasible, 3 when not.

    Raises:
        UsageError: the problem cannot be read, or is not a problem.
    """
    if args.bundle is not None:
        if args.policy != "dp":
            raise UsageError("--policy is for --problem; a session's plan is always the exact one")
        return plan_bundle.run(args)
    if what_if := plan_bundle.given(args):
        raise UsageError(f"{', '.join(what_if)} ask what if of a bundle; give --bundle, or write it into the problem")
    problem = problem_from_json(read_json(args.problem))
    plan = solve(problem, args.policy)
    others = _all_policies(problem, args.policy, plan) if args.explain else {}
    if args.json:
        answer = plan.to_json()
        if args.explain:
            answer["explain"] = {
                name: found.to_json() if isinstance(found, Plan) else {"refused": found.message}
                for name, found in others.items()
            }
        print(json.dumps(answer, allow_nan=False))
    else:
        print(_table(problem, args.policy, plan))
        if args.explain:
            print()
            print(_comparison(problem, others))
    return 0 if plan.feasible else INFEASIBLE


def read_json(source: str) -> Any:
    """Parse the JSON in file `source`, or on standard input for `-`.

    Raises:
        UsageError: the source cannot be read.
        ProblemError: it is larger than 16 MB or not strict JSON in UTF-8 (NaN, Infinity and doubled keys included).
    """
    where = "standard input" if source == "-" else source if source.isprintable() else repr(source)
    try:
        if source == "-":
            raw = sys.stdin.buffer.read(MAX_BYTES + 1)
        else:
            with Path(source).open("rb") as file:
                raw = file.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise UsageError(f"there is no file {where}: give --problem a JSON file, or - for standard input") from error
    except IsADirectoryError as error:
        raise UsageError(f"{where} is a folder: give --problem a JSON file") from error
    except (OSError, ValueError) as error:
        cause = getattr(error, "strerror", None) or error
        raise UsageError(f"{where} cannot be read ({cause}): give --problem a readable JSON file") from error
    if len(raw) > MAX_BYTES:
        raise ProblemError(f"{where} is larger than {MAX_BYTES >> 20} MB: no problem within the limits is that long")
    try:
        return json.loads(raw.decode("utf-8-sig"), parse_constant=_refuse_constant, object_pairs_hook=_unique)
    except UnicodeDecodeError as error:
        raise ProblemError(f"{where} is not UTF-8 (byte {error.start}): save it as UTF-8") from error
    except json.JSONDecodeError as error:
        place = f"line {error.lineno} column {error.colno}"
        raise ProblemError(f"{where} is not JSON ({place}: {error.msg}): see splitllm plan --help") from error
    except RecursionError as error:
        raise ProblemError(f"{where} is nested too deeply: a problem has four levels") from error
    except ValueError as error:  # an integer of thousands of digits
        raise ProblemError(f"{where} holds a number too long to read: write numbers up to 1e15") from error


def _refuse_constant(name: str) -> Any:
    raise ProblemError(f"{name} is not a number in JSON: write a finite number, or null for no limit")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twin = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value] # add() is None
        raise ProblemError(f"the key {twin[:40]!r} is written twice in one object: keep one of them")
    return found


def _all_policies(problem: Problem, chosen: str, plan: Plan) -> dict[str, Plan | SplitLLMError]:
    found: dict[str, Plan | SplitLLMError] = {}
    for name in POLICIES:
        try:
            found[name] = plan if name == chosen else solve(problem, name)
        except ProblemError as error:
            found[name] = error
    return found


def _table(problem: Problem, policy: str, plan: Plan) -> str:
    rows = [
        ("policy", policy),
        ("feasible", "yes" if plan.feasible else "no"),
        ("server cost", f"{figure(plan.server_cost)} ({figure(100 * plan.saved_fraction, 2)} % saved)"),
    ]
    for phase in problem.phases:
        limit = "no limit" if phase.latency_limit_ms is None else f"limit {milliseconds(phase.latency_limit_ms)}"
        rows.append((phase.name, f"{milliseconds(plan.latency_ms[phase.name])} ({limit})"))
    rows += [("crossings", str(plan.crossings)), ("client memory", size(plan.client_memory))]
    if plan.optimality_gap > 0:
        rows.append(("optimality gap", f"at most {figure(100 * plan.optimality_gap, 2)} %"))
    first = 0
    for side, group in groupby(plan.placement):
        count = len(list(group))
        names = problem.stages[first : first + count]
        rows.append((side.value, names[0] if count == 1 else f"{names[0]} .. {names[-1]} ({count} stages)"))
        first += count
    return f"{columns(rows)}\n{plan.reason}"


def _comparison(problem: Problem, plans: dict[str, Plan | SplitLLMError]) -> str:
    names = [phase.name for phase in problem.phases]
    rows = [("policy", "feasible", "server cost", "saved", "crossings", "client memory", *names)]
    for policy, plan in plans.items():
        if not isinstance(plan, Plan):
            rows.append((policy, "refused", *("-",) * (len(rows[0]) - 2)))
            continue
        rows.append(
            (
                policy,
                "yes" if plan.feasible else "no",
                figure(plan.server_cost),
                f"{figure(100 * plan.saved_fraction, 2)} %",
                str(plan.crossings),
                size(plan.client_memory),
                *(milliseconds(plan.latency_ms[name]) for name in names),
            )
        )
    return columns(rows)

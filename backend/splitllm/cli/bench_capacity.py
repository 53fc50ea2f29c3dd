"""`splitllm bench capacity`: how many people one server serves in time, simulated."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from ..bench import capacity, capacity_figures
from ..bench.population import KINDS, WEB_WIDE
from ..bench.simulator_engine import ServerModel
from ..bench.simulator_policies import POLICIES
from ..errors import UsageError
from .argument_types import count, not_negative, number, positive, several, share_above_0, whole
from .bench_flags import add_sla, add_variant, draw, sla
from .help_text import HelpFormatter
from .plan import read_json
from .tables import columns

#: A profile measured with `--bundle` and committed; it stands beside the results in a checkout.
_COMMITTED = Path(__file__).parents[3] / "bench/results/capacity-profile.json"
_MOST_MEASURED_ROWS = 64
_MOST_POSITIONS = 1200

_DESCRIPTION = """\
Simulate a population of clients (no WebGPU, phone, laptop, desktop) on one server, with the scheduler and the planner
that serve for real and with measured costs, and count the requests a second that keep both promises, for each policy.
The costs come from a profile: measure your own server's with --bundle.
"""

_EPILOG = """\
policies: all-server (no splitting), greedy-prefix, greedy-ratio, dp (the planner, for a server without load), dp-load
(the planner, told the present load). docs/planning.md explains the population and the figures.
"""


def add_parser(commands: Any) -> None:
    """Add `capacity` to `splitllm bench`."""
    parser = commands.add_parser(
        "capacity", help="requests a second that one server answers in time, by policy", description=_DESCRIPTION,
        epilog=_EPILOG, formatter_class=HelpFormatter,
    )  # fmt: skip
    parser.add_argument("--profile", metavar="FILE", help="costs of a server (default: the committed profile)")
    parser.add_argument("--bundle", metavar="DIR", help="measure the costs now, with this bundle, on one core")
    parser.add_argument("--save-profile", metavar="FILE", help="with --bundle: write the costs there, and simulate not")
    add_variant(parser, "with --bundle: weights to measure (default: what a server of the bundle computes with)")
    parser.add_argument(
        "--rounds", type=count, default=5, metavar="N", help="with --bundle: rounds to measure (default: 5)"
    )
    parser.add_argument(
        "--rates",
        type=several(number(high=1e6, above=True)),
        default=(1, 2, 3, 4, 5, 6),
        metavar="R,…",
        help="requests a second (default: 1,2,3,4,5,6)",
    )
    parser.add_argument("--policies", default=",".join(POLICIES), metavar="P,…", help="which to compare (default: all)")
    parser.add_argument(
        "--seeds", type=several(whole()), default=(1,), metavar="S,…", help="one run for each (default: 1)"
    )
    parser.add_argument("--seconds", type=positive, default=300.0, metavar="X", help="simulated time (default: 300)")
    parser.add_argument(
        "--warmup-s", type=not_negative, default=60.0, metavar="X", help="of it not counted (default: 60)"
    )
    parser.add_argument(
        "--speed", type=positive, default=4.0, metavar="X", help="server's speed in units of the profile's (default: 4)"
    )
    parser.add_argument(
        "--headroom",
        type=share_above_0,
        default=0.7,
        metavar="X",
        help="share of the promise to plan for (default: 0.7)",
    )
    add_sla(parser)
    parser.add_argument("--max-sessions", type=count, default=256, metavar="N", help="sessions at once (default: 256)")
    parser.add_argument("--devices", choices=("chat", "web"), default="chat", help="whose machines (default: chat)")
    parser.add_argument(
        "--variants", action="store_true", help="also change one thing at a time, with all-server and dp"
    )
    parser.add_argument("--workers", type=count, default=1, metavar="N", help="processes (default: 1)")
    parser.add_argument("--json", action="store_true", help="print one JSON object, for machines")
    parser.add_argument("--figures", metavar="DIR", help="also draw the figures there, as SVG")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure or read the costs, simulate, print and draw; 0.

    Raises:
        UsageError: flags contradict each other, or a file cannot be read or written.
    """
    server = _server(args)
    if args.save_profile is not None:
        _save(server, Path(args.save_profile))
        return 0
    scenario = capacity.Scenario(
        server, sla=sla(args), speed=args.speed, headroom=args.headroom, seconds=args.seconds, warmup_s=args.warmup_s,
        max_sessions=args.max_sessions,
        kinds=KINDS if args.devices == "chat" else WEB_WIDE,
    )  # fmt: skip
    result: dict[str, Any] = {
        "setup": capacity.setup(scenario) | {"seeds": list(args.seeds), "rates": list(args.rates)}
    }
    result |= capacity.sweep(
        scenario, rates=args.rates, policies=args.policies.split(","), seeds=args.seeds, workers=args.workers,
        progress=_progress("runs"),
    )  # fmt: skip
    if args.variants:
        result["variants"] = capacity.variants(
            scenario, rates=args.rates, seeds=args.seeds[:1], workers=args.workers, progress=_progress("variants")
        )
    print(json.dumps(result, indent=1) if args.json else report(result))
    draw(capacity_figures.draw, result, args.figures)
    return 0


def _server(args: argparse.Namespace) -> ServerModel:
    if args.bundle is not None:
        if args.profile is not None:
            raise UsageError("give --profile or --bundle, not both")
        return measure(Path(args.bundle), args.rounds, args.variant)
    if args.save_profile is not None:
        raise UsageError("--save-profile writes what --bundle DIR measures: add --bundle")
    if args.profile is None and not _COMMITTED.is_file():
        raise UsageError("this installation has no measured profile: give --profile FILE, or measure with --bundle DIR")
    return ServerModel.from_json(read_json(args.profile or str(_COMMITTED)))


def measure(bundle_folder: Path, rounds: int, variant: str | None) -> ServerModel:
    """The costs of serving a bundle on one core of this machine, by the processor's own time.

    `variant` is that of `OnnxEngine`.

    Raises:
        SplitLLMError: the runtime is missing, or the bundle cannot be loaded.
    """
    from ..bundle import Bundle
    from ..engines.profiling import measure_thoroughly, processor

    try:
        from ..engines.onnx import OnnxEngine
    except ImportError as error:
        raise UsageError("measuring needs ONNX Runtime: install splitllm[cpu]") from error
    bundle = Bundle.open(bundle_folder)
    spec = bundle.spec
    capacity_tokens = min(spec.max_context, _MOST_POSITIONS)
    engine = OnnxEngine(
        bundle, rows=_MOST_MEASURED_ROWS + 1, capacity=capacity_tokens, threads=1, device="cpu", variant=variant
    )
    try:
        profile, copied = measure_thoroughly(
            engine, rounds=rounds, clock=time.process_time, progress=_progress("rounds")
        )
    finally:
        engine.close()
    weights = f"{engine.choice.blocks} blocks, {engine.choice.head} head"
    made_by = f"{spec.name}, {weights}, one core of {processor()}, least of several rounds, processor time"
    return ServerModel(profile, spec.blocks, spec.hidden_size, copy_bytes_per_ms=copied, made_by=made_by)


def _save(server: ServerModel, path: Path) -> None:
    try:
        path.write_text(json.dumps(server.as_json(), indent=1) + "\n", "utf-8")
    except OSError as error:
        raise UsageError(f"{path} cannot be written ({error.strerror}): give --save-profile a file") from error
    print(f"wrote {path}", file=sys.stderr)


def _progress(what: str) -> Any:
    if not sys.stderr.isatty():
        return None

    def show(done: int, of: int) -> None:
        print(f"\r{what}: {done} of {of}", end="\n" if done == of else "", file=sys.stderr, flush=True)

    return show


def report(result: dict[str, Any]) -> str:
    """The result as tables for a person."""
    promise = result["setup"]["sla"]
    rates = next(iter(result["policies"].values()))["by_rate"]["rate"]
    goodput: list[tuple[str, ...]] = [("good requests a second at", *(f"{rate:g}/s" for rate in rates))]
    saved: list[tuple[str, ...]] = [("server seconds saved at", *(f"{rate:g}/s" for rate in rates))]
    peaks: list[tuple[str, ...]] = [
        ("policy", "peak", "x all-server", "at 90 % in time", "x all-server", "block-steps saved", "planned violations")
    ]
    for name, row in result["policies"].items():
        goodput.append((name, *(_figure(value) for value in row["by_rate"]["goodput"])))
        saved.append((name, *(_percent(value) for value in row["by_rate"]["server_seconds_saved"])))
        peaks.append(
            (
                name, _figure(row["peak_goodput"]), _figure(row["peak_goodput_over_all_server"]),
                _figure(row["goodput_at_90"]), _figure(row["goodput_at_90_over_all_server"]),
                _percent(row["block_steps_saved"]), str(row["planned_violations"]),
            )
        )  # fmt: skip
    tables = [columns(goodput), columns(saved), columns(peaks)]
    if "variants" in result:
        rows: list[tuple[str, ...]] = [("variant", "all-server", "dp", "peak ratio", "ratio at 90 % in time")]
        for variant in result["variants"]:
            alone, split = variant["policies"]["all-server"], variant["policies"]["dp"]
            rows.append(
                (
                    variant["variant"], _figure(alone["peak_goodput"]), _figure(split["peak_goodput"]),
                    _figure(split["peak_goodput_over_all_server"]), _figure(split["goodput_at_90_over_all_server"]),
                )
            )  # fmt: skip
        tables.append(columns(rows))
    head = f"Promised: first token in {promise['ttft_ms']:g} ms, each further one in {promise['tpot_ms']:g} ms."
    return "\n\n".join([head, *tables])


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.0f} %"

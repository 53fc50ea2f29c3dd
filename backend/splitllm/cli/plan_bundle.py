"""`splitllm plan --bundle DIR`: what the planner would do for a client, from this machine's measured profile."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any, Final

from ..bundle import Bundle
from ..errors import MachineError, ProblemError, UsageError
from ..planner.marginal import Load
from ..planner.profile import EngineProfile
from ..planner.reasons import milliseconds
from ..planner.session_plan import EXPECTED_ANSWER_TOKENS, plan_session
from ..types import MAX_SESSIONS, PREFILL_CHUNK, ClientReport, Link, ModelSpec, SessionPlan
from .argument_types import count, number, positive, share, whole
from .bench_flags import add_sla, sla
from .tables import columns

_WHY: Final = {
    "ttft": "TTFT limit",
    "tpot": "TPOT limit",
    "memory": "client memory",
    "effort": "client's cap",
    "blocks_ready": "not loaded",
}
_MBIT_BYTES_PER_MS: Final = 125.0
_MS: Final = number(high=1e9)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of the what-if."""
    group = parser.add_argument_group("what if, with --bundle")
    group.add_argument(
        "--client-ms-per-block", type=_MS, metavar="X", help="the client's time for one block and one row"
    )
    group.add_argument(
        "--client-prefill-ms-per-block",
        type=_MS,
        metavar="X",
        help=f"the same for a chunk of {PREFILL_CHUNK} rows (default: slower than one row as this machine is)",
    )
    group.add_argument("--rtt-ms", type=_MS, default=20.0, metavar="X", help="round trip (default: 20)")
    group.add_argument("--up-mbit", type=positive, default=10.0, metavar="X", help="client to server (default: 10)")
    group.add_argument("--down-mbit", type=positive, default=50.0, metavar="X", help="server to client (default: 50)")
    add_sla(group)
    group.add_argument(
        "--prompt-tokens", type=count, default=64, metavar="N", help="length of the prompt (default: 64)"
    )
    group.add_argument(
        "--answer-tokens",
        type=count,
        default=EXPECTED_ANSWER_TOKENS,
        metavar="N",
        help="length of the answer (default: %(default)s)",
    )
    group.add_argument(
        "--sessions",
        type=whole(high=10_000),
        default=0,
        metavar="N",
        help="other sessions that decode meanwhile (default: 0)",
    )
    group.add_argument(
        "--sessions-split",
        type=whole(high=10_000),
        default=0,
        metavar="K",
        help="blocks that their clients run (default: 0)",
    )
    group.add_argument("--variant", default="float32", metavar="V", help="weights at the client (default: float32)")
    group.add_argument(
        "--wire",
        choices=("float16", "float32"),
        default="float16",
        help="what hidden states are sent as (default: %(default)s)",
    )
    group.add_argument("--effort", type=share, metavar="E", help="largest share of the blocks for the client, 0 to 1")
    group.add_argument("--profile", metavar="FILE", help="costs as JSON, instead of measuring this machine")
    group.add_argument(
        "--save-profile", metavar="FILE", help="write the costs that were used, to look at or to plan with elsewhere"
    )


def given(args: argparse.Namespace) -> list[str]:
    """The options of the what-if that do not have their default value."""
    alone = argparse.ArgumentParser()
    add_options(alone)
    defaults = vars(alone.parse_args([]))
    return [f"--{name.replace('_', '-')}" for name, default in defaults.items() if getattr(args, name) != default]


def run(args: argparse.Namespace) -> int:
    """Plan and print; 0 when feasible, 3 when not.

    Raises:
        UsageError: options that contradict each other or the bundle.
        BundleError: the bundle cannot be used.
    """
    if args.client_ms_per_block is None:
        raise UsageError("--bundle needs --client-ms-per-block: the client's milliseconds for one block and one row")
    bundle = Bundle.open(Path(args.bundle), verify=False)
    spec = bundle.spec
    if args.sessions_split > spec.blocks:
        raise UsageError(f"--sessions-split {args.sessions_split} is more than the model's {spec.blocks} blocks")
    if args.prompt_tokens + args.answer_tokens > spec.max_context:
        raise UsageError(f"prompt and answer are longer than the bundle's {spec.max_context} tokens")
    profile = _read_profile(args.profile) if args.profile else _measure(bundle, args.sessions)
    if args.save_profile:
        _save(Path(args.save_profile), profile)
    plan, client = _plan(args, bundle, profile)
    if args.json:
        print(json.dumps(_as_json(args, spec, plan, client, profile), allow_nan=False))
    else:
        print(_text(args, spec, plan, client))
    return 0 if plan.feasible else 3


def _plan(args: argparse.Namespace, bundle: Bundle, profile: EngineProfile) -> tuple[SessionPlan, ClientReport]:
    spec = bundle.spec
    decode = args.client_ms_per_block
    prefill = args.client_prefill_ms_per_block
    if prefill is None:
        prefill = decode * profile.prefill_ms(PREFILL_CHUNK, 0) / max(profile.decode_ms(1, 0), 1e-9)
    client = ClientReport("cpu", args.variant, spec.blocks, decode, prefill, PREFILL_CHUNK, None, args.effort)
    plan = plan_session(
        spec,
        client,
        profile,
        Link(args.rtt_ms / 2, args.rtt_ms / 2, args.up_mbit * _MBIT_BYTES_PER_MS, args.down_mbit * _MBIT_BYTES_PER_MS),
        sla(args),
        prompt_tokens=args.prompt_tokens,
        expected_tokens=args.answer_tokens,
        wire_bytes=4 if args.wire == "float32" else 2,
        block_bytes=bundle.block_bytes(args.variant),
        requested=None,
        load=Load.of(
            [args.sessions_split] * args.sessions, spec.blocks, context=args.prompt_tokens + args.answer_tokens / 2
        ),
    )
    return plan, client


def _measure(bundle: Bundle, sessions: int) -> EngineProfile:
    try:
        from ..engines.onnx import OnnxEngine
    except ModuleNotFoundError as error:
        if error.name != "onnxruntime":
            raise
        raise MachineError(
            "ONNX Runtime is missing, so this machine cannot be measured; install splitllm[cpu], or give --profile"
        ) from None
    from ..engines.profiling import cache_folder, cached_profile, setting_of

    # As many rows as `splitllm serve` has, so that both share one kept profile.
    engine = OnnxEngine(bundle, rows=max(MAX_SESSIONS, sessions + 1), capacity=bundle.spec.max_context)
    try:
        setting = setting_of(engine, None)
        return cached_profile(engine, identity=bundle.identity, setting=setting, folder=cache_folder(os.environ))
    finally:
        engine.close()


def _read_profile(path: str) -> EngineProfile:
    from .plan import read_json

    try:
        return EngineProfile.from_json(read_json(path))
    except ProblemError as error:
        raise ProblemError(f"{path}: {error.message}") from None


def _save(path: Path, profile: EngineProfile) -> None:
    try:
        path.write_text(json.dumps(profile.as_json(), indent=1) + "\n", "utf-8")
    except OSError as error:
        raise MachineError(f"cannot write {path} ({error.strerror}); give --save-profile another place") from None


def _as_json(
    args: argparse.Namespace, spec: ModelSpec, plan: SessionPlan, client: ClientReport, profile: EngineProfile
) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "model": spec.name,
        "blocks": spec.blocks,
        "split": plan.split,
        "feasible": plan.feasible,
        "bound": plan.bound,
        "reason": plan.reason,
        "predicted": {
            "ttft_ms": plan.predicted_ttft_ms,
            "tpot_ms": plan.predicted_tpot_ms,
            "server_ms": plan.server_ms,
        },
        "saved": {"block_steps": plan.saved_block_steps, "server_time": plan.saved_server_time},
        "server_ms_alone": plan.details["server_ms_alone"],
        "client": {"decode_ms": client.decode_ms, "prefill_ms": client.prefill_ms},
    }
    if args.explain:
        answer["candidates"] = plan.details["candidates"]
        answer["profile"] = profile.as_json()
    return answer


def _text(args: argparse.Namespace, spec: ModelSpec, plan: SessionPlan, client: ClientReport) -> str:
    others = f", beside {args.sessions} others" if args.sessions else ""
    rows = [
        ("model", f"{spec.name}, {spec.blocks} blocks"),
        (
            "client",
            f"{milliseconds(client.decode_ms or 0)} a block, {milliseconds(client.prefill_ms or 0)} for "
            f"{PREFILL_CHUNK} rows; round trip {milliseconds(args.rtt_ms)}",
        ),
        ("request", f"{args.prompt_tokens} tokens, answered with {args.answer_tokens}{others}"),
        ("split", f"{plan.split} of {spec.blocks} blocks at the client"),
        ("feasible", "yes" if plan.feasible else "no"),
        ("TTFT", f"{milliseconds(plan.predicted_ttft_ms)} (limit {milliseconds(args.sla_ttft_ms)})"),
        ("TPOT", f"{milliseconds(plan.predicted_tpot_ms)} (limit {milliseconds(args.sla_tpot_ms)})"),
        ("block-steps", f"{100 * plan.saved_block_steps:.1f} % saved (as the paper counts)"),
        (
            "server time",
            f"{100 * plan.saved_server_time:.1f} % saved (as an operator pays): {milliseconds(plan.server_ms)} of "
            f"{milliseconds(plan.details['server_ms_alone'])}",
        ),
    ]
    text = f"{columns(rows)}\n{plan.reason}"
    return f"{text}\n\n{_candidates(plan)}" if args.explain else text


def _candidates(plan: SessionPlan) -> str:
    table = plan.details["candidates"]
    rows = [("k", "TTFT", "TPOT", "server time", "cost", "rejected by")]
    for split, ttft, tpot, server, cost, why in zip(
        *(table[name] for name in ("split", "ttft_ms", "tpot_ms", "server_ms", "cost_ms", "rejected_by")), strict=True
    ):
        name = f"{split} *" if split == plan.split else str(split)
        verdict = "-" if why is None else _WHY.get(why, why)
        rows.append((name, milliseconds(ttft), milliseconds(tpot), milliseconds(server), milliseconds(cost), verdict))
    return columns(rows)

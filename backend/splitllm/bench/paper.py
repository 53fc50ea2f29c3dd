"""The experiment of SplitLLM (arXiv 2410.10759) rebuilt: how much server work each policy saves at the same SLA.

For every request class each policy places the stages; a plan that breaks the SLA is not used, the server then does
everything, and the class saves nothing. `prefix` is the best single cut with the client first, which is what this
project's runtime executes, and `all-client` with that rule is the choice between all and nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Final

from ..planner.dp import solve_dp
from ..planner.evaluate import evaluate
from ..planner.exact import Tables
from ..planner.greedy import everything_on, greedy_prefix, greedy_ratio
from ..planner.problem import Placement, Side
from .paper_models import HALF, MODELS
from .paper_setup import CLIENTS, NETWORKS, REACHED, SERVER, SLACK, RequestClass, problem, request_classes

#: What the paper reports, in per cent; its greedy rule, speeds and bandwidths are not known to us.
PAPER_SAVED: Final = {"Transformer (base)": 28.9, "BERT-base": 27.8, "GPT-2": 29.2}
PAPER_OVER_GREEDY: Final = {"Transformer (base)": 14.6, "BERT-base": 5.5, "GPT-2": 12.5, "ViT-B/16": 55.4}
SLACKS: Final = (1.1, 1.2, 1.5, 2.0, 3.0)
GREEDY: Final = ("greedy-prefix", "greedy-ratio")
#: Below this share of saved work a ratio to it says nothing.
_NOTHING: Final = 0.01


def _best_prefix(tables: Tables) -> Placement:
    count = len(tables.problem.stages)
    cuts = ((Side.CLIENT,) * cut + (Side.SERVER,) * (count - cut) for cut in range(count, -1, -1))
    return next((cut for cut in cuts if _holds(tables, cut)), everything_on(tables.problem, Side.SERVER))


def _holds(tables: Tables, placement: Placement) -> bool:
    return all(axis.holds(axis.total(placement)) for axis in tables.limited)


POLICIES: Final[dict[str, Callable[[Tables], Placement]]] = {
    "dp": lambda tables: solve_dp(tables).placement,
    "greedy-prefix": greedy_prefix,
    "greedy-ratio": greedy_ratio,
    "prefix": _best_prefix,
    "all-client": lambda tables: everything_on(tables.problem, Side.CLIENT),
    "all-server": lambda tables: everything_on(tables.problem, Side.SERVER),
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """One request class: by policy the share of operations and of the server's busy time saved."""

    asked: RequestClass
    operations: float
    saved: dict[str, float]
    time_saved: dict[str, float]
    kept: dict[str, bool]
    crossings: int  # of dp
    gap: float

    @property
    def greedy(self) -> float:
        """What the better greedy rule saves in this class."""
        return max(self.saved[policy] for policy in GREEDY)


def outcomes(**changes: Any) -> Iterator[Outcome]:
    """Every request class under every policy; `changes` are the keywords of `paper_setup.problem`."""
    for asked in request_classes():
        tables = Tables.of(problem(asked, **changes))
        [phase] = tables.problem.phases
        saved, time_saved, kept = {}, {}, {}
        exact = solve_dp(tables)
        for policy, place in POLICIES.items():
            found = evaluate(tables, place(tables) if policy != "dp" else exact.placement)
            busy = sum(
                ms for ms, side in zip(phase.server_ms, found.placement, strict=True) if side is Side.SERVER
            ) / sum(phase.server_ms)
            kept[policy] = found.feasible
            saved[policy] = found.saved_fraction if found.feasible else 0.0
            time_saved[policy] = 1 - busy if found.feasible else 0.0
        crossings = tables.crossings.total(exact.placement)
        yield Outcome(asked, sum(phase.server_cost), saved, time_saved, kept, crossings, exact.gap)


def measure() -> dict[str, Any]:
    """The whole experiment as plain figures, the same in every run; shares between 0 and 1, to six decimals."""
    by_slack = {slack: list(outcomes(slack=slack)) for slack in SLACKS}
    chosen = by_slack[SLACK]
    models = [_model(model.name, [one for one in chosen if one.asked.model is model]) for model in MODELS]
    reported = [model for model in models if model["model"] in PAPER_SAVED]
    result = {
        "setup": _setup(),
        "models": models,
        "mean": _mean(models),
        "mean_of_the_papers_three": _mean(reported),
        "by_slack": [{"slack": slack, **_summary(found)} for slack, found in by_slack.items()],
        "sensitivity": _sensitivity(by_slack),
        "variants": [{"variant": name, **_summary(outcomes(**change))} for name, change in _VARIANTS.items()],
    }
    return {name: _rounded(value) for name, value in result.items()}


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, dict):
        return {name: _rounded(held) for name, held in value.items()}
    return [_rounded(held) for held in value] if isinstance(value, list) else value


_VARIANTS: Final[dict[str, dict[str, float]]] = {
    "as stated": {},
    "activations in float32": {"wire": 4},
    "clients twice as slow": {"slower": 2.0},
    "clients twice as fast": {"slower": 0.5},
    "server shared by four requests": {"busier": 4.0},
    "clients that hold half of the model": {"held": 0.5},
}


def _setup() -> dict[str, Any]:
    return {
        "slack": SLACK,
        "share_of_peak": REACHED,
        "activation_bytes": HALF,
        "server": SERVER.name,
        "tflops": {device.name: device.operations_per_ms / 1e9 for device in (SERVER, *CLIENTS)},
        "gb_per_s": {device.name: device.bytes_per_ms / 1e6 for device in (SERVER, *CLIENTS)},
        "networks": [
            {"name": net.name, "up_mbit_s": net.up_mbit_s, "down_mbit_s": net.down_mbit_s, "rtt_ms": net.round_trip_ms}
            for net in NETWORKS
        ],
        "lengths": {model.name: {"unit": model.unit, "values": list(model.lengths)} for model in MODELS},
    }


def _model(name: str, found: Sequence[Outcome]) -> dict[str, Any]:
    total = sum(one.operations for one in found)
    return {
        "model": name,
        "classes": len(found),
        "paper_saved": None if name not in PAPER_SAVED else PAPER_SAVED[name] / 100,
        "paper_over_greedy": PAPER_OVER_GREEDY[name] / 100,
        **_shares(found),
        "saved_of_all_work": sum(one.saved["dp"] * one.operations for one in found) / total,
        "kept": {policy: sum(one.kept[policy] for one in found) for policy in POLICIES},
        "crossings": {str(count): sum(one.crossings == count for one in found) for count in (0, 2, 4, 6)},
        "split": sum(0 < one.saved["dp"] < 1 for one in found),
        "worst_gap": max(one.gap for one in found),
    }


def _shares(found: Sequence[Outcome]) -> dict[str, Any]:
    saved = {policy: fmean(one.saved[policy] for one in found) for policy in POLICIES}
    greedy = fmean(one.greedy for one in found)
    return {
        "saved": saved,
        "better_greedy_saved": greedy,
        "server_time_saved": {policy: fmean(one.time_saved[policy] for one in found) for policy in POLICIES},
        "over_greedy": _over(saved["dp"], greedy),
    }


def _over(saved: float, greedy: float) -> dict[str, float | None]:
    """How much better: in work saved (None where greedy saves next to nothing), and in requests served per server (None
    where none is left).
    """
    return {
        "saved": saved / greedy - 1 if greedy >= _NOTHING else None,
        "throughput": (1 - greedy) / (1 - saved) - 1 if saved < 1 else None,
    }


def _mean(models: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Mean over the models, each counting the same."""
    saved = {policy: fmean(model["saved"][policy] for model in models) for policy in POLICIES}
    greedy = fmean(model["better_greedy_saved"] for model in models)
    return {
        "models": [model["model"] for model in models],
        "saved": saved,
        "better_greedy_saved": greedy,
        "over_greedy": _over(saved["dp"], greedy),
    }


def _summary(found: Iterable[Outcome]) -> dict[str, Any]:
    held = list(found)
    means = _mean([{"model": m.name, **_shares([one for one in held if one.asked.model is m])} for m in MODELS])
    return {key: value for key, value in means.items() if key != "models"}


def _sensitivity(by_slack: dict[float, list[Outcome]]) -> list[dict[str, Any]]:
    """Per client, network and slack: the mean over the models."""
    return [
        {
            "client": client.name,
            "network": network.name,
            "slack": slack,
            **_summary(one for one in found if one.asked.client is client and one.asked.network is network),
        }
        for client in CLIENTS
        for network in NETWORKS
        for slack, found in by_slack.items()
    ]

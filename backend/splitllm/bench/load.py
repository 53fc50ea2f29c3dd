"""`splitllm bench load`: the simulator held against a real server.

A real server process, pinned to one core, serves replaying clients on the others. Then the same people are simulated,
with costs that were measured on the same core, and what the two say of processor seconds and promises is compared.

Both are kept honest on a machine that others use too. Costs and the server's work are counted in the processor's own
time, which other processes hardly touch. How long the server waited for its core is read from the kernel
(/proc/PID/task/*/schedstat), and the simulated server is made slower by that much in latency, not in cost.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from ..bundle import Bundle
from ..errors import MachineError
from ..types import PREFILL_CHUNK, Float32Array, Link, SessionPlan, Sla, Span
from .capacity import is_good, percentile
from .load_clients import Recording, Replay, replay
from .population import population
from .server_process import ServerProcess, pin
from .simulator import simulate
from .simulator_engine import ServerModel
from .simulator_policies import policy
from .simulator_values import Client, Conversation, Policy, Record, Situation, Turn

_SETTLE_S: Final = 1.0
#: Of the client that the event loop's costs are measured with, one way.
_AWAY_MS: Final = 10.0


@dataclass(frozen=True, slots=True)
class LoadTest:
    """What is replayed: `rate` turns a second arrive for `seconds`; lengths are cut, so that a run stays short.

    variant: weights that are served, and that costs are measured of; None: what a server of the bundle computes with.
    """

    bundle: Path
    sla: Sla
    rate: float
    seconds: float
    seed: int
    headroom: float
    variant: str | None = None
    most_prompt: int = 256
    most_answer: int = 128
    most_think_ms: float = 5000.0
    max_sessions: int = 48
    rounds: int = 2
    server_core: int = 0
    client_core: int = 1


# -- the server process -----------------------------------------------------------------------------------------------


def pinned_server(test: LoadTest) -> ServerProcess:
    """`splitllm serve` as a process on one core, with one thread to compute."""
    command = [
        sys.executable, "-m", "splitllm.cli", "serve", str(test.bundle), "--port", "0", "--device", "cpu",
        "--threads", "1", "--max-sessions", str(test.max_sessions), "--sla-ttft-ms", str(test.sla.ttft_ms),
        "--sla-tpot-ms", str(test.sla.tpot_ms), *_weights(test),
    ]  # fmt: skip
    return ServerProcess(command, core=test.server_core)


def measure_costs(test: LoadTest) -> ServerModel:
    """The costs of the server, measured by a process on the server's core.

    Raises:
        MachineError: the measurement fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "profile.json"
        command = [
            sys.executable, "-m", "splitllm.cli", "bench", "capacity", "--bundle", str(test.bundle),
            "--save-profile", str(path), "--rounds", str(test.rounds), *_weights(test),
        ]  # fmt: skip
        done = subprocess.run(  # noqa: S603  # our own command line
            command, capture_output=True, text=True, check=False,
            preexec_fn=lambda: pin(test.server_core),  # no threads yet
        )  # fmt: skip
        if done.returncode:
            raise MachineError(f"the costs cannot be measured: {done.stderr.strip()[-300:]}")
        return ServerModel.from_json(json.loads(path.read_text("utf-8")))


def _weights(test: LoadTest) -> list[str]:
    """The flag that makes server and measurement run the same weights."""
    return [] if test.variant is None else ["--variant", test.variant]


def activations(bundle: Bundle, conversations: Sequence[Sequence[int]]) -> list[dict[int, Float32Array]]:
    """What the blocks make of each conversation's ids: by k, float32[T, hidden_size] behind k blocks."""
    from ..engines.onnx import OnnxBlocks

    embedding, longest = bundle.embedding(), max(map(len, conversations))
    states = [np.asarray(embedding[np.asarray(ids)], np.float32) for ids in conversations]
    behind = [{0: each} for each in states]
    for block in range(bundle.spec.blocks):
        one = OnnxBlocks(bundle, Span(block, block + 1), rows=1, capacity=longest + 1, threads=1)
        for each in behind:
            each[block + 1] = np.asarray(one.forward(each[block], 0), np.float32).copy()
    return behind


def record_activations(bundle: Bundle) -> Recording:
    """Run one prompt through all blocks, and keep what goes into each."""
    ids = np.random.default_rng(0).integers(0, bundle.spec.vocab_size, PREFILL_CHUNK)
    [behind] = activations(bundle, [ids.tolist()])
    return Recording(bundle.identity, {block: states.astype(np.float16) for block, states in behind.items()})


# -- who comes --------------------------------------------------------------------------------------------------------


def people_of(test: LoadTest, blocks: int) -> list[Conversation]:
    """The population of `bench capacity`, with shorter questions, answers and pauses."""

    def shorter(turn: Turn) -> Turn:
        return Turn(
            min(turn.prompt_tokens, test.most_prompt),
            min(turn.answer_tokens, test.most_answer),
            min(turn.think_ms, test.most_think_ms),
        )

    return [
        replace(one, turns=tuple(shorter(turn) for turn in one.turns))
        for one in population(test.rate, seconds=test.seconds, seed=test.seed, blocks=blocks)
    ]


class Kept(Policy):
    """Gives every conversation the split it was given before."""

    def __init__(self, splits: Mapping[int, int]) -> None:
        self._splits = splits  # by the client's identity: a situation does not tell the conversation

    def plan(self, situation: Situation) -> SessionPlan:
        """See Policy."""
        return _plan_of(self._splits[id(situation.client)])


def _plan_of(split: int) -> SessionPlan:
    return SessionPlan(
        split=split, feasible=True, reason="as before", bound="forced", saved_block_steps=0.0, saved_server_time=0.0,
        server_ms=0.0, predicted_ttft_ms=0.0, predicted_tpot_ms=0.0,
    )  # fmt: skip


def choose_splits(server: ServerModel, people: Sequence[Conversation], name: str, test: LoadTest) -> dict[str, int]:
    """The split of each conversation's first turn, by simulating the policy; it is kept for the whole conversation."""
    chosen = policy(name, server, test.sla, test.headroom)
    outcome = simulate(server, people, chosen, sla=test.sla, max_sessions=test.max_sessions)
    return {record.conversation: record.split for record in outcome.records if record.turn == 0}


# -- one policy, for real and simulated -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Measured:
    """One replay: what its clients saw, and the server's seconds on the processor and waiting for it.

    loop_s: those of the seconds on the processor that were the event loop's; nearly all others are the engine's.
    """

    replay: Replay
    cpu_s: float
    waited_s: float
    loop_s: float = 0.0

    @property
    def slowdown(self) -> float:
        """How much longer the server took because others used its core."""
        return 1 + self.waited_s / self.cpu_s if self.cpu_s > 0 else 1.0


def run_real(
    server: ServerProcess, people: Sequence[Conversation], splits: Mapping[str, int], recording: Recording
) -> Measured:
    """Replay all conversations on the server."""
    (cpu, waited), loop = server.usage(), server.loop_s()
    result = asyncio.run(_replay(server.url, people, splits, recording))
    (cpu_after, waited_after), loop_after = server.usage(), server.loop_s()
    return Measured(result, cpu_after - cpu, waited_after - waited, loop_after - loop)


async def _replay(url: str, people: Sequence[Conversation], splits: Mapping[str, int], recording: Recording) -> Replay:
    result = await replay(url, people, splits, recording)
    await asyncio.sleep(_SETTLE_S)  # the server clears rows
    return result


def run_simulated(
    server: ServerModel, people: Sequence[Conversation], splits: Mapping[str, int], measured: Measured, test: LoadTest
) -> tuple[list[Record], float]:
    """The same people on the simulated server, which waits for its core as the real one did: records and seconds.

    Answers are as long as they came to be in reality, and conversations that failed there are left out.
    """
    lengths: dict[str, list[Turn]] = {}
    for record in measured.replay.records:
        if record.tokens:
            lengths.setdefault(record.conversation, []).append(Turn(record.prompt_tokens, record.tokens))
    same: list[Conversation] = []
    for one in people:
        turns = lengths.get(one.name, [])
        if turns:
            kept = tuple(replace(turn, think_ms=one.turns[i].think_ms) for i, turn in enumerate(turns))
            same.append(replace(one, client=_own(one.client), turns=kept))
    by_client = {id(one.client): splits[one.name] for one in same}
    slow = server.scaled(measured.slowdown)
    outcome = simulate(slow, same, Kept(by_client), sla=test.sla, max_sessions=test.max_sessions)
    return outcome.records, outcome.spent.total_ms / 1000 / measured.slowdown


def _own(client: Client) -> Client:
    """A copy, so that its identity tells its conversation."""
    return replace(client)


def compare(
    name: str,
    splits: Mapping[str, int],
    measured: Measured,
    simulated: tuple[Sequence[Record], float],
    sla: Sla,
) -> dict[str, Any]:
    """Both in figures, and how far apart they are: `difference` is simulated / real - 1."""
    records, seconds = simulated
    real = _summary(measured.replay.records, measured.cpu_s, sla) | {"event_loop_cpu_s": _round(measured.loop_s)}
    model = _summary(records, seconds, sla)
    return {
        "policy": name,
        "mean_split": _round(statistics.fmean(splits.values())),
        "failures": measured.replay.failures,
        "slowdown": _round(measured.slowdown),
        "clients_late_ms": _round(statistics.fmean(measured.replay.late_ms or [0.0])),
        "real": real,
        "simulated": model,
        "difference": {
            key: _round(model[key] / real[key] - 1) if real[key] else None
            for key in ("server_cpu_s_per_request", "goodput", "ttft_p50_ms", "tpot_p50_ms")
        },
    }


def _summary(records: Sequence[Record], seconds: float, sla: Sla) -> dict[str, Any]:
    served = [record for record in records if record.tokens]
    last = max((record.last_ms or 0.0 for record in served), default=0.0)
    good = sum(is_good(replace(record, answer_tokens=record.tokens), sla) for record in served)
    ttft = [record.ttft_ms for record in served if record.ttft_ms is not None]
    tpot = [record.tpot_ms for record in served if record.tpot_ms is not None]
    return {
        "requests": len(served),
        "tokens": sum(record.tokens for record in served),
        "server_cpu_s": _round(seconds),
        "server_cpu_s_per_request": _round(seconds / max(1, len(served))),
        "in_time": good,
        "goodput": _round(1000 * good / last) if last else 0.0,
        "ttft_p50_ms": _round(percentile(ttft, 0.5)),
        "tpot_p50_ms": _round(percentile(tpot, 0.5)),
    }


def _round(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")


def mean_profile(one: ServerModel, other: ServerModel) -> tuple[ServerModel, float]:
    """The first, scaled to the mean of both by the cost of one row alone; and the second over the first."""
    drift = other.profile.decode_ms(8, 64) / one.profile.decode_ms(8, 64)
    return one.scaled((1 + drift) / 2), drift


def run(
    test: LoadTest, policies: Sequence[str], *, rounds: int = 1, tell: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Everything: costs before and after, and `rounds` times all policies in turn. See the module's docstring.

    Raises:
        MachineError: the machine has no second core or no /proc, or the server does not start.
    """
    if not hasattr(os, "sched_setaffinity") or not Path("/proc/self/schedstat").exists():
        raise MachineError("this benchmark reads Linux's /proc and pins processes: run it on Linux")
    if len(os.sched_getaffinity(0)) < 2:
        raise MachineError("this benchmark needs two cores, one for the server: run it on a larger machine")
    before = os.sched_getaffinity(0)
    cores = sorted(before)
    test = replace(test, server_core=cores[0], client_core=cores[1])
    bundle = Bundle.open(test.bundle)
    blocks = bundle.spec.blocks
    tell("recording activations")
    recording = record_activations(bundle)
    tell("measuring costs")
    first = measure_costs(test)
    people = people_of(test, blocks)
    os.sched_setaffinity(0, set(cores[1:]))
    server = None
    done: list[tuple[str, dict[str, int], Measured]] = []
    try:
        server = pinned_server(test)
        overhead = calibrate(server, recording, blocks)
        for number in range(rounds):
            for name in policies:
                tell(f"round {number + 1} of {rounds}: {name}")
                splits = choose_splits(first, people, name, test)
                done.append((name, splits, run_real(server, people, splits, recording)))
    finally:
        if server is not None:
            server.stop()
        os.sched_setaffinity(0, before)
    tell("measuring costs again")
    model, drift = mean_profile(first, measure_costs(test))
    model = replace(model, step_ms=overhead["step_ms"], frame_ms=overhead["frame_ms"])
    results = [
        compare(name, splits, measured, run_simulated(model, people, splits, measured, test), test.sla)
        for name, splits, measured in done
    ]
    return {
        "setup": {
            "server": model.made_by,
            "sla": {"ttft_ms": test.sla.ttft_ms, "tpot_ms": test.sla.tpot_ms},
            "rate": test.rate,
            "seconds": test.seconds,
            "seed": test.seed,
            "headroom": test.headroom,
            "conversations": len(people),
            "most": {"prompt": test.most_prompt, "answer": test.most_answer, "think_ms": test.most_think_ms},
            "cost_drift": _round(drift),
            "overhead_ms": {key: _round(value) for key, value in overhead.items()},
        },
        "runs": results,
    }


def calibrate(server: ServerProcess, recording: Recording, blocks: int) -> dict[str, float]:
    """Milliseconds of a step that are not the engine's: what the event loop takes for a frame in and a token out.

    From one client that runs all blocks, some way off: a loop that was asleep between two frames takes longer for the
    next than one that never rests. Half is put down to the frame and half to the token.
    """
    steps = 200
    client = Client("calibration", 0.0, 0.0, blocks, Link(_AWAY_MS, _AWAY_MS, 1e9, 1e9))
    people = [Conversation("calibration", 0.0, client, (Turn(1, steps),))]
    measured = run_real(server, people, {"calibration": blocks}, recording)
    tokens = max(1, sum(record.tokens for record in measured.replay.records))
    step_ms = 1000 * measured.loop_s / tokens
    return {"step_ms": step_ms / 2, "frame_ms": step_ms / 2}

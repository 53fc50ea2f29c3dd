"""Many people at once on one server, and more than it can take.

    python bench/sessions.py [--people 300] [--minutes 10] [--overload-s 60] [--out bench/results]

A real server process on one core, with one thread to compute; the people, each with a session of the product's Python
client, are processes on the other cores (session_clients.py).

First part: `--people` people for `--minutes` minutes, each with one session open all the time, at splits over all that
there are, some at 0 and some as the planner likes. They ask whole conversations, think between turns (exponential,
`--think-s` seconds in the mean), and go on in the same session or in a new one by lot. A turn is a question and its
answer, up to `done`. A session is lost when it ends, or cannot be opened, without having been asked to; an answer is
wrong when its ids are not those of the same conversation on a quiet server. Memory is told with and without the pages
of the buffers for keys and values, which grow with the chats.

Second part: a server of `--seats` sessions. People come, ask one whole conversation without pauses, and go. The
capacity is what is answered in time when there are always as many people as seats; then 1, 2 and 3 times as many come,
at random, whether or not those before them are served, in `--rounds` rounds; they wait in the server's queue, and who
is refused does not try again. Goodput: right answers a second while people come whose first token came within the
promised time after the question, and the further ones within the promised mean time; how long people waited for a
session stands beside it. What is kept is the goodput of three times over that of once, in the median of the rounds.

Prints a summary; with `--out` it writes sessions.json, sessions.svg and sessions-overload.svg there.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import statistics
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from prometheus_client.parser import text_string_to_metric_families

from bench import session_figures
from bench.session_clients import Course, Crowd, Script, Seen, Turn, people, undisturbed
from splitllm.bench.load import activations
from splitllm.bench.machine import describe
from splitllm.bench.server_process import ServerProcess
from splitllm.bundle import Bundle
from splitllm.resources import demo_bundle
from splitllm.text import TextCodec
from splitllm.types import Sla

#: Conversations that are asked again and again.
QUESTIONS: Final = (
    ("Hello! My name is Ada.", "Tell me a story about a fox.", "What is my name?"),
    ("What is the capital of France?", "What is 7 + 8?", "What colour is the sky?"),
    ("What can you do?", "What is a split?", "Is my prompt private?", "Why is splitting cheaper?"),
    ("Tell me a story.", "What does a cow say?"),
)
WINDOW_S: Final = 10.0
#: After the last of them has gone, rows are cleared and connections end within so long.
_SETTLE_S: Final = 30.0
#: Held when all have gone and nothing is left.
_NOTHING: Final = {"slots": 0, "kv_reserved_bytes": 0}
#: What counts as flat and as not fallen, for memory and goodput that no machine repeats exactly.
_FLAT, _NOT_FALLEN = 1.05, 0.95


# -- the server -------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Watch:
    """What the server holds, sampled on a thread of its own until `stop`."""

    server: ServerProcess
    every_s: float
    #: Of the smallest buffer for keys or values; with many people no heap has mappings as large.
    buffer_bytes: int
    samples: list[dict[str, float]] = field(default_factory=list)
    _done: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin."""
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """No more samples."""
        self._done.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._done.wait(self.every_s):
            self.samples.append(self.sample())

    def sample(self) -> dict[str, float]:
        """Memory, how much of it the buffers for keys and values hold, sockets, rows in them in use, and reserved."""
        slots = reserved = 0.0
        for name, labels, value in _metrics(self.server.url):
            if name == "splitllm_sessions" and labels["state"] in ("idle", "in_turn", "held"):
                slots += value
            elif name == "splitllm_kv_bytes" and labels["kind"] == "reserved":
                reserved += value
        return {
            "at_s": time.monotonic(), "rss_bytes": self.server.resident_bytes(),
            "kv_bytes": self.server.resident_bytes_of(self.buffer_bytes), "sockets": self.server.sockets(),
            "slots": slots, "kv_reserved_bytes": reserved,
        }  # fmt: skip

    def settled(self) -> dict[str, float]:
        """The same when nobody is there any more."""
        ends = time.monotonic() + _SETTLE_S
        while (held := self.sample())["slots"] and time.monotonic() < ends:
            time.sleep(0.5)
        return held


def _metrics(url: str) -> list[tuple[str, dict[str, str], float]]:
    with urllib.request.urlopen(f"{url}/metrics", timeout=60) as page:  # noqa: S310  # our own server
        families = text_string_to_metric_families(page.read().decode())
        return [(one.name, one.labels, one.value) for family in families for one in family.samples]


def refusals(url: str) -> dict[str, int]:
    """Errors that the server told WebSocket clients, by code."""
    told: Counter[str] = Counter()
    for name, labels, value in _metrics(url):
        if name == "splitllm_refusals_total" and labels["api"] == "websocket" and value:
            told[labels["code"]] += int(value)
    return dict(told)


@dataclass(frozen=True, slots=True)
class Run:
    """What a crowd saw, from when on and for how long; the server's seconds on its core, and those it waited for it."""

    seen: Seen
    begun_s: float
    seconds: float
    cpu_s: float
    waited_s: float

    def of_the_core(self) -> dict[str, float]:
        """The server's share of its core, and for which share of the time others kept it from it."""
        return {"used": round(self.cpu_s / self.seconds, 3), "waited_for": round(self.waited_s / self.seconds, 3)}


@dataclass(frozen=True, slots=True)
class Bench:
    """What every run needs."""

    server: ServerProcess
    bundle: Bundle
    scripts: tuple[Script, ...]
    processes: int
    cores: Sequence[int]
    splits: tuple[int | None, ...]

    def run(self, crowd: Crowd) -> Run:
        """Let a crowd live, spread over processes that begin at once."""
        context = multiprocessing.get_context("spawn")
        share = replace(crowd, people=crowd.people // self.processes, rate=crowd.rate / self.processes)
        running = []
        for number in range(self.processes):
            here, there = context.Pipe()
            args = (there, self.server.url, self.bundle.identity, self.scripts, share, number * 100_000)
            process = context.Process(target=people, args=args, daemon=True)
            process.start()
            os.sched_setaffinity(process.pid or 0, self.cores)
            there.close()
            running.append((process, here))
        for step in (Connection.recv, lambda pipe: pipe.send(None)):
            for _, pipe in running:
                step(pipe)
        begun, (cpu, waited) = time.monotonic(), self.server.usage()
        seen = Seen()
        for process, pipe in running:
            seen.add(pipe.recv())
            process.join()
        cpu_after, waited_after = self.server.usage()
        return Run(seen, begun, time.monotonic() - begun, cpu_after - cpu, waited_after - waited)


def scripts_of(bundle: Bundle, url: str) -> tuple[Script, ...]:
    """The conversations on a quiet server, and what a client's blocks make of them."""
    codec = TextCodec.of(bundle)

    async def talk() -> list[Script]:
        return [await undisturbed(url, bundle.identity, codec, questions) for questions in QUESTIONS]

    bare = asyncio.run(talk())
    recorded = iter(activations(bundle, [each.prompt + each.answer for script in bare for each in script]))
    return tuple(tuple(Course(each.prompt, each.answer, next(recorded)) for each in script) for script in bare)


# -- figures ----------------------------------------------------------------------------------------------------------


def rank(values: Sequence[float], share: float) -> float | None:
    """The value below which this share of them lies (nearest rank); None of nothing."""
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 3) if ordered else None


def latencies(turns: Sequence[Turn]) -> dict[str, float | None]:
    """Of answers: time to first token, mean time per further token, and every single gap between tokens, in ms."""
    tpot = [turn.tpot_ms for turn in turns if turn.tpot_ms is not None]
    ttft = [turn.ttft_ms for turn in turns]
    gaps = [gap for turn in turns for gap in turn.gaps_ms]
    return {
        f"{name}_p{round(100 * share)}_ms": rank(values, share)
        for name, values in (("ttft", ttft), ("tpot", tpot), ("gap", gaps))
        for share in (0.5, 0.99)
    }


def is_good(turn: Turn, sla: Sla) -> bool:
    """Right, and within the promise."""
    tpot = turn.tpot_ms
    return turn.right and turn.ttft_ms <= sla.ttft_ms and (tpot is None or tpot <= sla.tpot_ms)


def ratio(above: float | None, below: float | None) -> float | None:
    """One over the other, None where there is neither."""
    return round(above / below, 3) if above is not None and below else None


def summary(seen: Seen) -> dict[str, Any]:
    """What both parts tell of a crowd."""
    return {
        "sessions": seen.sessions, "queued": seen.queued,
        "answers": len(seen.turns), "tokens": sum(len(t.gaps_ms) + 1 for t in seen.turns),
        "wrong": sum(not turn.right for turn in seen.turns), "mended": dict(Counter(seen.mended)),
        "failures": dict(Counter(f"{each.stage}: {each.code}" for each in seen.failures)),
        "sentences": dict(Counter(each.message for each in seen.failures).most_common(8)),
        **latencies(seen.turns),
    }  # fmt: skip


# -- the parts --------------------------------------------------------------------------------------------------------


def steady(bench: Bench, args: argparse.Namespace) -> dict[str, Any]:
    """The first part."""
    seconds = 60 * args.minutes
    spec = bench.bundle.spec
    buffer_bytes = args.people * spec.max_context * spec.kv_bytes_per_token() // 2
    watch, told_before = Watch(bench.server, min(WINDOW_S, seconds / 12), buffer_bytes), refusals(bench.server.url)
    before = watch.sample()
    watch.start()
    crowd = Crowd(args.people, seconds, args.think_s, stay=True, splits=bench.splits, seed=args.seed)
    run = bench.run(crowd)
    watch.stop()
    after, told = watch.settled(), Counter(refusals(bench.server.url))
    told.subtract(told_before)
    turns, begun = run.seen.turns, run.begun_s
    result = summary(run.seen)
    full = [sample for sample in watch.samples if sample["slots"] >= 0.99 * args.people]
    quarter = max(1, len(full) // 4)
    (second, last), (second_kv, last_kv) = (
        [
            statistics.median([each[key] for each in part] or [0.0])
            for part in (full[quarter : 2 * quarter], full[-quarter:])
        ]
        for key in ("rss_bytes", "kv_bytes")
    )
    spread, growth = ratio(result["tpot_p99_ms"], result["tpot_p50_ms"]), ratio(last, second)
    held = {
        name: {key: each[key] for key in (*_NOTHING, "sockets", "rss_bytes", "kv_bytes")}
        for name, each in (("before", before), ("after", after))
    }
    return {
        "people": args.people, "seconds": seconds, "think_s": args.think_s, "seed": args.seed, **result,
        "lost": len(run.seen.failures), "refusals": {code: number for code, number in told.items() if number},
        "server_of_its_core": run.of_the_core(), "tpot_p99_over_p50": spread,
        "rss_second_quarter": second, "rss_last_quarter": last, "rss_growth": growth,
        "kv_second_quarter": second_kv, "kv_last_quarter": last_kv,
        "rss_growth_without_kv": ratio(last - last_kv, second - second_kv), **held,
        "met": {
            "none lost": not run.seen.failures, "no answer wrong": not result["wrong"], "no error": not +told,
            "p99 TPOT ≤ 5 × p50": spread is not None and spread <= 5,
            f"memory in the last quarter ≤ {_FLAT} × in the second": growth is not None and growth <= _FLAT,
            "nothing left": all(after[key] == value for key, value in _NOTHING.items())
            and after["sockets"] <= before["sockets"],
        },
        "by_split": {str(k): latencies([t for t in turns if t.split == k]) for k in sorted({t.split for t in turns})},
        "windows": [
            {"from_s": number * WINDOW_S, "answers": len(of), **latencies(of)}
            for number in range(max(1, round(seconds / WINDOW_S)))
            for of in [[t for t in turns if number <= (t.ended_s - begun) / WINDOW_S < number + 1]]
        ],
        "samples": [{**each, "at_s": round(each["at_s"] - begun, 1)} for each in watch.samples],
    }  # fmt: skip


def overload(bench: Bench, args: argparse.Namespace) -> dict[str, Any]:
    """The second part."""
    crowd = Crowd(args.seats, args.overload_s, splits=bench.splits, seed=args.seed)
    capacity = _visits(bench, crowd)
    runs: list[dict[str, Any]] = []
    ratios = []
    for number in range(args.rounds):
        goodput: dict[int, float] = {}
        for times in (1, 2, 3):
            time.sleep(3)
            run = _visits(bench, replace(crowd, rate=times * capacity["served_per_s"], seed=args.seed + number))
            goodput[times] = run["goodput_per_s"]
            runs.append({"round": number, "times": times, **run})
        ratios.append(goodput[3] / max(goodput[1], 1e-9))
    kept = round(statistics.median(ratios), 3)
    typed = all(code in ("server_full", "kv_exhausted") for run in runs for code in _codes(run))
    return {
        "seats": args.seats, "seconds": args.overload_s, "rounds": args.rounds, "capacity": capacity, "runs": runs,
        "goodput_3x_over_1x": kept, "goodput_3x_over_1x_of_rounds": [round(each, 3) for each in ratios],
        "met": {
            f"goodput at 3 × capacity ≥ {_NOT_FALLEN} × that at 1 ×": kept >= _NOT_FALLEN,
            "who is not served is refused by name": typed,
            "no answer wrong": not any(run["wrong"] for run in (capacity, *runs)),
        },
    }  # fmt: skip


def _codes(run: dict[str, Any]) -> list[str]:
    return [failure.split(": ")[1] for failure in run["failures"]]


def _visits(bench: Bench, crowd: Crowd) -> dict[str, Any]:
    run = bench.run(crowd)
    seen, sla, ends_s = run.seen, Sla(), run.begun_s + crowd.seconds
    turned_away = sum(each.stage == "open" for each in seen.failures)
    return {
        "offered_per_s": round((seen.sessions + turned_away) / crowd.seconds, 2),
        "served_per_s": round(seen.sessions / run.seconds, 2),
        "goodput_per_s": round(sum(is_good(t, sla) and t.ended_s <= ends_s for t in seen.turns) / crowd.seconds, 2),
        "seconds": round(run.seconds, 1), "server_of_its_core": run.of_the_core(),
        "server_cpu_ms_per_answer": round(1000 * run.cpu_s / max(1, len(seen.turns)), 2),
        "wait_p50_ms": rank(seen.waits_ms, 0.5), "wait_p99_ms": rank(seen.waits_ms, 0.99), **summary(seen),
    }  # fmt: skip


def main() -> None:
    """Both parts, and what is written of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int, default=300)
    parser.add_argument("--minutes", type=float, default=10.0, help="of the first part; 0 leaves it out")
    parser.add_argument("--think-s", type=float, default=15.0)
    parser.add_argument("--overload-s", type=float, default=60.0, help="of each run of the second part; 0: none")
    parser.add_argument("--rounds", type=int, default=3, help="of the second part")
    parser.add_argument("--seats", type=int, default=64, help="sessions of the second part's server")
    parser.add_argument("--processes", type=int, default=2, help="of people")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--bundle", type=Path, default=demo_bundle())
    parser.add_argument("--out", type=Path, help="folder for the results; without it, they are only printed")
    args = parser.parse_args()
    bundle, cores = Bundle.open(args.bundle), sorted(os.sched_getaffinity(0))
    splits = (None, None, 0, 0, *range(bundle.spec.blocks + 1))
    result: dict[str, Any] = {"machine": describe()}
    for part, length, seats in ((steady, args.minutes, args.people), (overload, args.overload_s, args.seats)):
        if length:
            serve = [sys.executable, "-m", "splitllm.cli", "serve", str(args.bundle), "--port", "0", "--threads", "1"]
            server = ServerProcess([*serve, "--max-sessions", str(seats)], core=cores[0])
            try:
                scripts = scripts_of(bundle, server.url)
                bench = Bench(server, bundle, scripts, args.processes, cores[1:] or cores, splits)
                result[part.__name__] = part(bench, args)
            finally:
                server.stop()
            short = {key: value for key, value in result[part.__name__].items() if key not in ("windows", "samples")}
            print(json.dumps({part.__name__: short}, indent=1, ensure_ascii=False), flush=True)
    if args.out is not None:
        path = args.out / "sessions.json"
        if path.exists():  # a part that was left out stays as it was
            result = json.loads(path.read_text("utf-8")) | result
        session_figures.draw(result, args.out)
        path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", "utf-8")


if __name__ == "__main__":
    main()

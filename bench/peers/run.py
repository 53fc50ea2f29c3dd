"""This project's engine beside those an operator would pick instead: same random weights, prompts and threads.

    make bench-peers          # or: .venv/bin/python bench/peers/run.py --models FOLDER --out FILE

ARGS="--rounds 3" takes fewer rounds; --peers and --cases leave some out. The first time, models are made, which takes
some minutes. Each peer is a process of its own; every round asks each of them in turn, so that other work on the
machine falls on all alike, and figures are medians over rounds. Ratios are the result.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

HERE: Final = Path(__file__).resolve().parent
ROOT: Final = HERE.parents[1]
PYTHON: Final = HERE / ".venv" / "bin" / "python"
SHAPE: Final = "smollm2-135m"
CONTEXT, PROMPT = 128, 512
#: As many as a short answer has. Of eight, those in which a server wakes up that stood idle meanwhile are too many.
STEPS: Final = {"decode_1": 32, "decode_32": 32}
CASES: Final = (*STEPS, "prefill")
#: Peer, Python that runs it, and the model it reads, under the folder of models.
PEERS: Final = {
    "splitllm": (sys.executable, f"{SHAPE}.bundle"),
    "splitllm_ws": (sys.executable, f"{SHAPE}.bundle"),
    "splitllm_int4": (sys.executable, f"{SHAPE}.bundle"),
    "transformers": (str(PYTHON), SHAPE),
    "optimum": (str(PYTHON), "optimum"),
    "genai": (str(PYTHON), "genai-fp32"),
    "genai_int4": (str(PYTHON), "genai-int4"),
    "llamacpp": (str(PYTHON), f"{SHAPE}.gguf"),
}
FLOAT32: Final = ("transformers", "optimum", "genai", "llamacpp")
#: Through WebSockets decoding is measured; a prompt alone would be the engine's again.
ONLY_DECODES: Final = ("splitllm_ws",)


def prepare(folder: Path) -> None:
    """Make every model that is not there yet, each by its own tool."""
    checkpoint = folder / SHAPE
    builder = [str(PYTHON), "-m", "onnxruntime_genai.models.builder", "-i", str(checkpoint), "-e", "cpu"]
    exporter = [str(PYTHON), "-m", "optimum.commands.optimum_cli", "export", "onnx"]
    task = ["--task", "text-generation-with-past", "--no-post-process", "--model", str(checkpoint)]
    steps: dict[str, list[str]] = {
        f"{SHAPE}.bundle": [sys.executable, str(ROOT / "bench/models.py"), SHAPE, "--out", str(folder)],
        f"{SHAPE}.gguf": [str(PYTHON), str(HERE / "gguf_of.py"), str(checkpoint), str(folder / f"{SHAPE}.gguf")],
        "genai-fp32": [*builder, "-p", "fp32", "-o", str(folder / "genai-fp32"), "-c", str(folder / "cache")],
        "genai-int4": [*builder, "-p", "int4", "-o", str(folder / "genai-int4"), "-c", str(folder / "cache")],
        "optimum": [*exporter, *task, str(folder / "optimum")],
    }
    for name, command in steps.items():
        if not (folder / name).exists():
            print(f"making {name} …", file=sys.stderr)
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=os.environ | {"HF_HUB_OFFLINE": "1"})  # noqa: S603


class Worker:
    """A peer's process."""

    def __init__(self, name: str, folder: Path, threads: int) -> None:
        python, model = PEERS[name]
        module = name.removesuffix("_int4") if name.startswith("genai") else name
        self.process = subprocess.Popen(  # noqa: S603
            [python, str(HERE / "worker.py"), module, str(folder / model), str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"},
        )

    def ask(self, **command: Any) -> dict[str, Any]:
        """Send a command of worker.py and wait for its answer."""
        assert self.process.stdin is not None  # noqa: S101  # both are pipes
        assert self.process.stdout is not None  # noqa: S101
        print(json.dumps(command), file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("the peer ended; run bench/peers/worker.py by hand to see why")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def end(self) -> None:
        """Let the process end."""
        assert self.process.stdin is not None  # noqa: S101
        self.process.stdin.close()
        self.process.wait()


def measure(folder: Path, threads: int, rounds: int, cases: Sequence[str], names: Sequence[str]) -> dict[str, Any]:
    """Medians per peer and case, in tokens per second of wall time and per second of processor time.

    Of this project's server the processor time is the server's alone; engines are measured with what drives them.
    """
    workers: dict[str, Worker] = {}
    failed: dict[str, str] = {}
    taken: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for name in names:
        print(f"opening {name} …", file=sys.stderr)
        worker = Worker(name, folder, threads)
        try:
            for case in cases:
                if case in STEPS:
                    worker.ask(do="open", batch=_batch(case), context=CONTEXT)
            workers[name], taken[name] = worker, {}
        except RuntimeError as error:
            failed[name] = str(error)
    for number in range(1 + rounds):
        print(f"round {number} of {rounds} …", file=sys.stderr)
        for case in cases:
            for name, worker in workers.items():
                if case == "prefill" and name in ONLY_DECODES:
                    continue
                if case == "prefill":
                    answer = worker.ask(do="prefill", tokens=PROMPT)
                else:
                    answer = worker.ask(do="step", batch=_batch(case), steps=STEPS[case])
                if number:  # the first round warms up
                    taken[name].setdefault(case, []).append(answer)
    for worker in workers.values():
        worker.end()
    tokens = {case: PROMPT if case == "prefill" else _batch(case) for case in cases}
    peers = {
        name: {
            case: {
                "tokens_per_s": tokens[case] / statistics.median(a["seconds"] for a in answers),
                "tokens_per_cpu_s": tokens[case] / statistics.median(a["cpu"] for a in answers),
            }
            for case, answers in by_case.items()
        }
        for name, by_case in taken.items()
    }
    first = {name: by_case["prefill"][0]["token"] for name, by_case in taken.items() if "prefill" in by_case}
    if len({first[name] for name in ("splitllm", *FLOAT32) if name in first}) > 1:
        raise SystemExit(f"after the same prompt the float32 peers draw different tokens, so they differ: {first}")
    return {"peers": peers, "failed": failed, "first_token_after_the_prompt": first}


def _batch(case: str) -> int:
    return int(case.removeprefix("decode_"))


def table(peers: dict[str, Any]) -> list[dict[str, Any]]:
    """The comparison: ours against the best of them, and whether the target is met."""

    def row(what: str, target: float, case: str, ours: str, others: tuple[str, ...]) -> dict[str, Any]:
        there = [name for name in others if name in peers]
        best = max(there, key=lambda name: peers[name][case]["tokens_per_s"])
        ratio = peers[ours][case]["tokens_per_s"] / peers[best][case]["tokens_per_s"]
        cpu = peers[ours][case]["tokens_per_cpu_s"] / max(peers[name][case]["tokens_per_cpu_s"] for name in there)
        return {"what": what, "best": best, "ratio": ratio, "cpu_ratio": cpu, "target": target, "met": ratio >= target}

    wanted: list[tuple[str, float, str, str, tuple[str, ...]]] = [
        ("decode, one session, float32", 1.0, "decode_1", "splitllm", FLOAT32),
        ("decode, one session, int4", 1.0, "decode_1", "splitllm_int4", ("genai_int4",)),
        (f"prefill of {PROMPT}, float32", 1.0, "prefill", "splitllm", FLOAT32),
        ("32 sessions, engine alone, float32", 1.2, "decode_32", "splitllm", FLOAT32),
        ("32 sessions, WebSockets, float32", 1.2, "decode_32", "splitllm_ws", FLOAT32),
        ("32 sessions, WebSockets vs engine alone", 0.85, "decode_32", "splitllm_ws", ("splitllm",)),
    ]
    rows = [
        row(*line) for line in wanted if line[2] in peers.get(line[3], {}) and any(name in peers for name in line[4])
    ]
    for name, how in (("splitllm", "engine alone"), ("splitllm_ws", "WebSockets")):
        measured = {case: speed["tokens_per_s"] for case, speed in peers.get(name, {}).items()}
        if {"decode_1", "decode_32"} <= set(measured):
            ratio = measured["decode_32"] / measured["decode_1"]
            what = f"32 sessions vs our one, {how}"
            rows.append({"what": what, "best": name, "ratio": ratio, "target": 12.0, "met": ratio >= 12})
    return rows


def versions() -> dict[str, str]:
    """What is installed beside this project."""
    code = (
        "import importlib.metadata as m, json; print(json.dumps({p: m.version(p) for p in ('torch', 'transformers', "
        "'optimum', 'optimum-onnx', 'onnxruntime', 'onnxruntime-genai', 'llama-cpp-python')}))"
    )
    found: dict[str, str] = json.loads(subprocess.check_output([str(PYTHON), "-c", code], text=True))  # noqa: S603
    return found


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Compare with other engines, side by side.")
    parser.add_argument("--models", type=Path, required=True, metavar="FOLDER", help="where models are made and kept")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the result there as JSON")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--peers", nargs="+", choices=list(PEERS), default=list(PEERS), metavar="PEER", help="default: all"
    )
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), help="default: all")
    args = parser.parse_args()
    from splitllm.bench.machine import describe

    prepare(args.models)
    result: dict[str, Any] = {"machine": describe(), "versions": versions(), "threads": args.threads}
    result |= {
        "rounds": args.rounds,
        "context": CONTEXT,
        **measure(args.models, args.threads, args.rounds, args.cases, args.peers),
    }
    result["table"] = table(result["peers"])
    if args.out is not None:
        args.out.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    for entry in result["table"]:
        verdict = "met" if entry["met"] else "MISSED"
        cpu = f"(processor time {entry['cpu_ratio']:.2f})" if "cpu_ratio" in entry else ""
        ratio = f"{entry['ratio']:5.2f} x {entry['best']:12}"
        print(f"{entry['what']:36} {ratio} target {entry['target']} {verdict} {cpu}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

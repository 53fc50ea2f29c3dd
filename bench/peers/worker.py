"""One peer in a process of its own: commands as JSON lines on stdin, answers on stdout.

    python bench/peers/worker.py PEER MODEL_FOLDER THREADS

Commands: {"do": "open", "batch": B, "context": C}   fill B sequences of C tokens, to be decoded
          {"do": "step", "batch": B, "steps": N}      N greedy tokens for each of the B -> {"seconds", "cpu"} per step
          {"do": "prefill", "tokens": T}              a prompt of T tokens, alone -> {"seconds", "cpu", "token"}

A peer's `step` may say itself what a step took; one that has something to end has `close`.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent


def prompt(tokens: int, row: int = 0) -> list[int]:
    """Token ids that are the same for every peer."""
    return [3 + (7919 * (row + 1) + 104729 * i) % 240 for i in range(tokens)]


def timed(call: Any) -> tuple[dict[str, float], Any]:
    """What a call took, and gave."""
    cpu, wall = time.process_time(), time.perf_counter()
    result = call()
    return {"seconds": time.perf_counter() - wall, "cpu": time.process_time() - cpu}, result


def obey(peer: Any, command: dict[str, Any]) -> dict[str, Any]:
    """Carry out one command; its answer."""
    if command["do"] == "open":
        peer.open([prompt(command["context"], row) for row in range(command["batch"])])
        return {}
    if command["do"] == "step":
        steps = command["steps"]
        took, said = timed(lambda: peer.step(command["batch"], steps))
        return said or {key: value / steps for key, value in took.items()}
    took, token = timed(lambda: peer.prefill(prompt(command["tokens"])))
    return {**took, "token": int(token)}


def main() -> None:
    """Obey until stdin ends."""
    name, model, threads = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    sys.path.insert(0, str(FOLDER))
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints must not be taken for an answer
    peer = importlib.import_module(f"peer_{name}").Peer(model, threads)
    try:
        for line in sys.stdin:
            answer = obey(peer, json.loads(line))
            print(json.dumps(answer), file=out, flush=True)
    finally:
        if hasattr(peer, "close"):
            peer.close()


if __name__ == "__main__":
    main()

"""What the second turn of a chat takes to its first token, beside a prompt of the whole conversation.

    python bench/second_turn.py --bundle DIR [--history N] [--new N] [--rounds N] [--out FILE]

A real server process and the Python client at split 0, through WebSockets on this machine. In each round, in turn: a
new session whose prompt is the whole conversation, and the second turn of a session that holds the history.
`bench/models.py` makes the bundle.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from splitllm.bench.machine import describe
from splitllm.bench.server_process import ServerProcess
from splitllm.bundle import Bundle
from splitllm.client.rows import Rows
from splitllm.client.session import ClientSession
from splitllm.types import ClientReport, SamplingParams

#: Of the time that the whole conversation takes.
TARGET = 0.25


async def first_token(session: ClientSession, ids: list[int], server: ServerProcess) -> tuple[float, float]:
    """Seconds until the first token of an answer to `ids`, which joins them; and the server's processor seconds."""
    processor, began = server.usage()[0], time.perf_counter()
    took = 0.0
    async for item in session.answer(ids, max_tokens=1, sampling=SamplingParams()):
        if isinstance(item, int):
            took = time.perf_counter() - began
            ids.append(item)
    return took, server.usage()[0] - processor


async def measure(server: ServerProcess, bundle: Bundle, history: int, new: int, rounds: int) -> dict[str, Any]:
    """Medians over rounds, after one that warms up."""

    async def opened() -> ClientSession:
        return await ClientSession.open(
            server.url,
            model=None,
            identity=bundle.identity,
            report=ClientReport(),
            split=0,
            wire="float16",
            expected_prompt_tokens=history,
            rows=Rows(),
        )

    taken: dict[str, list[tuple[float, float]]] = {"whole conversation, new session": [], "second turn": []}
    for number in range(1 + rounds):
        draw = np.random.default_rng(number).integers(3, bundle.spec.vocab_size, history + new).tolist()
        chat = await opened()
        ids = draw[: history - 1]
        await first_token(chat, ids, server)  # `ids` is the history now
        question = [*ids, *draw[history:]]
        fresh = await opened()
        pairs = ((fresh, "whole conversation, new session"), (chat, "second turn"))
        for session, name in pairs if number % 2 else pairs[::-1]:
            figures = await first_token(session, list(question), server)
            if number:
                taken[name].append(figures)
        await chat.close()
        await fresh.close()
    wall, cpu = ([statistics.median(each[i] for each in taken[name]) for name in taken] for i in (0, 1))
    return {
        "cases": [
            {"case": name, "ttft_s": round(wall[i], 4), "server_cpu_s": round(cpu[i], 3), "rounds_ttft_s": [
                round(each[0], 4) for each in taken[name]
            ]}
            for i, name in enumerate(taken)
        ],
        "ratio": round(wall[1] / wall[0], 3),
        "cpu_ratio": round(cpu[1] / cpu[0], 3),
    }  # fmt: skip


def main() -> int:
    """Measure, print, write JSON; 3 if the target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--history", type=int, default=1000, help="tokens that the first turn leaves")
    parser.add_argument("--new", type=int, default=16, help="tokens of the second question")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("bench/results/second_turn.json"))
    args = parser.parse_args()
    bundle = Bundle.open(args.bundle, verify=False)
    command = [sys.executable, "-m", "splitllm.cli", "serve", str(args.bundle), "--port", "0", "--variant", "float32"]
    server = ServerProcess([*command, "--max-sessions", "4"], start_timeout_s=600)
    try:
        measured = asyncio.run(measure(server, bundle, args.history, args.new, args.rounds))
    finally:
        server.stop()
    result = {
        "model": bundle.spec.name,
        "variant": "float32",
        "history": args.history,
        "new": args.new,
        "rounds": args.rounds,
        "machine": describe(),
        **measured,
        "target": TARGET,
        "met": measured["ratio"] <= TARGET,
    }
    args.out.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    print(json.dumps(result, indent=1))
    return 0 if result["met"] else 3


if __name__ == "__main__":
    sys.exit(main())

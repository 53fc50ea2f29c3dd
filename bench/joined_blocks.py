"""What running the server's blocks in groups saves beside running them one by one, on the CPU.

    python bench/joined_blocks.py --bundle DIR [--variants float32,int4] [--rounds N] [--out FILE]

Two engines over the same weights in one process take turns, by batch; weights are in memory twice.
`bench/models.py` makes the bundle. Why blocks are joined: docs/decisions/blocks-joined.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any, Final

import numpy as np

from splitllm.bench.machine import describe
from splitllm.bundle import Bundle
from splitllm.engines.onnx import OnnxEngine
from splitllm.types import PREFILL_CHUNK
from splitllm.work import Batch, Work

CONTEXT: Final = 2 * PREFILL_CHUNK
ROWS: Final = (1, 8, 32)
#: Steps of one round: a row alone is soon done.
STEPS: Final = {1: 12, 8: 6, 32: 3}


def step(rows: int) -> Batch:
    """All rows at split 0, with the same history."""
    token = np.array([3], np.int32)
    return Batch(decode=tuple(Work(row, 0, CONTEXT, token, wants_logits=True) for row in range(rows)))


def measure(bundle: Bundle, variant: str, threads: int | None, rounds: int) -> list[dict[str, Any]]:
    """Medians over interleaved rounds, after one that warms up: milliseconds of a step, and of processor time."""
    engines = {
        name: OnnxEngine(
            bundle, rows=max(ROWS), capacity=CONTEXT + 1, threads=threads, device="cpu", variant=variant, joined=joined
        )
        for name, joined in (("one by one", False), ("joined", True))
    }
    for engine in engines.values():
        for row in range(max(ROWS)):
            for first in range(0, CONTEXT, PREFILL_CHUNK):
                ids = np.full(PREFILL_CHUNK, 3, np.int32)
                engine.run(Batch(prefill=(Work(row, 0, first, ids, wants_logits=False),)))
    results = []
    for rows in ROWS:
        taken: dict[str, list[tuple[float, float]]] = {name: [] for name in engines}
        for number in range(1 + rounds):
            for name, engine in engines.items():
                wall, cpu = time.perf_counter(), time.process_time()
                for _ in range(STEPS[rows]):
                    engine.run(step(rows))
                figures = (time.perf_counter() - wall, time.process_time() - cpu)
                if number:
                    taken[name].append((1000 * figures[0] / STEPS[rows], 1000 * figures[1] / STEPS[rows]))
        wall_ms, cpu_ms = ({name: statistics.median(t[i] for t in taken[name]) for name in engines} for i in (0, 1))
        results.append(
            {
                "variant": variant,
                "rows": rows,
                "wall_ms": {name: round(value, 2) for name, value in wall_ms.items()},
                "cpu_ms": {name: round(value, 2) for name, value in cpu_ms.items()},
                "wall_ratio": round(wall_ms["joined"] / wall_ms["one by one"], 3),
                "cpu_ratio": round(cpu_ms["joined"] / cpu_ms["one by one"], 3),
            }
        )
    for engine in engines.values():
        engine.close()
    return results


def main() -> int:
    """Measure, print, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--variants", default="float32,int4")
    parser.add_argument("--threads", type=int, default=None, help="by default as many as there are cores")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path, default=Path("bench/results/joined_blocks.json"))
    args = parser.parse_args()
    bundle = Bundle.open(args.bundle, verify=False)
    cases = [
        case for variant in args.variants.split(",") for case in measure(bundle, variant, args.threads, args.rounds)
    ]
    result = {
        "model": bundle.spec.name,
        "context": CONTEXT,
        "rounds": args.rounds,
        "machine": describe(),
        "cases": cases,
    }
    args.out.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    print(json.dumps(result, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

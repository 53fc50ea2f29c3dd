"""Should a decode row wait for company? A layer run costs a fixed part and a part per row, so rows that run together
save fixed parts. A simulation in virtual time: sessions answer each token after a turnaround (network and client), the
server runs ticks of fixed + per row x rows, and three rules say when the next tick begins.

    python bench/company.py [--json]

The product does not wait yet: docs/log.md says what this found. The two costs come from `splitllm bench engine` (decode
at 128 positions, arithmetic_s); the default is SmolLM2-135M's shape on two cores.
"""

from __future__ import annotations

import argparse
import heapq
import json
import random
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Final

#: (rows ready, sessions, oldest wait ms, earliest deadline minus now ms, tick ms if all came) -> wait on?
Rule = Callable[[int, int, float, float, float], bool]
RULES: Final[dict[str, Rule]] = {
    "at once": lambda *_: False,
    "one tick": lambda ready, all_, waited, left, tick: ready < all_ and waited < tick and left > tick,
    "to the deadline": lambda ready, all_, _, left, tick: ready < all_ and left > 1.1 * tick,
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """server_ms: per token. late: share of tokens past the limit. tpot_ms: mean time between a session's tokens."""

    rule: str
    sessions: int
    turnaround_ms: float
    rows_per_tick: float
    server_ms: float
    busy: float
    tpot_ms: float
    late: float


def simulate(
    name: str, sessions: int, turnaround_ms: float, *, fixed_ms: float, row_ms: float, limit_ms: float, seed: int = 0
) -> Outcome:
    """`sessions` that all decode for a minute of virtual time under the rule `name`."""
    chance, rule = random.Random(seed), RULES[name]
    coming = [(chance.uniform(0, turnaround_ms), i) for i in range(sessions)]
    heapq.heapify(coming)
    last = [0.0] * sessions
    ready: list[tuple[float, int]] = []
    now = busy = 0.0
    ticks = tokens = late = 0
    gaps = 0.0
    while now < 60_000:
        while coming and coming[0][0] <= now:
            ready.append(heapq.heappop(coming))
        if not ready:
            now = coming[0][0]
            continue
        whole = fixed_ms + row_ms * sessions
        left = min(last[i] + limit_ms for _, i in ready) - now
        if rule(len(ready), sessions, now - ready[0][0], left, whole):
            now = min(coming[0][0], now + 1.0)
            continue
        took = fixed_ms + row_ms * len(ready)
        now, busy, ticks = now + took, busy + took, ticks + 1
        for _, i in ready:
            tokens, gaps = tokens + 1, gaps + now - last[i]
            late += now - last[i] > limit_ms
            last[i] = now
            heapq.heappush(coming, (now + turnaround_ms * chance.lognormvariate(0, 0.3), i))
        ready = []
    return Outcome(
        name, sessions, turnaround_ms, tokens / ticks, busy / tokens, busy / now, gaps / tokens, late / tokens
    )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Waiting for company, simulated.")
    parser.add_argument("--fixed-ms", type=float, default=26.0, help="of a tick (default: %(default)s)")
    parser.add_argument("--row-ms", type=float, default=2.2, help="of a row in it (default: %(default)s)")
    parser.add_argument("--limit-ms", type=float, default=150.0, help="promised TPOT (default: %(default)s)")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    costs = {"fixed_ms": args.fixed_ms, "row_ms": args.row_ms, "limit_ms": args.limit_ms}
    found = [
        simulate(rule, sessions, turnaround, **costs)
        for sessions in (2, 8, 16, 32)
        for turnaround in (20.0, 50.0, 90.0)
        for rule in RULES
    ]
    if args.json:
        print(json.dumps({**costs, "outcomes": [asdict(outcome) for outcome in found]}, indent=1))
        return
    print("sessions  turnaround  rule             rows/tick  server ms/token  busy   TPOT ms   late")
    for o in found:
        print(
            f"{o.sessions:8}  {o.turnaround_ms:10.0f}  {o.rule:15}  {o.rows_per_tick:9.1f}  {o.server_ms:15.2f}  "
            f"{o.busy:4.2f}  {o.tpot_ms:8.1f}  {o.late:5.1%}"
        )


if __name__ == "__main__":
    main()

from __future__ import annotations

import copy
from typing import Any

import pytest

# DESIGN.md, "Planner".
_EXAMPLE: dict[str, Any] = {
    "stages": ["embed", "block.0", "block.1", "head"],
    "phases": [
        {
            "name": "prefill",
            "weight": 1,
            "latency_limit_ms": 2000,
            "client_ms": [1, 9, 9, 4],
            "server_ms": [1, 3, 3, 2],
            "server_cost": [1, 3, 3, 2],
            "input_bytes": [800, 90000, 90000, 90000],
            "output_bytes": 8,
        },
        {
            "name": "decode",
            "weight": 200,
            "latency_limit_ms": 150,
            "client_ms": [0, 4, 4, 2],
            "server_ms": [0, 1, 1, 1],
            "server_cost": [0, 1, 1, 1],
            "input_bytes": [8, 900, 900, 900],
            "output_bytes": 8,
        },
    ],
    "client_memory": [0, 9000000, 9000000, 40000000],
    "client_memory_limit": 30000000,
    "pinned": {"head": "server"},
    "link": {"up_ms": 20, "down_ms": 20, "up_bytes_per_ms": 1250, "down_bytes_per_ms": 6250},
    "max_crossings": 2,
}


@pytest.fixture
def example() -> dict[str, Any]:
    """The problem of DESIGN.md, free to be changed."""
    return copy.deepcopy(_EXAMPLE)

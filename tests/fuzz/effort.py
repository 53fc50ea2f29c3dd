"""How hard the fuzz tests try: a few seconds as they are, longer where `SPLITLLM_FUZZ` says by how much."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable
from typing import Any, Final

from hypothesis import HealthCheck, Phase, settings

#: Factor on the number of examples. At 1 the examples are the same in every run; above it they are new each time.
FACTOR: Final = max(1, int(os.environ.get("SPLITLLM_FUZZ", "1")))
#: `make guards` wants to know that a test fails, not by how little.
_PHASES: Final = [Phase.generate] if os.environ.get("SPLITLLM_NO_SHRINK") else [Phase.generate, Phase.shrink]


def effort(examples: int, **more: Any) -> settings:
    """Settings for a test that tries `examples` examples by default."""
    return settings(
        max_examples=examples * FACTOR,
        derandomize=FACTOR == 1,
        deadline=None,
        database=None,
        phases=_PHASES,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        **more,
    )


def calls(function: Callable[[], object]) -> int:
    """How many calls, of Python and of C functions, `function` makes: work that does not depend on the machine."""
    count = 0

    def tally(_frame: object, event: str, _arg: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    gc.disable()  # Hypothesis has itself called by the garbage collector, which comes when it likes
    sys.setprofile(tally)
    try:
        function()
    finally:
        sys.setprofile(before)
        gc.enable()
    return count

"""What a measurement was taken on: stands beside every figure that depends on it."""

from __future__ import annotations

import os
import platform
from typing import Any

from .. import __version__


def describe() -> dict[str, Any]:
    """Processor, cores, load and versions. Nothing in it names the machine or its owner."""
    import numpy

    from ..engines.onnx import runtime_description
    from ..engines.profiling import processor

    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "load_average_1min": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "system": platform.system(),
        "python": platform.python_version(),
        "numpy": numpy.__version__,
        "splitllm": __version__,
        **runtime_description(),
    }

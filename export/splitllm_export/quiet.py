"""Silence for libraries that talk: while exporting, what people read is ours."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from typing import Any

from transformers.utils import logging as _transformers_logging

transformers_logging: Any = _transformers_logging  # only half of it has types


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Within this context no library below ERROR logs, warns, prints or draws a progress bar; all is put back after."""
    loggers = [
        logging.getLogger(name) for name in ("transformers", "optimum", "torch", "huggingface_hub", "onnxscript")
    ]
    levels = [logger.level for logger in loggers]
    bars = transformers_logging.is_progress_bar_enabled()
    # The tracer and transformers print some notes without asking a logger.
    with warnings.catch_warnings(), _discard_prints():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        transformers_logging.disable_progress_bar()
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
            if bars:
                transformers_logging.enable_progress_bar()


@contextlib.contextmanager
def _discard_prints() -> Iterator[None]:
    with open(os.devnull, "w") as nothing, contextlib.redirect_stdout(nothing):  # noqa: PTH123  # devnull is no Path
        yield


@contextlib.contextmanager
def native_prints_discarded() -> Iterator[None]:
    """Within this context nothing that native code prints reaches standard output: the tracer dumps graphs there."""
    with contextlib.suppress(OSError, ValueError, AttributeError):  # no such output, or it is captured
        sys.stdout.flush()
    kept = os.dup(1)
    try:
        with open(os.devnull, "w") as nothing:  # noqa: PTH123  # devnull is no Path
            os.dup2(nothing.fileno(), 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def first_line(error: BaseException) -> str:
    """What a foreign error says, cut to one line of at most 200 characters."""
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:200]

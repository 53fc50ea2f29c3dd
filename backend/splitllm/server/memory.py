"""Whether what is to be served fits the memory that the operator grants. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import UsageError
from ..planner.reasons import size


@dataclass(frozen=True, slots=True)
class ModelMemory:
    """What a model needs: bytes of the weights that run here, and of one short session's keys and values at split 0."""

    name: str
    weight_bytes: int
    least_kv_bytes: int


def kv_memory(models: Sequence[ModelMemory], memory_bytes: int | None, kv_memory_bytes: int | None) -> int | None:
    """Bytes for the keys and values of all models' sessions; None where nobody bounds them.

    `memory_bytes` bounds them together with the weights, `kv_memory_bytes` by themselves. Sessions of all models share
    the memory, so it must do for one short session of the model that takes most.

    Raises:
        UsageError: it does not do; with what each model takes.
    """
    weights = sum(model.weight_bytes for model in models)
    neediest = max(models, key=lambda model: model.least_kv_bytes)
    least = neediest.least_kv_bytes
    if kv_memory_bytes is not None and kv_memory_bytes < least:
        raise UsageError(
            f"--kv-memory {kv_memory_bytes} is less than a session of {neediest.name} takes; give at least {least}"
        )
    if memory_bytes is None:
        return kv_memory_bytes
    needed = weights + (least if kv_memory_bytes is None else kv_memory_bytes)
    if memory_bytes < needed:
        each = ", ".join(f"{model.name} {size(model.weight_bytes)}" for model in models)
        raise UsageError(
            f"--memory {memory_bytes} is not enough: the weights take {size(weights)} ({each}), and keys and "
            f"values at least {size(needed - weights)}; give at least {needed}, or serve fewer models"
        )
    return memory_bytes - weights if kv_memory_bytes is None else kv_memory_bytes

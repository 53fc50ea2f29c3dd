"""Attention as one `com.microsoft::GroupQueryAttention` node, through transformers' own seams.

A model calls whatever attention function its config names. Ours is registered under `ATTENTION`; it hands queries,
keys and values to a torch operator whose ONNX form is the kernel. The kernel appends to the KV buffer and masks by
itself, so cache and masks are switched off around it; where it can, it also rotates (`rotary.py`).

Operator: https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.GroupQueryAttention
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import nn
from torch.onnx import symbolic_helper
from transformers import AttentionInterface
from transformers.cache_utils import Cache

from splitllm.errors import ExportError

ATTENTION: Final = "splitllm_group_query_attention"
_SYMBOLIC_OPSET: Final = 9
#: Keyword arguments by which models hand over what the kernel cannot do, and what each is called.
_UNSUPPORTED: Final = {
    "s_aux": "attention sinks",
    "position_bias": "a bias by position",
    "alibi": "a bias by position (ALiBi)",
    "head_mask": "a mask by head",
}


@dataclass(frozen=True, slots=True)
class Heads:
    """Query heads, key-value heads, and the size of each."""

    heads: int
    kv_heads: int
    head_dim: int


@dataclass(frozen=True, slots=True)
class Rotation:
    """How the kernel rotates: with which pair of tables, and whether neighbours or halves are turned as pairs."""

    table: int
    interleaved: bool


@dataclass(slots=True)
class AttentionStep:
    """What one block's attention needs besides its hidden states, for as long as the block runs.

    `seqlens_k` int32[B], `total_sequence_length` int32[], `past_key` and `past_value` [B, kv_heads, C, head_dim],
    `tables` the rotary tables by name, float32[max_context, width]. `rotation` is None where the kernel does not
    rotate. `position_ids` int32[B, S] are the positions of the hidden states. `present` is what attention leaves,
    `cached` the new keys and values that the model gave to its cache.
    """

    heads: Heads
    seqlens_k: torch.Tensor
    total_sequence_length: torch.Tensor
    past_key: torch.Tensor
    past_value: torch.Tensor
    tables: Mapping[str, torch.Tensor]
    position_ids: torch.Tensor
    rotation: Rotation | None
    present: list[tuple[torch.Tensor, torch.Tensor]] = field(default_factory=list)
    cached: list[tuple[torch.Tensor, torch.Tensor]] = field(default_factory=list)


@dataclass(slots=True)
class Recorder:
    """Takes the place of a step where only queries and keys are wanted: attention stores them and stops the model."""

    tables: Mapping[str, torch.Tensor]
    position_ids: torch.Tensor
    cached: list[tuple[torch.Tensor, torch.Tensor]] = field(default_factory=list)


class Stop(Exception):  # noqa: N818  # no error: it leaves a model whose rest is not wanted
    """Leaves the model's forward once the values that are wanted have been seen."""

    def __init__(self, *values: torch.Tensor) -> None:
        super().__init__()
        self.values = values


_current: list[AttentionStep | Recorder] = []


def current_step() -> AttentionStep | Recorder:
    """The step that runs now.

    Raises:
        ExportError: the model reached for attention or rotary tables outside of a block.
    """
    if not _current:
        raise ExportError("the model computes attention or rotary embeddings outside of its decoder layers")
    return _current[-1]


@contextmanager
def running(step: AttentionStep | Recorder) -> Iterator[None]:
    """Within this context attention works for `step`, whichever of the two seams the model reaches it by."""
    functional: Any = torch.nn.functional
    own = functional.scaled_dot_product_attention
    functional.scaled_dot_product_attention = _scaled_dot_product_attention
    _current.append(step)
    try:
        yield
    finally:
        _current.pop()
        functional.scaled_dot_product_attention = own


# An autograd.Function with a `symbolic` method is in-lined by the tracer and fails there; a custom operator is not.
@torch.library.custom_op(
    "splitllm::group_query_attention",
    mutates_args=(),
    schema="(Tensor query, Tensor key, Tensor value, Tensor past_key, Tensor past_value, Tensor seqlens_k, "
    "Tensor total_sequence_length, Tensor cos_cache, Tensor sin_cache, int heads, int kv_heads, int rotary, "
    "float scale, float softcap, int window) -> (Tensor, Tensor, Tensor)",
)
def _group_query_attention(*arguments: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Right shapes, no numbers: tracing needs no more, and the numeric gate runs the real kernel."""
    query, _, _, past_key, past_value, *_ = arguments
    return torch.zeros_like(query), torch.zeros_like(past_key), torch.zeros_like(past_value)


_NO_ROTATION, _HALVES, _NEIGHBOURS = range(3)


@symbolic_helper.parse_args("v", "v", "v", "v", "v", "v", "v", "v", "v", "i", "i", "i", "f", "f", "i")
def _symbolic(
    graph: Any,
    query: Any,
    key: Any,
    value: Any,
    past_key: Any,
    past_value: Any,
    seqlens_k: Any,
    total_sequence_length: Any,
    cos_cache: Any,
    sin_cache: Any,
    heads: int,
    kv_heads: int,
    rotary: int,
    scale: float,
    softcap: float,
    window: int,
) -> Any:
    """The operator's ONNX form. `parse_args` counts parameters, so each has its name."""
    attributes = {"num_heads_i": heads, "kv_num_heads_i": kv_heads, "scale_f": scale}
    tensors = [query, key, value, past_key, past_value, seqlens_k, total_sequence_length]
    if rotary != _NO_ROTATION:
        attributes["do_rotary_i"] = 1
        tensors += [cos_cache, sin_cache]
    if rotary == _NEIGHBOURS:
        attributes["rotary_interleaved_i"] = 1
    if softcap:
        attributes["softcap_f"] = softcap
    if window > 0:
        attributes["local_window_size_i"] = window
    output, present_key, present_value = graph.op(
        "com.microsoft::GroupQueryAttention", *tensors, outputs=3, **attributes
    )
    output.setType(query.type())
    present_key.setType(past_key.type())
    present_value.setType(past_value.type())
    return output, present_key, present_value


_register_symbolic: Any = vars(torch.onnx)["register_custom_op_symbolic"]  # public, but outside torch's typed names
_register_symbolic("splitllm::group_query_attention", _symbolic, _SYMBOLIC_OPSET)


def _attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,  # noqa: ARG001  # the kernel masks by itself
    *,
    scaling: float | None = None,
    softcap: float | None = None,
    is_causal: bool | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """Attention as models call it: queries [B, heads, S, D], keys, values [B, kv_heads, S, D] -> [B, S, heads, D]."""
    step = current_step()
    if isinstance(step, Recorder):
        raise Stop(query, key)
    for name, what in _UNSUPPORTED.items():
        if others.get(name) is not None:
            raise ExportError(f"{type(module).__name__} gives its attention {what}; not supported yet")
    if not (getattr(module, "is_causal", True) if is_causal is None else is_causal):
        raise ExportError(f"{type(module).__name__} looks at later tokens too; only causal decoders can be split")
    # A model that says "no window" means it, whatever its other layers have; one that says nothing has it in its mask.
    window = others["sliding_window"] if "sliding_window" in others else getattr(module, "sliding_window", None)
    return _attend(step, query, key, value, scaling, softcap, window), None


def _scaled_dot_product_attention(
    query: torch.Tensor,
    key: torch.Tensor,  # repeated for each query head; the cache was given them as they are
    value: torch.Tensor,
    *_: Any,
    scale: float | None = None,
    **__: Any,
) -> torch.Tensor:
    """Attention as models call torch's own that have no seam for it: [B, heads, S, D] each -> [B, heads, S, D]."""
    step = current_step()
    if len(step.cached) != 1:
        raise ExportError("the model computes attention over keys that it does not cache; not supported yet")
    key, value = step.cached[0]
    if isinstance(step, Recorder):
        raise Stop(query, key)
    return _attend(step, query, key, value, scale, None, None).transpose(1, 2)


def _attend(
    step: AttentionStep,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scaling: float | None,
    softcap: float | None,
    window: int | None,
) -> torch.Tensor:
    """[B, heads, S, D] and twice [B, kv_heads, S, D] -> [B, S, heads, D]."""
    shape = step.heads
    _check_heads(shape, query, key, value)
    rotation, tables = step.rotation, step.tables
    # Without rotation the tables are not read; the operator wants tensors all the same.
    cos, sin = (tables[name] for name in table_names(rotation.table)) if rotation else (query, query)
    kind = _NO_ROTATION if rotation is None else _NEIGHBOURS if rotation.interleaved else _HALVES
    # Sizes are plain numbers here: under the tracer a shape is a traced value, and the node's attributes may not be.
    output, *present = torch.ops.splitllm.group_query_attention(
        _flat(query, shape.heads * shape.head_dim),
        _flat(key, shape.kv_heads * shape.head_dim),
        _flat(value, shape.kv_heads * shape.head_dim),
        step.past_key,
        step.past_value,
        step.seqlens_k,
        step.total_sequence_length,
        cos,
        sin,
        shape.heads,
        shape.kv_heads,
        kind,
        float(scaling if scaling is not None else shape.head_dim**-0.5),
        float(softcap or 0.0),
        int(window or -1),
    )
    step.present.append((present[0], present[1]))
    attended: torch.Tensor = output.reshape(query.shape[0], -1, shape.heads, shape.head_dim)
    return attended


def table_names(table: int) -> tuple[str, str]:
    """Names of a pair of rotary tables: inputs of the graphs, constants of the bundle."""
    suffix = f"_{table}" if table else ""
    return f"cos_cache{suffix}", f"sin_cache{suffix}"


def _check_heads(shape: Heads, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> None:
    for name, states, heads in (
        ("query", query, shape.heads),
        ("key", key, shape.kv_heads),
        ("value", value, shape.kv_heads),
    ):
        found = int(states.shape[1]), int(states.shape[-1])
        if found != (heads, shape.head_dim):
            raise ExportError(
                f"a block has {found[0]} {name} heads of {found[1]}, not {heads} of {shape.head_dim} as its config "
                "says or its other heads are; such attention is not supported yet"
            )


def _flat(states: torch.Tensor, width: int) -> torch.Tensor:
    return states.transpose(1, 2).reshape(states.shape[0], -1, width)


# Not registered as a mask function as well, so transformers makes no mask.
AttentionInterface.register(ATTENTION, _attention)


class PassThroughCache(Cache):
    """A cache that keeps nothing: the kernel appends to the KV buffer itself."""

    def __init__(self) -> None:
        self.layers: list[Any] = []

    def update(
        self,
        key_states: torch.Tensor,
        value_states: torch.Tensor,
        layer_idx: int,  # noqa: ARG002  # the signature is transformers'
        cache_kwargs: dict[str, Any] | None = None,  # noqa: ARG002  # the same
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the new keys and values untouched, and note them."""
        current_step().cached.append((key_states, value_states))
        return key_states, value_states

    def get_seq_length(self, layer_idx: int = 0) -> int:  # noqa: ARG002  # the same
        """No past, as far as the model can see."""
        return 0

"""Attention as one `com.microsoft::GroupQueryAttention` node, through transformers' own seams.

A model calls whatever attention function its config names. Ours is registered under `ATTENTION`; it hands queries,
keys and values to a torch operator whose ONNX form is the kernel. The kernel also rotates queries and keys and appends
to the KV buffer, so rotation and cache are switched off around it.

Operator: https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.GroupQueryAttention
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import nn
from torch.onnx import symbolic_helper
from transformers import AttentionInterface
from transformers.cache_utils import Cache

ATTENTION: Final = "splitllm_group_query_attention"
_SYMBOLIC_OPSET: Final = 9


@dataclass(slots=True)
class AttentionStep:
    """What one block's attention needs besides its hidden states; travels through the model as a keyword.

    `seqlens_k` int32[B], `total_sequence_length` int32[], `past_key` and `past_value` [B, kv_heads, C, head_dim],
    `cos_cache` and `sin_cache` [max_context, head_dim / 2]. `present` is filled by the attention function.
    """

    heads: int
    kv_heads: int
    head_dim: int
    seqlens_k: torch.Tensor
    total_sequence_length: torch.Tensor
    past_key: torch.Tensor
    past_value: torch.Tensor
    cos_cache: torch.Tensor
    sin_cache: torch.Tensor
    present: tuple[torch.Tensor, torch.Tensor] | None = None


# An autograd.Function with a `symbolic` method is in-lined by the tracer and fails there; a custom operator is not.
@torch.library.custom_op(
    "splitllm::group_query_attention",
    mutates_args=(),
    schema="(Tensor query, Tensor key, Tensor value, Tensor past_key, Tensor past_value, Tensor seqlens_k, "
    "Tensor total_sequence_length, Tensor cos_cache, Tensor sin_cache, int heads, int kv_heads, float scale, "
    "float softcap, int window) -> (Tensor, Tensor, Tensor)",
)
def _group_query_attention(*arguments: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Right shapes, no numbers: tracing needs no more, and the numeric gate runs the real kernel."""
    query, _, _, past_key, past_value, *_ = arguments
    return torch.zeros_like(query), torch.zeros_like(past_key), torch.zeros_like(past_value)


@symbolic_helper.parse_args("v", "v", "v", "v", "v", "v", "v", "v", "v", "i", "i", "f", "f", "i")
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
    scale: float,
    softcap: float,
    window: int,
) -> Any:
    """The operator's ONNX form. `parse_args` counts parameters, so each has its name."""
    attributes = {"num_heads_i": heads, "kv_num_heads_i": kv_heads, "scale_f": scale, "do_rotary_i": 1}
    if softcap:
        attributes["softcap_f"] = softcap
    if window > 0:
        attributes["local_window_size_i"] = window
    tensors = (query, key, value, past_key, past_value, seqlens_k, total_sequence_length, cos_cache, sin_cache)
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
    step: AttentionStep,
    scaling: float | None = None,
    softcap: float | None = None,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Queries [B, heads, S, D], keys and values [B, kv_heads, S, D] -> [B, S, heads, D]."""
    # Sizes come from the config: under the tracer a shape is a traced value, and the node's attributes must be numbers.
    window = sliding_window if sliding_window is not None else getattr(module, "sliding_window", None)
    output, *present = torch.ops.splitllm.group_query_attention(
        _flat(query, step.heads * step.head_dim),
        _flat(key, step.kv_heads * step.head_dim),
        _flat(value, step.kv_heads * step.head_dim),
        step.past_key,
        step.past_value,
        step.seqlens_k,
        step.total_sequence_length,
        step.cos_cache,
        step.sin_cache,
        step.heads,
        step.kv_heads,
        float(scaling if scaling is not None else step.head_dim**-0.5),
        float(softcap or 0.0),
        int(window or -1),
    )
    step.present = (present[0], present[1])
    return output.reshape(query.shape[0], -1, step.heads, step.head_dim), None


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
        cache_kwargs: dict[str, Any] | None = None,  # noqa: ARG002
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the new keys and values untouched."""
        return key_states, value_states

    def get_seq_length(self, layer_idx: int = 0) -> int:  # noqa: ARG002
        """No past, as far as the model can see."""
        return 0


@contextmanager
def rotation_left_to_the_kernel(layer: nn.Module) -> Iterator[None]:
    """Within this context the model code of `layer` leaves queries and keys unrotated."""
    code: Any = sys.modules[type(layer).__module__]
    rotate = code.apply_rotary_pos_emb
    code.apply_rotary_pos_emb = lambda query, key, *_, **__: (query, key)
    try:
        yield
    finally:
        code.apply_rotary_pos_emb = rotate

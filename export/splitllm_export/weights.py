"""Weights where they lie: mapped from the checkpoint, in float32 only where and while something is computed.

A model that is loaded to be exported is never wholly in memory. Its parameters are views of the mapped safetensors
files, in the type they are stored in; the system reads their pages when they are needed and drops them when memory is
short. To run such a model (the numeric gate's reference, the embedding table) its layers are widened to float32 one at
a time, the embedding row by row and the head piece by piece.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Final

import torch
from torch import nn
from torch.nn import functional
from transformers import modeling_utils

#: Rows of a head that are widened at a time: 64 MiB of float32.
_PIECE_BYTES: Final = 64 * 2**20
_NARROW: Final = "_splitllm_narrow"


@contextlib.contextmanager
def stored_types_kept() -> Iterator[None]:
    """Within this context transformers' `from_pretrained` assigns each weight as it is stored: mapped, not converted.

    The model is built in the type that was asked for (so buffers that its code computes are exact); only what is read
    from files keeps its own type.
    """
    name = "_infer_parameter_dtype"  # decides what a stored weight is converted to; transformers has no option for it
    infer = getattr(modeling_utils, name)
    setattr(modeling_utils, name, lambda *_, **__: (False, None))
    try:
        yield
    finally:
        setattr(modeling_utils, name, infer)


def compute_in_float32(model: Any) -> Any:
    """Make a model of mapped weights compute in float32, without ever holding more than one of its layers in float32.

    Layers are the members of the model's lists. What lies outside them (norms, position tables) is small and is
    widened once; embedding and head are widened piece by piece as they are used.
    """
    inside: set[int] = set()
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and id(module) not in inside:
            for layer in module:
                inside.update(id(part) for part in layer.modules())
                layer.register_forward_pre_hook(_widen)
                layer.register_forward_hook(_narrow, always_call=True)
    head = model.get_output_embeddings()
    for module in model.modules():
        if id(module) in inside:
            continue
        if isinstance(module, nn.Embedding):
            module.padding_idx = None  # only training needs it, and it may lie beyond the rows that are looked up
            module.register_forward_pre_hook(_look_up_widened)
            module.register_forward_hook(_narrow, always_call=True)
        elif module is head and type(module) is nn.Linear:
            vars(module)["forward"] = _PiecewiseLinear(module)
        else:
            for name, parameter in module._parameters.items():
                if parameter is not None:
                    module._parameters[name] = _float32(parameter)
        for name, buffer in module._buffers.items():
            if buffer is not None and buffer.is_floating_point():
                module._buffers[name] = buffer.float()
    return model


def _float32(parameter: torch.Tensor) -> torch.Tensor:
    if parameter.dtype == torch.float32 or not parameter.is_floating_point():
        return parameter
    return nn.Parameter(parameter.detach().float(), requires_grad=False)


@contextlib.contextmanager
def widened(module: nn.Module) -> Iterator[None]:
    """Within this context a module that is called outside of its layer has float32 weights."""
    kept = _widen_all(module)
    try:
        yield
    finally:
        _put_back(kept)


def _widen(layer: nn.Module, _: Any) -> None:
    """Give a layer float32 weights until `_narrow`."""
    layer.__dict__[_NARROW] = _widen_all(layer)


def _narrow(layer: nn.Module, *_: Any) -> None:
    _put_back(layer.__dict__.pop(_NARROW, []))


_Kept = list[tuple[nn.Module, str, Any]]


def _widen_all(root: nn.Module) -> _Kept:
    kept = []
    for module in root.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None and parameter.dtype != torch.float32:
                kept.append((module, name, parameter))
                module._parameters[name] = _float32(parameter)  # type: ignore[assignment]  # a Parameter it is
    return kept


def _put_back(kept: _Kept) -> None:
    for module, name, parameter in kept:
        module._parameters[name] = parameter


def _look_up_widened(embedding: nn.Module, arguments: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...] | None:
    """Give an embedding only the rows that are asked for, in float32, and their numbers in place of the ids."""
    weight = embedding._parameters.get("weight")
    if weight is None or weight.dtype == torch.float32 or not arguments:
        return None
    asked: Any = arguments[0]
    ids, places = asked.unique(return_inverse=True)
    embedding.__dict__[_NARROW] = [(embedding, "weight", weight)]
    embedding._parameters["weight"] = nn.Parameter(weight.detach()[ids].float(), requires_grad=False)
    return (places, *arguments[1:])


class _PiecewiseLinear:
    """`nn.Linear.forward` with some rows of the weight in float32 at a time."""

    def __init__(self, linear: nn.Linear) -> None:
        self._linear = linear

    def __call__(self, states: torch.Tensor) -> torch.Tensor:
        weight: Any = self._linear.weight
        bias = self._linear.bias
        if torch.onnx.is_in_onnx_export() or weight.dtype == torch.float32:
            return functional.linear(states, weight, bias)
        rows = max(1, _PIECE_BYTES // (4 * weight.shape[1]))
        pieces = [functional.linear(states, piece.float()) for piece in weight.detach().split(rows)]
        return torch.cat(pieces, -1) + (0 if bias is None else bias.float())

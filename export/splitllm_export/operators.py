"""Operators of ONNX Runtime that torch has no single node for, as torch operators with an ONNX form.

All of them are tested on the CPU and on WebGPU; CUDA has kernels for them by the list below, but no card has run them.
Operators: https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
"""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import nn
from torch.nn import functional
from torch.onnx import symbolic_helper

_OPSET: Final = 9
_INT32: Final = 6
_register: Any = vars(torch.onnx)["register_custom_op_symbolic"]  # public, but outside torch's typed names


@torch.library.custom_op("splitllm::positions", mutates_args=(), schema="(Tensor states, Tensor last) -> Tensor")
def _positions(states: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
    rows = states.shape[1]
    return (last[:, None] - torch.arange(rows - 1, -1, -1, dtype=torch.int32)[None]).to(torch.int32)


def positions(states: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
    """Positions int32[B, S] of the rows of `states` [B, S, H], the last of which are `last` int32[B]."""
    found: torch.Tensor = torch.ops.splitllm.positions(states, last)
    return found


def _positions_symbolic(graph: Any, states: Any, last: Any) -> Any:
    """How many rows follow a row is counted on the device: a shape would be computed on the processor."""

    def whole(*values: int) -> Any:
        return graph.op("Constant", value_t=torch.tensor(values if len(values) > 1 else values[0]))

    column = graph.op("Gather", states, whole(0), axis_i=2)
    ones = graph.op("Cast", graph.op("Equal", column, column), to_i=_INT32)
    behind = graph.op("CumSum", ones, whole(1), exclusive_i=1, reverse_i=1)
    return graph.op("Sub", graph.op("Reshape", last, whole(-1, 1)), behind)


_register("splitllm::positions", _positions_symbolic, _OPSET)


@torch.library.custom_op("splitllm::activation", mutates_args=(), schema="(Tensor x, str kind) -> Tensor")
def _activation(x: torch.Tensor, kind: str) -> torch.Tensor:
    found: torch.Tensor = _KINDS[kind](x)
    return found.clone()


_KINDS: Final[dict[str, Any]] = {
    "Gelu": functional.gelu,
    "FastGelu": lambda x: functional.gelu(x, approximate="tanh"),
    "QuickGelu": functional.silu,  # x · sigmoid(alpha · x), alpha 1
}


@symbolic_helper.parse_args("v", "s")
def _activation_symbolic(graph: Any, x: Any, kind: str) -> Any:
    attributes = {"alpha_f": 1.0} if kind == "QuickGelu" else {}
    output = graph.op(f"com.microsoft::{kind}", x, **attributes)
    output.setType(x.type())
    return output


_register("splitllm::activation", _activation_symbolic, _OPSET)


class Activation(nn.Module):
    """An activation function as one node."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The shape of `x`."""
        found: torch.Tensor = torch.ops.splitllm.activation(x, self.kind)
        return found


def as_one_node(module: nn.Module) -> Activation | None:
    """The one-node form of an activation module, by its values: its name says little (there are nine GELUs)."""
    if type(module).__module__ not in ("transformers.activations", "torch.nn.modules.activation"):
        return None
    if next(module.parameters(), None) is not None or next(module.children(), None) is not None:
        return None
    x = torch.linspace(-8, 8, 801)
    with torch.no_grad():
        values = module(x)
        kinds = (kind for kind, function in _KINDS.items() if torch.allclose(values, function(x), rtol=0, atol=1e-6))
        kind = next(kinds, None)
    return None if kind is None else Activation(kind)

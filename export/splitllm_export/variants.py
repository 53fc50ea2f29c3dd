"""The variants of a bundle's weights, and what each makes of a finished float32 part.

    float32   exact; always there
    float16   half the bytes: servers on a GPU, browsers whose GPU computes in float16
    int8      8-bit weights, float32 activations: a quarter of the bytes, nearly exact
    int4      4-bit weights, float32 activations: a sixth of the bytes
    int4f16   4-bit weights, float16 activations: browsers whose GPU computes in float16

How the formats were chosen: docs/decisions/weight-variants.md.
"""

from __future__ import annotations

from typing import Final

import onnx
from onnx import helper

from .chain import QUANTIZED
from .half import to_float16
from .quantize import INT4, INT8, quantize
from .weightless import Part, Weight, key_of

#: Float type of hidden states, keys and values, where it is not float32.
_NARROW: Final = frozenset({"float16", "int4f16"})
#: Which head a server uses beside blocks of a variant.
HEADS: Final = {"float32": "float32", "float16": "float16", "int8": "int8", "int4": "int8", "int4f16": "float16"}


def activations_of(variant: str) -> str:
    """`float16` or `float32`."""
    return "float16" if variant in _NARROW else "float32"


def make_variant(part: Part, variant: str) -> Part:
    """The variant of a float32 part.

    Raises:
        ExportError: the part cannot be written so.
    """
    if variant in QUANTIZED:
        part = quantize(part, INT8 if variant == "int8" else INT4)
    return to_float16(part) if variant in _NARROW else part


def as_stored(head: Part) -> Part:
    """A copy of a float32 head that takes its matrix as the checkpoint has it, a row for each token.

    So the matrix of a tied head can be the embedding's file, and no head is transposed. The CPU multiplies it as fast,
    a single row faster (docs/decisions/weight-variants.md).
    """
    turned = Part(onnx.ModelProto.FromString(head.model.SerializeToString()), dict(head.weights))
    graph = turned.model.graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    for place, node in enumerate(list(graph.node)):
        key = key_of(tensors[node.input[1]]) if node.op_type == "MatMul" and node.input[1] in tensors else None
        if key is None or len(head.weights[key].shape) != 2:
            continue
        weight = head.weights[key]
        turned.weights[key] = Weight(weight.shape[::-1], lambda weight=weight: weight.open().t())  # type: ignore[misc]  # bound early
        tensors[node.input[1]].dims[:] = weight.shape[::-1]
        new = helper.make_node("FusedMatMul", node.input, node.output, node.name, domain="com.microsoft", transB=1)
        graph.node.remove(node)
        graph.node.insert(place, new)
    return turned

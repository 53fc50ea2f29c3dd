"""Float32 graphs -> float16 graphs: inputs, outputs, weights and constants; what is whole or logical stays.

Norms and attention accumulate in float32 inside their kernels (`stash_type` 1).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

from .weightless import Part, Weight, key_of

_LARGEST = float(np.finfo(np.float16).max)


def to_float16(part: Part) -> Part:
    """A copy of the part that takes, computes and gives float16."""
    narrow = Part(ModelProto.FromString(part.model.SerializeToString()), dict(part.weights))
    graph = narrow.model.graph
    for value in (*graph.input, *graph.output):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            value.type.tensor_type.elem_type = TensorProto.FLOAT16
    for tensor in graph.initializer:
        if tensor.data_type != TensorProto.FLOAT:
            continue
        key = key_of(tensor)
        if key is None:
            tensor.CopyFrom(numpy_helper.from_array(_narrow(numpy_helper.to_array(tensor)), tensor.name))
        else:
            tensor.data_type = TensorProto.FLOAT16
            narrow.weights[key] = _narrow_weight(part.weights[key])
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT:
                attribute.i = TensorProto.FLOAT16
            elif attribute.HasField("t") and attribute.t.data_type == TensorProto.FLOAT:
                values = _narrow(numpy_helper.to_array(attribute.t))
                attribute.CopyFrom(helper.make_attribute(attribute.name, numpy_helper.from_array(values)))
    return narrow


def _narrow(values: NDArray[np.float32]) -> NDArray[np.float16]:
    """Constants that stand for minus infinity stay finite; weights beyond float16 are for the numeric gate to find."""
    return np.clip(values, -_LARGEST, _LARGEST).astype(np.float16)


def _narrow_weight(weight: Weight) -> Weight:
    def pieces() -> Iterator[NDArray[np.float16]]:
        for piece in weight.pieces():
            yield _narrow(piece)

    return Weight(weight.shape, pieces=pieces)

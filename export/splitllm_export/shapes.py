"""What is known of a traced graph's values before it runs: shapes, element types, and the integers shapes are made of.

The tracer writes `x.view(*x.shape[:-1], -1, d)` as a dozen nodes that compute a shape each time the graph runs. Here
such values are computed beforehand for two made-up sizes of batch, rows and KV buffer: what comes out alike for
both is a constant, and what follows a size is that size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

#: A size, the name of one that is only known when the graph runs, or None where nothing is known.
Dim = int | str | None
Ints = NDArray[Any]
#: (batch, rows, capacity): primes, so that no product of sizes looks like another.
_SAMPLES: Final = ((101, 103, 107), (109, 113, 127))
_NAMES: Final = ("batch", "rows", "capacity")
#: Operators that onnx does not know, and which of their inputs each output is shaped like.
_LIKE_INPUT: Final = {
    "GroupQueryAttention": (0, 3, 4),
    "SimplifiedLayerNormalization": (0,),
    "SkipSimplifiedLayerNormalization": (0, None, None, 0),
    "SkipLayerNormalization": (0, None, None, 0),
    "FastGelu": (0,),
    "Gelu": (0,),
    "QuickGelu": (0,),
}
#: Larger initializers are weights: inference needs their shapes only.
_SMALL: Final = 64


@dataclass(frozen=True, slots=True)
class Knowledge:
    """Symbolic shapes by value, element types by value, and integer values that are the same at every size."""

    shapes: dict[str, tuple[Dim, ...]]
    types: dict[str, int]
    constants: dict[str, Ints]


def learn(model: ModelProto) -> Knowledge:
    """Everything that can be said about the graph's values without weights."""
    (shapes_a, types, ints_a), (shapes_b, _, ints_b) = (_sample(model, sizes) for sizes in _SAMPLES)
    shapes = {
        name: tuple(_dim(a, b) for a, b in zip(shape, shapes_b[name], strict=True))
        for name, shape in shapes_a.items()
        if name in shapes_b and len(shape) == len(shapes_b[name])
    }
    both = {name: (a, ints_b[name]) for name, a in ints_a.items() if name in ints_b and a.shape == ints_b[name].shape}
    constants = {name: a for name, (a, b) in both.items() if np.array_equal(a, b)}
    return Knowledge(shapes, types, constants)


def _dim(a: int, b: int) -> Dim:
    if a == b:
        return a
    for name, x, y in zip(_NAMES, *_SAMPLES, strict=True):
        if (a, b) == (x, y):
            return name
    if (a, b) == tuple(batch * rows for batch, rows, _ in _SAMPLES):
        return "batch*rows"
    return None


def _sample(
    model: ModelProto, sizes: tuple[int, int, int]
) -> tuple[dict[str, tuple[int, ...]], dict[str, int], dict[str, Ints]]:
    """Shapes, types and integers of the graph at one size of batch, rows and capacity."""
    light = _light_copy(model, dict(zip(_NAMES, sizes, strict=True)))
    inferred = onnx.shape_inference.infer_shapes(light, data_prop=True).graph
    shapes: dict[str, tuple[int, ...]] = {}
    types: dict[str, int] = {}
    for value in [*inferred.input, *inferred.value_info, *inferred.output]:
        kind = value.type.tensor_type
        types[value.name] = kind.elem_type
        if kind.HasField("shape") and all(dim.HasField("dim_value") for dim in kind.shape.dim):
            shapes[value.name] = tuple(dim.dim_value for dim in kind.shape.dim)
    for tensor in model.graph.initializer:
        shapes[tensor.name], types[tensor.name] = tuple(tensor.dims), tensor.data_type
    return shapes, types, _integers(model.graph, shapes)


def _light_copy(model: ModelProto, sizes: dict[str, int]) -> ModelProto:
    """The graph with its sizes filled in, large weights as inputs, and foreign operators as identities."""
    light = ModelProto()
    light.opset_import.extend(model.opset_import)
    light.ir_version = model.ir_version
    graph = light.graph
    graph.name = "light"
    for value in model.graph.input:
        graph.input.append(_sized(value, sizes))
    for value in model.graph.output:
        graph.output.append(helper.make_empty_tensor_value_info(value.name))
    for tensor in model.graph.initializer:
        if int(np.prod(tensor.dims)) > _SMALL or tensor.data_location == TensorProto.EXTERNAL:
            graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
        else:
            graph.initializer.append(tensor)
    for node in model.graph.node:
        if node.op_type not in _LIKE_INPUT:
            graph.node.append(node)
            continue
        for output, index in zip(node.output, _LIKE_INPUT[node.op_type], strict=False):
            if output and index is not None:
                graph.node.append(helper.make_node("Identity", [node.input[index]], [output]))
    return light


def _sized(value: onnx.ValueInfoProto, sizes: dict[str, int]) -> onnx.ValueInfoProto:
    kind = value.type.tensor_type
    dims = [dim.dim_value if dim.HasField("dim_value") else sizes.get(dim.dim_param, 1) for dim in kind.shape.dim]
    return helper.make_tensor_value_info(value.name, kind.elem_type, dims)


def _integers(graph: GraphProto, shapes: dict[str, tuple[int, ...]]) -> dict[str, Ints]:
    """Integer values that follow from shapes and small constants."""
    known: dict[str, Ints] = {}
    for tensor in graph.initializer:
        if tensor.data_type in (TensorProto.INT64, TensorProto.INT32) and int(np.prod(tensor.dims)) <= _SMALL:
            known[tensor.name] = numpy_helper.to_array(tensor)
    for node in graph.node:
        if node.op_type == "Shape" and node.input[0] in shapes:
            attributes = {a.name: a.i for a in node.attribute}
            span = slice(attributes.get("start", 0), attributes.get("end"))
            known[node.output[0]] = np.array(shapes[node.input[0]][span], np.int64)
        elif node.op_type in _COMPUTE and all(name in known for name in node.input if name):
            known[node.output[0]] = _COMPUTE[node.op_type](node, [known[name] for name in node.input if name])
    return known


def _axis(node: NodeProto) -> int:
    return int(next((a.i for a in node.attribute if a.name == "axis"), 0))


def _slice(_: NodeProto, v: Sequence[Ints]) -> Ints:
    starts, ends, axes = (list(map(int, x)) for x in (*v[1:3], v[3] if len(v) > 3 else range(len(v[1]))))
    steps = list(map(int, v[4])) if len(v) > 4 else [1] * len(starts)
    index = [slice(None)] * v[0].ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        index[axis] = slice(start, end, step)
    return np.asarray(v[0][tuple(index)])


def _divide(_: NodeProto, v: Sequence[Ints]) -> Ints:
    return np.asarray(np.trunc(v[0] / v[1]), np.int64)  # ONNX rounds integers towards zero


#: What the tracer makes shapes with.
_COMPUTE: Final[dict[str, Callable[[NodeProto, Sequence[Ints]], Ints]]] = {
    "Identity": lambda _, v: v[0],
    "Cast": lambda _, v: v[0],
    "Gather": lambda n, v: np.asarray(np.take(v[0], v[1], axis=_axis(n))),
    "Concat": lambda n, v: np.concatenate(list(v), axis=_axis(n)),
    "Unsqueeze": lambda _, v: np.expand_dims(v[0], tuple(int(axis) for axis in v[1])),
    "Squeeze": lambda _, v: np.squeeze(v[0], tuple(int(axis) for axis in v[1]) if len(v) > 1 else None),
    "Reshape": lambda _, v: v[0].reshape([int(n) for n in v[1]]),
    "Slice": _slice,
    "Add": lambda _, v: np.asarray(v[0] + v[1]),
    "Sub": lambda _, v: np.asarray(v[0] - v[1]),
    "Mul": lambda _, v: np.asarray(v[0] * v[1]),
    "Div": _divide,
}

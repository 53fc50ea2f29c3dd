"""Chains of nodes -> the one kernel that computes them on every provider.

Runtimes fuse much of this by themselves, but not on every device.
Operators: https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
"""

from __future__ import annotations

from typing import Final

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, numpy_helper

from .shapes import Knowledge, learn
from .simplify import NORMS, attribute, consumers, drop_dead_code, producers, set_node

_MICROSOFT: Final = "com.microsoft"
_NORM_CHAIN: Final = ("Pow", "ReduceMean", "Add", "Sqrt", "Div", "Mul")


def fuse_norms(graph: GraphProto) -> None:
    """Fuse norms that are written out."""
    for rule in (_root_mean_square_norms, _centred_norms):
        rule(graph)
        drop_dead_code(graph)


def fuse_sums(model: ModelProto) -> None:
    """Fuse residual sums with the norms that follow them."""
    _sums_before_norms(model.graph, learn(model))
    drop_dead_code(model.graph)


def _scalars(graph: GraphProto) -> dict[str, float]:
    return {t.name: numpy_helper.to_array(t).item() for t in graph.initializer if int(np.prod(t.dims)) == 1}


def _root_mean_square_norms(graph: GraphProto) -> None:
    """x / sqrt(mean(x²) + eps) · weight -> one node; a weight that is no vector stays behind it as a Mul."""
    read_by, scalars = consumers(graph), _scalars(graph)
    vectors = {t.name: t for t in graph.initializer if len(t.dims) == 1 and t.name not in scalars}
    for start in [node for node in graph.node if node.op_type == "Pow"]:
        chain = [start]
        for kind in _NORM_CHAIN[1:]:
            following = read_by.get(chain[-1].output[0], [])
            if len(following) != 1 or following[0].op_type != kind:
                break
            chain.append(following[0])
        if len(chain) != len(_NORM_CHAIN) or not _is_rms(chain, scalars):
            continue
        epsilon = next(scalars[name] for name in chain[2].input if name in scalars)
        scaled = read_by.get(chain[-1].output[0], [])
        last, weight = chain[-1], None
        if len(scaled) == 1 and scaled[0].op_type == "Mul":
            weight = next((name for name in scaled[0].input if name in vectors), None)
        if weight is not None:
            last = scaled[0]
        else:
            width = _width(graph, scaled[0]) if len(scaled) == 1 and scaled[0].op_type == "Mul" else None
            if width is None:
                continue
            weight = f"{start.output[0]}.ones"
            graph.initializer.append(numpy_helper.from_array(np.ones(width, np.float32), weight))
        last.name = start.name.removesuffix("Pow") + "RMSNorm"
        set_node(
            last,
            "SimplifiedLayerNormalization",
            [start.input[0], weight],
            axis=-1,
            epsilon=epsilon,
            stash_type=1,
        )


def _width(graph: GraphProto, scale: NodeProto) -> int | None:
    """Size of the last axis, read from a weight [heads, head_dim] that scales each head in its own way."""
    weights = [t for t in graph.initializer if t.name in scale.input and len(t.dims) > 1]
    return int(weights[0].dims[-1]) if weights else None


def _is_rms(chain: list[NodeProto], scalars: dict[str, float]) -> bool:
    """Whether the chain of `_NORM_CHAIN` squares, averages over the last axis, inverts and scales its own input."""
    power, mean, add, _, divide, scale = chain
    return (
        scalars.get(power.input[1]) == 2
        and len(mean.input) == 2
        and scalars.get(mean.input[1]) == -1
        and attribute(mean, "keepdims", 1) == 1
        and any(name in scalars for name in add.input)
        and scalars.get(divide.input[0]) == 1
        and power.input[0] in scale.input
    )


def _centred_norms(graph: GraphProto) -> None:
    """A root-mean-square norm of x - mean(x) is a layer norm without bias."""
    made_by, scalars = producers(graph), _scalars(graph)
    for node in [node for node in graph.node if node.op_type == "SimplifiedLayerNormalization"]:
        centred = made_by.get(node.input[0])
        mean = made_by.get(centred.input[1]) if centred is not None and centred.op_type == "Sub" else None
        if centred is None or mean is None or mean.op_type != "ReduceMean" or mean.input[0] != centred.input[0]:
            continue
        if len(mean.input) == 2 and scalars.get(mean.input[1]) == -1 and attribute(mean, "keepdims", 1) == 1:
            inputs, epsilon = [centred.input[0], node.input[1]], attribute(node, "epsilon")
            set_node(node, "LayerNormalization", inputs, axis=-1, epsilon=epsilon, stash_type=1)


def _sums_before_norms(graph: GraphProto, known: Knowledge) -> None:
    """norm(a + b), the sum being a residual that is needed too, -> one node with both outputs."""
    made_by, position = producers(graph), {node.output[0]: i for i, node in enumerate(graph.node)}
    outputs = {value.name for value in graph.output}
    weights = {tensor.name for tensor in graph.initializer}
    for norm in [node for node in graph.node if node.op_type in NORMS]:
        add = made_by.get(norm.input[0])
        if add is None or add.op_type != "Add" or weights & set(add.input) or add.output[0] in outputs:
            continue
        place = position[norm.output[0]]
        between = [n for n in graph.node if add.output[0] in n.input and position[n.output[0]] < place]
        if between or attribute(norm, "axis", -1) != -1 or not _are_states(known, add):
            continue
        epsilon, total = attribute(norm, "epsilon"), add.output[0]
        inputs = [*add.input, *norm.input[1:]]
        set_node(norm, f"Skip{norm.op_type}", inputs, domain=_MICROSOFT, epsilon=epsilon)
        graph.node.remove(add)
        norm.output.extend(["", "", total])


def _are_states(known: Knowledge, add: NodeProto) -> bool:
    """Whether both terms are states [batch, rows, hidden], as residuals are: the kernel spreads none over the other."""
    first, second = (known.shapes.get(name, ()) for name in add.input)
    return len(first) == 3 and first == second and None not in first

"""The traced graph -> the graph that BUNDLE.md describes: exact names, no dead weight, the same bytes each time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from splitllm.bundle import BLOCK_INPUTS
from splitllm.errors import ExportError

from .decoder import Sizes
from .fuse import fuse_norms, fuse_sums
from .simplify import attribute, drop_dead_code, simplify
from .weightless import Part

_PRODUCER: Final = "splitllm"
_MICROSOFT: Final = "com.microsoft"
#: A size, or the name of one that is only known when the graph runs.
Shape = tuple[int | str, ...]


def finish_block(part: Part, sizes: Sizes) -> Part:
    """Give a traced block the inputs, outputs and names of BUNDLE.md, "Graph of a block".

    Behind the inputs that every block has come the tables that this one reads (`tables_of`).
    """
    s = sizes
    states: Shape = ("batch", "rows", s.hidden_size)
    cache: Shape = ("batch", s.kv_heads, "capacity", s.head_dim)
    present: Shape = ("batch", s.kv_heads, "present_capacity", s.head_dim)
    inputs = [
        _tensor("hidden_states", states),
        _tensor("seqlens_k", ("batch",), TensorProto.INT32),
        _tensor("total_sequence_length", (), TensorProto.INT32),
        _tensor("past_key", cache),
        _tensor("past_value", cache),
    ]
    names = {value.name for value in inputs}
    inputs += [value for value in part.model.graph.input if value.name not in names]
    outputs = [
        _tensor("hidden_states_out", states),
        _tensor("present_key", present),
        _tensor("present_value", present),
    ]
    return _finish(part, inputs, outputs)


def tables_of(block: Part) -> list[str]:
    """Names of the constants that a finished block reads: its inputs besides those that every block has."""
    return [value.name for value in block.model.graph.input if value.name not in BLOCK_INPUTS]


def finish_head(part: Part, sizes: Sizes) -> Part:
    """Give a traced head the input and output of BUNDLE.md, "Graph of the head"."""
    inputs = [_tensor("hidden_states", ("batch", "rows", sizes.hidden_size))]
    return _finish(part, inputs, [_tensor("logits", ("batch", "rows", sizes.vocab_size))])


def initializers(graph: GraphProto) -> dict[str, TensorProto]:
    """The graph's weights and constants by name."""
    return {tensor.name: tensor for tensor in graph.initializer}


def _tensor(name: str, shape: Shape, dtype: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, shape)


def _finish(part: Part, inputs: list[onnx.ValueInfoProto], outputs: list[onnx.ValueInfoProto]) -> Part:
    model, graph = part.model, part.model.graph
    for fields, exact in ((graph.input, inputs), (graph.output, outputs)):
        if {value.name for value in fields} != {value.name for value in exact}:
            raise ExportError(
                f"the tracer gave {', '.join(value.name for value in fields)} for {exact[0].name} and its like"
            )
        del fields[:]
        fields.extend(exact)
    _constants_to_initializers(graph)
    drop_dead_code(graph)
    simplify(model)
    fuse_norms(graph)
    simplify(model)
    fuse_sums(model)
    _keep_softcaps_off_webgpu(graph)
    used = {name for node in graph.node for name in node.input} | set(BLOCK_INPUTS)
    for value in [value for value in graph.input if value.name not in used]:
        graph.input.remove(value)
    _rename(graph)
    return Part(_clean_model(graph), part.weights)


def _clean_model(graph: GraphProto) -> ModelProto:
    """A new model around what computes, without whatever else the tracer noted (paths, stack traces, versions)."""
    nodes = [helper.make_node(n.op_type, n.input, n.output, n.name, domain=n.domain or None) for n in graph.node]
    for node, old in zip(nodes, graph.node, strict=True):
        node.attribute.extend(sorted(old.attribute, key=lambda a: a.name))
        for entry in node.attribute:
            entry.doc_string = ""
    clean = helper.make_graph(nodes, "main", list(graph.input), list(graph.output), list(graph.initializer))
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid(_MICROSOFT, 1)]
    return helper.make_model(clean, producer_name=_PRODUCER, opset_imports=opsets, ir_version=8)


def _constants_to_initializers(graph: GraphProto) -> None:
    for node in [node for node in graph.node if node.op_type == "Constant"]:
        value = next((a.t for a in node.attribute if a.name == "value"), None)
        if value is not None:
            graph.initializer.append(TensorProto.FromString(value.SerializeToString()))
            graph.initializer[-1].name = node.output[0]
            graph.node.remove(node)


def _keep_softcaps_off_webgpu(graph: GraphProto) -> None:
    """ONNX Runtime 1.30 on WebGPU computes attention without its softcap and says nothing (found in Chromium).

    So the block gets an operator that WebGPU lacks: there it does not load, and the page says so and goes elsewhere.
    """
    for node in [node for node in graph.node if node.op_type == "GroupQueryAttention"]:
        if not attribute(node, "softcap", 0.0):
            continue
        total, same = node.input[6], f"{node.input[6]}.off_webgpu"
        graph.initializer.append(numpy_helper.from_array(np.array(0, np.int32), f"{same}.zero"))
        node.input[6] = same
        place = list(graph.node).index(node)
        graph.node.insert(place, helper.make_node("BitwiseXor", [total, f"{same}.zero"], [same], "OffWebGPU"))


def _rename(graph: GraphProto) -> None:
    """Names by what computes them ("self_attn/q_proj/MatMul"), alike in all blocks; initializers in order of use."""
    fixed = {value.name for value in (*graph.input, *graph.output)}
    new: dict[str, str] = {name: name for name in (*fixed, "")}  # an output that nobody wants has no name
    tensors = initializers(graph)
    ordered: list[TensorProto] = []
    taken: set[str] = set()
    for number, node in enumerate(graph.node):
        name = _short(node.name) or f"{node.op_type}_{number}"
        name = name if name not in taken else f"{name}_{number}"
        taken.add(name)
        for index, value in enumerate(node.input):
            if value in tensors and value not in new:
                new[value] = f"{name}.{index}"
                ordered.append(tensors[value])
        for index, value in enumerate(node.output):
            new.setdefault(value, name if index == 0 else f"{name}.out{index}")
        node.name = name
    for node in graph.node:
        _rename_all(node, new)
    for tensor in ordered:
        tensor.name = new[tensor.name]
    copies = [TensorProto.FromString(tensor.SerializeToString()) for tensor in ordered]
    del graph.initializer[:]
    graph.initializer.extend(copies)


def _short(name: str) -> str:
    """Drop the way to the layer: "/block/layers.0/mlp/…" -> "mlp/…"."""
    parts = [part for part in name.split("/") if part]
    layer = next((i for i, part in enumerate(parts[:4]) if parts[0] == "block" and part.endswith(".0")), -1)
    return "/".join(parts[max(layer, 0 if parts[:1] == ["block"] else -1) + 1 :])


def _rename_all(node: NodeProto, new: dict[str, str]) -> None:
    inputs: Iterable[str] = [new.get(name, name) for name in node.input]
    outputs: Iterable[str] = [new.get(name, name) for name in node.output]
    del node.input[:]
    del node.output[:]
    node.input.extend(inputs)
    node.output.extend(outputs)

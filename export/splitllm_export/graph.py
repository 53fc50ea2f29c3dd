"""The traced graph -> the graph that BUNDLE.md describes: exact names, no dead weight, the same bytes each time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from splitllm.bundle import BLOCK_INPUTS
from splitllm.errors import ExportError

from .modules import Sizes
from .weightless import Part

_PRODUCER: Final = "splitllm"
_MICROSOFT: Final = "com.microsoft"
_CHAIN_LIMIT: Final = 6
_NORM_CHAIN: Final = ("Pow", "ReduceMean", "Add", "Sqrt", "Div", "Mul")
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
    for simplify in (_drop_casts_to_the_same_type, _drop_reshapes_around_attention, _fuse_rms_norms):
        simplify(model)
        _drop_dead_code(graph)
    used = {name for node in graph.node for name in node.input} | set(BLOCK_INPUTS)
    for value in [value for value in graph.input if value.name not in used]:
        graph.input.remove(value)
    _rename(graph)
    return Part(_clean_model(graph), part.weights)


def _clean_model(graph: GraphProto) -> ModelProto:
    """A new model around what computes, without whatever else the tracer noted (paths, stack traces, versions)."""
    nodes = [helper.make_node(n.op_type, n.input, n.output, n.name, domain=n.domain or None) for n in graph.node]
    for node, old in zip(nodes, graph.node, strict=True):
        node.attribute.extend(sorted(old.attribute, key=lambda attribute: attribute.name))
        for attribute in node.attribute:
            attribute.doc_string = ""
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


def _types(model: ModelProto) -> dict[str, onnx.TypeProto.Tensor]:
    """Element type and shape of every value that ONNX can infer; attention gives what its queries are."""
    typed = ModelProto.FromString(_without_weights(model).SerializeToString())
    attention = next((n for n in typed.graph.node if n.op_type == "GroupQueryAttention"), None)
    for _ in range(2 if attention else 1):
        typed = onnx.shape_inference.infer_shapes(typed, data_prop=True)
        values = [*typed.graph.value_info, *typed.graph.input, *typed.graph.output]
        types = {value.name: value.type.tensor_type for value in values}
        if attention is not None and attention.input[0] in types:
            query = onnx.ValueInfoProto(name=attention.output[0])
            query.type.tensor_type.CopyFrom(types[attention.input[0]])
            typed.graph.value_info.append(query)
    for tensor in model.graph.initializer:
        types[tensor.name] = helper.make_tensor_type_proto(tensor.data_type, tensor.dims).tensor_type
    return types


def _without_weights(model: ModelProto) -> ModelProto:
    """The same graph with large weights as inputs, so that inference does not copy them."""
    light = ModelProto()
    light.opset_import.extend(model.opset_import)
    light.ir_version = model.ir_version
    graph = light.graph
    graph.name = "light"
    graph.node.extend(model.graph.node)
    graph.input.extend(model.graph.input)
    graph.output.extend(model.graph.output)
    for tensor in model.graph.initializer:
        if int(np.prod(tensor.dims)) > 64:
            graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
        else:
            graph.initializer.append(tensor)
    return light


def _drop_casts_to_the_same_type(model: ModelProto) -> None:
    types = _types(model)
    for node in [node for node in model.graph.node if node.op_type == "Cast"]:
        to = next(a.i for a in node.attribute if a.name == "to")
        if node.input[0] in types and types[node.input[0]].elem_type == to:
            _replace_uses(model.graph, node.output[0], node.input[0])


def _drop_reshapes_around_attention(model: ModelProto) -> None:
    """transformers splits heads and turns axes for attention, the kernel wants neither: what is undone again goes."""
    graph, types = model.graph, _types(model)
    producers, consumers = {name: node for node in graph.node for name in node.output}, _consumers(graph)
    heights = {name: tensor.dims[0] for name, tensor in initializers(graph).items() if len(tensor.dims) == 2}
    for attention in [node for node in graph.node if node.op_type == "GroupQueryAttention"]:
        for index in range(3):
            source = _undone(attention.input[index], producers, types)
            if source:
                attention.input[index] = source
        width = _last_dim(types, attention.input[0])
        for node in graph.node:
            # Behind attention the sizes are symbols; a matrix of the right height says that the heads are joined again.
            if node.op_type == "Reshape" and attention.output[0] in _ancestors(node, producers):
                following = consumers.get(node.output[0], [])
                if following and all(n.op_type == "MatMul" and heights.get(n.input[1]) == width for n in following):
                    _replace_uses(graph, node.output[0], attention.output[0])


def _ancestors(node: NodeProto, producers: dict[str, NodeProto]) -> Iterator[str]:
    """Values that `node` is a reshaped view of."""
    for _ in range(_CHAIN_LIMIT):
        yield node.input[0]
        above = producers.get(node.input[0])
        if above is None or above.op_type != "Reshape":
            return
        node = above


def _undone(name: str, producers: dict[str, NodeProto], types: dict[str, onnx.TypeProto.Tensor]) -> str | None:
    """The value that `name` equals, if a chain of reshapes and transposes in between changes nothing."""
    width, order = _last_dim(types, name), [0, 1, 2, 3]
    for _ in range(_CHAIN_LIMIT):
        node = producers.get(name)
        if node is None or node.op_type not in ("Reshape", "Transpose"):
            break
        if node.op_type == "Transpose":
            perm = list(next(a.ints for a in node.attribute if a.name == "perm"))
            if len(perm) != len(order):
                return None
            order = [perm[axis] for axis in order]
        name = node.input[0]
    rank_3 = name in types and len(types[name].shape.dim) == 3
    return name if rank_3 and order == sorted(order) and width and _last_dim(types, name) == width else None


def _last_dim(types: dict[str, onnx.TypeProto.Tensor], name: str) -> int:
    """Size of the last axis, 0 where it is not known."""
    dims = types[name].shape.dim if name in types else []
    return int(dims[-1].dim_value) if dims else 0


def _fuse_rms_norms(model: ModelProto) -> None:
    """x / sqrt(mean(x²) + eps) · weight -> one node: runtimes do not fuse it by themselves on every device."""
    graph = model.graph
    consumers = _consumers(graph)
    scalars = {
        name: numpy_helper.to_array(tensor).item()
        for name, tensor in initializers(graph).items()
        if int(np.prod(tensor.dims)) == 1
    }
    weights = {name for name, tensor in initializers(graph).items() if len(tensor.dims) == 1}
    for start in [node for node in graph.node if node.op_type == "Pow"]:
        chain = [start]
        for kind in _NORM_CHAIN[1:]:
            following = consumers.get(chain[-1].output[0], [])
            if len(following) != 1 or following[0].op_type != kind:
                break
            chain.append(following[0])
        scaled = consumers.get(chain[-1].output[0], [])
        if len(chain) != len(_NORM_CHAIN) or len(scaled) != 1 or scaled[0].op_type != "Mul":
            continue
        weight = next((name for name in scaled[0].input if name in weights), None)
        if weight is None or not _is_rms(chain, scalars):
            continue
        epsilon = next(scalars[name] for name in chain[2].input if name in scalars)
        fused = helper.make_node(
            "SimplifiedLayerNormalization",
            [start.input[0], weight],
            [scaled[0].output[0]],
            start.name.removesuffix("Pow") + "RMSNorm",
            axis=-1,
            epsilon=epsilon,
            stash_type=1,
        )
        place = list(graph.node).index(scaled[0])
        graph.node.remove(scaled[0])
        graph.node.insert(place, fused)


def _is_rms(chain: list[NodeProto], scalars: dict[str, float]) -> bool:
    """Whether the chain of `_NORM_CHAIN` squares, averages over the last axis, inverts and scales its own input."""
    power, mean, add, _, divide, scale = chain
    keep = {attribute.name: attribute.i for attribute in mean.attribute}.get("keepdims", 1)
    return (
        scalars.get(power.input[1]) == 2
        and len(mean.input) == 2
        and scalars.get(mean.input[1]) == -1
        and keep == 1
        and any(name in scalars for name in add.input)
        and scalars.get(divide.input[0]) == 1
        and power.input[0] in scale.input
    )


def _consumers(graph: GraphProto) -> dict[str, list[NodeProto]]:
    found: dict[str, list[NodeProto]] = {}
    for node in graph.node:
        for name in set(node.input):
            found.setdefault(name, []).append(node)
    return found


def _replace_uses(graph: GraphProto, old: str, new: str) -> None:
    for node in graph.node:
        for index, name in enumerate(node.input):
            if name == old:
                node.input[index] = new


def _drop_dead_code(graph: GraphProto) -> None:
    alive = {value.name for value in graph.output}
    for node in reversed(list(graph.node)):
        if alive.isdisjoint(node.output):
            graph.node.remove(node)
        else:
            alive.update(node.input)
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in alive]:
        graph.initializer.remove(tensor)


def _rename(graph: GraphProto) -> None:
    """Names by what computes them ("self_attn/q_proj/MatMul"), alike in all blocks; initializers in order of use."""
    fixed = {value.name for value in (*graph.input, *graph.output)}
    new: dict[str, str] = {name: name for name in fixed}
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

"""Nodes that a tracer leaves behind and that compute nothing: shapes, views, and axes turned to and fro.

Every rule keeps the graph's values exactly as they are. Rules are tried until none applies any more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

import numpy as np
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from .shapes import Dim, Knowledge, learn

#: More rounds than any known family takes.
_ROUNDS: Final = 12
_VIEWS: Final = ("Reshape", "Squeeze", "Unsqueeze", "Flatten")
#: Norms along the last axis.
NORMS: Final = ("LayerNormalization", "SimplifiedLayerNormalization")


def simplify(model: ModelProto) -> None:
    """Apply all rules until the graph stays as it is."""
    graph = model.graph
    for _ in range(_ROUNDS):
        before = [(node.op_type, tuple(node.input)) for node in graph.node]
        known = learn(model)
        for rule in _RULES:
            rule(graph, known)
        drop_dead_code(graph)
        if [(node.op_type, tuple(node.input)) for node in graph.node] == before:
            return


def producers(graph: GraphProto) -> dict[str, NodeProto]:
    """The node behind each value."""
    return {name: node for node in graph.node for name in node.output}


def consumers(graph: GraphProto) -> dict[str, list[NodeProto]]:
    """The nodes that read each value, each once."""
    found: dict[str, list[NodeProto]] = {}
    for node in graph.node:
        for name in set(node.input):
            found.setdefault(name, []).append(node)
    return found


def replace_uses(graph: GraphProto, old: str, new: str) -> None:
    """Let every reader of `old`, the graph's outputs among them, read `new`, which is the same."""
    if old in {value.name for value in graph.output}:
        made_by = producers(graph)
        if new not in made_by or new in {value.name for value in graph.output}:
            return  # an input or another output; the node between them stays
        made_by[old].output[list(made_by[old].output).index(old)] = f"{old}.unused"
        made_by[new].output[list(made_by[new].output).index(new)] = old
        old, new = new, old
    for node in graph.node:
        for index, name in enumerate(node.input):
            if name == old:
                node.input[index] = new


def drop_dead_code(graph: GraphProto) -> None:
    """Remove nodes and initializers that no output of the graph needs."""
    alive = {value.name for value in graph.output}
    for node in reversed(list(graph.node)):
        if alive.isdisjoint(node.output):
            graph.node.remove(node)
        else:
            alive.update(node.input)
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in alive]:
        graph.initializer.remove(tensor)


def attribute(node: NodeProto, name: str, default: Any = None) -> Any:
    """A node's attribute, as Python value."""
    found = next((a for a in node.attribute if a.name == name), None)
    return default if found is None else helper.get_attribute_value(found)


def set_node(node: NodeProto, kind: str, inputs: Iterable[str], *, domain: str = "", **attributes: Any) -> None:
    """Turn a node into another one with the same outputs and name."""
    del node.input[:]
    node.input.extend(inputs)
    del node.attribute[:]
    made: list[AttributeProto] = [helper.make_attribute(name, value) for name, value in sorted(attributes.items())]
    node.attribute.extend(made)
    node.op_type, node.domain = kind, domain


def add_ints(graph: GraphProto, name: str, values: Iterable[int]) -> str:
    """A new initializer int64[n]; its name."""
    taken = {tensor.name for tensor in graph.initializer}
    while name in taken:
        name += "'"
    graph.initializer.append(numpy_helper.from_array(np.array(list(values), np.int64), name))
    return name


# -- rules ----------------------------------------------------------------------------------------------------


def _constants(graph: GraphProto, known: Knowledge) -> None:
    """Integers that are the same at every size become constants."""
    initial = {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        for name in node.input:
            if name in known.constants and name not in initial:
                graph.initializer.append(numpy_helper.from_array(known.constants[name], name))
                initial.add(name)
    for node in [node for node in graph.node if node.output[0] in initial]:
        graph.node.remove(node)


def _identities(graph: GraphProto, known: Knowledge) -> None:
    """Casts to the same type, slices of everything, expansions to the same size, turns to the same order."""
    for node in graph.node:
        before, after = (known.shapes.get(name) for name in (node.input[0] if node.input else "", node.output[0]))
        same = before is not None and None not in before and before == after
        perm = list(attribute(node, "perm", [1, 0]))
        nothing = (
            node.op_type in ("Identity", "Dropout")
            or (node.op_type == "Cast" and known.types.get(node.input[0]) == attribute(node, "to"))
            or (node.op_type in ("Slice", "Expand") and same and _forward(graph, node))
            or (node.op_type == "Transpose" and perm == sorted(perm))
            or (node.op_type == "Concat" and len(node.input) == 1)
        )
        if nothing:
            replace_uses(graph, node.output[0], node.input[0])


def _forward(graph: GraphProto, node: NodeProto) -> bool:
    """Whether a slice does not turn its values around."""
    if node.op_type != "Slice" or len(node.input) < 5:
        return True
    steps = next((t for t in graph.initializer if t.name == node.input[4]), None)
    return steps is not None and bool((numpy_helper.to_array(steps) > 0).all())


def _views(graph: GraphProto, known: Knowledge) -> None:
    """A view of a view is a view of the first; its shape is written down; a view that changes nothing goes."""
    made_by, initial = producers(graph), {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type not in _VIEWS or node.output[0] not in known.shapes or not _is_data(node, known):
            continue
        source = node.input[0]
        while source in made_by and made_by[source].op_type in _VIEWS:
            source = made_by[source].input[0]
        before, after = known.shapes.get(source), known.shapes[node.output[0]]
        if before is None or None in before:
            continue
        if before == after:
            replace_uses(graph, node.output[0], source)
            continue
        target = _written(before, after)
        if target is None:
            continue
        written = initial.get(node.input[1]) if node.op_type == "Reshape" and node.input[0] == source else None
        if written is not None and numpy_helper.to_array(written).tolist() == target:
            continue
        set_node(node, "Reshape", [source, add_ints(graph, f"{node.output[0]}.shape", target)])


def _is_data(node: NodeProto, known: Knowledge) -> bool:
    """Whether a view is one of numbers that are computed with, not of sizes."""
    return known.types.get(node.input[0]) in (TensorProto.FLOAT, TensorProto.FLOAT16)


def _written(before: tuple[Dim, ...], after: tuple[Dim, ...]) -> list[int] | None:
    """The constant shape that leads from one to the other: 0 keeps a size, one -1 is what remains."""
    target = []
    for index, dim in enumerate(after):
        if isinstance(dim, int):
            target.append(dim)
        elif dim is not None and index < len(before) and before[index] == dim:
            target.append(0)
        else:
            target.append(-1)
    return target if target.count(-1) <= 1 else None


def _turns(graph: GraphProto, known: Knowledge) -> None:  # noqa: ARG001  # the signature of a rule
    """Two turns of the axes are one; a slice or concatenation of turned values is turned after it instead."""
    made_by = producers(graph)
    for node in list(graph.node):
        above = made_by.get(node.input[0]) if node.input else None
        if above is None or above.op_type != "Transpose":
            continue
        first = list(attribute(above, "perm"))
        if node.op_type == "Transpose":
            perm = [first[axis] for axis in attribute(node, "perm")]
            set_node(node, "Transpose", [above.input[0]], perm=perm)
        elif node.op_type == "Split":
            _turn_after(graph, node, above, first, axis=attribute(node, "axis", 0))
        elif node.op_type == "Slice":
            _turn_after(graph, node, above, first, axis=None)
        elif node.op_type in NORMS and len(node.output) == 1 and first[-1] == len(first) - 1:
            _move_turn_behind(graph, node, above, first)


def _turn_after(graph: GraphProto, node: NodeProto, above: NodeProto, perm: list[int], axis: int | None) -> None:
    """cut(turn(x)) -> turn(cut(x)), along the axis where the cut runs in x."""
    if axis is None:  # a slice names its axes in its fourth input
        axes = next((t for t in graph.initializer if len(node.input) > 3 and t.name == node.input[3]), None)
        if axes is None:
            return
        moved = [perm[int(a)] for a in numpy_helper.to_array(axes)]
        node.input[3] = add_ints(graph, f"{node.output[0]}.axes", moved)
    else:
        axis = perm[axis]
        set_node(node, "Split", [above.input[0], *node.input[1:]], axis=axis)
    _move_turn_behind(graph, node, above, perm)


def _move_turn_behind(graph: GraphProto, node: NodeProto, above: NodeProto, perm: list[int]) -> None:
    node.input[0] = above.input[0]
    place = list(graph.node).index(node)
    for index, output in enumerate(list(node.output)):
        node.output[index] = f"{output}.straight"
        turn = helper.make_node("Transpose", [node.output[index]], [output], f"{node.name}.turn{index}", perm=perm)
        graph.node.insert(place + 1 + index, turn)


def _slices_joined_again(graph: GraphProto, known: Knowledge) -> None:
    """The concatenation of all slices of a value, in order, is the value: left by rotations of a part of each head."""
    made_by = producers(graph)
    for node in [node for node in graph.node if node.op_type == "Concat"]:
        parts = [made_by.get(name) for name in node.input]
        whole = known.shapes.get(node.output[0])
        if whole is None or not all(part is not None and part.op_type == "Slice" for part in parts):
            continue
        axis, expected = attribute(node, "axis") % len(whole), 0
        sources = {part.input[0] for part in parts if part is not None}
        for part in parts:
            span = _span(part, known, len(whole)) if part is not None else None
            if span is None or span[0] != axis or span[1] != expected:
                expected = -1
                break
            expected = span[2]
        source = sources.pop()
        dim = (known.shapes.get(source) or (None,) * len(whole))[axis]
        if not sources and isinstance(dim, int) and expected >= dim and whole[axis] == dim:
            replace_uses(graph, node.output[0], source)


def _span(node: NodeProto, known: Knowledge, rank: int) -> tuple[int, int, int] | None:
    """(axis, start, end) of a slice along one axis by steps of 1."""
    values = [known.constants.get(name) for name in node.input[1:]]
    if len(values) < 3 or any(v is None or v.size != 1 for v in values):
        return None
    start, end, axis, *step = (int(v.reshape(-1)[0]) for v in values if v is not None)
    if step and step[0] != 1:
        return None
    return axis % rank, start, end


def _matrices(graph: GraphProto, known: Knowledge) -> None:
    """A linear layer on rows laid end to end is a MatMul on the rows as they are: quantizers know that one."""
    made_by, initial = producers(graph), {tensor.name: tensor for tensor in graph.initializer}
    for node in [node for node in graph.node if node.op_type == "Gemm"]:
        view, weight = made_by.get(node.input[0]), initial.get(node.input[1])
        source = view.input[0] if view is not None and view.op_type == "Reshape" else node.input[0]
        shape, flat = known.shapes.get(source), known.shapes.get(node.output[0])
        scaled = attribute(node, "alpha", 1.0) != 1.0 or attribute(node, "beta", 1.0) != 1.0
        turned = attribute(node, "transA") or attribute(node, "transB")
        if weight is None or not shape or not flat or shape[-1] != weight.dims[0] or scaled or turned:
            continue
        place, name = list(graph.node).index(node), node.name
        product, result = f"{node.output[0]}.product", f"{node.output[0]}.rows"
        with_bias = len(node.input) > 2
        made = [helper.make_node("MatMul", [source, weight.name], [product if with_bias else result], f"{name}.MatMul")]
        if with_bias:
            made.append(helper.make_node("Add", [product, node.input[2]], [result], f"{name}.Add"))
        back = add_ints(graph, f"{node.output[0]}.back", [-1, int(weight.dims[1])])
        made.append(helper.make_node("Reshape", [result, back], list(node.output), f"{name}.Reshape"))
        graph.node.remove(node)
        for offset, new in enumerate(made):
            graph.node.insert(place + offset, new)


_RULES: Final[tuple[Callable[[GraphProto, Knowledge], None], ...]] = (
    _constants,
    _identities,
    _views,
    _slices_joined_again,
    _turns,
    _matrices,
)

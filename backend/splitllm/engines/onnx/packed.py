"""Products of the same states as one wider product: queries, keys and values; the two matrices of a gated MLP.

Each product of a step shares its work out to threads and waits for them, and in int4 rounds its input once more
(docs/decisions/blocks-joined.md).
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper

#: By the axes that the weights of products have: along which of them they stand side by side. Both are as the exporter
#: writes them: `MatMul` with [K, N], `MatMulNBits` with [N, K / 32, 16] and scales [N, K / 32].
_SIDE_BY_SIDE: Final = {("MatMul", 2): 1, ("MatMulNBits", 3, 2): 0}
_WIDTH: Final = "N"  # attribute of MatMulNBits


def pack(model: ModelProto, weights: Path | None) -> dict[str, NDArray[Any]]:
    """Put products of a block's graph together where they read the same states. Changes the model.

    Every column keeps its value: a product computes each by itself. `weights` is the file that the graph's weights lie
    in; what lies elsewhere stays as it is.

    Returns:
        The new weights by their names in the model, for the runtime to be handed: there they are external data.

    Raises:
        ValueError, OSError: weights do not lie in the file as the graph says.
    """
    graph = model.graph
    held = {weight.name: weight for weight in graph.initializer}
    readers = Counter(name for node in graph.node for name in node.input)
    alike: dict[tuple[Any, ...], list[NodeProto]] = defaultdict(list)
    for node in graph.node:
        if (
            all(readers[name] == 1 and name in held and _lies_in(held[name], weights) for name in node.input[1:])
            and _axes(node, held) in _SIDE_BY_SIDE
        ):
            alike[_kind(node, held)].append(node)
    arrays: dict[str, NDArray[Any]] = {}
    replaced: dict[str, list[NodeProto]] = {}
    gone: set[str] = set()
    for products in alike.values():
        if len(products) > 1 and weights is not None:
            gone.update(name for product in products for name in product.input[1:])
            replaced |= {product.output[0]: [] for product in products}
            replaced[products[0].output[0]] = _together(products, held, weights, arrays)
    nodes = [new for node in graph.node for new in replaced.get(node.output[0], [node])]
    kept = [weight for weight in graph.initializer if weight.name not in gone]
    graph.CopyFrom(
        helper.make_graph(
            nodes, graph.name, graph.input, graph.output, [*kept, *(_handed(name, arrays[name]) for name in arrays)]
        )
    )
    return arrays


def _axes(node: NodeProto, held: Mapping[str, TensorProto]) -> tuple[str | int, ...]:
    return node.op_type, *(len(held[name].dims) for name in node.input[1:])


def _kind(node: NodeProto, held: Mapping[str, TensorProto]) -> tuple[Any, ...]:
    """What products must have in common."""
    axis = _SIDE_BY_SIDE[_axes(node, held)]
    attributes = sorted(a.SerializeToString() for a in node.attribute if a.name != _WIDTH)
    tensors = [held[name] for name in node.input[1:]]
    shapes = [(t.data_type, *(size for at, size in enumerate(t.dims) if at != axis)) for t in tensors]
    return node.op_type, node.domain, node.input[0], *attributes, *shapes


def _together(
    products: Sequence[NodeProto], held: Mapping[str, TensorProto], weights: Path, arrays: dict[str, NDArray[Any]]
) -> list[NodeProto]:
    """One product of all columns, and a node that deals them out. Adds the new weights to `arrays`."""
    first = products[0]
    axis = _SIDE_BY_SIDE[_axes(first, held)]
    widths = [held[product.input[1]].dims[axis] for product in products]
    wide = NodeProto()
    wide.CopyFrom(first)
    wide.output[0] = f"{first.output[0]}:wide"
    for at in range(1, len(first.input)):
        wide.input[at] = f"{first.input[at]}:wide"
        parts = [_read(held[product.input[at]], weights) for product in products]
        arrays[wide.input[at]] = np.ascontiguousarray(np.concatenate(parts, axis))
    for attribute in wide.attribute:
        if attribute.name == _WIDTH:
            attribute.i = sum(widths)
    sizes = helper.make_tensor("", TensorProto.INT64, [len(widths)], widths)
    told = helper.make_node("Constant", [], [f"{first.output[0]}:widths"], value=sizes)
    deal = helper.make_node(
        "Split", [wide.output[0], told.output[0]], [product.output[0] for product in products], axis=-1
    )
    return [wide, told, deal]


def _place(weight: TensorProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in weight.external_data}


def _lies_in(weight: TensorProto, weights: Path | None) -> bool:
    return weights is not None and _place(weight).get("location") == weights.name


def _read(weight: TensorProto, weights: Path) -> NDArray[Any]:
    dtype = helper.tensor_dtype_to_np_dtype(weight.data_type)
    place, shape = _place(weight), tuple(weight.dims)
    count = math.prod(shape)
    if int(place.get("length", count * dtype.itemsize)) != count * dtype.itemsize:
        raise ValueError(f"{weight.name} of {shape} has {place['length']} bytes")
    values: NDArray[Any] = np.fromfile(weights, dtype, count, offset=int(place.get("offset", 0)))
    return values.reshape(shape)


def _handed(name: str, array: NDArray[Any]) -> TensorProto:
    """A weight that the runtime is handed as an array."""
    tensor = TensorProto(
        name=name,
        dims=array.shape,
        data_type=helper.np_dtype_to_tensor_dtype(array.dtype),
        data_location=TensorProto.EXTERNAL,
    )
    for key, value in (("location", "handed over"), ("offset", "0"), ("length", str(array.nbytes))):
        tensor.external_data.add(key=key, value=value)
    return tensor

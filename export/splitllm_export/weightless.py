"""Tracing a part of the model without its weights, and getting each of them only when it is written.

A traced graph that carries its weights costs several copies of them in memory, and cannot exceed 2 GB. Here the weights
are inputs of the traced function. What the graph then computes from weights alone (a transposition, say) is cut out of
it; in its place stands an initializer without data, and a `Weight` that knows how to make the data.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from torch import nn

from splitllm.errors import ExportError

#: The traced function's parameter that takes the weights, and the beginning of the names of the graph's inputs.
WEIGHTS: Final = "weights"
#: Weights are made, rounded and written in pieces of about this many bytes of float32.
PIECE_BYTES: Final = 64 * 2**20
_PLACE: Final = "weight"


class Weight:
    """A matrix of a graph that is made only when it is written, from the mapped checkpoint.

    `pieces` gives its rows in order, a piece at a time, as they are written; `open` all of it as a torch tensor in the
    type in which it is stored, as a rule a view that costs no memory.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        open: Callable[[], torch.Tensor] | None = None,  # noqa: A002  # what it does
        *,
        pieces: Callable[[], Iterator[NDArray[Any]]] | None = None,
    ) -> None:
        self.shape, self._open, self._pieces = shape, open, pieces

    def open(self) -> torch.Tensor:
        """The whole tensor."""
        if self._open is None:
            return torch.cat([torch.from_numpy(piece) for piece in self.pieces()])
        return self._open()

    def pieces(self) -> Iterator[NDArray[Any]]:
        """Consecutive rows, float32 unless it was made otherwise."""
        if self._pieces is not None:
            yield from self._pieces()
            return
        tensor: Any = self.open()
        rows = max(1, PIECE_BYTES // (4 * max(1, tensor[0].numel())))
        for piece in tensor.split(rows):
            yield piece.float().contiguous().numpy()


@dataclass(slots=True)
class Part:
    """A graph whose matrices are elsewhere: the initializer that `key_of` gives a key for stands for `weights[key]`."""

    model: ModelProto
    weights: dict[str, Weight] = field(default_factory=dict)


def key_of(tensor: TensorProto) -> str | None:
    """The key of the weight that `tensor` stands for; None for a tensor that carries its own data."""
    if tensor.data_location != TensorProto.EXTERNAL:
        return None
    return next((entry.value for entry in tensor.external_data if entry.key == _PLACE), None)


def placeholder(name: str, shape: tuple[int, ...], key: str, dtype: int = TensorProto.FLOAT) -> TensorProto:
    """An initializer without data that stands for `weights[key]`."""
    tensor = TensorProto(name=name, dims=shape, data_type=dtype, data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=_PLACE)  # readers of the format insist on one
    tensor.external_data.add(key=_PLACE, value=key)
    return tensor


@contextlib.contextmanager
def weights_as_inputs(part: nn.Module) -> Iterator[Mapping[str, nn.Parameter]]:
    """Within this context `part.forward` first takes a list of its weights; gives them by name, in that order.

    A weight that the part uses in several places is one input.
    """
    places = [(m, n, p) for m in part.modules() for n, p in m._parameters.items() if p is not None]
    names = {id(parameter): name for name, parameter in reversed(list(part.named_parameters()))}
    weights = {names[id(parameter)]: parameter for _, _, parameter in places}
    inner = part.forward

    def forward(*arguments: Any, **named: Any) -> Any:
        first, *rest = (named.pop(WEIGHTS), *arguments) if WEIGHTS in named else arguments
        given = dict(zip(weights, first, strict=True))
        for module, name, parameter in places:
            module.__dict__[name] = given[names[id(parameter)]]
        try:
            return inner(*rest, **named)
        finally:
            for module, name, _ in places:
                del module.__dict__[name]

    signature = inspect.signature(inner)
    added = inspect.Parameter(WEIGHTS, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    forward.__signature__ = signature.replace(parameters=[added, *signature.parameters.values()])  # type: ignore[attr-defined]  # functions have one where it is set
    for module, name, _ in places:
        del module._parameters[name]
    part.forward = forward
    try:
        yield weights
    finally:
        del part.forward
        for module, name, parameter in places:
            module._parameters[name] = parameter


def example(weights: Mapping[str, nn.Parameter]) -> list[torch.Tensor]:
    """Zeros in the weights' shapes, to trace with; as nothing is written there, the system gives no memory for them."""
    return [torch.from_numpy(np.zeros(tuple(weight.shape), np.float32)) for weight in weights.values()]


def take_out(model: ModelProto, weights: Mapping[str, nn.Parameter]) -> Part:
    """Cut what depends on weights alone out of a traced graph whose inputs `weights.<name>` are the weights.

    Matrices become placeholders; vectors (norms, biases) are small and become initializers with data.
    """
    graph = model.graph
    opened: dict[str, Weight] = {f"{WEIGHTS}.{name}": _stored(parameter) for name, parameter in weights.items()}
    fixed = {tensor.name: tensor for tensor in graph.initializer}
    for node in [node for node in graph.node if node.op_type == "Constant"]:
        value = next((a.t for a in node.attribute if a.name == "value"), None)
        if value is not None:
            fixed[node.output[0]] = value
    for node in list(graph.node):
        known = [name in opened or name in fixed or not name for name in node.input]
        if node.op_type != "Constant" and all(known) and any(name in opened for name in node.input):
            for name, weight in _computed(node, opened, fixed).items():
                opened[name] = weight
            graph.node.remove(node)
    used = {name for node in graph.node for name in node.input}
    for value in [value for value in graph.input if value.name in opened]:
        graph.input.remove(value)
    part = Part(model)
    for name, weight in opened.items():
        if name not in used:
            continue
        if len(weight.shape) >= 2:
            part.weights[name] = weight
            graph.initializer.append(placeholder(name, weight.shape, name))
        else:
            graph.initializer.append(numpy_helper.from_array(weight.open().float().contiguous().numpy(), name))
    _check_outputs(graph, opened)
    return part


def _stored(parameter: nn.Parameter) -> Weight:
    tensor = parameter.detach()
    return Weight(tuple(tensor.shape), lambda: tensor)


def _computed(node: NodeProto, opened: Mapping[str, Weight], fixed: Mapping[str, TensorProto]) -> dict[str, Weight]:
    """The outputs of a node whose inputs are all known, each made anew when it is opened."""
    if node.op_type == "Identity" or (node.op_type == "Cast" and helper.get_node_attr_value(node, "to") == 1):
        return {node.output[0]: opened[node.input[0]]}
    if node.op_type == "Transpose":
        source = opened[node.input[0]]
        order = list(helper.get_node_attr_value(node, "perm"))
        shape = tuple(source.shape[axis] for axis in order)
        return {node.output[0]: Weight(shape, lambda: source.open().permute(order))}
    evaluator: Any = ReferenceEvaluator(_only(node))
    tensors = {name: numpy_helper.to_array(fixed[name]) for name in node.input if name in fixed}
    sources = {name: opened[name] for name in node.input if name in opened}

    def run(index: int) -> torch.Tensor:
        fed = {name: source.open().float().numpy() for name, source in sources.items()}
        return torch.from_numpy(np.ascontiguousarray(evaluator.run(None, tensors | fed)[index]))

    # Once now, for the shapes.
    return {
        name: Weight(tuple(run(index).shape), lambda index=index: run(index))  # type: ignore[misc]  # bound early
        for index, name in enumerate(node.output)
    }


def _only(node: NodeProto) -> ModelProto:
    """A model of this one node."""
    inputs = [helper.make_value_info(name, onnx.TypeProto()) for name in dict.fromkeys(node.input) if name]
    outputs = [helper.make_value_info(name, onnx.TypeProto()) for name in node.output]
    graph = helper.make_graph([node], "one", inputs, outputs)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])


def _check_outputs(graph: GraphProto, opened: Mapping[str, Weight]) -> None:
    for value in graph.output:
        if value.name in opened:
            raise ExportError(f"a part of the model computes {value.name} from its weights alone; not supported yet")

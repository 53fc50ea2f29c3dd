"""One graph that runs several blocks, where sessions may join at each of them.

A run of a session costs some 0.1 ms besides its work, and as much again to wake its threads: together up to a fifth of
a step of one row (docs/decisions/blocks-joined.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, compose, helper

from ...bundle import BLOCK_INPUTS, BLOCK_OUTPUTS, BlockFiles
from ...errors import BundleError
from .packed import pack

#: Input and output that lead from block to block.
_IN: Final = "hidden_states"
_OUT: Final = "hidden_states_out"
#: What a block without rows hands on is what it got: no states, and keys and values of no rows.
_UNCHANGED: Final = {_OUT: _IN, "present_key": "past_key", "present_value": "past_value"}
#: An input that is the same whatever the rows, so that all blocks share it.
_SHARED: Final = "total_sequence_length"


def name_in(block: int, name: str) -> str:
    """What a block's input or output is called in a joined graph."""
    return f"{block}/{name}"


def constant_name(name: str) -> str:
    """What a constant of the bundle is called in a joined graph; blocks share it."""
    return f"constant/{name}"


def join(blocks: Mapping[int, BlockFiles]) -> tuple[bytes, dict[str, NDArray[Any]]]:
    """A model that runs neighbouring blocks, given by their numbers, one after the other; and weights made for it.

    Inputs and outputs are those of the blocks, under `name_in`, but for these: rows [N, T, hidden_size] that join at a
    block come in as its `joins` and are put behind those that the block before it has run; either may be of 0 rows. A
    block runs where its `runs` (bool scalar) says so, which must be wherever it has rows and nowhere else: attention
    cannot run on none. `total_sequence_length` and constants (under `constant_name`) are there once.
    Only the last block has `hidden_states_out`.

    The other weights stay in the blocks' own files; the runtime must look for them in the bundle's folder.

    Raises:
        BundleError: a graph cannot be read or put behind another.
    """
    nodes: list[NodeProto] = []
    weights: list[TensorProto] = []
    inputs: dict[str, ValueInfoProto] = {}
    outputs: list[ValueInfoProto] = []
    packed: dict[str, NDArray[Any]] = {}
    before: str | None = None
    model: ModelProto | None = None
    for block, files in sorted(blocks.items()):
        previous, (model, made) = model, _read(files)
        if previous and _opsets(previous) != _opsets(model):
            raise BundleError(f"{files.graph.name} has other opsets than the block before it; export the bundle again")
        packed |= {name_in(block, name): array for name, array in made.items()}
        names = {value.name: name_in(block, value.name) for value in model.graph.input}
        names |= {name: constant_name(constant) for name, constant in files.constants.items()} | {_SHARED: _SHARED}
        for value in model.graph.input:
            name = names[value.name] if value.name != _IN else name_in(block, "joins")
            inputs.setdefault(name, _value(name, value, block))
        if before is None:
            names[_IN] = name_in(block, "joins")
        else:
            nodes.append(helper.make_node("Concat", [before, name_in(block, "joins")], [names[_IN]], axis=0))
        runs = name_in(block, "runs")
        inputs[runs] = helper.make_tensor_value_info(runs, TensorProto.BOOL, [])
        nodes.append(_where(runs, model, names, block))
        weights += model.graph.initializer
        before = name_in(block, _OUT)
        last = block == max(blocks)
        outputs += [_value(name_in(block, v.name), v, block) for v in model.graph.output if last or v.name != _OUT]
    if model is None:
        raise ValueError("no blocks to join")
    graph = helper.make_graph(nodes, "blocks", list(inputs.values()), outputs, initializer=weights)
    whole = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    return whole.SerializeToString(), packed


def _where(runs: str, model: ModelProto, names: Mapping[str, str], block: int) -> NodeProto:
    """The block's graph where `runs`, else what it got. `names`: of its inputs, around it."""
    unchanged = [
        helper.make_node("Identity", [names[_UNCHANGED[value.name]]], [f"else/{name_in(block, value.name)}"])
        for value in model.graph.output
    ]
    results = [_value(node.output[0], value) for node, value in zip(unchanged, model.graph.output, strict=True)]
    inside = {**names}  # the library adds to it what it renames
    graph = compose.add_prefix_graph(
        model.graph, name_in(block, ""), rename_inputs=False, rename_outputs=False, inplace=True, name_map=inside
    )
    results_inside = [_value(value.name, value) for value in graph.output]
    then = helper.make_graph(list(graph.node), "then", [], results_inside)
    return helper.make_node(
        "If",
        [runs],
        [name_in(block, value.name) for value in graph.output],
        name=name_in(block, "if"),
        then_branch=then,
        else_branch=helper.make_graph(unchanged, "else", [], results),
    )


def _value(name: str, like: ValueInfoProto, block: int | None = None) -> ValueInfoProto:
    """Another name for a value. Each block has rows of its own number (its first axis); without a block, none is known.

    The runtime takes axes of one name for equal, and gives values of equal shapes the same memory.
    """
    tensor = like.type.tensor_type
    if block is None:
        return helper.make_tensor_value_info(name, tensor.elem_type, None)
    shape: list[int | str] = [axis.dim_param or axis.dim_value for axis in tensor.shape.dim]
    if shape and isinstance(shape[0], str):
        shape[0] = f"{name}#{shape[0]}"
    return helper.make_tensor_value_info(name, tensor.elem_type, shape)


def _opsets(model: ModelProto) -> dict[str, int]:
    return {opset.domain: opset.version for opset in model.opset_import}


def _read(files: BlockFiles) -> tuple[ModelProto, dict[str, NDArray[Any]]]:
    """A block's model, and the weights that its wider products have."""
    try:
        model = onnx.load(files.graph, load_external_data=False)
        packed = pack(model, files.weights)
    except Exception as error:  # protobuf raises its own class, and numbers in a damaged graph may be any
        raise BundleError(f"{files.graph.name} cannot be read ({error}); export the bundle again") from None
    names = [{value.name for value in values} for values in (model.graph.input, model.graph.output)]
    if names != [{*BLOCK_INPUTS, *files.constants}, {*BLOCK_OUTPUTS}]:
        raise BundleError(f"{files.graph.name} has other inputs or outputs than a block; export the bundle again")
    return model, packed

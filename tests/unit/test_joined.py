"""Graphs of several blocks: what cannot be joined is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from splitllm.bundle import BlockFiles, Bundle
from splitllm.engines.onnx import OnnxBlocks
from splitllm.engines.onnx.joined import constant_name, join, name_in
from splitllm.engines.onnx.packed import pack
from splitllm.errors import BundleError
from splitllm.types import Span


@pytest.fixture
def blocks(bundle: Bundle) -> dict[int, BlockFiles]:
    return {index: bundle.block(index, "float32", server=True) for index in (2, 3)}


def test_rows_join_at_each_block_and_leave_behind_the_last(blocks: dict[int, BlockFiles]) -> None:
    graph = onnx.load_from_string(join(blocks)[0]).graph
    inputs, outputs = ({value.name for value in values} for values in (graph.input, graph.output))
    own = {"joins", "runs", "seqlens_k", "past_key", "past_value"}
    shared = {"total_sequence_length", *map(constant_name, blocks[2].constants.values())}
    assert inputs == {name_in(block, name) for block in (2, 3) for name in own} | shared
    assert outputs == {name_in(b, name) for b in (2, 3) for name in ("present_key", "present_value")} | {
        name_in(3, "hidden_states_out")
    }
    # Within the `If` the runtime would keep the weights' files mapped beside what it packs. They stay in those files.
    assert all(weight.data_location == onnx.TensorProto.EXTERNAL for weight in graph.initializer)
    branches = [attribute.g for node in graph.node for attribute in node.attribute if attribute.name == "then_branch"]
    assert [len(branch.initializer) for branch in branches] == [0, 0]


def test_graphs_that_do_not_fit_are_refused(blocks: dict[int, BlockFiles], tmp_path: Path) -> None:
    other = onnx.load(blocks[3].graph, load_external_data=False)
    other.opset_import[0].version += 1
    onnx.save(other, tmp_path / "other.onnx")
    with pytest.raises(BundleError, match=r"other\.onnx has other opsets"):
        join(blocks | {3: replace(blocks[3], graph=tmp_path / "other.onnx")})
    (tmp_path / "torn.onnx").write_bytes(blocks[3].graph.read_bytes()[:-7])
    for name in ("torn.onnx", "absent.onnx"):
        with pytest.raises(BundleError, match=rf"{name} cannot be read"):
            join(blocks | {3: replace(blocks[3], graph=tmp_path / name)})


@pytest.mark.parametrize(
    ("place", "value"), [("offset", "999999999"), ("offset", "x"), ("offset", "-8"), ("length", "8"), ("length", "x")]
)
def test_weights_that_do_not_lie_where_a_graph_says_are_a_damaged_bundle(
    blocks: dict[int, BlockFiles], tmp_path: Path, place: str, value: str
) -> None:
    model = onnx.load(blocks[3].graph, load_external_data=False)
    for weight in model.graph.initializer:
        next(entry for entry in weight.external_data if entry.key == place).value = value
    with pytest.raises(BundleError, match=r"other\.onnx cannot be read"):
        join(blocks | {3: changed(blocks[3], model, tmp_path)})


@pytest.mark.parametrize("values", ["input", "output"])
def test_a_graph_with_other_inputs_or_outputs_than_a_block_s_is_a_damaged_bundle(
    blocks: dict[int, BlockFiles], tmp_path: Path, values: str
) -> None:
    model = onnx.load(blocks[3].graph, load_external_data=False)
    getattr(model.graph, values).add(name="another")
    with pytest.raises(BundleError, match=r"other\.onnx has other inputs or outputs than a block"):
        join(blocks | {3: changed(blocks[3], model, tmp_path)})


@pytest.mark.parametrize("variant", ["float32", "int4"])
def test_products_of_the_same_states_are_one(bundle: Bundle, variant: str) -> None:
    files = bundle.block(2, variant, server=True)
    model = onnx.load(files.graph, load_external_data=False)
    products = [node for node in model.graph.node if node.op_type.startswith("MatMul")]
    before = {weight.name: weight for weight in model.graph.initializer}
    arrays = pack(model, files.weights)
    wide = [node for node in model.graph.node if node.op_type.startswith("MatMul")]
    assert [len(products), len(wide)] == [7, 4]  # queries, keys, values; out; gate and up; down
    dealt = [name for node in model.graph.node if node.op_type == "Split" for name in node.output]
    assert sorted(dealt) == sorted(node.output[0] for node in products if node.input[1] not in kept(model))
    for node in wide:
        for name in node.input[1:]:
            assert (name in arrays) != (name in before)
    widths = [array.shape[{"float32": 1, "int4": 0}[variant]] for array in arrays.values()]
    assert len(set(widths)) == 2  # all that one product holds is as wide as its outputs together


def test_weights_that_lie_elsewhere_or_are_read_twice_stay(bundle: Bundle) -> None:
    files = bundle.block(2, "float32", server=True)
    assert pack(onnx.load(files.graph, load_external_data=False), None) == {}
    assert pack(onnx.load(files.graph, load_external_data=False), files.weights.with_name("other.bin")) == {}
    model = onnx.load(files.graph, load_external_data=False)
    for node in [node for node in model.graph.node if node.op_type == "MatMul"]:
        model.graph.node.add(op_type="Identity", input=[node.input[1]], output=[f"{node.input[1]}:again"])
    assert pack(model, files.weights) == {}


def test_products_with_a_matrix_for_each_of_many_stay(bundle: Bundle) -> None:
    """As those of experts are: their second axis is no width."""
    files = bundle.block(2, "float32", server=True)
    model = onnx.load(files.graph, load_external_data=False)
    for weight in model.graph.initializer:
        if len(weight.dims) == 2:
            weight.dims[:] = [2, weight.dims[0] // 2, weight.dims[1]]
    assert pack(model, files.weights) == {}


def test_weights_that_a_branch_reads_stay(bundle: Bundle) -> None:
    files = bundle.block(2, "float32", server=True)
    model = onnx.load(files.graph, load_external_data=False)
    alone = next(node.input[1] for node in model.graph.node if node.op_type == "MatMul" and "down" in node.input[1])
    inside = [onnx.helper.make_node("Identity", [alone], ["inside"])]
    branch = onnx.helper.make_graph(inside, "branch", [], [onnx.helper.make_empty_tensor_value_info("inside")])
    for node in [node for node in model.graph.node if alone in node.input]:
        node.CopyFrom(onnx.helper.make_node("If", ["c"], [node.output[0]], then_branch=branch, else_branch=branch))
    assert pack(model, files.weights)
    assert alone in kept(model)


@pytest.mark.parametrize("variant", ["float32", "int4"])
def test_the_runtime_reads_nothing_any_more_of_the_weights_it_was_handed(
    bundle: Bundle, variant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are gone once it is loaded."""
    handed: list[np.ndarray] = []

    def watched(parts: dict[int, BlockFiles]) -> tuple[bytes, dict[str, np.ndarray]]:
        model, arrays = join(parts)
        handed.extend(arrays.values())
        return model, arrays

    monkeypatch.setattr("splitllm.engines.onnx.blocks.join", watched)
    blocks = OnnxBlocks(bundle, Span(0, 2), variant=variant, capacity=8, threads=1, server=True, joined=True)
    hidden = np.random.default_rng(1).standard_normal((3, bundle.spec.hidden_size)).astype(np.float32)
    before = blocks.forward(hidden, 0)
    assert handed
    for array in handed:
        array[...] = 0
    assert np.array_equal(blocks.forward(hidden, 0), before)


def changed(files: BlockFiles, model: onnx.ModelProto, folder: Path) -> BlockFiles:
    """The block's files with another graph, `other.onnx`."""
    (folder / "other.onnx").write_bytes(model.SerializeToString())
    return replace(files, graph=folder / "other.onnx")


def kept(model: onnx.ModelProto) -> set[str]:
    return {weight.name for weight in model.graph.initializer}

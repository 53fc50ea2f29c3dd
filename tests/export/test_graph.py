"""Finished graphs: as few nodes as one would write by hand, and what simplifying may never change."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from splitllm.bundle import Bundle
from splitllm_export import exporter
from splitllm_export.exporter import export_model
from splitllm_export.fuse import fuse_norms, fuse_sums
from splitllm_export.simplify import simplify

from .families import save_family

#: Nodes of a block, the last of each small model: linear layers, attention, norms, activation, residuals, and what is
#: named in the comment.
NODES = {
    "Llama 3.2": 13,
    "Qwen3": 19,  # two views for each of the two head norms
    "Gemma 3": 21,
    "GPT-2": 16,
    "SmolLM3": 13,
    "StableLM 2": 16,
    "Cohere Command-R": 13,
    "Phi-3": 15,  # slices of the joined matrices
}


@pytest.mark.parametrize("family", NODES)
def test_a_block_has_no_more_nodes_than_it_needs(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter, "check_family", lambda *_, **__: None)
    export_model(save_family(tmp_path / "model", family), tmp_path / "out", client_dtypes=("float32",))
    bundle = Bundle.open(tmp_path / "out", verify=False)
    graph = onnx.load(bundle.block(bundle.spec.blocks - 1, "float32").graph, load_external_data=False).graph
    assert len(graph.node) <= NODES[family], [node.op_type for node in graph.node]
    assert not {"Shape", "Transpose", "Concat", "Cast", "Unsqueeze"} & {node.op_type for node in graph.node}


def _model(nodes: list, weights: dict[str, np.ndarray], width: int = 8) -> onnx.ModelProto:
    """A graph from x [batch, rows, width] to y, of unknown shape."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", "rows", width])
    y = helper.make_empty_tensor_value_info("y")
    graph = helper.make_graph(
        nodes, "g", [x], [y], [numpy_helper.from_array(value, name) for name, value in weights.items()]
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def _same_after(model: onnx.ModelProto) -> list[str]:
    """Simplify a copy, run both, and give the operators that are left."""
    lean = onnx.ModelProto.FromString(model.SerializeToString())
    simplify(lean)
    fuse_norms(lean.graph)
    simplify(lean)
    fuse_sums(lean)
    for shape in ((1, 5, 8), (3, 2, 8)):
        x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
        want, got = (
            onnxruntime.InferenceSession(m.SerializeToString()).run(None, {"x": x})[0]
            for m in (_typed(model), _typed(lean))
        )
        assert want.shape == got.shape
        assert np.abs(want - got).max() < 1e-6
    return [node.op_type for node in lean.graph.node]


def _run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    return onnxruntime.InferenceSession(_typed(model).SerializeToString()).run(None, {"x": x})[0]


def _typed(model: onnx.ModelProto) -> onnx.ModelProto:
    """The runtime wants to know the type of an output."""
    typed = onnx.ModelProto.FromString(model.SerializeToString())
    typed.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT
    if not any(opset.domain == "com.microsoft" for opset in typed.opset_import):
        typed.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return typed


def _view(source: str, target: str, *tail: int) -> list:
    """`target = source.view(*source.shape[:2], *tail)` as a tracer writes it, and the constants it needs."""
    return [
        helper.make_node("Shape", [source], [f"{target}.all"]),
        helper.make_node("Slice", [f"{target}.all", "zero", "two"], [f"{target}.head"]),
        helper.make_node("Concat", [f"{target}.head", f"{target}.tail"], [f"{target}.to"], axis=0),
        helper.make_node("Reshape", [source, f"{target}.to"], [target]),
    ]


CONSTANTS = {"zero": np.array([0]), "two": np.array([2]), "four": np.array([4]), "three": np.array([3])}


def test_heads_split_turned_and_joined_again_leave_nothing() -> None:
    nodes = [
        *_view("x", "h", 2, 4),
        helper.make_node("Transpose", ["h"], ["t"], perm=[0, 2, 1, 3]),
        helper.make_node("Transpose", ["t"], ["u"], perm=[0, 2, 1, 3]),
        *_view("u", "j", -1),
        helper.make_node("Relu", ["j"], ["y"]),
    ]
    assert _same_after(_model(nodes, CONSTANTS | {"h.tail": np.array([2, 4]), "j.tail": np.array([8])})) == ["Relu"]


def test_a_turn_that_matters_stays() -> None:
    nodes = [
        *_view("x", "h", 2, 4),
        helper.make_node("Transpose", ["h"], ["t"], perm=[0, 1, 3, 2]),
        *_view("t", "j", -1),
        helper.make_node("Relu", ["j"], ["y"]),
    ]
    left = _same_after(_model(nodes, CONSTANTS | {"h.tail": np.array([2, 4]), "j.tail": np.array([8])}))
    assert left == ["Reshape", "Transpose", "Reshape", "Relu"]


@pytest.mark.parametrize(
    ("order", "left"), [(("a", "b"), ["Relu"]), (("b", "a"), ["Slice", "Slice", "Concat", "Relu"])]
)
def test_slices_joined_in_order_are_the_whole_and_in_another_order_are_not(
    order: tuple[str, str], left: list[str]
) -> None:
    nodes = [
        helper.make_node("Slice", ["x", "zero", "three", "two"], ["a"]),
        helper.make_node("Slice", ["x", "three", "end", "two"], ["b"]),
        helper.make_node("Concat", list(order), ["c"], axis=-1),
        helper.make_node("Relu", ["c"], ["y"]),
    ]
    assert _same_after(_model(nodes, CONSTANTS | {"end": np.array([2**31 - 1])})) == left


def test_a_view_that_mixes_rows_stays() -> None:
    nodes = [
        helper.make_node("Reshape", ["x", "flat"], ["f"]),
        helper.make_node("Softmax", ["f"], ["s"], axis=0),
        helper.make_node("Shape", ["x"], ["n"]),
        helper.make_node("Reshape", ["s", "n"], ["y"]),
    ]
    assert _same_after(_model(nodes, {"flat": np.array([-1, 8])})).count("Softmax") == 1


def test_a_residual_and_the_norm_behind_it_are_one_node() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"]),
        helper.make_node("Add", ["x", "m"], ["r"]),
        helper.make_node("Pow", ["r", "square"], ["p"]),
        helper.make_node("ReduceMean", ["p", "last"], ["q"]),
        helper.make_node("Add", ["q", "eps"], ["e"]),
        helper.make_node("Sqrt", ["e"], ["s"]),
        helper.make_node("Div", ["one", "s"], ["d"]),
        helper.make_node("Mul", ["r", "d"], ["n"]),
        helper.make_node("Mul", ["g", "n"], ["v"]),
        helper.make_node("Add", ["r", "v"], ["y"]),
    ]
    random = np.random.default_rng(0)
    weights = {
        "w": random.standard_normal((8, 8)).astype(np.float32),
        "g": random.standard_normal(8).astype(np.float32),
        "square": np.array(2, np.float32),
        "last": np.array([-1]),
        "eps": np.array(1e-5, np.float32),
        "one": np.array(1, np.float32),
    }
    assert _same_after(_model(nodes, weights)) == ["MatMul", "SkipSimplifiedLayerNormalization", "Add"]


def test_a_softcap_does_not_load_where_it_would_be_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter, "check_family", lambda *_, **__: None)
    export_model(save_family(tmp_path / "model", "Gemma 2"), tmp_path / "out", client_dtypes=("float32",))
    path = Bundle.open(tmp_path / "out", verify=False).block(1, "float32").graph
    kinds = [node.op_type for node in onnx.load(path, load_external_data=False).graph.node]
    assert "BitwiseXor" in kinds  # WebGPU has none

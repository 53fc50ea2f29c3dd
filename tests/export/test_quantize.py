"""4-bit and 8-bit weights: the documented layout, to the byte, and the same product as ONNX Runtime's kernel."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import helper

from splitllm.errors import ExportError
from splitllm_export import layout
from splitllm_export.quantize import INT4, INT8, Format, pack, quantize, unpack
from splitllm_export.weightless import Part, Weight, placeholder


def test_levels_are_packed_low_half_first_around_eight() -> None:
    row = np.zeros((1, 32), np.float32)
    row[0, :4] = [-4.0, 0.5, 1.0, 3.5]  # the largest is -8 · 0.5
    packed, scales = pack(row)
    assert scales.tolist() == [[0.5]]
    assert packed.shape == (1, 1, 16)
    assert packed[0, 0].tolist() == [0x90, 0xFA, *[0x88] * 14]


def test_the_scale_takes_the_sign_of_the_largest_value() -> None:
    row = np.zeros((1, 32), np.float32)
    row[0, :3] = [8.0, -7.0, 1.0]
    packed, scales = pack(row)
    assert scales.tolist() == [[-1.0]]
    assert unpack(packed, scales)[0, :3].tolist() == [8.0, -7.0, 1.0]


def test_of_two_values_that_are_equally_large_the_first_gives_the_sign() -> None:
    rows = np.zeros((2, 64), np.float32)
    rows[0, [3, 9]] = rows[1, [9, 3]] = 4.0, -4.0
    rows[1, 40] = 2.0
    assert pack(rows)[1].tolist() == [[-0.5, 0.0], [0.5, -0.25]]


def test_weights_on_the_grid_come_back_exactly_and_zeros_stay_zero() -> None:
    levels = np.random.default_rng(0).integers(-8, 8, (6, 96)).astype(np.float32)
    levels[:, ::32] = -8
    levels[2, 32:64] = 0
    assert np.array_equal(unpack(*pack(levels * 0.25)), levels * 0.25)


def test_rounding_is_at_most_half_a_step_but_for_the_clipped_end() -> None:
    weight = np.random.default_rng(1).standard_normal((16, 64), np.float32)
    packed, scales = pack(weight)
    step = np.repeat(np.abs(scales), 32, axis=1)
    assert (np.abs(unpack(packed, scales) - weight) <= step * 1.0001).all()
    assert (np.abs(unpack(packed, scales) - weight) <= step * 0.5001).mean() > 0.95


def _matmul(weight: np.ndarray) -> Part:
    node = helper.make_node("MatMul", ["x", "w"], ["y"], "proj")
    values = [helper.make_tensor_value_info(name, 1, ["rows", None]) for name in ("x", "y")]
    graph = helper.make_graph([node], "main", values[:1], values[1:], [placeholder("w", weight.shape, "w")])
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    return Part(model, {"w": Weight(weight.shape, lambda: torch.from_numpy(weight))})


@pytest.mark.parametrize("form", [INT4, INT8, Format(4, 128, 4), Format(8, 32, 4)], ids=str)
@pytest.mark.parametrize("width", [64, 256])
def test_onnx_runtime_reads_the_packing_as_meant(tmp_path: Path, form: Format, width: int) -> None:
    random = np.random.default_rng(2)
    weight = random.standard_normal((width, 24), np.float32)
    x = random.standard_normal((5, width), np.float32)
    layout.write_graph(quantize(_matmul(weight), form), layout.Folder(tmp_path), "part")
    session = onnxruntime.InferenceSession(tmp_path / "part.onnx", providers=["CPUExecutionProvider"])
    packed, scales = pack(np.ascontiguousarray(weight.T), form.bits, form.block_of(width))
    expected = x @ unpack(packed, scales, form.bits).T
    # at level 4 the activations are rounded to 8 bits as well
    allowed = 0.02 * np.abs(expected).max() if form.accuracy_level else 1e-4
    assert np.abs(session.run(None, {"x": x})[0] - expected).max() < allowed


def test_eight_bits_are_sixteen_times_as_fine_as_four() -> None:
    weight = np.random.default_rng(3).standard_normal((8, 128), np.float32)
    coarse, fine = (float(np.abs(unpack(*pack(weight, bits, 32), bits) - weight).mean()) for bits in (4, 8))
    assert fine < coarse / 14


def test_a_narrow_matrix_stays_exact() -> None:
    router = _matmul(np.ones((256, 8), np.float32))
    assert [node.op_type for node in quantize(router, INT4).model.graph.node] == ["MatMul"]


def test_a_width_that_is_no_multiple_of_the_block_is_refused() -> None:
    with pytest.raises(ExportError, match="proj is 40 wide"):
        quantize(_matmul(np.zeros((40, 8), np.float32)), INT4)

"""A graph names the file of its weights; ONNX Runtime is relied on to read none outside the bundle's folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from splitllm.bundle import HeadFiles
from splitllm.engines.onnx.runtime import load, load_joined, session_options
from splitllm.errors import BundleError

VALUES = np.arange(4, dtype="<f4")


def graph_at(path: Path, location: str) -> HeadFiles:
    """y = x + weights, the weights in a file at `location`."""
    weights = onnx.TensorProto(name="w", data_type=1, dims=[4], data_location=onnx.TensorProto.EXTERNAL)
    for key, value in (("location", location), ("offset", "0"), ("length", str(VALUES.nbytes))):
        weights.external_data.add(key=key, value=value)
    x, y = (onnx.helper.make_tensor_value_info(name, 1, [4]) for name in "xy")
    graph = onnx.helper.make_graph([onnx.helper.make_node("Add", ["x", "w"], ["y"])], "g", [x], [y], [weights])
    opset = onnx.helper.make_opsetid("", 18)
    path.write_bytes(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=9).SerializeToString())
    return HeadFiles(path, None, "float32")


@pytest.mark.parametrize("location", ["w.bin", "../secret.bin", "x/../../secret.bin", "{}/secret.bin", "link.bin"])
def test_a_graph_reads_weights_beside_it_and_nowhere_else(tmp_path: Path, location: str) -> None:
    folder = tmp_path / "bundle"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(VALUES.tobytes())
    (folder / "w.bin").write_bytes(VALUES.tobytes())
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    files = graph_at(folder / "g.onnx", location.format(tmp_path))
    ways = (
        lambda: load(files, session_options(1), "cpu"),
        lambda: load_joined(files.graph.read_bytes(), {}, folder, 1, "cpu"),  # as graphs made in memory are loaded
    )
    for way in ways:
        if location == "w.bin":
            [sums] = way().run(None, {"x": np.ones(4, np.float32)})
            assert sums.tolist() == (VALUES + 1).tolist()
        else:
            with pytest.raises(BundleError, match=r"cannot load (g\.onnx|the joined blocks)"):
                way()

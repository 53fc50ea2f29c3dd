"""The first blocks of a bundle as one graph: what a peer without splits would run."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import external_data_helper, numpy_helper

from splitllm.bundle import Bundle

#: The same value for every block.
SHARED = ("seqlens_k", "total_sequence_length")


def _renamed(name: str, block: int, blocks: int, tables: Mapping[str, str]) -> str:
    """What is called `name` in a block's own graph, in that of all; `tables` names the block's rotary tables."""
    if not name or name in SHARED:
        return name
    if name in tables:
        return tables[name]
    if name == "hidden_states":
        return name if block == 0 else f"hidden_states.{block}"
    if name == "hidden_states_out":
        return name if block == blocks - 1 else f"hidden_states.{block + 1}"
    if name.startswith(("past_", "present_")):
        return f"{name}.{block}"
    return f"{block}/{name}"


def write_one_graph(bundle: Bundle, blocks: int, folder: Path, variant: str = "float32") -> None:
    """`graph.onnx` and `graph.bin`: blocks `[0, blocks)` chained, rotary tables inside, `past_key.0`, … as inputs."""
    whole = onnx.GraphProto(name="blocks")
    constants: set[str] = set()
    model = onnx.ModelProto()
    for index in range(blocks):
        files = bundle.block(index, variant)
        model = onnx.load(files.graph, load_external_data=False)
        graph = model.graph
        weights = b"" if files.weights is None else files.weights.read_bytes()
        for tensor in graph.initializer:
            if external_data_helper.uses_external_data(tensor):
                info = external_data_helper.ExternalDataInfo(tensor)
                tensor.raw_data = weights[info.offset : info.offset + info.length]
                tensor.data_location = onnx.TensorProto.DEFAULT
                del tensor.external_data[:]

        renamed = functools.partial(_renamed, block=index, blocks=blocks, tables=files.constants)
        for value in graph.input:
            name = renamed(value.name)
            if value.name in files.constants:
                if name not in constants:
                    table = np.array(bundle.constant(name, files.activations))
                    whole.initializer.append(numpy_helper.from_array(table, name))
                    constants.add(name)
            elif (value.name not in SHARED and value.name != "hidden_states") or index == 0:
                whole.input.append(value)
                whole.input[-1].name = name
        for value in graph.output:
            if value.name != "hidden_states_out" or index == blocks - 1:
                whole.output.append(value)
                whole.output[-1].name = renamed(value.name)
        for tensor in graph.initializer:
            whole.initializer.append(tensor)
            whole.initializer[-1].name = renamed(tensor.name)
        for node in graph.node:
            whole.node.append(node)
            copy = whole.node[-1]
            copy.name = f"{index}/{node.name}"
            copy.input[:] = [renamed(name) for name in node.input]
            copy.output[:] = [renamed(name) for name in node.output]
    model.graph.CopyFrom(whole)
    folder.mkdir(parents=True, exist_ok=True)
    external_data_helper.convert_model_to_external_data(model, location="graph.bin", size_threshold=0)
    onnx.save(model, folder / "graph.onnx")

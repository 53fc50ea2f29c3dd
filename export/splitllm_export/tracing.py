"""A torch module -> ONNX, through Optimum's `export()`. Weights stay where they are (`weightless`)."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Protocol

import onnx
import torch
from optimum.exporters.onnx import export
from optimum.exporters.onnx.base import OnnxConfig
from optimum.utils import NormalizedTextConfig
from torch import nn

from splitllm.errors import ExportError

from . import weightless
from .quiet import first_line, native_prints_discarded
from .weightless import Part

OPSET: Final = 18

Axes = dict[str, dict[int, str]]

BLOCK_AXES: Final[Axes] = {
    "hidden_states": {0: "batch", 1: "rows"},
    "seqlens_k": {0: "batch"},
    "total_sequence_length": {},
    "past_key": {0: "batch", 2: "capacity"},
    "past_value": {0: "batch", 2: "capacity"},
}
BLOCK_OUT_AXES: Final[Axes] = {
    "hidden_states_out": {0: "batch", 1: "rows"},
    "present_key": {0: "batch", 2: "present_capacity"},
    "present_value": {0: "batch", 2: "present_capacity"},
}
HEAD_AXES: Final[Axes] = {"hidden_states": {0: "batch", 1: "rows"}}
HEAD_OUT_AXES: Final[Axes] = {"logits": {0: "batch", 1: "rows"}}


class Traceable(Protocol):
    """A part of the model that brings its own example inputs: those without axes of their own are tables."""

    config: Any

    def example(self) -> dict[str, torch.Tensor]:
        """Inputs to trace with, by name."""
        ...


class _PartConfig(OnnxConfig):  # type: ignore[misc]  # optimum has no types
    """Tells Optimum the names and symbolic axes of a part that it has no config for."""

    NORMALIZED_CONFIG_CLASS = NormalizedTextConfig

    def __init__(self, part: Traceable, inputs: Axes, outputs: Axes, weights: Mapping[str, nn.Parameter]) -> None:
        super().__init__(part.config, task="feature-extraction")
        self._part, self._outputs, self._weights = part, outputs, weights
        self._inputs = {name: inputs.get(name, {}) for name in part.example()}
        self._inputs |= {f"{weightless.WEIGHTS}.{name}": {} for name in weights}

    @property
    def inputs(self) -> Axes:
        return self._inputs

    @property
    def outputs(self) -> Axes:
        return self._outputs

    def generate_dummy_inputs(self, framework: str = "pt", **_: Any) -> dict[str, Any]:  # noqa: ARG002  # Optimum's signature
        return {**self._part.example(), weightless.WEIGHTS: weightless.example(self._weights)}


def trace(part: Traceable, inputs: Axes, outputs: Axes) -> Part:
    """The part as an ONNX graph as Optimum leaves it, its matrices as placeholders.

    Raises:
        ExportError: the tracer cannot express the part in ONNX.
    """
    module: Any = part
    with (
        tempfile.TemporaryDirectory(prefix="splitllm-export-") as folder,
        weightless.weights_as_inputs(module) as weights,
        native_prints_discarded(),
    ):
        path = Path(folder) / "part.onnx"
        config = _PartConfig(part, inputs, outputs, weights)
        # Inputs and outputs get their exact types in graph.py, so Optimum need not run the part to find its axes.
        try:
            export(module, config, path, opset=OPSET, disable_dynamic_axes_fix=True)
        except Exception as error:  # torch and Optimum share no base class
            raise ExportError(f"a part of the model cannot be written as ONNX ({first_line(error)})") from error
        return weightless.take_out(onnx.load(path), weights)
